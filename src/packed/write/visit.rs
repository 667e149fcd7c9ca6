//! A JSON text as serde_json reads it, value by value.

use std::borrow::Cow;

use serde::de::DeserializeSeed;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::packed::code;
use crate::packed::stream::Context;
use crate::packed::stream::Role;
use crate::packed::tables;
use crate::packed::write::Writer;

/// One JSON value.
pub(super) struct Item<'w, 'a>(pub(super) &'w mut Writer<'a>);

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.0.code(code::NULL);
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.0.code(if value { code::TRUE } else { code::FALSE });
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.0.unsigned(value);
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        if value >= 0 {
            return self.visit_u64(value as u64);
        }
        self.0.code(code::NEGATIVE);
        self.0.plain_unsigned(!value as u64);
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.0.code(code::FLOAT);
        for byte in value.to_be_bytes() {
            self.0.byte(byte, Role::Number);
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.0.string(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let writer = self.0;
        let outer = writer.enter()?;
        let at = writer.out.bytes.len();
        writer.code(code::ARRAY);
        while items.next_element_seed(Item(writer))?.is_some() {
            writer.context = Context { role: Role::Value, ..outer };
        }
        writer.leave(outer, at, code::EMPTY_ARRAY);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let writer = self.0;
        let outer = writer.enter()?;
        let at = writer.out.bytes.len();
        writer.code(code::OBJECT);
        let mut previous = u16::MAX;
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            writer.context = Context { role: Role::Name, name: previous, parent: outer.name };
            let number = writer.name(&name);
            writer.path.push(name.into_owned());
            writer.context = Context { role: Role::Value, name: number, parent: outer.name };
            writer.is_age = writer.path.last().is_some_and(|name| name == tables::AGE);
            members.next_value_seed(Item(writer))?;
            writer.is_age = false;
            writer.path.pop();
            previous = number;
        }
        writer.context = Context { role: Role::Name, name: previous, parent: outer.name };
        writer.leave(outer, at, code::EMPTY_OBJECT);
        Ok(())
    }
}

impl Writer<'_> {
    fn enter<E: serde::de::Error>(&mut self) -> Result<Context, E> {
        self.is_age = false;
        self.depth_left = self.depth_left.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(self.context)
    }

    /// Ends what began at `at`, or makes it the code of what is empty.
    fn leave(&mut self, outer: Context, at: usize, empty: u8) {
        self.depth_left += 1;
        if self.out.bytes.len() == at + 1 {
            if let Some(last) = self.out.bytes.last_mut() {
                *last = empty;
            }
        } else {
            self.code(code::END);
        }
        self.context = outer;
    }
}
