//! The table of what shaping may take out, `dictionaries/shapes-fields.tsv`, whose head explains it.

use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

use super::Part;
use super::selector::Selector;

const TABLE: &str = include_str!("../../../dictionaries/shapes-fields.tsv");

static FIELDS: LazyLock<Vec<Field>> =
    LazyLock::new(|| parse(TABLE).expect("dictionaries/shapes-fields.tsv is parsed by a test"));

/// One row: a part, and one place that it means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// What a shape has to drop for it.
    pub part: Part,
    /// The part's name in a shape.
    pub name: &'static str,
    /// From which answers it goes.
    pub when: When,
    /// Where it is.
    pub path: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    pub(super) steps: Vec<Step>,
}

/// From which answers a field goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// From all.
    Always,
    /// From answers to a request that has a position, and does not ask for all state anew.
    Since,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    name: Name,
    /// What its value must be.
    pub(super) selector: Selector,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Members(Vec<&'static str>),
    AnyMember,
    Element,
}

/// All rows, in the order of the table.
pub fn fields() -> &'static [Field] {
    &FIELDS
}

impl Step {
    /// Whether it leads to the member of this name.
    pub(super) fn is_member(&self, name: &str) -> bool {
        match &self.name {
            Name::Members(names) => names.contains(&name),
            Name::AnyMember => true,
            Name::Element => false,
        }
    }

    /// Whether it leads to the elements of a list.
    pub(super) fn is_element(&self) -> bool {
        self.name == Name::Element
    }
}

fn parse(table: &'static str) -> Result<Vec<Field>, String> {
    let lines = table.lines().filter(|line| !line.starts_with('#')).skip(1);
    lines.map(|line| row(line).ok_or_else(|| format!("cannot read the row {line:?}"))).collect()
}

fn row(line: &'static str) -> Option<Field> {
    let mut columns = line.split('\t');
    let name = columns.next()?;
    let deserializer: serde::de::value::StrDeserializer<'_, Error> = name.into_deserializer();
    let when = match columns.next()? {
        "always" => When::Always,
        "since" => When::Since,
        _ => return None,
    };
    let (path, what) = (columns.next()?, columns.next()?);
    let steps = path.split('/').map(step).collect::<Option<_>>()?;
    let part = Part::deserialize(deserializer).ok()?;
    columns.next().is_none().then_some(Field { part, name, when, path, what, steps })
}

fn step(text: &'static str) -> Option<Step> {
    let (name, selector) = match text.split_once('?') {
        Some((name, selector)) => (name, Selector::parse(selector)?),
        None => (text, Selector::Any),
    };
    let name = match name {
        "" => return None,
        "*" => Name::AnyMember,
        "[]" => Name::Element,
        names => Name::Members(names.split('|').collect()),
    };
    Some(Step { name, selector })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_read_to_the_last_row() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count() - 1;
        assert_eq!(parse(TABLE).unwrap().len(), rows);
    }

    #[test]
    fn rows_of_a_part_stand_together_and_every_part_has_one() {
        let mut parts: Vec<_> = fields().iter().map(|field| field.part).collect();
        parts.dedup();
        let mut sorted = parts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(parts, sorted);
        assert_eq!(parts.len(), Part::OwnEchoes as usize + 1);
    }

    #[test]
    fn what_is_no_row_is_an_error() {
        for row in [
            "age\talways\ta",
            "age\tnever\ta\tb",
            "aged\talways\ta\tb",
            "age\talways\ta?b\tc",
            "age\talways\ta//b\tc",
        ] {
            parse(Box::leak(format!("part\twhen\n{row}").into_boxed_str())).unwrap_err();
        }
    }
}
