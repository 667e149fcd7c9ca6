//! The profiles that there are: the built-in ones, and the operator's.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use thiserror::Error;

use super::profile::Profile;
use super::table;

/// Profiles by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Profiles(BTreeMap<String, Entry>);

/// A profile at the link's real speed, and the speed that it is used at: `like` goes by the first.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    real: Profile,
    speed: u32,
}

/// What is wrong with the tables of links.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{problem}", prefix(link, key.as_deref()))]
pub struct ProfilesError {
    /// The link's name; empty where there are no tables at all.
    pub link: String,
    /// The key in its table, where it is about one.
    pub key: Option<String>,
    /// What is wrong, as the rest of a sentence that begins with the key.
    pub problem: String,
}

fn prefix(link: &str, key: Option<&str>) -> String {
    match (link, key) {
        ("", _) => String::new(),
        (link, None) => format!("link {link:?}: "),
        (link, Some(key)) => format!("link {link:?}: {key} "),
    }
}

/// The greatest number of the operator's profiles.
const MOST: usize = 256;

/// The longest name, in bytes: a peer may have to say it.
const LONGEST_NAME: usize = 32;

static BUILT_IN: LazyLock<Profiles> = LazyLock::new(|| {
    let text = include_str!("../../dictionaries/links.toml");
    let tables: toml::Table = text.parse().expect("dictionaries/links.toml is parsed by a test");
    let mut profiles = Profiles(BTreeMap::new());
    let errors = profiles.add_tables(tables.get("link"), &Profiles(BTreeMap::new()));
    assert!(errors.is_empty(), "dictionaries/links.toml is parsed by a test: {errors:?}");
    profiles
});

impl Profiles {
    /// The built-in ones alone.
    pub fn built_in() -> Self {
        BUILT_IN.clone()
    }

    /// The profile of this name.
    pub fn get(&self, name: &str) -> Option<Profile> {
        self.0.get(name).map(Entry::profile)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = Profile> {
        self.0.values().map(Entry::profile)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Adds the operator's: what stands under `link` in a TOML file, a table by name. A table may be `like` any other; a built-in name
    /// means what it does unless its table says what it is `like`.
    ///
    /// Those with something wrong in them are left out.
    ///
    /// # Errors
    /// All that is wrong, by link.
    pub fn add(&mut self, tables: &toml::Value) -> Result<(), Vec<ProfilesError>> {
        let errors = self.add_tables(Some(tables), &Self::built_in());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn add_tables(&mut self, tables: Option<&toml::Value>, built_in: &Self) -> Vec<ProfilesError> {
        let Some(toml::Value::Table(tables)) = tables else {
            return vec![ProfilesError::of("", None, "links are tables, [link.NAME]")];
        };
        let mut errors = Vec::new();
        let mut waiting = BTreeMap::new();
        for (name, table) in tables {
            match self.check(name, table, waiting.len(), built_in) {
                Ok(table) => drop(waiting.insert(name.as_str(), table)),
                Err(error) => errors.push(error),
            }
        }
        // A table waits for the one that it is like; a round without progress leaves those that wait for each other.
        loop {
            let is_ready = |(name, like): &(&str, Option<&str>)| match like {
                Some(like) => like == name || !waiting.contains_key(like),
                None => true,
            };
            let ready = waiting.iter().map(|(name, table)| (*name, like(table))).find(is_ready);
            let Some((name, like)) = ready else { break };
            let Some(table) = waiting.remove(name) else { break };
            match self.read(name, like, table) {
                Ok(entry) => drop(self.0.insert(name.to_owned(), entry)),
                Err(mut wrong) => errors.append(&mut wrong),
            }
        }
        let circular = waiting
            .keys()
            .map(|name| ProfilesError::of(name, Some("like"), "leads back to this link, or to such a one"));
        errors.extend(circular);
        errors
    }

    fn check<'a>(
        &self,
        name: &str,
        table: &'a toml::Value,
        before: usize,
        built_in: &Self,
    ) -> Result<&'a toml::Table, ProfilesError> {
        let wrong = |problem: &str| Err(ProfilesError::of(name, None, problem));
        let toml::Value::Table(table) = table else { return wrong("is no table: [link.NAME]") };
        if before >= MOST {
            return wrong(&format!("is one too many: {MOST} are the most"));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_plain) {
            return wrong(&format!("a name has 1 to {LONGEST_NAME} letters, digits, hyphens, dots"));
        }
        if built_in.0.contains_key(name) && !table.contains_key("like") {
            let problem =
                format!("is built in, and redefined only by a table that says so: like = \"{name}\"");
            return wrong(&problem);
        }
        Ok(table)
    }

    fn read(&self, name: &str, like: Option<&str>, table: &toml::Table) -> Result<Entry, Vec<ProfilesError>> {
        let base = match like {
            None => Entry { real: Profile::unlimited(name), speed: 1 },
            Some(like) => self.0.get(like).cloned().ok_or_else(|| {
                let known: Vec<_> = self.names().collect();
                let problem = format!("names no link: {like:?}; there are {}", known.join(", "));
                vec![ProfilesError::of(name, Some("like"), problem)]
            })?,
        };
        let mut entry = Entry { real: Profile { name: name.to_owned(), ..base.real }, speed: base.speed };
        let wrong = table::apply(table, &mut entry.real, &mut entry.speed);
        if wrong.is_empty() {
            return Ok(entry);
        }
        Err(wrong.into_iter().map(|(key, problem)| ProfilesError::of(name, Some(&key), problem)).collect())
    }
}

impl Entry {
    fn profile(&self) -> Profile {
        self.real.clone().faster(self.speed)
    }
}

impl ProfilesError {
    fn of(link: &str, key: Option<&str>, problem: impl Into<String>) -> Self {
        Self { link: link.to_owned(), key: key.map(str::to_owned), problem: problem.into() }
    }
}

/// What a table is like. What is no text is told by [`table::apply`].
fn like(table: &toml::Table) -> Option<&str> {
    table.get("like").and_then(toml::Value::as_str)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn add(text: &str) -> Result<Profiles, Vec<String>> {
        let tables: toml::Table = text.parse().unwrap();
        let mut profiles = Profiles::built_in();
        match profiles.add(&tables["link"]) {
            Ok(()) => Ok(profiles),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn the_built_in_ones_are_there() {
        let profiles = Profiles::built_in();
        let names: Vec<_> = profiles.names().collect();
        let expected = ["certus-100", "geo-600ms", "hf-100", "lan", "lora-sf12", "nb-iot-ntn", "sbd"];
        assert_eq!(names, expected);
        assert_eq!(profiles.get("lan"), Some(Profile::unlimited("lan")));
        let hf = profiles.get("hf-100").unwrap();
        assert_eq!((hf.rate_up, hf.rate_down, hf.delay), (100, 100, Duration::from_secs(4)));
        assert_eq!((hf.half_duplex, hf.shared, hf.loss, hf.overhead), (true, true, 0.1, 28));
    }

    #[test]
    fn a_table_changes_what_it_is_like_in_any_order_and_at_any_speed() {
        let profiles =
            add("[link.a]\nlike = 'b'\nspeed = 10\n[link.b]\nlike = 'hf-100'\nspeed = 50\ndelay = '2s'\n\
             [link.c]\nlike = 'b'\nspeed = 1")
            .unwrap();
        let b = profiles.get("b").unwrap();
        assert_eq!(
            (b.rate_up, b.delay, b.turnaround),
            (5000, Duration::from_millis(40), Duration::from_millis(10))
        );
        let a = profiles.get("a").unwrap();
        assert_eq!((a.rate_up, a.delay, a.speed), (1000, Duration::from_millis(200), 10));
        assert_eq!(profiles.get("c").unwrap().delay, Duration::from_secs(2));
    }

    #[test]
    fn a_built_in_name_is_redefined_only_by_a_table_that_says_what_it_is_like() {
        let told = add("[link.hf-100]\nrate = 300").unwrap_err();
        assert!(told[0].starts_with("link \"hf-100\": is built in"), "{told:?}");
        let profiles = add("[link.hf-100]\nlike = 'hf-100'\nrate = 300\n[link.x]\nlike = 'hf-100'").unwrap();
        assert_eq!(profiles.get("hf-100").unwrap().rate_up, 300);
        assert_eq!(profiles.get("x").unwrap().rate_up, 300);
        assert_eq!(Profile::built_in("hf-100").unwrap().rate_up, 100);
    }

    #[test]
    fn links_that_are_like_each_other_or_like_nothing_are_refused() {
        let told =
            add("[link.a]\nlike = 'b'\n[link.b]\nlike = 'a'\n[link.c]\nlike = 'd'\n[link.d-]\nlike = 1")
                .unwrap_err();
        assert_eq!(told.len(), 4, "{told:?}");
        for expected in [
            "link \"a\": like leads back",
            "link \"b\": like leads back",
            "link \"c\": like names no link: \"d\"",
            "link \"d-\": like is of type integer",
        ] {
            assert!(told.iter().any(|told| told.starts_with(expected)), "{expected} in {told:?}");
        }
        let own = add("[link.a]\nlike = 'a'").unwrap_err();
        assert!(own[0].starts_with("link \"a\": like names no link: \"a\"; there are certus-100"), "{own:?}");
    }

    #[test]
    fn names_are_short_and_plain_and_links_are_tables() {
        for wrong in ["link = 1", "[link]\na = 1", "[link.'a b']", "[link.'']", "[link.'a=b']"] {
            assert!(add(wrong).is_err(), "{wrong}");
        }
        assert!(add(&format!("[link.{}]", "n".repeat(33))).is_err());
        let many: String = (0..=MOST).map(|number| format!("[link.n{number}]\n")).collect();
        assert!(add(&many).unwrap_err()[0].contains("one too many"));
    }
}
