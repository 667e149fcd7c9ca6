//! Saying less in `/sync`: what a gateway asks the homeserver for on behalf of a slow peer, and what it leaves out of the
//! answer (docs/shaping.md).
//!
//! Off unless a shape is chosen. Nothing here changes the wire format: a shaped answer is one that a homeserver could
//! have given, unless it drops `own-echoes` or `timestamps`. Which fields each [`Part`] means is a table, `dictionaries/shapes-fields.tsv`.

mod answer;
mod field;
mod filter;
mod selector;
mod shapes;

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use serde::Deserialize;

pub use field::Field;
pub use field::When;
pub use field::fields;
pub use shapes::ShapeError;
pub use shapes::Shapes;

use crate::matrix::query;

/// What is asked for and what is left out. The default changes nothing.
///
/// ```
/// use lowband::matrix::shape::Shape;
///
/// let lean = Shape::preset("lean").unwrap();
/// let query = ["since=s1".to_owned()];
/// let answer = br#"{"next_batch":"s2","rooms":{"join":{"!r:hs":{"timeline":{"events":[
///     {"event_id":"$1","type":"m.room.message","sender":"@b:hs","content":{"body":"hi"},"unsigned":{"age":12}}
/// ],"limited":false,"prev_batch":"s1"},"state":{"events":[]}}}}}"#;
/// assert_eq!(
///     String::from_utf8(lean.answer(answer, &query).unwrap()).unwrap(),
///     concat!(
///         r#"{"next_batch":"s2","rooms":{"join":{"!r:hs":{"timeline":{"events":["#,
///         r#"{"event_id":"$1","type":"m.room.message","sender":"@b:hs","content":{"body":"hi"}}"#,
///         r#"]}}}}}"#
///     )
/// );
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Shape {
    /// Asks for members only where they are needed (Matrix 1.19 client-server API, "Lazy-loading room members").
    pub lazy_members: bool,
    /// Asks for at most so many events of each room's timeline.
    pub timeline_limit: Option<NonZeroU16>,
    /// What is left out.
    pub drop: BTreeSet<Part>,
}

/// What a shape can leave out of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Part {
    /// Who is online.
    Presence,
    /// Who is typing.
    Typing,
    /// Who has read how far.
    Receipts,
    /// Settings of the account and of rooms.
    AccountData,
    /// Whose devices have changed.
    DeviceLists,
    /// How many keys of the device are left.
    KeyCounts,
    /// How many messages are unread.
    Unread,
    /// What a room's members come to.
    Summaries,
    /// How old events are.
    Age,
    /// The state before a change of it.
    PrevContent,
    /// What the user was in the room at the time of an event.
    Membership,
    /// Fields in places that they have moved from.
    Legacy,
    /// When events were sent.
    Timestamps,
    /// Where to page back from, where there is no gap.
    PrevBatch,
    /// What says no more than its absence.
    Empty,
    /// All but the ids of events that the device itself has sent.
    OwnEchoes,
}

impl Shape {
    /// One of the built-in shapes, `dictionaries/shapes.toml`.
    pub fn preset(name: &str) -> Option<Self> {
        Shapes::default().get(name).cloned()
    }

    /// The query of a request for `/sync` with the shape's filter in it.
    ///
    /// ```
    /// let quiet = lowband::matrix::shape::Shape { lazy_members: true, ..Default::default() };
    /// let query = quiet.query(&["since=s1".to_owned()]);
    /// assert_eq!(query, ["since=s1", r#"filter={"room":{"state":{"lazy_load_members":true}}}"#]);
    /// ```
    pub fn query(&self, query: &[String]) -> Vec<String> {
        match self.filter(query::get(query, "filter")) {
            Some(filter) => query::with(query, "filter", Some(&filter)),
            None => query.to_vec(),
        }
    }
}
