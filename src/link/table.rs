//! One link's table in a TOML file: keys and values as people write them.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

use super::profile::Profile;
use super::terms::LEAST;

/// The keys, in the order in which they are obeyed: what speaks of one direction comes after what speaks of both.
pub const KEYS: &[&str] = &[
    "like",
    "rate",
    "rate-up",
    "rate-down",
    "delay",
    "jitter",
    "mtu",
    "mtu-up",
    "mtu-down",
    "fragments",
    "overhead",
    "half-duplex",
    "turnaround",
    "duty-cycle",
    "shared",
    "loss",
    "max-retransmit",
    "nstart",
    "trust-addresses",
    "speed",
];

/// Those of fragments; a datagram that crosses whole needs more ([`LEAST`]).
const MTU: RangeInclusive<u64> = 32..=Profile::MAX_DATAGRAM as u64;
const RATE: RangeInclusive<u64> = 0..=1_000_000_000_000;
const OVERHEAD: RangeInclusive<u64> = 0..=1500;
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const DUTY_CYCLE: RangeInclusive<f64> = 0.0001..=1.0;
const LOSS: RangeInclusive<f64> = 0.0..=0.99;
/// Each doubles the last wait: ten are some thousand round trips.
const MAX_RETRANSMIT: RangeInclusive<u64> = 0..=10;
const NSTART: RangeInclusive<u64> = 1..=64;
const SPEED: RangeInclusive<u64> = 1..=Profile::MAX_SPEED as u64;

/// Changes a profile as a table says. What is wrong comes back with its key.
pub(super) fn apply(table: &toml::Table, profile: &mut Profile, speed: &mut u32) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        wrong.push((
            key.clone(),
            format!("is no key; there are {}, and for a gateway shape", KEYS.join(", ")),
        ));
    }
    for key in KEYS {
        let Some(value) = table.get(*key) else { continue };
        if let Err(problem) = set(key, value, profile, speed) {
            wrong.push(((*key).to_owned(), problem));
        }
    }
    if wrong.is_empty() {
        wrong = too_narrow(table, profile);
    }
    wrong
}

/// Without fragments the smallest block has to fit into a datagram, or no answer in blocks ever arrives.
fn too_narrow(table: &toml::Table, profile: &Profile) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (own_key, mtu) in [("mtu-up", profile.mtu_up), ("mtu-down", profile.mtu_down)] {
        if profile.fragments || mtu >= LEAST {
            continue;
        }
        let key = [own_key, "mtu", "fragments"].into_iter().find(|key| table.contains_key(*key));
        let problem =
            format!("leaves {mtu} bytes to a datagram, and should be from {LEAST} without fragments");
        wrong.push((key.unwrap_or(own_key).to_owned(), problem));
    }
    wrong.dedup();
    wrong
}

fn set(key: &str, value: &Value, profile: &mut Profile, speed: &mut u32) -> Result<(), String> {
    match key {
        "like" => drop(text(value)?),
        "rate" => {
            profile.rate_up = rate(value)?;
            profile.rate_down = profile.rate_up;
        }
        "rate-up" => profile.rate_up = rate(value)?,
        "rate-down" => profile.rate_down = rate(value)?,
        "delay" => profile.delay = time(value)?,
        "jitter" => profile.jitter = time(value)?,
        "mtu" => {
            profile.mtu_up = size(value, MTU)?;
            profile.mtu_down = profile.mtu_up;
        }
        "mtu-up" => profile.mtu_up = size(value, MTU)?,
        "mtu-down" => profile.mtu_down = size(value, MTU)?,
        "fragments" => profile.fragments = switch(value)?,
        "overhead" => profile.overhead = size(value, OVERHEAD)?,
        "half-duplex" => profile.half_duplex = switch(value)?,
        "turnaround" => profile.turnaround = time(value)?,
        "duty-cycle" => profile.duty_cycle = share(value, DUTY_CYCLE)?,
        "shared" => profile.shared = switch(value)?,
        "loss" => profile.loss = share(value, LOSS)?,
        "max-retransmit" => profile.max_retransmit = number(value, MAX_RETRANSMIT)? as u32,
        "nstart" => profile.nstart = size(value, NSTART)?,
        "trust-addresses" => profile.trust_addresses = switch(value)?,
        "speed" => *speed = number(value, SPEED)? as u32,
        _ => return Err("is no key".into()),
    }
    Ok(())
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("is of type {}, and should be a string", value.type_str()))
}

fn switch(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("is of type {}, and should be true or false", value.type_str()))
}

/// An integer, as such or in a string.
fn number(value: &Value, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    let found = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => text.trim().parse().ok(),
        _ => return Err(format!("is of type {}, and should be an integer", value.type_str())),
    };
    within(found, value, &allowed, "")
}

fn size(value: &Value, allowed: RangeInclusive<u64>) -> Result<usize, String> {
    number(value, allowed).map(|number| number as usize)
}

/// Bits in a second: an integer, or a string with `bit/s` or `kbit/s`.
fn rate(value: &Value) -> Result<u64, String> {
    let Value::String(text) = value else { return number(value, RATE) };
    let (digits, unit) = split_unit(text);
    let unit = match unit {
        "" | "bit/s" => 1,
        "kbit/s" => 1000,
        _ => return Err(format!("is {text:?}, which has an unknown unit: bit/s or kbit/s")),
    };
    let bits = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    within(bits, value, &RATE, " bit/s")
}

/// A time with its unit, or whole seconds.
fn time(value: &Value) -> Result<Duration, String> {
    let text = match value {
        Value::Integer(seconds) => seconds.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(format!("is of type {}, and should be a time: 500ms, 4s, 1m, 1h", value.type_str())),
    };
    let (digits, unit) = split_unit(&text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("is {text:?}, which has an unknown unit: ms, s, m or h")),
    };
    let time = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    let time = time.map(Duration::from_millis).ok_or_else(|| format!("is {text:?}, which is no time"))?;
    if time > LONGEST { Err(format!("is {text:?}, and at most a day")) } else { Ok(time) }
}

/// A share of one: a number, or a string with `%`.
fn share(value: &Value, allowed: RangeInclusive<f64>) -> Result<f64, String> {
    let found = match value {
        Value::Float(share) => Some(*share),
        Value::Integer(share) => Some(*share as f64),
        Value::String(text) => match text.trim().strip_suffix('%') {
            Some(percent) => percent.trim_end().parse::<f64>().ok().map(|percent| percent / 100.0),
            None => text.trim().parse().ok(),
        },
        _ => return Err(format!("is of type {}, and should be a share: 0.1 or \"10%\"", value.type_str())),
    };
    within(found, value, &allowed, "")
}

fn within<T>(found: Option<T>, value: &Value, allowed: &RangeInclusive<T>, unit: &str) -> Result<T, String>
where
    T: PartialOrd + std::fmt::Display,
{
    found.filter(|found| allowed.contains(found)).ok_or_else(|| {
        format!("is {value}, and should be from {} to {}{unit}", allowed.start(), allowed.end())
    })
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Profile, Vec<(String, String)>> {
        let (mut profile, mut speed) = (Profile::unlimited("x"), 1);
        let wrong = apply(&text.parse().unwrap(), &mut profile, &mut speed);
        if wrong.is_empty() { Ok(profile.faster(speed)) } else { Err(wrong) }
    }

    #[test]
    fn every_key_is_read() {
        let text = "rate = 9\nrate-up = '100'\nrate-down = '2 kbit/s'\ndelay = '4s'\njitter = 1\nmtu = 600\nmtu-up = 340\n\
                    mtu-down = '270'\nfragments = true\noverhead = 28\nhalf-duplex = true\nturnaround = '500ms'\n\
                    duty-cycle = '1%'\nshared = true\nloss = 0.1\nmax-retransmit = 5\nnstart = 2\nlike = 'lan'\ntrust-addresses = true\nspeed = 2";
        let keys: toml::Table = text.parse().unwrap();
        assert!(KEYS.iter().all(|key| keys.contains_key(*key)));
        let expected = Profile {
            name: "x".into(),
            rate_up: 200,
            rate_down: 4000,
            delay: Duration::from_secs(2),
            jitter: Duration::from_millis(500),
            mtu_up: 340,
            mtu_down: 270,
            fragments: true,
            overhead: 28,
            half_duplex: true,
            turnaround: Duration::from_millis(250),
            duty_cycle: 0.01,
            shared: true,
            loss: 0.1,
            max_retransmit: 5,
            nstart: 2,
            trust_addresses: true,
            speed: 2,
            sealing: 0,
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn a_datagram_that_crosses_whole_has_room_for_the_smallest_block() {
        let narrow = |key: &str, mtu| {
            let problem =
                format!("leaves {mtu} bytes to a datagram, and should be from 80 without fragments");
            (key.to_owned(), problem)
        };
        assert_eq!(read("mtu = 79"), Err(vec![narrow("mtu", 79)]));
        assert_eq!(read("mtu = 79\nmtu-up = 80"), Err(vec![narrow("mtu", 79)]));
        assert_eq!(
            read("mtu-up = 32\nmtu-down = 33"),
            Err(vec![narrow("mtu-up", 32), narrow("mtu-down", 33)])
        );
        assert!(read("mtu = 80").is_ok() && read("mtu = 32\nfragments = true").is_ok());
        let mut fragmented = read("mtu = 51\nfragments = true").unwrap();
        let told = apply(&"fragments = false".parse().unwrap(), &mut fragmented, &mut 1);
        assert_eq!(told, [narrow("fragments", 51)]);
    }

    #[test]
    fn what_is_out_of_bounds_or_of_another_kind_is_named_with_its_key() {
        for (text, key, problem) in [
            ("loss = 1.5", "loss", "is 1.5, and should be from 0 to 0.99"),
            ("loss = nan", "loss", "is nan, and should be from 0 to 0.99"),
            ("loss = 'much'", "loss", "is \"much\", and should be from 0 to 0.99"),
            ("duty-cycle = 0", "duty-cycle", "is 0, and should be from 0.0001 to 1"),
            ("mtu = 31", "mtu", "is 31, and should be from 32 to 65507"),
            ("delay = '25h'", "delay", "is \"25h\", and at most a day"),
            ("delay = '4 parsecs'", "delay", "is \"4 parsecs\", which has an unknown unit: ms, s, m or h"),
            ("delay = 'soon'", "delay", "is \"soon\", which has an unknown unit: ms, s, m or h"),
            ("delay = 1.5", "delay", "is of type float, and should be a time: 500ms, 4s, 1m, 1h"),
            ("rate = -1", "rate", "is -1, and should be from 0 to 1000000000000"),
            ("rate = '100 baud'", "rate", "is \"100 baud\", which has an unknown unit: bit/s or kbit/s"),
            ("rate = true", "rate", "is of type boolean, and should be an integer"),
            ("shared = 1", "shared", "is of type integer, and should be true or false"),
            ("max-retransmit = 11", "max-retransmit", "is 11, and should be from 0 to 10"),
            ("nstart = 0", "nstart", "is 0, and should be from 1 to 64"),
            ("speed = 1001", "speed", "is 1001, and should be from 1 to 1000"),
        ] {
            assert_eq!(read(text), Err(vec![(key.into(), problem.into())]), "{text}");
        }
        let told = read("mtu_up = 5\nspeed = 'x'").unwrap_err();
        assert_eq!(told.len(), 2);
        assert!(told[0].1.starts_with("is no key; there are like, rate"), "{told:?}");
    }
}
