//! Devices of a gateway that runs: what is ordered, and what becomes of them, in their file and in the machine.

use std::time::Duration;

use tracing::error;
use tracing::info;
use tracing::warn;

use super::Server;
use crate::device::History;
use crate::device::Keys;
use crate::device::Name;
use crate::gateway::DeviceChange;
use crate::net::devices::Changed;
use crate::net::devices::DeviceStoreError;

/// After what has become of a device could not be written, it is not tried again before this.
const REST: Duration = Duration::from_secs(10);

impl Server {
    /// A device is another now: what it was let in by may be gone.
    pub(super) fn apply(&mut self, Changed(name): Changed) {
        info!(device = %name, "device changed");
        let now = self.clock.now();
        self.answer_edhoc();
        match self.desk.as_ref().map(|desk| desk.store.devices().get(&name)) {
            Some(Ok(device)) => self.machine.set_device(device, now),
            Some(Err(_)) => self.machine.remove_device(&name, now),
            None => return,
        }
        self.begin(&[name]);
    }

    /// Lets devices agree on keys, once there is a key that they know the gateway by.
    pub(super) fn answer_edhoc(&mut self) {
        let identity = self.desk.as_ref().and_then(|desk| desk.store.devices().identity());
        identity.into_iter().for_each(|identity| self.machine.answer_edhoc(identity));
    }

    /// Keys of devices that were not used before may be from now on: what they are used for is on the disk first, in one commit for all,
    /// then that they are used. Where the disk does not take the latter they are not served.
    pub(super) fn begin(&mut self, names: &[Name]) {
        let fresh: Vec<_> = names.iter().filter(|name| self.has_fresh_keys(name)).collect();
        fresh.iter().for_each(|name| self.machine.begin_keys(name));
        self.outside.drain(&mut self.machine, self.clock.now());
        for name in fresh {
            self.mark(name);
        }
    }

    fn has_fresh_keys(&self, name: &Name) -> bool {
        let device = self.desk.as_ref().and_then(|desk| desk.store.devices().get(name).ok());
        device.is_some_and(|device| device.accepted().any(|keys| keys.history == History::Fresh))
    }

    /// Marks the keys of a device as used.
    fn mark(&mut self, name: &Name) {
        let Some(desk) = &mut self.desk else { return };
        let Err(error) = desk.store.begin(name) else { return };
        error!(device = %name, %error, "device has to wait for the next start: that its keys are used cannot be written");
        let Ok(device) = desk.store.devices().get(name) else { return };
        let mut device = device.clone();
        let is_begun = |keys: &Keys| keys.history != History::Fresh;
        (device.keys, device.next) = (device.keys.filter(is_begun), device.next.filter(is_begun));
        self.machine.set_device(&device, self.clock.now());
        self.outside.drain(&mut self.machine, self.clock.now());
    }

    /// Writes down what has become of a device, and lets it hold.
    pub(super) fn change(&mut self, name: &Name, change: DeviceChange) {
        let Some(desk) = &mut self.desk else { return };
        let written = match &change {
            DeviceChange::Used(number) => desk.store.used(name, *number),
            DeviceChange::Lost(number) => desk.store.lost(name, *number).map(|()| None),
            // They have been replaced or revoked meanwhile.
            DeviceChange::Agreed { number, .. } if !self.machine.has_keys(*number) => return,
            DeviceChange::Agreed { by, number, oscore } => {
                desk.store.agreed(name, *by, (*number, (**oscore).clone()))
            }
            // Somebody has logged it in meanwhile.
            DeviceChange::Renewed(tokens) if !self.machine.awaits_tokens(name, tokens) => return,
            DeviceChange::Renewed(tokens) => desk.store.renew(name, tokens.clone()).map(Some),
        };
        match written {
            Ok(changed) => changed.into_iter().for_each(|changed| self.apply(changed)),
            // It is tried again: those who wait for a token wait, and old keys hold on.
            Err(DeviceStoreError::Store(error)) => {
                if self.unwritten.is_empty() {
                    error!(device = %name, %error, "devices cannot be written, and are tried again");
                }
                let due = self.clock.now() + REST;
                self.unwritten.push_back((due, name.clone(), change));
            }
            Err(error) => warn!(device = %name, %error, "device is not changed"),
        }
    }

    /// Tries again what could not be written.
    pub(super) fn change_again(&mut self) {
        let now = self.clock.now();
        while self.unwritten.front().is_some_and(|(due, ..)| *due <= now) {
            if let Some((_, name, change)) = self.unwritten.pop_front() {
                self.change(&name, change);
            }
        }
    }
}
