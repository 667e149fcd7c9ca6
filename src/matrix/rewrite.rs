//! The few answers of the homeserver that must say something of the gateway as well.
//!
//! Looks only at answers that succeeded; a body of another shape than expected stays as it is.

use std::borrow::Cow;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::matrix::route::Route;
use crate::matrix::route::operation;

/// MSC3079 "Unstable prefix".
const LOW_BANDWIDTH: &str = "org.matrix.msc3079.low_bandwidth";

/// The version of both tables, of integer keys and of path codes.
const TABLE_VERSION: u8 = 1;

/// What a gateway says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertise {
    /// What clients shall take for the URL of their homeserver; `None` leaves what that says itself.
    pub base_url: Option<String>,
    /// The UDP port that speaks DTLS, if one does.
    pub dtls_port: Option<u16>,
}

/// The body of an answer to `route`, with what the gateway has to say in it.
pub fn rewrite<'a>(route: &Route, body: &'a [u8], advertise: &Advertise) -> Cow<'a, [u8]> {
    let edit = match route.operation {
        operation::VERSIONS => versions,
        operation::WELL_KNOWN => well_known,
        operation::LOGIN => login,
        _ => return Cow::Borrowed(body),
    };
    let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return Cow::Borrowed(body);
    };
    match edit(&mut object, advertise) {
        Some(()) => Cow::Owned(Value::Object(object).to_string().into_bytes()),
        None => Cow::Borrowed(body),
    }
}

/// MSC3079 "Versioning": which features are there, and where.
fn versions(object: &mut Map<String, Value>, advertise: &Advertise) -> Option<()> {
    object.get("versions")?.as_array()?;
    let mut features = json!({ "cbor_enum_version": TABLE_VERSION, "coap_enum_version": TABLE_VERSION });
    if let (Some(port), Some(features)) = (advertise.dtls_port, features.as_object_mut()) {
        features.insert("dtls".to_owned(), json!(port));
    }
    object.insert(LOW_BANDWIDTH.to_owned(), features);
    Some(())
}

fn well_known(object: &mut Map<String, Value>, advertise: &Advertise) -> Option<()> {
    let base_url = advertise.base_url.as_ref()?;
    *object.get_mut("m.homeserver")?.get_mut("base_url")? = json!(base_url);
    Some(())
}

fn login(object: &mut Map<String, Value>, advertise: &Advertise) -> Option<()> {
    well_known(object.get_mut("well_known")?.as_object_mut()?, advertise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::routes;

    fn rewritten(operation: &str, body: &str, advertise: &Advertise) -> String {
        let route = routes().iter().find(|route| route.operation == operation).unwrap();
        String::from_utf8(rewrite(route, body.as_bytes(), advertise).into_owned()).unwrap()
    }

    fn advertise() -> Advertise {
        Advertise { base_url: Some("https://radio.example".to_owned()), dtls_port: Some(8008) }
    }

    #[test]
    fn versions_say_what_the_gateway_can() {
        let body = r#"{"versions":["v1.11"],"unstable_features":{}}"#;
        assert_eq!(
            rewritten(operation::VERSIONS, body, &Advertise::default()),
            r#"{"versions":["v1.11"],"unstable_features":{},"org.matrix.msc3079.low_bandwidth":{"cbor_enum_version":1,"coap_enum_version":1}}"#
        );
        assert!(rewritten(operation::VERSIONS, body, &advertise()).ends_with(r#","dtls":8008}}"#));
    }

    #[test]
    fn base_urls_are_replaced_when_one_is_advertised() {
        let well_known =
            r#"{"m.homeserver":{"base_url":"https://hs"},"m.identity_server":{"base_url":"https://is"}}"#;
        let login = format!(r#"{{"user_id":"@a:b","well_known":{well_known}}}"#);
        let changed = well_known.replace("https://hs", "https://radio.example");
        assert_eq!(rewritten(operation::WELL_KNOWN, well_known, &advertise()), changed);
        assert_eq!(rewritten(operation::LOGIN, &login, &advertise()), login.replace(well_known, &changed));
        assert_eq!(rewritten(operation::WELL_KNOWN, well_known, &Advertise::default()), well_known);
        assert_eq!(rewritten(operation::LOGIN, &login, &Advertise::default()), login);
    }

    #[test]
    fn what_is_not_expected_stays_byte_for_byte() {
        for body in [
            "",
            "<html>",
            "[ ]",
            "{ }",
            r#"{"errcode": "M_UNKNOWN"}"#,
            r#"{"m.homeserver": 1, "well_known": []}"#,
        ] {
            for operation in [operation::VERSIONS, operation::WELL_KNOWN, operation::LOGIN, operation::SYNC] {
                assert_eq!(rewritten(operation, body, &advertise()), body);
            }
        }
    }
}
