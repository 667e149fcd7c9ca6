//! How much the minimal homeserver keeps.

/// The bounds of a homeserver's memory. A request beyond one is refused with 403 `M_RESOURCE_LIMIT_EXCEEDED`, a body or
/// event beyond one with 413 `M_TOO_LARGE`, a connection or long poll beyond one with 429 `M_LIMIT_EXCEEDED`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Registered users.
    pub users: usize,
    /// Devices, that is logins, of one user.
    pub devices_per_user: usize,
    /// Rooms, ended ones included.
    pub rooms: usize,
    /// Events of one room, state events included.
    pub events_per_room: usize,
    /// Room aliases.
    pub aliases: usize,
    /// Account data entries of one user, those of rooms included.
    pub account_data_per_user: usize,
    /// Filters of one user.
    pub filters_per_user: usize,
    /// One-time keys of one device.
    pub one_time_keys_per_device: usize,
    /// To-device messages that one device has not yet acknowledged by its `since`.
    pub inbox_per_device: usize,
    /// Transaction ids remembered for one device; the oldest is forgotten first, as homeservers do after some time.
    pub transactions_per_device: usize,
    /// Bytes of one event's type, state key and content (65,536 in the specification, for the whole event).
    pub event_bytes: usize,
    /// Bytes of one request body.
    pub body_bytes: usize,
    /// Bytes of all that was ever accepted for keeping, with a fixed addition for each event; they never become fewer.
    pub stored_bytes: usize,
    /// Longest wait of one /sync, in milliseconds; a longer `timeout` is cut to this.
    pub long_poll_ms: u64,
    /// Requests that wait at the same time.
    pub long_polls: usize,
    /// TCP connections at the same time.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            users: 1_000,
            devices_per_user: 32,
            rooms: 1_000,
            events_per_room: 50_000,
            aliases: 1_000,
            account_data_per_user: 256,
            filters_per_user: 64,
            one_time_keys_per_device: 256,
            inbox_per_device: 1_000,
            transactions_per_device: 1_000,
            event_bytes: 65_536,
            body_bytes: 1_048_576,
            stored_bytes: 268_435_456,
            long_poll_ms: 600_000,
            long_polls: 256,
            connections: 512,
        }
    }
}
