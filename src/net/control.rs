//! How `lowband device` speaks with a gateway that runs, which has the file of devices to itself.
//!
//! A connection to a Unix socket is one line of JSON each way: a [`Command`], and an [`Answer`]. The socket is its owner's alone, and who
//! connects is asked of the system too. What is read is bounded, in size, in time, and in connections at once.
//!
//! [`Control`] takes connections and hands each command on as an [`Order`]; whoever has the [`DeviceStore`]
//! carries it out between two turns of its own, and so needs no lock:
//!
//! ```text
//! lowband device ──socket──▶ Control::run ──Order──▶ owner: order.carry_out(store, now) ──▶ Changed(name)
//!                                ▲                      │
//!                                └────────Answer────────┘
//! ```

#[cfg(unix)]
mod socket;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

#[cfg(unix)]
pub use self::socket::Control;
#[cfg(unix)]
pub use self::socket::ControlError;
#[cfg(unix)]
pub use self::socket::ask;
use super::devices::Changed;
use super::devices::DeviceStore;
use crate::coap::Instant;
use crate::device::Name;
use crate::device::NewDevice;
use crate::device::Rotation;
use crate::device::Secret;
use crate::device::Summary;
use crate::device::Tokens;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// All devices.
    List,
    /// One device.
    Show {
        /// Which.
        name: Name,
    },
    /// A new device.
    Add(Box<NewDevice>),
    /// New keys for a device.
    Rotate {
        /// Which.
        name: Name,
        /// What keys.
        rotation: Rotation,
    },
    /// The end of a device.
    Revoke {
        /// Which.
        name: Name,
    },
    /// The end of a device, and no memory of it.
    Forget {
        /// Which.
        name: Name,
    },
    /// Other tokens for a device.
    Renew {
        /// Which.
        name: Name,
        /// The tokens.
        tokens: Box<Tokens>,
    },
    /// A device's half.
    Export {
        /// Which.
        name: Name,
        /// What the device is to call the gateway.
        gateway: Option<String>,
    },
}

/// What it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// All devices, by name.
    Devices(Vec<Summary>),
    /// The device as it is now.
    Device(Box<Summary>),
    /// The same of the first device that was added; a new key is in this file.
    First(Box<Summary>, std::path::PathBuf),
    /// The device is gone.
    Forgotten,
    /// The device's half, as [`Credentials::read`](crate::device::Credentials::read) reads it.
    Credentials(Secret),
    /// It was not done.
    Failed {
        /// Why not.
        error: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Answer {
    /// What was asked for was not done.
    pub fn failed(error: impl std::fmt::Display, hint: Option<String>) -> Self {
        Self::Failed { error: error.to_string(), hint }
    }
}

/// A command that waits for its answer.
#[derive(Debug)]
pub struct Order {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

impl Order {
    /// Has it carried out, answers, and says what device is another now.
    pub fn carry_out(self, store: &mut DeviceStore, now: Instant) -> Option<Changed> {
        let (answer, changed) = store.execute(self.command, now);
        // Who asked may be gone.
        let _ = self.answer.send(answer);
        changed
    }
}

/// A queue from [`Control`] to the owner of the devices. Who asks while it is full waits.
pub fn orders() -> (mpsc::Sender<Order>, mpsc::Receiver<Order>) {
    mpsc::channel(16)
}
