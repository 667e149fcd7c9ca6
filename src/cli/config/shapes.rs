//! The tables `[shape.NAME]` of the file, and the shapes that its links take (docs/shaping.md).

use std::collections::BTreeMap;

use lowband::matrix::shape::Shape;
use lowband::matrix::shape::Shapes;
use toml::de::DeTable;

use super::ConfigError;
use super::Origin;
use super::place;

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
        let mut without = BTreeMap::new();
        for (link, table) in links {
            let Some(table) = table.as_table_mut() else { continue };
            let Some(value) = table.remove("shape") else {
                let like = table.get("like").and_then(toml::Value::as_str);
                without.extend(like.map(|like| (link.clone(), like.to_owned())));
                continue;
            };
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
        self.inherit(&without);
    }

    /// Gives each link that takes no shape, and is like another, the shape of that one.
    fn inherit(&mut self, like: &BTreeMap<String, String>) {
        for link in like.keys() {
            // Those that are like each other are told elsewhere.
            let chain = std::iter::successors(Some(link), |link| like.get(*link)).take(like.len() + 1);
            let shape = chain.filter_map(|link| self.by_link.get(link)).next().cloned();
            self.by_link.extend(shape.map(|shape| (link.clone(), shape)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_takes_the_shape_of_the_one_that_it_is_like_unless_it_has_its_own() {
        let text = "[link.far]\nlike = 'hf-100'\nshape = 'quiet'\n[link.a]\nlike = 'b'\n[link.b]\nlike = 'far'\n\
                    [link.c]\nlike = 'far'\nshape = 'none'\n[link.d]\nlike = 'hf-100'\n\
                    [link.e]\nlike = 'f'\n[link.f]\nlike = 'e'\n[shape.none]";
        let (mut shaping, mut errors) = (Shaping::default(), Vec::new());
        let file = DeTable::parse(text).unwrap();
        let mut whole = text.parse().unwrap();
        shaping.read(&mut whole, file.get_ref(), |_| Origin::Default, &mut errors);
        assert!(errors.is_empty());
        let quiet = Shape::preset("quiet").unwrap();
        for (link, shape) in [
            ("far", Some(&quiet)),
            ("a", Some(&quiet)),
            ("b", Some(&quiet)),
            ("c", Some(&Shape::default())),
            ("d", None),
            ("e", None),
        ] {
            assert_eq!(shaping.by_link.get(link), shape, "{link}");
        }
    }
}
