//! Shapes by name: the built-in ones, and the operator's.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use toml::Table;
use toml::Value;

use super::Shape;

const BUILT_IN: &str = include_str!("../../../dictionaries/shapes.toml");

static PRESETS: LazyLock<BTreeMap<String, Shape>> =
    LazyLock::new(|| built_in(BUILT_IN).expect("dictionaries/shapes.toml is parsed by a test"));

/// The shapes that a gateway knows; by default the built-in ones.
///
/// ```
/// use lowband::matrix::shape::Shapes;
///
/// let config: toml::Table = "[shape.buoy]\ntimeline-limit = 0".parse().unwrap();
/// let mut shapes = Shapes::default();
/// let errors = shapes.read(config["shape"].as_table().unwrap());
/// assert!(errors[0].to_string().starts_with("[shape.buoy] timeline-limit: "));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapes(BTreeMap<String, Shape>);

/// What is wrong with a shape of the operator's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// It is not a table.
    #[error("shape.{shape}: is of type {found}, and should be a table")]
    NotATable {
        /// The shape.
        shape: String,
        /// What it is instead.
        found: &'static str,
    },
    /// A key that no shape has, or one with a wrong value.
    #[error("[shape.{shape}] {key}: {reason}")]
    Key {
        /// The shape.
        shape: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Default for Shapes {
    fn default() -> Self {
        Shapes(PRESETS.clone())
    }
}

impl Shapes {
    /// The shape of this name.
    pub fn get(&self, name: &str) -> Option<&Shape> {
        self.0.get(name)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Takes over the operator's shapes, the table `shape` of a configuration. One with the name of a built-in takes its
    /// place. Returns all that is wrong; shapes with errors are left out.
    pub fn read(&mut self, table: &Table) -> Vec<ShapeError> {
        let mut errors = Vec::new();
        for (name, value) in table {
            match shape(name, value) {
                Ok(shape) => drop(self.0.insert(name.clone(), shape)),
                Err(wrong) => errors.extend(wrong),
            }
        }
        errors
    }
}

fn built_in(text: &str) -> Result<BTreeMap<String, Shape>, toml::de::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        shape: BTreeMap<String, Shape>,
    }
    toml::from_str::<File>(text).map(|file| file.shape)
}

/// Reads each key for itself first, so that an error is known to be that key's.
fn shape(name: &str, value: &Value) -> Result<Shape, Vec<ShapeError>> {
    let not_a_table = || ShapeError::NotATable { shape: name.to_owned(), found: value.type_str() };
    let table = value.as_table().ok_or_else(|| vec![not_a_table()])?;
    let wrong = |key: &str, error: toml::de::Error| ShapeError::Key {
        shape: name.to_owned(),
        key: key.to_owned(),
        reason: reason(error.message()),
    };
    let errors: Vec<_> = table
        .iter()
        .filter_map(|(key, value)| {
            let alone = Table::from_iter([(key.clone(), value.clone())]);
            alone.try_into::<Shape>().err().map(|error| wrong(key, error))
        })
        .collect();
    match errors.is_empty() {
        true => table.clone().try_into().map_err(|error| vec![wrong("", error)]),
        false => Err(errors),
    }
}

/// What is wrong, where the words of serde are not for people.
fn reason(message: &str) -> String {
    let variant =
        message.strip_prefix("unknown variant `").and_then(|rest| rest.split_once("`, expected one of "));
    match variant {
        Some((name, parts)) => {
            format!("{name:?} is nothing that a shape can drop; it can drop {}", parts.replace('`', ""))
        }
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;

    fn read(text: &str) -> (Shapes, Vec<String>) {
        let table: Table = text.parse().unwrap();
        let mut shapes = Shapes::default();
        let errors = shapes.read(table["shape"].as_table().unwrap());
        (shapes, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_built_in_shapes_are_read() {
        built_in(BUILT_IN).unwrap();
        let shapes = Shapes::default();
        assert_eq!(shapes.names().collect::<Vec<_>>(), ["lean", "quiet"]);
        assert!(shapes.get("lean").unwrap().drop.is_superset(&shapes.get("quiet").unwrap().drop));
        assert!(!shapes.get("quiet").unwrap().drop.contains(&Part::OwnEchoes));
        assert_eq!(Shape::preset("no such"), None);
    }

    #[test]
    fn an_operator_adds_shapes_and_replaces_built_in_ones() {
        let (shapes, errors) = read(
            "[shape.buoy]\ntimeline-limit = 3\ndrop = ['typing', 'timestamps', 'typing']\n[shape.lean]\nlazy-members = true",
        );
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(shapes.get("buoy").unwrap().timeline_limit.unwrap().get(), 3);
        assert_eq!(Vec::from_iter(&shapes.get("buoy").unwrap().drop), [&Part::Typing, &Part::Timestamps]);
        assert_eq!(shapes.get("lean"), Some(&Shape { lazy_members: true, ..Shape::default() }));
    }

    #[test]
    fn an_empty_shape_is_off() {
        let (shapes, _) = read("[shape.none]");
        assert_eq!(shapes.get("none"), Some(&Shape::default()));
        assert_ne!(shapes.get("quiet"), Some(&Shape::default()));
    }

    #[test]
    fn errors_name_the_table_and_the_key() {
        let (shapes, errors) = read(
            "[shape]\nflat = 1\n[shape.buoy]\ntimeline_limit = 3\nlazy-members = 'yes'\ndrop = ['smoke']\ntimeline-limit = 70000",
        );
        assert_eq!(errors.len(), 5, "{errors:#?}");
        for (begins, contains) in [
            ("shape.flat: ", "is of type integer, and should be a table"),
            ("[shape.buoy] timeline_limit: ", "unknown field"),
            ("[shape.buoy] lazy-members: ", "expected a boolean"),
            (
                "[shape.buoy] drop: ",
                "\"smoke\" is nothing that a shape can drop; it can drop presence, typing",
            ),
            ("[shape.buoy] timeline-limit: ", "70000"),
        ] {
            let found = |error: &String| error.starts_with(begins) && error.contains(contains);
            assert!(errors.iter().any(found), "{begins}{contains} in {errors:#?}");
        }
        assert_eq!(shapes, Shapes::default());
    }
}
