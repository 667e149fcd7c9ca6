//! The devices of a gateway that runs: their file, and who asks for changes of it.

use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::clock::Clock;
use super::control;
use super::control::Order;
use super::devices::Changed;
use super::devices::DeviceStore;
use super::devices::Place;

/// The file of devices, open, and the socket over which `lowband device` reaches it.
pub struct Desk {
    /// The devices.
    pub store: DeviceStore,
    orders: mpsc::Receiver<Order>,
    control: Option<JoinHandle<()>>,
}

/// Where devices are kept, and where their changes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The files.
    pub place: Place,
    /// The Unix socket.
    pub control: PathBuf,
}

impl Desk {
    /// Opens the file, and listens for changes.
    ///
    /// # Errors
    /// See [`DeskError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(config: &Config) -> Result<Self, DeskError> {
        let store = DeviceStore::open(&config.place)
            .map_err(|error| DeskError::new(&error, error.hint(&config.place)))?;
        let (sender, orders) = control::orders();
        #[cfg(unix)]
        let control = {
            let bound = control::Control::bind(&config.control);
            let bound = bound
                .map_err(|error| DeskError::new(&error, Some("--control names another socket".into())))?;
            Some(tokio::spawn(bound.run(sender)))
        };
        #[cfg(not(unix))]
        let control = {
            drop(sender);
            None
        };
        Ok(Self { store, orders, control })
    }

    /// Carries out what is asked for, until a device is another: that is what this returns. Dropped while it waits, it loses nothing.
    pub async fn changed(&mut self, clock: &Clock) -> Changed {
        loop {
            match self.orders.recv().await {
                Some(order) => {
                    if let Some(changed) = order.carry_out(&mut self.store, clock.now()) {
                        return changed;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(control) = &self.control {
            control.abort();
        }
    }
}

/// Why devices cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct DeskError {
    error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl DeskError {
    fn new(error: &dyn std::error::Error, hint: Option<String>) -> Self {
        Self { error: error.to_string(), hint }
    }
}
