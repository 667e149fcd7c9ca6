//! The options that an endpoint understands; others are left out where they are elective, and refused where they are critical.

use crate::coap::OptionNumber;

/// The options that mean something in any request. Without If-Match and If-None-Match: no Matrix resource has them; without the
/// Q-Block options (RFC 9177 §4.1: 4.02 tells a client to use Block1 and Block2), which mean something from some peers.
pub(super) fn is_known_in_request(number: OptionNumber) -> bool {
    matches!(
        number,
        OptionNumber::URI_HOST
            | OptionNumber::OBSERVE
            | OptionNumber::URI_PORT
            | OptionNumber::URI_PATH
            | OptionNumber::CONTENT_FORMAT
            | OptionNumber::URI_QUERY
            | OptionNumber::HOP_LIMIT
            | OptionNumber::ACCEPT
            | OptionNumber::BLOCK2
            | OptionNumber::BLOCK1
            | OptionNumber::SIZE2
            | OptionNumber::PROXY_URI
            | OptionNumber::PROXY_SCHEME
            | OptionNumber::SIZE1
            | OptionNumber::ACCESS_TOKEN
            | OptionNumber::CBOR_VERSION
            | OptionNumber::LINK
            | OptionNumber::NO_RESPONSE
            | OptionNumber::REQUEST_TAG
    )
}

/// The options that mean something to a peer with which there are bursts of blocks.
pub(super) fn is_of_bursts(number: OptionNumber) -> bool {
    matches!(number, OptionNumber::Q_BLOCK1 | OptionNumber::Q_BLOCK2)
}

/// The options that mean something in a response.
pub(super) fn is_known_in_response(number: OptionNumber) -> bool {
    matches!(
        number,
        OptionNumber::ETAG
            | OptionNumber::OBSERVE
            | OptionNumber::LOCATION_PATH
            | OptionNumber::CONTENT_FORMAT
            | OptionNumber::MAX_AGE
            | OptionNumber::LOCATION_QUERY
            | OptionNumber::BLOCK2
            | OptionNumber::BLOCK1
            | OptionNumber::SIZE2
            | OptionNumber::SIZE1
            | OptionNumber::HTTP_STATUS
    )
}
