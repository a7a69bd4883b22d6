//! One call: find a connection, send, wait for the answer within its limit, read it.

use super::body::{Download, RequestBody, Upload, whole};
use super::connect::Connector;
use super::endpoint::Endpoint;
use super::error::ClientError;
use super::secret::Token;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use toci_wire::api::{ApiError, ErrorBody, ErrorKind, PREFIX};

/// Longest wait for the answer to a plain call.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Longest wait for the answer to something that a host has to do first (power, screenshot, console).
pub const OPERATION_LIMIT: Duration = Duration::from_secs(120);

/// Longest time that an upload may stand still, and that its answer may take after its last byte.
pub const STALL_LIMIT: Duration = Duration::from_secs(120);

/// Longest JSON answer that is accepted, in bytes (lists of many thousand TEs fit).
pub const ANSWER_MAX_BYTES: usize = 64 << 20;

/// How long a connection is kept for the next call. Well below the time after which a server hangs up on an idle
/// one, so that no call is sent into a connection that is being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Connections kept open for the next call, for one client.
pub const IDLE_CONNECTIONS_MAX: usize = 4;

/// A client of one server with one token. Cheap to clone.
#[derive(Clone)]
pub struct ApiClient {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    token: Option<Token>,
    host_header: HeaderValue,
    idle: Mutex<Vec<(SendRequest<RequestBody>, Instant)>>,
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiClient").field("server", self.server()).finish_non_exhaustive()
    }
}

/// What is to be called.
pub(super) struct Call {
    method: Method,
    path: String,
    limit: Duration,
}

impl Call {
    /// `path` comes after `/api/v1`.
    pub(super) fn new(method: Method, path: String) -> Call {
        Call { method, path, limit: ANSWER_LIMIT }
    }

    pub(super) fn within(self, limit: Duration) -> Call {
        Call { limit, ..self }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl ApiClient {
    /// A client; nothing is sent yet. `ca` is PEM and needed for `https://` only. Without `token` only
    /// enrolment and health can be called.
    pub fn new(
        server: Endpoint,
        token: Option<Token>,
        ca: Option<&[u8]>,
    ) -> Result<ApiClient, ClientError> {
        let host_header = HeaderValue::from_str(&server.host_header())
            .unwrap_or(HeaderValue::from_static("toci"));
        let connector = Connector::new(server, ca)?;
        let idle = Mutex::new(Vec::new());
        Ok(ApiClient { inner: Arc::new(Inner { connector, token, host_header, idle }) })
    }

    /// The same server with another token (a host after its enrolment).
    #[must_use]
    pub fn with_token(&self, token: Token) -> ApiClient {
        let inner = Inner {
            connector: self.inner.connector.clone(),
            token: Some(token),
            host_header: self.inner.host_header.clone(),
            idle: Mutex::new(Vec::new()),
        };
        ApiClient { inner: Arc::new(inner) }
    }

    /// Where the server is.
    #[must_use]
    pub fn server(&self) -> &Endpoint {
        self.inner.connector.endpoint()
    }

    /// JSON out of an empty request.
    pub(super) async fn ask<A: DeserializeOwned>(&self, call: Call) -> Result<A, ClientError> {
        let body = self.exchange(&call, None, Bytes::new()).await?;
        self.parse(&call, &body)
    }

    /// JSON for JSON.
    pub(super) async fn tell<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: Call,
        question: &Q,
    ) -> Result<A, ClientError> {
        let body = self.exchange(&call, Some("application/json"), self.json(&call, question)?);
        let body = body.await?;
        self.parse(&call, &body)
    }

    /// Nothing for JSON.
    pub(super) async fn notify<Q: Serialize>(
        &self,
        call: Call,
        question: &Q,
    ) -> Result<(), ClientError> {
        let json = self.json(&call, question)?;
        self.exchange(&call, Some("application/json"), json).await.map(drop)
    }

    /// Nothing for an empty request.
    pub(super) async fn order(&self, call: Call) -> Result<(), ClientError> {
        self.exchange(&call, None, Bytes::new()).await.map(drop)
    }

    /// Text for an empty request.
    pub(super) async fn text(&self, call: Call) -> Result<String, ClientError> {
        let body = self.exchange(&call, None, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// A stream of bytes; only its beginning has a time limit.
    pub(super) async fn download(
        &self,
        call: Call,
        accept: &'static str,
    ) -> Result<Download, ClientError> {
        let mut request = self.request(&call, whole(Bytes::new()))?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        let (response, _connection) = self.limited(&call, self.send(&call, request)).await?;
        let download = self.as_download(&call, response);
        if download.0.is_success() {
            Ok(download.1)
        } else {
            Err(self.refusal(&call, download).await)
        }
    }

    /// JSON for a stream of bytes; the limit is on standing still, not on the whole.
    pub(super) async fn upload<A: DeserializeOwned>(
        &self,
        call: Call,
        upload: Upload,
    ) -> Result<A, ClientError> {
        let progress = upload.progress.clone();
        let exchange = self.send_all(&call, upload);
        tokio::pin!(exchange);
        let mut seen = 0;
        let body = loop {
            tokio::select! {
                result = &mut exchange => break result?,
                () = tokio::time::sleep(STALL_LIMIT) => {
                    let now = progress.load(Ordering::Relaxed);
                    if now == seen {
                        return Err(self.too_slow(&call, STALL_LIMIT));
                    }
                    seen = now;
                }
            }
        };
        self.parse(&call, &body)
    }

    /// Sends bytes as they come into being, e.g. a console, which may be silent for long: without a time limit.
    pub(super) async fn upload_stream(
        &self,
        call: Call,
        upload: Upload,
    ) -> Result<(), ClientError> {
        self.send_all(&call, upload).await.map(drop)
    }

    async fn send_all(&self, call: &Call, upload: Upload) -> Result<Bytes, ClientError> {
        let mut request = self.request(call, upload.body)?;
        let octets = HeaderValue::from_static("application/octet-stream");
        request.headers_mut().insert(CONTENT_TYPE, octets);
        if let Some(length) = upload.length {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let (response, _connection) = self.send(call, request).await?;
        self.read(call, response).await
    }

    async fn exchange(
        &self,
        call: &Call,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let mut request = self.request(call, whole(body))?;
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let whole_exchange = async {
            let (response, connection) = self.send(call, request).await?;
            let body = self.read(call, response).await;
            // Only an answer that was read to its end leaves the connection ready for the next call.
            if matches!(body, Ok(_) | Err(ClientError::Api { .. })) {
                self.keep(connection);
            }
            body
        };
        self.limited(call, whole_exchange).await
    }

    fn request(&self, call: &Call, body: RequestBody) -> Result<Request<RequestBody>, ClientError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{PREFIX}{}", call.path))
            .header(HOST, self.inner.host_header.clone())
            .header(USER_AGENT, concat!("toci/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .body(body)
            .map_err(|e| self.protocol(call, e.to_string()))?;
        if let Some(header) = self.inner.token.as_ref().and_then(Token::header) {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        Ok(request)
    }

    async fn send(
        &self,
        call: &Call,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, SendRequest<RequestBody>), ClientError> {
        // A kept connection may have died meanwhile. hyper gives the request back if it was not sent.
        while let Some(mut connection) = self.idle() {
            if connection.is_closed() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.broken(call, refused.into_error())),
                },
            }
        }
        let mut connection = self.inner.connector.connect().await?;
        match connection.send_request(request).await {
            Ok(response) => Ok((response, connection)),
            Err(error) => Err(self.broken(call, error)),
        }
    }

    async fn read(&self, call: &Call, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let (status, download) = self.as_download(call, response);
        if status.is_success() {
            download.collect(ANSWER_MAX_BYTES).await
        } else {
            Err(self.refusal(call, (status, download)).await)
        }
    }

    fn as_download(&self, call: &Call, response: Response<Incoming>) -> (StatusCode, Download) {
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let download = Download {
            content_type: content_type.unwrap_or_default().to_owned(),
            server: self.server().to_string(),
            what: call.name(),
            body: response.into_body(),
        };
        (status, download)
    }

    async fn refusal(&self, call: &Call, (status, body): (StatusCode, Download)) -> ClientError {
        let body = match tokio::time::timeout(ANSWER_LIMIT, body.collect(ANSWER_MAX_BYTES)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return error,
            Err(_) => return self.too_slow(call, ANSWER_LIMIT),
        };
        if let Ok(ErrorBody { error }) = serde_json::from_slice(&body) {
            return ClientError::Api { status: status.as_u16(), error };
        }
        if status.is_server_error() {
            // A proxy before the server speaks for itself: the world's fault all the same.
            let error = ApiError {
                kind: ErrorKind::Failed,
                code: "http_error".to_owned(),
                message: format!("the server answered {status}"),
                hint: String::new(),
            };
            return ClientError::Api { status: status.as_u16(), error };
        }
        self.protocol(call, format!("{status} without toci's error body"))
    }

    fn json<Q: Serialize>(&self, call: &Call, question: &Q) -> Result<Bytes, ClientError> {
        serde_json::to_vec(question)
            .map(Bytes::from)
            .map_err(|e| self.protocol(call, format!("the question is not JSON: {e}")))
    }

    fn parse<A: DeserializeOwned>(&self, call: &Call, body: &[u8]) -> Result<A, ClientError> {
        serde_json::from_slice(body).map_err(|e| self.protocol(call, e.to_string()))
    }

    fn idle(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE_LIMIT);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: SendRequest<RequestBody>) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(kept, _)| !kept.is_closed());
        if !connection.is_closed() && idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push((connection, Instant::now()));
        }
    }

    async fn limited<T>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(call.limit, work).await {
            Ok(result) => result,
            Err(_) => Err(self.too_slow(call, call.limit)),
        }
    }

    fn too_slow(&self, call: &Call, limit: Duration) -> ClientError {
        ClientError::TooSlow { server: self.server().to_string(), what: call.name(), limit }
    }

    fn broken(&self, call: &Call, source: hyper::Error) -> ClientError {
        // Our own fault, and no reason to try again: what was to be sent could not be read.
        let unread = std::error::Error::source(&source).and_then(|e| e.downcast_ref());
        if let Some(error) = unread.filter(|_| source.is_user()) {
            let error: &std::io::Error = error;
            return ClientError::Source(std::io::Error::new(error.kind(), error.to_string()));
        }
        ClientError::Broken {
            server: self.server().to_string(),
            what: call.name(),
            source: Box::new(source),
        }
    }

    fn protocol(&self, call: &Call, reason: String) -> ClientError {
        ClientError::Protocol { server: self.server().to_string(), what: call.name(), reason }
    }
}

/// One part of a path, with everything quoted that is not plain.
pub(super) fn part(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'.') {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    // A lone dot or two would be taken for "here" and "up" on the way.
    if quoted.chars().all(|c| c == '.') { quoted.replace('.', "%2E") } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_parts_are_quoted() {
        assert_eq!(part("tehost1-2"), "tehost1-2");
        assert_eq!(part("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
        assert_eq!(part(".."), "%2E%2E");
    }
}
