//! What a link means for the end of it that sends.

use std::time::Duration;

use super::profile::{End, Profile};
use crate::coap::{ACKNOWLEDGEMENT, Airtime, BlockSize, Parameters, TransferLimits};

/// The terms on which one end of a link speaks with the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Transmission parameters (RFC 7252 §4.8).
    pub parameters: Parameters,
    /// The greatest block that is sent, and asked for.
    pub block: BlockSize,
    /// How long a body is held after its last block was asked for or came.
    pub lifetime: Duration,
    /// How long a client waits for a response, after its request was acknowledged or repeated for the last time.
    pub response_timeout: Duration,
    /// How long a client goes on asking for a transfer's next block while nobody answers.
    pub patience: Duration,
    /// Whether a client wishes for responses in bursts of blocks (RFC 9177), as it gains by them.
    pub q_block: bool,
    /// How long a client waits for a block of a burst, after the one before it, until it asks for what is missing.
    pub receive_timeout: Duration,
    /// Whether the peers that come to a listener of this link are taken to be where they say.
    pub trusted: bool,
    /// How fast datagrams may leave; as fast as they come where there is none.
    pub pace: Option<Pace>,
}

/// How fast the datagrams of one queue may leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// How long they are on the air.
    pub sending: Airtime,
    /// Where both ends use one channel by turns (half-duplex): how.
    pub by_turns: Option<Turns>,
    /// The share of time in which this end may be on the air, above 0 and at most 1.
    pub duty_cycle: f64,
    /// The greatest datagram that the link carries, in bytes of UDP payload.
    pub mtu: usize,
    /// Whether all peers of a listener share one channel, or each has one of its own.
    pub shared: bool,
}

/// One channel by turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// How long the change of direction takes.
    pub turnaround: Duration,
    /// How long a datagram that has left is under way.
    pub delay: Duration,
}

/// What goes with a block in its message: header, token, path, query, the access token's beginning. A longer one is rare, and only slower.
const OPTIONS: usize = 64;

/// The least that a link has to carry whole: the smallest block and its options.
pub(super) const LEAST: usize = 16 + OPTIONS;

/// The longest that a block's own bytes may be on the air: 256 of them at 100 bit/s.
const BLOCK_AIR: Duration = Duration::from_millis(20_480);

/// The least chance with which all fragments of a datagram should arrive: with one of them the whole datagram is lost, and sent again.
const ARRIVING: f64 = 0.75;

/// What both ends' own work may take of a round trip: RFC 7252's ACK_TIMEOUT, which leaves the link next to nothing (§4.8).
const PROCESSING: Duration = Duration::from_secs(2);

/// The server's part of it: how long it may sit on a request for its answer's sake. The rest is for clocks and schedulers.
const PIGGYBACK_WAIT: Duration = Duration::from_secs(1);

/// A usual answer, in bytes, which is to reach the peer before that repeats itself.
const ANSWER: usize = 80;

/// RFC 7252's MAX_LATENCY (§4.8.2), the least.
const MAX_LATENCY: Duration = Duration::from_secs(100);

/// How many of the greatest datagrams may leave before a datagram's last bit has: itself, and three that were ahead of it.
const QUEUED: u32 = 4;

/// How long a transfer outlives its last block, and how long a client goes on with it: a link may be gone for an hour.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

impl Terms {
    /// What follows from a link. Everything that one end has to know of the other's timers comes out the same for both.
    pub(super) fn of(profile: &Profile, end: End) -> Self {
        let limits = TransferLimits::default();
        let speed = profile.speed.max(1);
        let (parameters, limits, patience) = match profile.is_unlimited() {
            true => (standard(profile), [limits.lifetime, limits.response_timeout], Duration::ZERO),
            false => {
                let patience = PATIENCE / speed;
                (parameters(profile, end), [patience, limits.response_timeout / speed], patience)
            }
        };
        // A repeat finds the body that its first copy was about.
        let [lifetime, response_timeout] = limits.map(|limit| limit.max(parameters.exchange_lifetime()));
        let block = block(profile);
        let pace = pace(profile, end);
        let q_block = pace.is_some() && gains_by_bursts(profile, end);
        let (receive_timeout, trusted) = (receive_timeout(profile), profile.trust_addresses);
        Self {
            parameters,
            block,
            lifetime,
            response_timeout,
            patience,
            q_block,
            receive_timeout,
            trusted,
            pace,
        }
    }
}

/// RFC 7252's parameters, as they are, at a link that holds up nothing.
fn standard(profile: &Profile) -> Parameters {
    let Profile { max_retransmit, nstart, .. } = *profile;
    let standard = Parameters::default();
    let largest =
        if profile.fragments { standard.largest } else { standard.largest.min(largest_whole(profile)) };
    Parameters { max_retransmit, nstart, largest, ..standard }
}

fn parameters(profile: &Profile, end: End) -> Parameters {
    let [sending, receiving] = [end, end.other()].map(|from| airtime(profile, from));
    let speed = profile.speed.max(1);
    let largest = largest(profile);
    // An answer of usual length comes at the peer's before its shortest timeout, which reckons with one of the greatest.
    let piggyback_wait =
        PIGGYBACK_WAIT / speed + sending.of(largest).saturating_sub(sending.of(ANSWER.min(largest)));
    Parameters {
        ack_timeout: round_trip(profile) + PROCESSING / speed,
        ack_random_factor: 1.5,
        max_retransmit: profile.max_retransmit,
        nstart: profile.nstart,
        max_latency: max_latency(profile).max(MAX_LATENCY / speed),
        piggyback_wait,
        answer_wait: answer_wait(profile),
        sending,
        receiving,
        largest,
        refine: true,
    }
}

/// The longest that the link takes for a message and its acknowledgement, from the message's last bit to the acknowledgement's first.
pub(super) fn round_trip(profile: &Profile) -> Duration {
    2 * (profile.delay + profile.jitter + turnaround(profile)) + duty_wait(profile, ACKNOWLEDGEMENT)
}

/// How much longer than an acknowledgement an answer of the greatest length waits until it may leave.
fn answer_wait(profile: &Profile) -> Duration {
    duty_wait(profile, largest(profile)).saturating_sub(duty_wait(profile, ACKNOWLEDGEMENT))
}

/// How long it takes until what a message takes of the duty cycle has been saved up since the last one of its length.
fn duty_wait(profile: &Profile, message: usize) -> Duration {
    match profile.duty_cycle {
        duty_cycle if duty_cycle < 1.0 => occupied(profile, message),
        _ => Duration::ZERO,
    }
}

/// How long a datagram may be under way from the moment at which it was to leave. Both ends know how great datagrams are, and neither
/// knows the other's queue: so the greatest are reckoned with ahead of it, each with the silence that the duty cycle asks for
/// after it.
fn max_latency(profile: &Profile) -> Duration {
    QUEUED * (occupied(profile, largest(profile)) + profile.delay + profile.jitter + turnaround(profile))
}

/// Whether to ask for each block by itself, and to wait for it, would make a transfer to this end longer by a third or more: that
/// much of the time of a block's own airtime, and the silence after it that the duty cycle asks for, the link stands idle.
fn gains_by_bursts(profile: &Profile, end: End) -> bool {
    let asking = 2 * (profile.delay + turnaround(profile)) + airtime(profile, end).of(OPTIONS);
    let block = stretch(airtime(profile, end.other()).of(largest(profile)), profile.duty_cycle);
    asking >= block / 3
}

/// NON_RECEIVE_TIMEOUT (RFC 9177 §7.2): a burst's next block, and after a loss the next but one, has come meanwhile; what is missing
/// may have been sent, and what asks for it should not meet it.
fn receive_timeout(profile: &Profile) -> Duration {
    2 * occupied(profile, largest(profile)) + round_trip(profile) + PROCESSING / profile.speed.max(1)
}

fn turnaround(profile: &Profile) -> Duration {
    if profile.half_duplex { profile.turnaround } else { Duration::ZERO }
}

/// How long a message takes of the slower way: on the air, and in the silence after it that the duty cycle asks for.
fn occupied(profile: &Profile, message: usize) -> Duration {
    stretch(slower(profile, message), profile.duty_cycle)
}

/// How long so many bytes are on the air on the slower way.
fn slower(profile: &Profile, bytes: usize) -> Duration {
    let ways = [End::Gateway, End::Peer].map(|from| airtime(profile, from).of(bytes));
    ways.into_iter().max().unwrap_or_default()
}

/// How much time goes by for so much time on the air.
fn stretch(airtime: Duration, duty_cycle: f64) -> Duration {
    Duration::try_from_secs_f64(airtime.as_secs_f64() / duty_cycle).unwrap_or(Duration::MAX / 1024)
}

fn airtime(profile: &Profile, from: End) -> Airtime {
    Airtime {
        bits_per_second: profile.rate(from),
        overhead: profile.overhead,
        fragment: if profile.fragments { profile.mtu(from) } else { 0 },
        sealing: profile.sealing,
    }
}

/// The greatest block whose own bytes are on the air for no longer than [`BLOCK_AIR`] on the slower way, and which the link carries
/// whole, or in fragments that are likely to arrive all.
fn block(profile: &Profile) -> BlockSize {
    let speed = profile.speed.max(1);
    let is_short = |way: &End| {
        let bare = Airtime { overhead: 0, sealing: 0, ..airtime(profile, *way) };
        move |size: usize| bare.of(size) <= BLOCK_AIR / speed
    };
    let fits = |way: &End| {
        let (mtu, frames) = (profile.mtu(*way), airtime(profile, *way));
        move |size: usize| match profile.fragments {
            true => (1.0 - profile.loss).powf(frames.frames(size + OPTIONS) as f64) >= ARRIVING,
            false => size + OPTIONS + profile.sealing <= mtu,
        }
    };
    let ways = [End::Gateway, End::Peer];
    let sizes = (0..=BlockSize::MAX.exponent()).rev().filter_map(BlockSize::from_exponent);
    let mut possible =
        sizes.filter(|size| ways.iter().all(|way| is_short(way)(size.bytes()) && fits(way)(size.bytes())));
    possible.next().unwrap_or(BlockSize::MIN)
}

/// The greatest message that one end has to reckon with.
fn largest(profile: &Profile) -> usize {
    block(profile).bytes() + OPTIONS
}

/// The greatest datagram that both ways carry in one frame.
fn largest_whole(profile: &Profile) -> usize {
    profile.mtu_up.min(profile.mtu_down).saturating_sub(profile.sealing)
}

fn pace(profile: &Profile, end: End) -> Option<Pace> {
    let mtu = if profile.fragments { usize::MAX } else { profile.mtu(end).saturating_sub(profile.sealing) };
    let is_free = profile.rate(end) == 0 && profile.duty_cycle >= 1.0 && !profile.half_duplex;
    if is_free && (profile.fragments || profile.mtu(end) >= Profile::MAX_DATAGRAM) {
        return None;
    }
    Some(Pace {
        sending: airtime(profile, end),
        by_turns: profile
            .half_duplex
            .then_some(Turns { turnaround: profile.turnaround, delay: profile.delay }),
        duty_cycle: profile.duty_cycle,
        mtu,
        shared: profile.shared,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coap::Answer;

    const ENDS: [End; 2] = [End::Gateway, End::Peer];

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn terms(name: &str, end: End) -> Terms {
        Profile::built_in(name).unwrap().terms(end)
    }

    #[test]
    fn a_lan_has_the_defaults_of_the_rfc() {
        for end in ENDS {
            let expected = Terms {
                parameters: Parameters::default(),
                block: BlockSize::MAX,
                lifetime: ms(247_000),
                response_timeout: ms(247_000),
                patience: Duration::ZERO,
                q_block: false,
                receive_timeout: ms(2_000),
                trusted: false,
                pace: None,
            };
            assert_eq!(terms("lan", end), expected);
        }
    }

    #[test]
    fn what_security_adds_is_on_the_air_and_in_the_greatest_datagram() {
        let plain = Profile::built_in("hf-100").unwrap();
        let [bare, sealed] = [plain.clone(), plain.clone().sealed(29)].map(|link| link.terms(End::Peer));
        let of = |terms: &Terms| terms.pace.as_ref().unwrap().sending.of(80);
        // 29 bytes of 80 ms.
        assert_eq!(of(&sealed), of(&bare) + ms(2_320));
        assert_eq!(sealed.pace.unwrap().mtu + 29, bare.pace.unwrap().mtu);
        assert_eq!((sealed.block, sealed.parameters.largest), (bare.block, bare.parameters.largest));
        // A MTU for a block of 64 bytes and its options takes the next smaller one with 29 bytes beside it.
        let narrow = Profile { mtu_up: 128, mtu_down: 128, ..plain };
        assert_eq!(narrow.terms(End::Peer).block.bytes(), 64);
        assert_eq!(narrow.sealed(29).terms(End::Peer).block.bytes(), 32);
    }

    #[test]
    fn hf_100_by_hand() {
        let terms = terms("hf-100", End::Peer);
        let Terms { parameters, block, .. } = &terms;
        // 256 bytes of 80 ms are 20.48 s; 512 would be 40.96 s.
        assert_eq!((block.bytes(), parameters.largest), (256, 320));
        // 2 * (4 s + 0.5 s) and 2 s for processing.
        assert_eq!(parameters.ack_timeout, ms(11_000));
        // 80 + 28 bytes up and 4 + 28 bytes down, of 80 ms each.
        assert_eq!(parameters.timeout(80, Answer::Acknowledgement), ms(11_000 + 8_640 + 2_560));
        // 320 + 28 bytes either way.
        assert_eq!(parameters.longest_timeout(), ms(11_000 + 2 * 27_840));
        assert_eq!((parameters.max_retransmit, parameters.nstart, parameters.refine), (4, 1, true));
        // 27.84 s less 8.64 s for an answer of 80 bytes, and a second.
        assert_eq!(parameters.piggyback_wait, ms(20_200));
        // 4 * (27.84 s + 4 s + 0.5 s).
        assert_eq!(parameters.max_latency, ms(129_360));
        // 31 * 1.5 * 66.68 s; more than 15 * 1.5 * 66.68 s + 2 * 129.36 s + 11 s.
        assert_eq!(parameters.exchange_lifetime(), ms(3_100_620));
        assert_eq!((terms.lifetime, terms.patience), (ms(7_200_000), ms(7_200_000)));
        assert_eq!(terms.response_timeout, ms(3_100_620));
        let pace = terms.pace.unwrap();
        assert_eq!(pace.sending, Airtime { bits_per_second: 100, overhead: 28, fragment: 0, sealing: 0 });
        assert_eq!(pace.by_turns, Some(Turns { turnaround: ms(500), delay: ms(4_000) }));
        assert_eq!((pace.duty_cycle, pace.shared), (1.0, true));
    }

    #[test]
    fn lora_sf12_by_hand() {
        let terms = terms("lora-sf12", End::Gateway);
        let Terms { parameters, block, .. } = &terms;
        // 128 + 64 bytes are 4 frames, all of which arrive with 0.95^4 = 0.81; 256 + 64 are 7, with 0.70.
        assert_eq!((block.bytes(), parameters.largest), (128, 192));
        // An acknowledgement: 4 + 13 bytes of 32 ms are 544 ms, at 1 % 54.4 s; 2 * (0.2 s + 1 s + 1 s); 2 s.
        assert_eq!(parameters.ack_timeout, ms(54_400 + 4_400 + 2_000));
        // 80 bytes are 2 frames.
        assert_eq!(parameters.timeout(80, Answer::Acknowledgement), ms(60_800 + (80 + 26) * 32 + 544));
        // 192 bytes are 4 frames, 244 bytes: 7.808 s, less 3.392 s for 80 bytes, and a second.
        assert_eq!(parameters.piggyback_wait, ms(7_808 - 3_392 + 1_000));
        // 4 * (780.8 s + 0.2 s + 1 s + 1 s).
        assert_eq!(parameters.max_latency, ms(3_132_000));
        // At 1 % an answer of the greatest length is 780.8 s after the one before it.
        assert_eq!(parameters.answer_wait, ms(780_800 - 54_400));
        // 31 * 1.5 * (60.8 s + 2 * 7.808 s + 726.4 s), which is longer than 15 * 1.5 of it, 2 * 3132 s and 60.8 s.
        assert_eq!(parameters.exchange_lifetime(), ms(37_330_944));
        assert_eq!(terms.lifetime, ms(37_330_944));
        let pace = terms.pace.unwrap();
        assert_eq!((pace.mtu, pace.duty_cycle, pace.sending.fragment), (usize::MAX, 0.01, 51));
    }

    #[test]
    fn bursts_are_wished_for_where_asking_for_each_block_takes_long() {
        let wished = |profile: &Profile| profile.terms(End::Peer).q_block;
        let all = Profile::all_built_in().into_iter().filter(wished).map(|profile| profile.name);
        assert_eq!(all.collect::<Vec<_>>(), ["certus-100", "geo-600ms", "hf-100", "nb-iot-ntn", "sbd"]);
        // Twice 27.84 s for the greatest message, 9 s and 2 s.
        assert_eq!(terms("hf-100", End::Peer).receive_timeout, ms(66_680));
    }

    #[test]
    fn a_block_and_its_options_fit_the_smaller_mtu() {
        let peer = terms("sbd", End::Peer);
        assert_eq!((peer.block.bytes(), peer.parameters.largest), (128, 192));
        assert_eq!(peer.pace.map(|pace| (pace.mtu, pace.shared)), Some((340, false)));
        assert_eq!(terms("sbd", End::Gateway).pace.map(|pace| pace.mtu), Some(270));
        let mut tiny = Profile::built_in("sbd").unwrap();
        tiny.mtu_down = LEAST;
        let Terms { parameters, block, .. } = tiny.terms(End::Peer);
        assert_eq!((block.bytes(), parameters.largest), (16, 80));
    }

    #[test]
    fn a_faster_link_is_the_same_in_less_time() {
        for profile in Profile::all_built_in().into_iter().filter(|profile| !profile.is_unlimited()) {
            let (slow, fast) = (profile.terms(End::Peer), profile.faster(50).terms(End::Peer));
            assert_eq!((fast.block, fast.parameters.largest), (slow.block, slow.parameters.largest));
            for (slow, fast) in [
                (slow.parameters.ack_timeout, fast.parameters.ack_timeout),
                (slow.parameters.max_latency, fast.parameters.max_latency),
                (slow.parameters.piggyback_wait, fast.parameters.piggyback_wait),
                (slow.parameters.exchange_lifetime(), fast.parameters.exchange_lifetime()),
                (slow.lifetime, fast.lifetime),
                (slow.response_timeout, fast.response_timeout),
                (slow.patience, fast.patience),
                (slow.receive_timeout, fast.receive_timeout),
            ] {
                assert!(slow.abs_diff(fast * 50) < ms(1), "{slow:?} {fast:?}");
            }
        }
    }

    /// What must hold on any link, for the terms of both its ends.
    fn check(profile: &Profile) {
        let [gateway, peer] = ENDS.map(|end| profile.terms(end).parameters);
        assert_eq!(gateway.exchange_lifetime(), peer.exchange_lifetime(), "{profile:?}");
        assert_eq!((gateway.max_latency, gateway.largest), (peer.max_latency, peer.largest), "{profile:?}");
        for (client, server) in [(&peer, &gateway), (&gateway, &peer)] {
            assert!(client.exchange_lifetime() >= client.max_transmit_wait(), "{profile:?}");
            // The server sits on the shortest request for as long as it may, and the link is as slow as it can be.
            let answer = ANSWER.min(server.largest);
            let arrival = round_trip(profile) + server.piggyback_wait + server.sending.of(answer);
            let repeat = client.timeout(0, Answer::Result);
            assert!(arrival < repeat, "{arrival:?} {repeat:?} {profile:?}");
            assert!(server.piggyback_wait > Duration::ZERO, "{profile:?}");
        }
        for end in ENDS {
            let terms = profile.terms(end);
            assert!(terms.response_timeout >= terms.parameters.exchange_lifetime(), "{profile:?}");
            assert!(profile.is_unlimited() || terms.lifetime >= terms.patience, "{profile:?}");
            let mtu = terms.pace.map_or(usize::MAX, |pace| pace.mtu);
            assert!(terms.parameters.largest <= mtu, "{profile:?}");
        }
    }

    #[test]
    fn a_piggybacked_answer_comes_before_the_peer_repeats_itself_on_all_built_in_links() {
        Profile::all_built_in().iter().for_each(check);
    }

    proptest! {
        /// Whatever an operator may write.
        #[test]
        fn both_ends_of_any_link_agree(
            rates in prop::array::uniform2(prop_oneof![Just(0), 1..1_000_000_u64, Just(1_000_000_000_000)]),
            times in prop::array::uniform3(prop_oneof![Just(0), 0..86_400_000_u64]),
            mtus in prop::array::uniform2(LEAST..Profile::MAX_DATAGRAM),
            overhead in 0..1500_usize,
            switches in prop::array::uniform2(any::<bool>()),
            duty_cycle in prop_oneof![Just(1.0), 0.0001..1.0],
            loss in 0.0..0.99,
            max_retransmit in 0..=10_u32,
            speed in 1..=Profile::MAX_SPEED,
        ) {
            let profile = Profile {
                rate_up: rates[0],
                rate_down: rates[1],
                delay: ms(times[0]),
                jitter: ms(times[1]),
                turnaround: ms(times[2]),
                mtu_up: mtus[0],
                mtu_down: mtus[1],
                overhead,
                fragments: switches[0],
                half_duplex: switches[1],
                duty_cycle,
                loss,
                max_retransmit,
                ..Profile::unlimited("any")
            };
            check(&profile.faster(speed));
        }
    }
}
