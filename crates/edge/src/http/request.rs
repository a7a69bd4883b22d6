//! What is asked.

use super::error::HttpError;
use super::secret::Secret;
use super::url::Url;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::time::Duration;
use tokio::fs::File;

/// Longest wait for an answer, from the first byte sent to the last one read, unless the request says otherwise.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Longest answer that is read as a whole unless the request says otherwise, in bytes.
pub const ANSWER_MAX_BYTES: usize = 16 << 20;

/// What is sent after the headers.
pub(super) enum Body {
    /// These bytes.
    Bytes(Bytes),
    /// So many bytes of a file, from where it stands.
    File(File, u64),
}

/// One request. Credentials in it do not show in `Debug`.
pub struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) limit: Duration,
    pub(super) answer_max: usize,
    /// The first thing that was wrong with it; told when it is sent.
    pub(super) wrong: Option<HttpError>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, url: &Url) -> Request {
        Request {
            method,
            url: url.clone(),
            headers: HeaderMap::new(),
            body: Body::Bytes(Bytes::new()),
            limit: ANSWER_LIMIT,
            answer_max: ANSWER_MAX_BYTES,
            wrong: None,
        }
    }

    /// GET.
    #[must_use]
    pub fn get(url: &Url) -> Request {
        Request::new(Method::GET, url)
    }

    /// POST.
    #[must_use]
    pub fn post(url: &Url) -> Request {
        Request::new(Method::POST, url)
    }

    /// PUT.
    #[must_use]
    pub fn put(url: &Url) -> Request {
        Request::new(Method::PUT, url)
    }

    /// DELETE.
    #[must_use]
    pub fn delete(url: &Url) -> Request {
        Request::new(Method::DELETE, url)
    }

    /// One more header; one of the same name is replaced. `Host`, lengths and connection headers are the client's own.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Request {
        self.put_header(name, value, false)
    }

    /// As [`Request::header`], with a value that is never shown.
    #[must_use]
    pub fn secret_header(self, name: &str, value: &str) -> Request {
        self.put_header(name, value, true)
    }

    fn put_header(mut self, name: &str, value: &str, secret: bool) -> Request {
        match (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(secret);
                self.headers.insert(name, value);
            }
            (_, _) => {
                let name = name.chars().take(80).collect();
                self.wrong.get_or_insert(HttpError::BadHeader { name });
            }
        }
        self
    }

    /// Basic authentication.
    #[must_use]
    pub fn basic(self, user: &str, password: &Secret) -> Request {
        let pair = STANDARD.encode(format!("{user}:{}", password.reveal()));
        self.secret_header(AUTHORIZATION.as_str(), &format!("Basic {pair}"))
    }

    /// Authentication by a token.
    #[must_use]
    pub fn bearer(self, token: &Secret) -> Request {
        self.secret_header(AUTHORIZATION.as_str(), &format!("Bearer {}", token.reveal()))
    }

    /// These bytes as its body.
    #[must_use]
    pub fn body(mut self, content_type: &str, bytes: impl Into<Bytes>) -> Request {
        self.body = Body::Bytes(bytes.into());
        self.header(CONTENT_TYPE.as_str(), content_type)
    }

    /// JSON as its body.
    #[must_use]
    pub fn json(self, value: &serde_json::Value) -> Request {
        self.body("application/json", value.to_string())
    }

    /// The first `length` bytes of a file, from where it stands, as its body: read while they are sent.
    #[must_use]
    pub fn upload(mut self, content_type: &str, file: File, length: u64) -> Request {
        self.body = Body::File(file, length);
        self.header(CONTENT_TYPE.as_str(), content_type)
    }

    /// Another limit for the answer. Requests with a file as body, and answers that are read piece by piece, are limited
    /// by [`super::STALL_LIMIT`] instead.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Request {
        self.limit = limit;
        self
    }

    /// Another limit for the answer's length, in bytes.
    #[must_use]
    pub fn answer_max(mut self, bytes: usize) -> Request {
        self.answer_max = bytes;
        self
    }

    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.url)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}
