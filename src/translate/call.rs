//! One call of the Matrix API, as a CoAP request means it.

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Uri;
use http::header;
use http::uri::PathAndQuery;

use crate::matrix;
use crate::matrix::Target;
use crate::translate::body::Format;
use crate::translate::refusal::Refusal;

/// A call to the homeserver, with all that is needed to make it again and to write its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path and the route it is.
    pub target: Target,
    /// The parameters of the query, decoded, in order: [`matrix::query`] reads and changes them.
    pub query: Vec<String>,
    /// The `Authorization` header; its `Debug` does not show it.
    pub authorization: Option<HeaderValue>,
    /// The body as JSON, or nothing.
    pub body: Bytes,
    /// How the peer wants the answer.
    pub format: Format,
}

impl Call {
    /// The HTTP request to the homeserver at `base`: a scheme, an authority, and a path to put in front.
    ///
    /// # Errors
    /// [`Refusal::UriTooLong`] where the `http` crate takes no URL of that length, 65,534 bytes.
    pub fn to_http(&self, base: &Uri) -> Result<Request<Bytes>, Refusal> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri(base)?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        if !self.body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        Ok(request)
    }

    fn uri(&self, base: &Uri) -> Result<Uri, Refusal> {
        let mut text = base.path().trim_end_matches('/').to_owned();
        text.push_str(&self.target.path);
        let options: Vec<&str> = self.query.iter().map(String::as_str).collect();
        let query = matrix::expand_query(&options);
        if !query.is_empty() {
            text.push('?');
            text.push_str(&query);
        }
        let mut parts = base.clone().into_parts();
        // Paths and queries are encoded; their length is all that may be wrong.
        parts.path_and_query = Some(PathAndQuery::try_from(text).map_err(|_| Refusal::UriTooLong)?);
        Uri::from_parts(parts).map_err(|_| Refusal::UriTooLong)
    }
}
