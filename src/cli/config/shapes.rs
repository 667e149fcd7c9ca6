//! The tables `[shape.NAME]` of the file, and the shapes that its links take (docs/shaping.md).

use std::collections::BTreeMap;

use lowband::matrix::shape::Shape;
use lowband::matrix::shape::Shapes;
use toml::de::DeTable;
use toml::de::DeValue;

use super::ConfigError;
use super::Origin;

/// The operator's shapes, and all that there are with the built-in ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shaping {
    /// What stands in the file, as it stands there.
    pub(crate) tables: toml::Table,
    /// All shapes.
    pub(crate) shapes: Shapes,
    /// Those of the links that take one.
    pub(crate) by_link: BTreeMap<String, Shape>,
}

impl Shaping {
    /// The shape of this name, or what to do about a name that is none of theirs.
    pub(crate) fn find(&self, name: &str) -> Result<Shape, String> {
        let names = || self.shapes.names().collect::<Vec<_>>().join(", ");
        let hint = || format!("shapes are {}; others are tables [shape.NAME] of the --config file", names());
        self.shapes.get(name).cloned().ok_or_else(hint)
    }

    /// Takes in what stands under `shape` in a file, and takes the shapes that its links name out of their tables. `origin` says where a
    /// place in the file is.
    pub(super) fn read(
        &mut self,
        whole: &mut toml::Table,
        file: &DeTable<'_>,
        origin: impl Fn(usize) -> Origin,
        errors: &mut Vec<ConfigError>,
    ) {
        match whole.remove("shape") {
            None => {}
            Some(toml::Value::Table(tables)) => {
                let at = place(file, &["shape"]);
                let wrong = self.shapes.read(&tables);
                errors.extend(wrong.iter().map(|error| ConfigError::new(error.to_string()).at(origin(at))));
                self.tables = tables;
            }
            Some(_) => {
                let error = ConfigError::new("shapes are tables, [shape.NAME]");
                let error = error.at(origin(place(file, &["shape"])));
                errors.push(error.hint("default-shape names the shape of all peers"));
            }
        }
        let Some(links) = whole.get_mut("link").and_then(toml::Value::as_table_mut) else { return };
        for (link, table) in links {
            let Some(value) = table.as_table_mut().and_then(|table| table.remove("shape")) else { continue };
            let wrong =
                |message: String| ConfigError::new(message).at(origin(place(file, &["link", link, "shape"])));
            match value.as_str().map(|name| (name, self.find(name))) {
                None => errors.push(wrong(format!("link {link:?}: shape is no string"))),
                Some((_, Ok(shape))) => drop(self.by_link.insert(link.clone(), shape)),
                // What is wrong with the shape is told.
                Some((name, Err(_))) if self.tables.contains_key(name) => {}
                Some((name, Err(hint))) => {
                    errors.push(wrong(format!("link {link:?}: there is no shape {name:?}")).hint(hint));
                }
            }
        }
    }
}

/// Where in the file a key stands, or the last of those that lead to it.
fn place(file: &DeTable<'_>, keys: &[&str]) -> usize {
    let mut place = 0;
    let mut table = file;
    for key in keys {
        let Some((key, value)) = table.get_key_value(*key) else { break };
        place = key.span().start;
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    place
}
