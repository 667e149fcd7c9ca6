//! How a device says what it asks: by the compatible profile, or by the packed one until that is found not to be spoken.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::coap;
use crate::coap::Code;
use crate::codec::{Keys, Limits};
use crate::packed::{Dictionary, ProxyEnd};
use crate::translate;
use crate::translate::packed::caller::{CallError, Caller, Pending, Step};
use crate::translate::packed::is_packed_response;

/// How Matrix is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As MSC3079 has it.
    #[default]
    Msc3079,
    /// As docs/packed.md has it.
    Packed,
}

impl Encoding {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Msc3079 => "msc3079",
            Self::Packed => "packed",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What devices spoke of the packed profile, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PackedTally {
    /// Agreements that were asked for.
    pub hellos: u64,
    /// Devices that were told that the profile is not spoken, each time.
    pub not_spoken: u64,
    /// Aliases that were written and read in the place of what they stand for.
    pub aliases: u64,
    /// Messages without a payload.
    pub empty: u64,
    /// Messages of coder 0.
    pub uncoded: u64,
    /// Messages of coder 1.
    pub deflated: u64,
    /// Messages of coder 2.
    pub modelled: u64,
    /// 4.12: the gateway has no agreement, or another epoch.
    pub without_agreement: u64,
    /// 4.22: the gateway does not know an alias.
    pub unknown_alias: u64,
    /// 4.00.
    pub refused: u64,
    /// Responses and notifications that a device could not read.
    pub unread: u64,
    /// Positions that were lost with the gateway's tokens.
    pub lost_positions: u64,
    /// Starts of devices with what they had kept.
    pub reboots: u64,
    /// Starts of devices that had lost all they knew.
    pub losses: u64,
    /// Starts of a gateway that had lost what it knew with devices.
    pub lost_ends: u64,
    /// Devices whose tables were those of the gateway at the end, and others, who knew that they were not.
    pub equal: u64,
    /// The others.
    pub apart: u64,
    /// Aliases that either end might have gone on with.
    pub shared: u64,
    /// Values of answers and notifications that were compared, and requests.
    pub compared: u64,
}

impl PackedTally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        let Self { hellos, not_spoken, aliases, empty, uncoded, deflated, modelled, .. } = *other;
        self.hellos += hellos;
        self.not_spoken += not_spoken;
        self.aliases += aliases;
        self.empty += empty;
        self.uncoded += uncoded;
        self.deflated += deflated;
        self.modelled += modelled;
        let Self { without_agreement, unknown_alias, refused, unread, lost_positions, .. } = *other;
        self.without_agreement += without_agreement;
        self.unknown_alias += unknown_alias;
        self.refused += refused;
        self.unread += unread;
        self.lost_positions += lost_positions;
        let Self { reboots, losses, lost_ends, equal, apart, shared, compared, .. } = *other;
        self.reboots += reboots;
        self.losses += losses;
        self.lost_ends += lost_ends;
        self.equal += equal;
        self.apart += apart;
        self.shared += shared;
        self.compared += compared;
    }

    fn count(&mut self, payload: &[u8]) {
        match payload.first() {
            None => self.empty += 1,
            Some(0x40..) => self.modelled += 1,
            Some(first) if first & 0x20 != 0 => self.deflated += 1,
            Some(_) => self.uncoded += 1,
        }
    }
}

impl fmt::Display for PackedTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hellos, not_spoken, aliases, empty, uncoded, deflated, modelled, compared, .. } = self;
        writeln!(
            f,
            "packed                 {empty} messages without a payload, {uncoded} not coded, {deflated} by coder 1, {modelled} by coder 2; \
             {aliases} aliases; {compared} values compared"
        )?;
        let Self { without_agreement, unknown_alias, refused, unread, lost_positions, .. } = self;
        writeln!(
            f,
            "agreements             {hellos} hellos, {not_spoken} in vain; refused {without_agreement} times by 4.12, {unknown_alias} by 4.22, \
             {refused} by 4.00; {unread} not read, {lost_positions} positions lost"
        )?;
        let Self { reboots, losses, lost_ends, equal, apart, shared, .. } = self;
        writeln!(
            f,
            "tables                 {reboots} reboots of devices and {losses} without what they knew, {lost_ends} of the gateway; at the end {equal} \
             equal with {shared} aliases, {apart} known to be apart"
        )
    }
}

/// The dictionary of a run. The model takes its time, so most seeds write without, and each fourth with it.
pub(super) fn dictionary(seed: u64) -> Dictionary {
    let built_in = Dictionary::built_in().clone();
    if seed.is_multiple_of(4) { built_in } else { built_in.only(&[0, 1]) }
}

/// What a device speaks with its gateway.
#[derive(Debug)]
pub(super) struct Speech {
    caller: Option<Caller>,
    dictionary: Dictionary,
    /// The gateway keeps the access token of a peer: it is sent once.
    introduced: bool,
    pub(super) tally: PackedTally,
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Conversation(Option<Pending>);

impl Conversation {
    /// Whether what was sent last is not the request itself.
    pub(super) fn is_hello(&self) -> bool {
        self.0.as_ref().is_some_and(Pending::is_hello)
    }
}

impl Speech {
    /// A device without a past. `chance` is that of the packed profile.
    pub(super) fn new(encoding: Encoding, dictionary: Dictionary, chance: [u8; 8]) -> Self {
        let caller = (encoding == Encoding::Packed).then(|| Caller::new(chance));
        Self { caller, dictionary, introduced: false, tally: PackedTally::default() }
    }

    /// Whether it speaks the packed profile, as far as it knows.
    pub(super) fn is_packed(&self) -> bool {
        self.caller.is_some()
    }

    /// What is known with the gateway, if anything is.
    pub(super) fn end(&self) -> Option<&ProxyEnd> {
        self.caller.as_ref()?.end()
    }

    /// Starts anew with what was kept: all of it, since each change of it was before a message left.
    pub(super) fn restart(&mut self) {
        self.introduced = false;
        let Some(caller) = &mut self.caller else { return };
        self.tally.reboots += 1;
        self.tally.aliases += caller.references();
        let kept = serde_json::to_vec(caller).and_then(|kept| serde_json::from_slice(&kept));
        *caller = kept.expect("what is written is read back");
    }

    /// Starts anew with nothing.
    pub(super) fn lose(&mut self, chance: [u8; 8]) {
        self.introduced = false;
        let Some(caller) = &mut self.caller else { return };
        self.tally.losses += 1;
        self.tally.aliases += caller.references();
        *caller = Caller::new(chance);
    }

    /// The gateway may not know who this is.
    pub(super) fn is_unknown(&mut self) {
        self.introduced = false;
    }

    /// Begins a request: what is sent first.
    pub(super) fn begin(
        &mut self,
        http: http::Request<Bytes>,
    ) -> Result<(Conversation, coap::Request), CallError> {
        let Some(caller) = &mut self.caller else {
            let mut request = translate::request::to_coap(&http, Keys::V1, &Limits::default())?;
            if self.introduced {
                translate::request::leave_out_sticky(&mut request);
            }
            return Ok((Conversation(None), request));
        };
        match caller.begin(http, &self.dictionary)? {
            (pending, Step::Send(request)) => {
                self.count_sent(&pending, &request);
                Ok((Conversation(Some(pending)), request))
            }
            (_, Step::Done(_)) => Err(CallError::Unmended),
        }
    }

    /// Takes in the response to what was sent last.
    pub(super) fn receive(
        &mut self,
        conversation: &mut Conversation,
        response: &coap::Response,
    ) -> Result<Step, CallError> {
        let step = match (&mut self.caller, &mut conversation.0) {
            (Some(caller), Some(pending)) => {
                let (was_hello, was_compatible) = (pending.is_hello(), caller.is_compatible());
                let step = caller.receive(pending, response, &self.dictionary);
                self.tally.not_spoken += u64::from(!was_compatible && caller.is_compatible());
                if !was_hello && !was_compatible {
                    self.count_received(response);
                }
                self.tally.unread += u64::from(matches!(step, Err(CallError::Unread(_))));
                if let Ok(Step::Send(request)) = &step {
                    self.count_sent(pending, request);
                }
                step?
            }
            _ => Step::Done(translate::response::to_http(response, &Limits::default())?),
        };
        if let Step::Done(http) = &step {
            self.heard(http.status());
        }
        Ok(step)
    }

    /// Takes in a notification.
    pub(super) fn notified(
        &mut self,
        conversation: &Conversation,
        response: &coap::Response,
    ) -> Result<http::Response<Bytes>, CallError> {
        let (Some(caller), Some(pending)) = (&mut self.caller, &conversation.0) else {
            let http = translate::response::to_http(response, &Limits::default())?;
            self.heard(http.status());
            return Ok(http);
        };
        let read = caller.notified(pending, response, &self.dictionary);
        self.tally.unread += u64::from(matches!(read, Err(CallError::Unread(_))));
        self.count_received(response);
        read
    }

    /// What came of it.
    pub(super) fn told(&self) -> PackedTally {
        let now = self.caller.as_ref().map_or(0, Caller::references);
        PackedTally { aliases: self.tally.aliases + now, ..self.tally }
    }

    /// Who has an answer is known, and who has none for want of a token is not.
    fn heard(&mut self, status: StatusCode) {
        self.introduced |= status.is_success();
        self.introduced &= status != StatusCode::UNAUTHORIZED;
    }

    fn count_sent(&mut self, pending: &Pending, request: &coap::Request) {
        if pending.is_hello() {
            self.tally.hellos += 1;
        } else if translate::packed::is_packed(request) {
            self.tally.count(&request.payload);
        }
    }

    fn count_received(&mut self, response: &coap::Response) {
        match response.code {
            _ if is_packed_response(response) => self.tally.count(&response.payload),
            Code::PRECONDITION_FAILED => self.tally.without_agreement += 1,
            Code::UNPROCESSABLE_ENTITY => self.tally.unknown_alias += 1,
            Code::BAD_REQUEST => self.tally.refused += 1,
            _ => {}
        }
    }
}
