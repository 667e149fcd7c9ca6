//! OAuth 2.0 device authorization (RFC 8628), as the client-server API v1.19 §"OAuth 2.0 API" has it: the gateway registers itself
//! (RFC 7591), shows a code, and asks until somebody has allowed it in a browser elsewhere.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time;
use zeroize::Zeroizing;

use super::Body;
use super::Homeserver;
use super::LoginError;
use crate::coap::Instant;
use crate::device::Renewal;
use crate::device::Secret;
use crate::device::Tokens;

/// An authorization server, by its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    registration: String,
    device_authorization: String,
    token: String,
}

/// What a server says of itself (RFC 8414), as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    registration_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    token_endpoint: String,
    #[serde(default)]
    grant_types_supported: Vec<String>,
}

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

impl Server {
    /// None where it has no device authorization, or takes nobody in.
    ///
    /// # Errors
    /// A homeserver that is asked over TLS names an endpoint that is not: codes and tokens would go there in clear.
    pub(super) fn read(metadata: Metadata, is_over_tls: bool) -> Result<Option<Self>, LoginError> {
        let grants = metadata.grant_types_supported;
        if !grants.is_empty() && !grants.iter().any(|grant| grant == DEVICE_CODE) {
            return Ok(None);
        }
        let (Some(registration), Some(device_authorization)) =
            (metadata.registration_endpoint, metadata.device_authorization_endpoint)
        else {
            return Ok(None);
        };
        let server = Self { registration, device_authorization, token: metadata.token_endpoint };
        let endpoints = [&server.registration, &server.device_authorization, &server.token];
        let is_clear =
            |url: &&&String| !url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        match endpoints.iter().find(is_clear) {
            Some(url) if is_over_tls => Err(LoginError::Clear((*url).clone())),
            _ => Ok(Some(server)),
        }
    }
}

/// What is shown to somebody with a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The page.
    pub url: String,
    /// The page with the code in it already.
    pub complete_url: Option<String>,
    /// The code.
    pub code: String,
    /// How long it holds.
    pub life: Duration,
}

/// A login that somebody has to allow.
#[derive(Debug)]
pub struct Pending {
    server: Server,
    client_id: String,
    device_code: Secret,
    /// RFC 8628 §3.2: between two questions.
    interval: Duration,
    life: Duration,
}

impl Homeserver {
    /// The longest that a code is waited for.
    const LONGEST_LIFE: Duration = Duration::from_secs(3600);

    /// Begins a login: registers the gateway as a client, and asks for a code. `device_id` is that of the new Matrix device, which
    /// is drawn at random.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn authorize(
        &self,
        server: Server,
        display_name: &str,
        device_id: &str,
    ) -> Result<(Prompt, Pending), LoginError> {
        #[derive(Deserialize)]
        struct Registered {
            client_id: String,
        }
        #[derive(Deserialize)]
        struct Authorization {
            device_code: String,
            user_code: String,
            verification_uri: String,
            verification_uri_complete: Option<String>,
            expires_in: u64,
            #[serde(default = "interval")]
            interval: u64,
        }
        /// RFC 8628 §3.2: as long where the server does not say.
        fn interval() -> u64 {
            5
        }
        let client = json!({
            "client_name": display_name,
            "client_uri": "https://crates.io/crates/lowband",
            "application_type": "native",
            "grant_types": [DEVICE_CODE, "refresh_token"],
            "token_endpoint_auth_method": "none",
        });
        let body = Body::Json(Zeroizing::new(client.to_string()));
        let registered: Registered = self.call(Method::POST, &server.registration, body, None).await?;
        let scope = format!("urn:matrix:client:api:* urn:matrix:client:device:{device_id}");
        let body = form(&[("client_id", &registered.client_id), ("scope", &scope)]);
        let given: Authorization = self.call(Method::POST, &server.device_authorization, body, None).await?;
        // They are shown on a terminal.
        let complete = given.verification_uri_complete.as_deref().unwrap_or_default();
        let shown = [given.verification_uri.as_str(), complete, given.user_code.as_str()];
        if shown.iter().any(|text| text.contains(char::is_control)) {
            return Err(LoginError::Answer { url: server.device_authorization });
        }
        let life = Duration::from_secs(given.expires_in).min(Self::LONGEST_LIFE);
        let prompt = Prompt {
            url: given.verification_uri,
            complete_url: given.verification_uri_complete,
            code: given.user_code,
            life,
        };
        let pending = Pending {
            server,
            client_id: registered.client_id,
            device_code: Secret::new(given.device_code),
            interval: Duration::from_secs(given.interval.clamp(1, 60)),
            life,
        };
        Ok((prompt, pending))
    }

    /// Asks until somebody has allowed it. `now` is the moment of this call.
    ///
    /// # Errors
    /// Nobody has in time, somebody has refused, or see [`LoginError`].
    pub async fn wait(&self, mut pending: Pending, now: Instant) -> Result<Tokens, LoginError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            refresh_token: Option<String>,
            expires_in: Option<u64>,
        }
        let code = pending.device_code.expose_text().unwrap_or_default().to_owned();
        let code = Zeroizing::new(code);
        let mut waited = Duration::ZERO;
        loop {
            time::sleep(pending.interval).await;
            waited += pending.interval;
            if waited > pending.life {
                return Err(LoginError::Expired);
            }
            let fields =
                [("grant_type", DEVICE_CODE), ("device_code", &code), ("client_id", &pending.client_id)];
            let answer = self.call(Method::POST, &pending.server.token, form(&fields), None).await;
            let granted: Granted = match answer {
                Ok(granted) => granted,
                // RFC 8628 §3.5.
                Err(LoginError::Refused { error, .. }) if error == "authorization_pending" => continue,
                Err(LoginError::Refused { error, .. }) if error == "slow_down" => {
                    pending.interval += Duration::from_secs(5);
                    continue;
                }
                Err(LoginError::Refused { error, .. }) if error == "access_denied" => {
                    return Err(LoginError::Denied);
                }
                Err(LoginError::Refused { error, .. }) if error == "expired_token" => {
                    return Err(LoginError::Expired);
                }
                // As above: a connection that broke off is tried again, more rarely.
                Err(LoginError::Unreachable { .. }) => {
                    pending.interval = (pending.interval * 2).min(Duration::from_secs(60));
                    continue;
                }
                Err(error) => return Err(error),
            };
            return Ok(Tokens {
                access: Secret::new(granted.access_token),
                refresh: granted.refresh_token.map(Secret::new),
                expires: granted.expires_in.map(|life| now + waited + Duration::from_secs(life)),
                renewal: Renewal::OAuth {
                    token_endpoint: pending.server.token,
                    client_id: pending.client_id,
                },
            });
        }
    }
}

fn form(fields: &[(&str, &str)]) -> Body {
    Body::Form(Zeroizing::new(crate::device::form(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(token: &str, is_over_tls: bool) -> Result<Option<Server>, LoginError> {
        let metadata = json!({
            "registration_endpoint": "https://auth.example/register",
            "device_authorization_endpoint": "HTTPS://auth.example/device",
            "token_endpoint": token,
        });
        Server::read(serde_json::from_value(metadata).unwrap(), is_over_tls)
    }

    #[test]
    fn endpoints_without_tls_are_refused_where_the_homeserver_has_it() {
        assert!(read("https://auth.example/token", true).unwrap().is_some());
        let clear = read("http://auth.example/token", true);
        assert!(
            matches!(&clear, Err(LoginError::Clear(url)) if url == "http://auth.example/token"),
            "{clear:?}"
        );
        assert!(read("http://auth.example/token", false).unwrap().is_some(), "all of it is on one machine");
        assert!(matches!(read("é", true), Err(LoginError::Clear(_))));
    }
}
