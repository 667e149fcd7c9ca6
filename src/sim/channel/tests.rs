//! Stories of datagrams on links. Times are milliseconds.

use super::super::impairments::{Bursts, Outage};
use super::*;

/// 100 bit/s, 4 s one way, 28 bytes with each datagram: a datagram of 72 bytes is 8 s on the air.
fn slow() -> Profile {
    Profile {
        rate_up: 100,
        rate_down: 100,
        delay: Duration::from_secs(4),
        mtu_up: 256,
        mtu_down: 256,
        overhead: 28,
        turnaround: Duration::from_secs(1),
        shared: true,
        ..Profile::unlimited("slow")
    }
}

fn channel(profile: Profile) -> Channel {
    Channel::new(profile, Impairments::default(), 1)
}

fn at(milliseconds: u64) -> Instant {
    Instant::after_start(Duration::from_millis(milliseconds))
}

fn millis(at: Instant) -> u64 {
    u64::try_from(at.since_start().as_millis()).unwrap()
}

/// What comes out: when, where, of which peer, and the first byte.
fn drain(channel: &mut Channel) -> Vec<(u64, End, PeerNumber, u8)> {
    let mut arrivals = Vec::new();
    while let Some(due) = channel.deadline() {
        assert_eq!(channel.poll(due - Duration::from_nanos(1)), None);
        let arrival = channel.poll(due).unwrap();
        assert_eq!(arrival.at, due);
        arrivals.push((millis(due), arrival.to, arrival.peer, arrival.datagram[0]));
    }
    arrivals
}

#[test]
fn datagrams_leave_one_after_the_other_and_arrive_after_the_delay() {
    let mut channel = channel(slow());
    let first = channel.send(End::Peer, 1, vec![1; 72], at(1_000));
    let second = channel.send(End::Peer, 2, vec![2; 22], at(2_000));
    let third = channel.send(End::Gateway, 1, vec![3; 72], at(2_000));
    assert_eq!((first.start, first.end), (at(1_000), at(9_000)));
    assert_eq!((second.start, second.end), (at(9_000), at(13_000)));
    assert_eq!((third.start, third.end), (at(2_000), at(10_000)));
    assert_eq!(
        drain(&mut channel),
        [(13_000, End::Gateway, 1, 1), (14_000, End::Peer, 1, 3), (17_000, End::Gateway, 2, 2)]
    );
    let up = channel.traffic(End::Peer);
    assert_eq!((up.datagrams, up.bytes, up.air_bytes, up.delivered), (2, 94, 150, 2));
    assert_eq!((up.airtime, up.longest_wait), (Duration::from_secs(12), Duration::from_secs(7)));
    assert_eq!(up.hurried, 0, "two modems on one carrier");
    assert_eq!(channel.violations(), 0);
}

#[test]
fn on_one_channel_both_ends_take_turns() {
    let mut channel = channel(Profile { half_duplex: true, ..slow() });
    channel.send(End::Peer, 1, vec![1; 72], at(0));
    let answer = channel.send(End::Gateway, 1, vec![2; 22], at(500));
    let next = channel.send(End::Gateway, 1, vec![3; 22], at(500));
    let last = channel.send(End::Peer, 1, vec![4; 22], at(500));
    assert_eq!((answer.start, answer.end), (at(9_000), at(13_000)));
    assert_eq!((next.start, next.end), (at(13_000), at(17_000)));
    assert_eq!((last.start, last.end), (at(18_000), at(22_000)));
    // After a long silence the turn costs nothing more.
    let later = channel.send(End::Gateway, 1, vec![5; 22], at(60_000));
    assert_eq!(later.start, at(60_000));
}

#[test]
fn peers_with_channels_of_their_own_do_not_wait_for_each_other() {
    let mut channel = channel(Profile { shared: false, half_duplex: true, ..slow() });
    let first = channel.send(End::Peer, 1, vec![1; 72], at(0));
    let second = channel.send(End::Gateway, 2, vec![2; 72], at(0));
    assert_eq!([first.start, second.start], [at(0), at(0)]);
    assert_eq!(channel.send(End::Gateway, 1, vec![3; 72], at(0)).start, at(9_000));
    channel.forget(1);
    assert_eq!(channel.send(End::Gateway, 1, vec![3; 72], at(0)).start, at(0));
}

#[test]
fn rates_may_differ_and_no_rate_takes_no_time() {
    let mut channel = channel(Profile { rate_up: 200, rate_down: 0, ..slow() });
    assert_eq!(channel.send(End::Peer, 1, vec![0; 72], at(0)).end, at(4_000));
    assert_eq!(channel.send(End::Gateway, 1, vec![0; 72], at(0)).end, at(0));
    assert_eq!(channel.traffic(End::Gateway).airtime, Duration::ZERO);
}

#[test]
fn what_is_too_long_or_too_much_is_dropped_and_takes_no_air() {
    let mut channel = Channel::new(slow(), Impairments { queue: 2, ..Impairments::default() }, 1);
    assert_eq!(channel.send(End::Peer, 1, vec![0; 257], at(0)).fate, Fate::TooLong);
    let fates: Vec<_> = (0..4).map(|_| channel.send(End::Peer, 1, vec![0; 72], at(0)).fate).collect();
    assert_eq!(fates[..2], [Fate::Arrives(at(12_000)), Fate::Arrives(at(20_000))]);
    assert_eq!(fates[3], Fate::Overflowed);
    // The modem of another peer has its own room; and there is room again once one has begun.
    assert_eq!(channel.send(End::Peer, 2, vec![0; 72], at(0)).fate, Fate::Arrives(at(36_000)));
    assert_eq!(channel.send(End::Peer, 1, vec![0; 72], at(8_000)).fate, Fate::Arrives(at(44_000)));
    let up = channel.traffic(End::Peer);
    assert_eq!((up.datagrams, up.transmitted, up.too_long, up.overflowed), (7, 5, 1, 1));
    assert_eq!(up.airtime, Duration::from_secs(40));
}

#[test]
fn fragments_have_headers_of_their_own_and_all_must_come() {
    let fragmented = Profile { fragments: true, mtu_up: 51, overhead: 13, loss: 0.1, rate_up: 0, ..slow() };
    let mut channel = channel(fragmented);
    for _ in 0..10_000 {
        channel.send(End::Peer, 1, vec![0; 150], at(0));
        channel.send(End::Gateway, 1, vec![0; 10], at(0));
        drain(&mut channel);
    }
    let up = channel.traffic(End::Peer);
    assert_eq!((up.frames, up.air_bytes), (30_000, 10_000 * (150 + 3 * 13)));
    // 1 - 0.9³ = 0.271, with a standard deviation of 0.0045.
    assert!((2_500..2_920).contains(&up.lost), "{}", up.lost);
    assert_eq!(up.lost + up.delivered, 10_000);
}

#[test]
fn frames_are_lost_as_often_as_told_and_each_by_itself() {
    let mut channel = channel(Profile { loss: 0.1, rate_up: 0, ..slow() });
    let lost: Vec<bool> =
        (0..20_000).map(|_| channel.send(End::Peer, 1, vec![0], at(0)).fate == Fate::Lost).collect();
    let count = lost.iter().filter(|lost| **lost).count();
    assert!((1_870..2_130).contains(&count), "{count}");
    let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
    assert!((145..255).contains(&pairs), "{pairs}");
}

#[test]
fn in_bursts_a_loss_makes_the_next_one_likely() {
    let bursts = Bursts {
        good: Duration::from_secs(90),
        bad: Duration::from_secs(10),
        loss_in_good: 0.0,
        loss_in_bad: 1.0,
    };
    let impairments = Impairments { bursts: Some(bursts), ..Impairments::default() };
    let mut channel = Channel::new(Profile { rate_up: 0, ..slow() }, impairments, 1);
    let mut lost = Vec::new();
    for second in 0..50_000 {
        lost.push(channel.send(End::Peer, 1, vec![0], at(second * 1_000)).fate == Fate::Lost);
        while channel.poll(at(second * 1_000)).is_some() {}
    }
    let count = lost.iter().filter(|lost| **lost).count();
    assert!((4_300..5_700).contains(&count), "{count}");
    // After a second in the bad state: 0.1 + 0.9 e^(-1/9) = 0.905.
    let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
    let after_loss = pairs as f64 / count as f64;
    assert!((0.88..0.93).contains(&after_loss), "{after_loss}");
}

#[test]
fn nothing_passes_in_an_outage_and_the_air_is_used_all_the_same() {
    let outages = vec![Outage { from: at(10_000), until: at(20_000) }];
    let mut channel = Channel::new(slow(), Impairments { outages, ..Impairments::default() }, 1);
    let fates: Vec<_> =
        (0..4).map(|number| channel.send(End::Peer, 1, vec![number; 72], at(0)).fate).collect();
    let lost = Fate::LostInOutage;
    assert_eq!(fates, [Fate::Arrives(at(12_000)), lost, lost, Fate::Arrives(at(36_000))]);
    assert_eq!(channel.traffic(End::Peer).lost_in_outage, 2);
}

#[test]
fn order_is_kept_unless_told_otherwise() {
    let jittery = Profile { jitter: Duration::from_secs(60), ..slow() };
    let order = |impairments| {
        let mut channel = Channel::new(jittery.clone(), impairments, 3);
        (0..20).for_each(|number| {
            channel.send(End::Peer, 1, vec![number], at(0));
        });
        drain(&mut channel).iter().map(|(.., number)| *number).collect::<Vec<_>>()
    };
    assert!(order(Impairments::default()).is_sorted());
    assert!(!order(Impairments { jitter_reorders: true, ..Impairments::default() }).is_sorted());
    assert!(!order(Impairments { reordering: 0.3, ..Impairments::default() }).is_sorted());
}

#[test]
fn copies_come_later_and_cost_no_air() {
    let impairments = Impairments { duplication: 0.5, ..Impairments::default() };
    let mut channel = Channel::new(slow(), impairments, 1);
    for number in 0..60 {
        channel.send(End::Gateway, 1, vec![number; 10], at(0));
    }
    let arrivals = drain(&mut channel);
    let down = *channel.traffic(End::Gateway);
    assert!((18..42).contains(&down.duplicated), "{}", down.duplicated);
    assert_eq!(arrivals.len() as u64, 60 + down.duplicated);
    assert_eq!((down.delivered, down.air_bytes), (60, 60 * 38));
}

#[test]
fn busiest_hour_of_each_transmitter_is_known() {
    let mut channel = channel(Profile { duty_cycle: 0.01, ..slow() });
    for minute in 0..120 {
        channel.send(End::Peer, minute % 2, vec![0; 22], at(u64::from(minute) * 60_000));
    }
    // 30 of each in an hour, 4 s each.
    assert_eq!(channel.busiest(End::Peer), Duration::from_secs(120));
    assert_eq!(channel.busiest(End::Gateway), Duration::ZERO);
}

#[test]
fn same_seed_gives_the_same_link_again() {
    let story = |seed| {
        let impairments = Impairments {
            duplication: 0.1,
            reordering: 0.1,
            jitter_reorders: true,
            bursts: Some(Bursts {
                good: Duration::from_secs(60),
                bad: Duration::from_secs(10),
                loss_in_good: 0.01,
                loss_in_bad: 0.8,
            }),
            ..Impairments::default()
        };
        let profile = Profile { loss: 0.1, jitter: Duration::from_secs(2), half_duplex: true, ..slow() };
        let mut channel = Channel::new(profile, impairments, seed);
        for number in 0..100 {
            let from = if number % 3 == 0 { End::Gateway } else { End::Peer };
            let passage =
                channel.send(from, u32::from(number) % 2, vec![number; 20], at(u64::from(number) * 5_000));
            assert!(passage.start <= passage.end);
        }
        let arrivals = drain(&mut channel);
        (arrivals, *channel.traffic(End::Peer), *channel.traffic(End::Gateway))
    };
    assert_eq!(story(11), story(11));
    assert_ne!(story(11).0, story(12).0);
}

#[test]
fn a_datagram_that_does_not_wait_until_the_last_has_left_is_counted() {
    let mut channel = channel(slow());
    channel.send(End::Peer, 1, vec![1; 72], at(1_000));
    channel.send(End::Peer, 1, vec![1; 22], at(9_000));
    assert_eq!(channel.traffic(End::Peer).hurried, 0);
    channel.send(End::Peer, 1, vec![1; 22], at(12_999));
    assert_eq!(channel.traffic(End::Peer).hurried, 1);
    // One that was restarted cannot know.
    channel.begins_anew(End::Peer, Some(1));
    channel.send(End::Peer, 1, vec![1; 22], at(13_000));
    assert_eq!(channel.traffic(End::Peer).hurried, 1);
}
