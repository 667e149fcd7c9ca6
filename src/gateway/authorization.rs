//! Calls that are made with a device's access token, which the gateway keeps and renews: the device never has it.
//!
//! What waits for a token is a call like others; only its request has not left yet.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use zeroize::Zeroizing;

use super::devices::DeviceChange;
use super::{Authorized, Fetch, FetchError, FetchId, Gateway, Output};
use crate::coap::Instant;
use crate::device;
use crate::device::{Authorization, Refresher, TokenError, Verdict};
use crate::endpoint::Association;

impl Gateway {
    /// Has a call made with its device's token, now or once there is one.
    pub(super) fn authorize(&mut self, id: FetchId, now: Instant) {
        let Some(call) = self.authorized.get_mut(&id) else { return };
        call.generation = None;
        let account = call.account;
        let served = self.devices.get_mut(account).and_then(|served| served.refresher.as_mut());
        let authorization = match served {
            Some(refresher) => refresher.authorize(now),
            None => Authorization::Refused(TokenError::Ended("it was taken away".into())),
        };
        match authorization {
            Authorization::Use(token, generation) => match bearer(&token) {
                Some(bearer) => {
                    call.generation = Some(generation);
                    let (mut request, timeout) = (call.request.clone(), call.timeout);
                    request.headers_mut().insert(header::AUTHORIZATION, bearer);
                    self.outputs.push_back(Output::Fetch { id, request, timeout });
                }
                None => self.unauthorized.push_back((id, TokenError::Malformed)),
            },
            Authorization::Wait => {}
            Authorization::Refused(error) => self.unauthorized.push_back((id, error)),
        }
        self.pursue_tokens(account, now);
    }

    /// Carries out what is to be done for a device's tokens.
    pub(super) fn pursue_tokens(&mut self, account: Association, now: Instant) {
        loop {
            let Some(served) = self.devices.get_mut(account) else { return };
            let Some(output) = served.refresher.as_mut().and_then(Refresher::poll) else { return };
            match output {
                device::Output::Fetch(request) => {
                    self.counters.renewals += 1;
                    let timeout = self.config.fetch_timeout;
                    let id = self.number_fetch(Fetch::Refresh(account));
                    self.outputs.push_back(Output::Fetch { id, request, timeout });
                }
                device::Output::Store(tokens) => {
                    let (name, change) = (served.device.name.clone(), DeviceChange::Renewed(tokens));
                    self.outputs.push_back(Output::Device { name, change });
                }
                device::Output::Ready => {
                    for id in self.waiting_for(account) {
                        self.authorize(id, now);
                    }
                }
                device::Output::Failed(error) => {
                    let waiting = self.waiting_for(account);
                    self.unauthorized.extend(waiting.into_iter().map(|id| (id, error.clone())));
                }
            }
        }
    }

    /// Gives up the call for a device's next token: it has been given others.
    pub(super) fn abandon_renewal(&mut self, account: Association) {
        let is_its = |fetch: &Fetch| matches!(fetch, Fetch::Refresh(of) if *of == account);
        let call = self.fetches.iter().find(|(_, fetch)| is_its(fetch)).map(|(id, _)| *id);
        self.abandon(call);
    }

    /// What a call for a new token came to.
    pub(super) fn refreshed(
        &mut self,
        account: Association,
        result: Result<http::Response<Bytes>, FetchError>,
        now: Instant,
    ) {
        let served = self.devices.get_mut(account).and_then(|served| served.refresher.as_mut());
        if let Some(refresher) = served {
            refresher.fetched(result.map_err(|error| error.to_string()), now);
        }
        self.pursue_tokens(account, now);
    }

    /// What a call came to; none where it is made again, since its token was to be renewed. Once: what the homeserver says to the new
    /// token is its answer.
    pub(super) fn answered(
        &mut self,
        id: FetchId,
        result: Result<http::Response<Bytes>, FetchError>,
        now: Instant,
    ) -> Option<Result<http::Response<Bytes>, FetchError>> {
        let body = match &result {
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => response.body().clone(),
            _ => return Some(result),
        };
        let Some(call) = self.authorized.get_mut(&id) else { return Some(result) };
        let Authorized { account, generation: Some(generation), renewed: false, .. } = *call else {
            return Some(result);
        };
        let served = self.devices.get_mut(account).and_then(|served| served.refresher.as_mut());
        let verdict =
            served.map_or(Verdict::Pass, |refresher| refresher.unauthorized(generation, &body, now));
        match verdict {
            Verdict::Pass => return Some(result),
            Verdict::Refused(error) => return Some(Err(error.into())),
            Verdict::Again => {
                call.renewed = true;
                self.authorize(id, now);
            }
            Verdict::Wait => {
                (call.renewed, call.generation) = (true, None);
                self.pursue_tokens(account, now);
            }
        }
        None
    }

    /// The calls that wait for a device's token.
    fn waiting_for(&self, account: Association) -> Vec<FetchId> {
        let waits = |call: &Authorized| call.account == account && call.generation.is_none();
        self.authorized.iter().filter(|(_, call)| waits(call)).map(|(id, _)| *id).collect()
    }
}

fn bearer(token: &device::Secret) -> Option<HeaderValue> {
    let header = Zeroizing::new([b"Bearer ", token.expose()].concat());
    let mut header = HeaderValue::from_bytes(&header).ok()?;
    header.set_sensitive(true);
    Some(header)
}
