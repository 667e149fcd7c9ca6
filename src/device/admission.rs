//! Whether a device may make a request: its routes, its limits, and whose token it is made with.
//!
//! Whoever asks turns a [`Refused`] into a response where all codes are picked; which one it means is said at each.

use serde::Serialize;
use thiserror::Error;

use super::Allowance;
use super::Device;
use super::Excess;
use crate::coap::Instant;

/// A request of a device, as far as it matters for whether it may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path that the homeserver will be asked for, percent-encoded.
    pub path: &'a str,
    /// The bytes of its body, as it came.
    pub payload: usize,
    /// The other observations that the device has, where this is to begin one.
    pub beside_observations: Option<usize>,
    /// Whose access token it is to be made with.
    pub token: TokenOf,
}

/// Whose access token a request is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOf {
    /// The one that the gateway keeps, or none where the gateway has none.
    Gateway,
    /// One that the device has sent (option 256), now or before.
    Device,
}

impl Device {
    /// Counts a request, if it may be made. A request that is refused counts for nothing.
    ///
    /// # Errors
    /// The first reason against it. What stands higher in [`Refused`] is looked at earlier.
    pub fn admit(&self, allowance: &mut Allowance, ask: Ask<'_>, now: Instant) -> Result<(), Refused> {
        if self.revoked.is_some() {
            return Err(Refused::Revoked);
        }
        if ask.token == TokenOf::Device && !self.allow_token {
            return Err(Refused::Token);
        }
        if !self.routes.allows(ask.method, ask.path) {
            return Err(Refused::Route);
        }
        self.limits.admit_payload(ask.payload)?;
        if let Some(others) = ask.beside_observations {
            self.limits.admit_observation(others)?;
        }
        allowance.request(&self.limits, now)?;
        Ok(())
    }
}

/// Why a device may not make a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// It has been revoked since its message was opened: 4.01.
    #[error("this device is revoked")]
    Revoked,
    /// It has sent an access token of its own: 4.01.
    #[error("this device may not bring an access token: the gateway has one for it")]
    Token,
    /// The route is not one of its own: 4.03.
    #[error("this device may not use this route")]
    Route,
    /// Beyond a limit: 4.13 or 4.29.
    #[error(transparent)]
    Excess(#[from] Excess),
}

/// How often what was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refusals {
    /// [`Refused::Revoked`].
    pub revoked: u64,
    /// [`Refused::Token`].
    pub token: u64,
    /// [`Refused::Route`].
    pub route: u64,
    /// [`Excess::Payload`].
    pub payload: u64,
    /// [`Excess::Observations`].
    pub observations: u64,
    /// [`Excess::Requests`].
    pub requests: u64,
    /// [`Excess::Airtime`].
    pub airtime: u64,
}

impl Refusals {
    /// Counts one.
    pub fn count(&mut self, refused: &Refused) {
        let counter = match refused {
            Refused::Revoked => &mut self.revoked,
            Refused::Token => &mut self.token,
            Refused::Route => &mut self.route,
            Refused::Excess(Excess::Payload { .. }) => &mut self.payload,
            Refused::Excess(Excess::Observations { .. }) => &mut self.observations,
            Refused::Excess(Excess::Requests { .. }) => &mut self.requests,
            Refused::Excess(Excess::Airtime { .. }) => &mut self.airtime,
        };
        *counter = counter.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::device::Limits;
    use crate::device::Routes;

    const SYNC: Ask<'static> = Ask {
        method: "GET",
        path: "/_matrix/client/v3/sync",
        payload: 0,
        beside_observations: None,
        token: TokenOf::Gateway,
    };

    fn device() -> Device {
        Device {
            name: "buoy".parse().unwrap(),
            user_id: "@buoy:hs".into(),
            keys: None,
            next: None,
            agreed: Vec::new(),
            link: None,
            routes: Routes::Messaging,
            limits: Limits {
                requests_per_minute: Some(1),
                airtime_per_day: Some(Duration::from_secs(10)),
                payload: Some(100),
                observations: Some(1),
            },
            allow_token: false,
            tokens: None,
            created: Instant::START,
            rotated: None,
            revoked: None,
        }
    }

    #[test]
    fn each_refusal_has_its_reason_and_is_counted() {
        let device = device();
        let mut allowance = Allowance::default();
        let mut refusals = Refusals::default();
        let mut admit = |device: &Device, ask: Ask<'_>| {
            let admitted = device.admit(&mut allowance, ask, Instant::START);
            if let Err(refused) = &admitted {
                refusals.count(refused);
            }
            admitted
        };
        let revoked = Device { revoked: Some(Instant::START), ..device.clone() };
        assert_eq!(admit(&revoked, SYNC), Err(Refused::Revoked));
        assert_eq!(admit(&device, Ask { token: TokenOf::Device, ..SYNC }), Err(Refused::Token));
        let password = Ask { method: "POST", path: "/_matrix/client/v3/account/password", ..SYNC };
        assert_eq!(admit(&device, password), Err(Refused::Route));
        assert_eq!(admit(&device, Ask { payload: 101, ..SYNC }), Err(Excess::Payload { limit: 100 }.into()));
        let second = Ask { beside_observations: Some(1), ..SYNC };
        assert_eq!(admit(&device, second), Err(Excess::Observations { limit: 1 }.into()));
        // None of these has cost the one request of this minute.
        assert_eq!(admit(&device, Ask { beside_observations: Some(0), payload: 100, ..SYNC }), Ok(()));
        let excess = Excess::Requests { limit: 1, wait: Duration::from_secs(60) };
        assert_eq!(admit(&device, SYNC), Err(excess.into()));
        let one =
            Refusals { revoked: 1, token: 1, route: 1, payload: 1, observations: 1, requests: 1, airtime: 0 };
        assert_eq!(refusals, one);
        allowance.airtime(Duration::from_secs(10), Instant::START);
        let refused = device.admit(&mut allowance, SYNC, Instant::START).unwrap_err();
        assert!(matches!(refused, Refused::Excess(Excess::Airtime { .. })));
        refusals.count(&refused);
        assert_eq!(refusals.airtime, 1);
    }

    #[test]
    fn token_of_its_own_passes_where_it_may() {
        let device = Device { allow_token: true, ..device() };
        let ask = Ask { token: TokenOf::Device, ..SYNC };
        assert_eq!(device.admit(&mut Allowance::default(), ask, Instant::START), Ok(()));
    }
}
