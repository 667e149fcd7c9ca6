//! Getting tokens for a device: with a password, or by OAuth 2.0 device authorization (`oauth`), and asking whose they are.
//!
//! Follows the client-server API v1.19 §"Client authentication". What a homeserver says is told as it is; what was sent to it never is.

pub mod oauth;

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::Uri;
use http::header;
use http::uri::Scheme;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use thiserror::Error;
use zeroize::Zeroizing;

use super::upstream;
use super::upstream::Upstream;
use crate::coap::Instant;
use crate::device::Renewal;
use crate::device::Secret;
use crate::device::Tokens;
use crate::gateway::FetchError;

/// A homeserver to log in at.
#[derive(Debug)]
pub struct Homeserver {
    config: upstream::Config,
    upstream: Upstream,
}

/// The ways in that a homeserver offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    /// With a password.
    pub password: bool,
    /// By OAuth 2.0 device authorization.
    pub oauth: Option<oauth::Server>,
}

/// Whose an access token is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Owner {
    /// The user.
    pub user_id: String,
    /// The Matrix device, where the token is of one.
    pub device_id: Option<String>,
}

impl Homeserver {
    const TIMEOUT: Duration = Duration::from_secs(30);

    /// A homeserver that nobody has spoken with yet.
    ///
    /// # Errors
    /// Certificates that are needed and cannot be read.
    pub fn new(config: upstream::Config) -> Result<Self, upstream::ConfigError> {
        Ok(Self { upstream: Upstream::new(&config)?, config })
    }

    /// Asks which ways in there are.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn flows(&self) -> Result<Flows, LoginError> {
        #[derive(Deserialize)]
        struct Answer {
            flows: Vec<Flow>,
        }
        #[derive(Deserialize)]
        struct Flow {
            r#type: String,
        }
        let oauth = match self.get("/_matrix/client/v1/auth_metadata", None).await {
            // Not every server of OAuth 2.0 has device authorization.
            Ok(metadata) => oauth::Server::read(metadata, self.is_over_tls())?,
            Err(LoginError::Refused { status: 404 | 405, .. }) => None,
            Err(error) => return Err(error),
        };
        let answer: Result<Answer, _> = self.get("/_matrix/client/v3/login", None).await;
        let password = match answer {
            Ok(answer) => answer.flows.iter().any(|flow| flow.r#type == "m.login.password"),
            Err(LoginError::Refused { .. }) if oauth.is_some() => false,
            Err(error) => return Err(error),
        };
        Ok(Flows { password, oauth })
    }

    /// Logs in with a password, as a new Matrix device of this name.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn password(
        &self,
        user_id: &str,
        password: &str,
        display_name: &str,
        now: Instant,
    ) -> Result<Tokens, LoginError> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
            refresh_token: Option<String>,
            expires_in_ms: Option<u64>,
        }
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": user_id },
            "password": password,
            "initial_device_display_name": display_name,
            "refresh_token": true,
        });
        let body = Body::Json(Zeroizing::new(body.to_string()));
        let answer: Answer =
            self.call(Method::POST, &self.url("/_matrix/client/v3/login"), body, None).await?;
        Ok(Tokens {
            access: Secret::new(answer.access_token),
            refresh: answer.refresh_token.map(Secret::new),
            expires: answer.expires_in_ms.map(|life| now + Duration::from_millis(life)),
            renewal: Renewal::Homeserver,
        })
    }

    /// Asks whose an access token is.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn owner(&self, tokens: &Tokens) -> Result<Owner, LoginError> {
        self.get("/_matrix/client/v3/account/whoami", Some(tokens)).await
    }

    /// Asks whose an access token is, and refuses it if it is not this user's.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn check(&self, tokens: &Tokens, user_id: &str) -> Result<Owner, LoginError> {
        let owner = self.owner(tokens).await?;
        match owner.user_id == user_id {
            true => Ok(owner),
            false => Err(LoginError::OtherUser { user_id: user_id.to_owned(), owner: owner.user_id }),
        }
    }

    fn is_over_tls(&self) -> bool {
        self.config.homeserver.scheme() == Some(&Scheme::HTTPS)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.config.homeserver.to_string().trim_end_matches('/'))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, tokens: Option<&Tokens>) -> Result<T, LoginError> {
        self.call(Method::GET, &self.url(path), Body::None, tokens).await
    }

    /// One call; the answer's body, if it is of success and is as expected.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Body,
        tokens: Option<&Tokens>,
    ) -> Result<T, LoginError> {
        let response = self.fetch(method, url, body, tokens).await?;
        if !response.status().is_success() {
            return Err(refused(url, &response));
        }
        serde_json::from_slice(response.body()).map_err(|_| LoginError::Answer { url: url.to_owned() })
    }

    async fn fetch(
        &self,
        method: Method,
        url: &str,
        body: Body,
        tokens: Option<&Tokens>,
    ) -> Result<Response<Bytes>, LoginError> {
        let no_url = || LoginError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        let mut request = Request::builder().method(method).uri(&uri);
        if let Some(tokens) = tokens {
            let token = tokens.access.expose_text().ok_or(LoginError::Token)?;
            let mut value =
                http::HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| LoginError::Token)?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(kind) = body.content_type() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request.body(body.bytes()).map_err(|_| no_url())?;
        let upstream = self.upstream_of(&uri)?;
        let answered = upstream.fetch(request, Self::TIMEOUT).await;
        answered.map_err(|source| LoginError::Unreachable { url: url.to_owned(), source })
    }

    /// The way to a server that may be another than the homeserver, and so need certificates where that does not.
    fn upstream_of(&self, uri: &Uri) -> Result<Upstream, LoginError> {
        if uri.scheme() == self.config.homeserver.scheme() {
            return Ok(self.upstream.clone());
        }
        let config = upstream::Config { homeserver: uri.clone(), ..self.config.clone() };
        Upstream::new(&config).map_err(LoginError::Certificates)
    }
}

/// What a call sends.
enum Body {
    None,
    Json(Zeroizing<String>),
    Form(Zeroizing<String>),
}

impl Body {
    fn content_type(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Json(_) => Some("application/json"),
            Self::Form(_) => Some("application/x-www-form-urlencoded"),
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::Json(text) | Self::Form(text) => Bytes::copy_from_slice(text.as_bytes()),
        }
    }
}

fn refused(url: &str, response: &Response<Bytes>) -> LoginError {
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let field = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let said: Vec<&str> = ["errcode", "error", "error_description"].into_iter().filter_map(field).collect();
    let said: String = said.join(": ").chars().filter(|c| !c.is_control()).take(300).collect();
    LoginError::Refused {
        url: url.to_owned(),
        status: response.status().as_u16(),
        error: field("error").unwrap_or_default().to_owned(),
        said,
    }
}

/// Why there are no tokens.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoginError {
    /// A server refuses.
    #[error("{url} refuses: HTTP {status}{}{said}", if said.is_empty() { "" } else { ", " })]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The field `error` of the answer.
        error: String,
        /// All that the answer says, on one line.
        said: String,
    },
    /// A server does not answer.
    #[error("{url} does not answer: {source}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why there is no answer.
        source: FetchError,
    },
    /// A server answers something else than it should.
    #[error("the answer of {url} is none that is understood")]
    Answer {
        /// What was asked for.
        url: String,
    },
    /// A server names a URL that is none.
    #[error("{0:?} is no URL")]
    Url(String),
    /// A homeserver with TLS names a URL without.
    #[error("the homeserver names {0:?} to log in at, where secrets would go in clear")]
    Clear(String),
    /// The token is no text for a header.
    #[error("the access token is none: it has characters that no token has")]
    Token,
    /// The token is another user's.
    #[error("the access token is {owner}'s, and not {user_id}'s")]
    OtherUser {
        /// Whose it should be.
        user_id: String,
        /// Whose it is.
        owner: String,
    },
    /// Nobody has allowed the device in time.
    #[error("nobody has allowed the device in time")]
    Expired,
    /// Somebody has refused.
    #[error("it was not allowed")]
    Denied,
    /// Certificates for a server that is not the homeserver.
    #[error(transparent)]
    Certificates(upstream::ConfigError),
}
