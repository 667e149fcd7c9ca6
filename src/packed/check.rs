//! Whether two ends that take themselves to be in step are: for tests and simulations, which see both.

use crate::packed::aliases::Kind;
use crate::packed::aliases::Mirror;
use crate::packed::aliases::Own;
use crate::packed::end::GatewayEnd;
use crate::packed::end::ProxyEnd;

/// How the tables of two ends stand to each other, where nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// What either may refer to is the same at the other: so many aliases.
    Equal(usize),
    /// The ends are in different epochs, and will notice by the next message.
    Apart,
}

/// An alias that an end may use, and by which the other would read something else, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?} {number} is {given:?}, and {read:?} at the other end")]
pub struct Unequal {
    kind: Kind,
    number: u64,
    given: String,
    read: Option<String>,
}

/// Holds the tables of two ends against each other, when nothing is under way between them.
///
/// # Errors
/// The first alias that would be read wrongly.
pub fn check(proxy: &ProxyEnd, gateway: &GatewayEnd) -> Result<Tables, Unequal> {
    if proxy.agreement() != gateway.agreement() {
        return Ok(Tables::Apart);
    }
    Ok(Tables::Equal(compare(&proxy.own, &gateway.peer)? + compare(&gateway.own, &proxy.peer)?))
}

/// What one end gave and what the other has read. Of what the giver has forgotten the other may still know: a reference to that is an error,
/// and is mended.
fn compare(own: &Own, mirror: &Mirror) -> Result<usize, Unequal> {
    let unequal = |kind, number, given: &str, read: Option<&str>| {
        Err(Unequal { kind, number, given: given.to_owned(), read: read.map(str::to_owned) })
    };
    let mut shared = 0;
    for (kind, number, given) in own.all_shared() {
        let read = mirror.text(kind, number);
        if read != Some(given) {
            return unequal(kind, number, given, read);
        }
        shared += 1;
    }
    for (kind, number, read) in mirror.all() {
        if let Some(given) = own.text(kind, number).filter(|given| *given != read) {
            return unequal(kind, number, given, Some(read));
        }
    }
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::Agreement;
    use crate::packed::Dictionary;
    use crate::packed::Limits;
    use crate::packed::Request;
    use crate::packed::Spelling;

    fn ends() -> (ProxyEnd, GatewayEnd) {
        let agreement = Agreement { epoch: 1, tokens: 2, transactions: 3 };
        (ProxyEnd::new(agreement), GatewayEnd::new(agreement))
    }

    fn dictionary() -> Dictionary {
        Dictionary::built_in().clone().only(&[0])
    }

    fn request(room: &str) -> Request {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t");
        Request {
            method: "PUT".to_owned(),
            path,
            query: None,
            body: Some(br#"{"body":"hello there"}"#.to_vec()),
        }
    }

    #[test]
    fn what_was_read_and_acknowledged_is_equal_and_another_epoch_apart() {
        let ((mut proxy, mut gateway), dictionary) = (ends(), dictionary());
        assert_eq!(check(&proxy, &gateway), Ok(Tables::Equal(0)));
        let sent = proxy.encode_request(&request("!a:hs"), &dictionary, Spelling::Short).unwrap();
        assert_eq!(check(&proxy, &gateway), Ok(Tables::Equal(0)), "nothing may be referred to yet");
        gateway.decode_request(&sent.payload, &dictionary, Limits::default()).unwrap();
        proxy.acknowledge(sent.message);
        assert!(matches!(check(&proxy, &gateway), Ok(Tables::Equal(1..))));
        gateway.begin_epoch(2, 3);
        assert_eq!(check(&proxy, &gateway), Ok(Tables::Apart));
    }

    #[test]
    fn what_was_acknowledged_and_never_read_is_noticed() {
        let ((mut proxy, gateway), dictionary) = (ends(), dictionary());
        let sent = proxy.encode_request(&request("!a:hs"), &dictionary, Spelling::Short).unwrap();
        proxy.acknowledge(sent.message);
        let unequal = check(&proxy, &gateway).unwrap_err();
        assert!(unequal.to_string().ends_with("None at the other end"), "{unequal}");
    }

    #[test]
    fn a_number_that_stands_for_two_things_is_noticed() {
        let ((mut proxy, mut gateway), (mut other, _), dictionary) = (ends(), ends(), dictionary());
        let sent = other.encode_request(&request("!b:hs"), &dictionary, Spelling::Short).unwrap();
        gateway.decode_request(&sent.payload, &dictionary, Limits::default()).unwrap();
        proxy.encode_request(&request("!a:hs"), &dictionary, Spelling::Short).unwrap();
        assert!(check(&proxy, &gateway).is_err());
    }
}
