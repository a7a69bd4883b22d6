//! One request: find a connection, send, follow redirects on the same server, read the answer within its limits.

use super::connect::{Connector, Trust};
use super::error::{HttpError, shown};
use super::request::{Body, Request};
use super::url::Url;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;

/// Longest time that a file on its way, in either direction, may stand still.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);

/// How long a connection is kept for the next request. Well below the time after which servers hang up on an idle one,
/// so that no request is sent into a connection that is being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Connections kept open for the next request, for one server.
pub const IDLE_CONNECTIONS_MAX: usize = 4;

/// Redirects that are followed, one after the other.
pub const REDIRECTS_MAX: usize = 4;

/// Bytes of a file that are read and sent at once.
const PIECE_BYTES: usize = 256 << 10;

pub(super) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;
type Connection = SendRequest<RequestBody>;
type Server = (bool, String, u16);

/// An HTTP client. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Http {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    idle: Mutex<HashMap<Server, Vec<(Connection, Instant)>>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// A client; nothing is sent yet.
    pub fn new(trust: &Trust) -> Result<Http, HttpError> {
        let inner = Inner { connector: Connector::new(trust)?, idle: Mutex::default() };
        Ok(Http { inner: Arc::new(inner) })
    }

    /// A client that takes every certificate, for servers whose operators say so: who sits between can read and change
    /// everything.
    pub fn unchecked() -> Result<Http, HttpError> {
        let inner = Inner { connector: Connector::unchecked()?, idle: Mutex::default() };
        Ok(Http { inner: Arc::new(inner) })
    }

    /// Sends the request and reads the whole answer, whatever its status.
    pub async fn send(&self, request: Request) -> Result<Answer, HttpError> {
        let (what, limit, max) = (request.name(), request.limit, request.answer_max);
        let has_file = matches!(request.body, Body::File(..));
        let whole = async { self.open(request).await?.read(max).await };
        if has_file {
            return whole.await;
        }
        match tokio::time::timeout(limit, whole).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::TooSlow { what, limit }),
        }
    }

    /// Sends the request; the answer's body is then read piece by piece. Its headers must come within the request's
    /// limit; a file that is sent, and each piece of the answer, may not stand still longer than [`STALL_LIMIT`].
    pub async fn open(&self, mut request: Request) -> Result<Answering, HttpError> {
        if let Some(wrong) = request.wrong.take() {
            return Err(wrong);
        }
        let what = request.name();
        let (method, headers, limit) =
            (request.method.clone(), request.headers.clone(), request.limit);
        let mut url = request.url.clone();
        let mut body = request.body;
        for _ in 0..=REDIRECTS_MAX {
            let outgoing = outgoing(&what, &method, &url, &headers, body)?;
            let (response, connection) = self.exchange(&what, &url, outgoing, limit).await?;
            let Some(to) = redirect(&what, &url, &response)? else {
                return Ok(self.answering(what, url, response, connection));
            };
            if !matches!(method, Method::GET | Method::HEAD) || !url.same_server(&to) {
                return Err(HttpError::Redirected { what, to: to.to_string() });
            }
            url = to;
            body = Body::Bytes(Bytes::new());
        }
        Err(HttpError::Redirected { what, to: url.to_string() })
    }

    fn answering(
        &self,
        what: String,
        url: Url,
        response: Response<Incoming>,
        connection: Connection,
    ) -> Answering {
        let (parts, body) = response.into_parts();
        Answering {
            what,
            status: parts.status,
            headers: parts.headers,
            body,
            back: Some((self.clone(), url, connection)),
        }
    }

    async fn exchange(
        &self,
        what: &str,
        url: &Url,
        outgoing: Outgoing,
        limit: Duration,
    ) -> Result<(Response<Incoming>, Connection), HttpError> {
        let sent = self.transmit(what, url, outgoing.request);
        let too_slow = |limit| HttpError::TooSlow { what: what.to_owned(), limit };
        let Some(progress) = outgoing.progress else {
            return tokio::time::timeout(limit, sent)
                .await
                .unwrap_or_else(|_| Err(too_slow(limit)));
        };
        tokio::pin!(sent);
        let mut seen = 0;
        loop {
            tokio::select! {
                result = &mut sent => return result,
                () = tokio::time::sleep(STALL_LIMIT) => {
                    let now = progress.load(Ordering::Relaxed);
                    if now == seen {
                        return Err(too_slow(STALL_LIMIT));
                    }
                    seen = now;
                }
            }
        }
    }

    async fn transmit(
        &self,
        what: &str,
        url: &Url,
        mut request: hyper::Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Connection), HttpError> {
        let broken = |source: hyper::Error| broken(what, source);
        // A kept connection may have died meanwhile. hyper gives the request back if it was not sent.
        while let Some(mut connection) = self.idle(url) {
            if connection.is_closed() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(refused.into_error())),
                },
            }
        }
        let mut connection = self.inner.connector.connect(url).await?;
        let response = connection.send_request(request).await.map_err(broken)?;
        Ok((response, connection))
    }

    fn idle(&self, url: &Url) -> Option<Connection> {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for kept in idle.values_mut() {
            kept.retain(|(_, since)| since.elapsed() < IDLE_LIMIT);
        }
        idle.retain(|_, kept| !kept.is_empty());
        idle.get_mut(&server(url)).and_then(Vec::pop).map(|(connection, _)| connection)
    }

    fn keep(&self, url: &Url, connection: Connection) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(server(url)).or_default();
        kept.retain(|(connection, _)| !connection.is_closed());
        if !connection.is_closed() && kept.len() < IDLE_CONNECTIONS_MAX {
            kept.push((connection, Instant::now()));
        }
    }
}

fn server(url: &Url) -> Server {
    (url.is_tls(), url.host().to_ascii_lowercase(), url.port())
}

struct Outgoing {
    request: hyper::Request<RequestBody>,
    /// Counts the pieces of a file, to tell one that is slow from one that stands still.
    progress: Option<Arc<AtomicU64>>,
}

fn outgoing(
    what: &str,
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    body: Body,
) -> Result<Outgoing, HttpError> {
    let (length, body, progress) = match body {
        Body::Bytes(bytes) => {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
            (length, body, None)
        }
        Body::File(file, length) => {
            let progress = Arc::new(AtomicU64::new(0));
            let count = progress.clone();
            // A file that grows meanwhile is sent as long as it was.
            let pieces = ReaderStream::with_capacity(file.take(length), PIECE_BYTES);
            let frames = pieces.map(move |piece| {
                count.fetch_add(1, Ordering::Relaxed);
                piece.map(Frame::data)
            });
            (length, StreamBody::new(frames).boxed_unsync(), Some(progress))
        }
    };
    let mut request = hyper::Request::builder()
        .method(method.clone())
        .uri(url.target())
        .body(body)
        .map_err(|_| HttpError::BadUrl { url: what.to_owned(), why: "it cannot be sent" })?;
    *request.headers_mut() = headers.clone();
    let host = HeaderValue::from_str(&url.authority())
        .map_err(|_| HttpError::BadHeader { name: HOST.to_string() })?;
    request.headers_mut().insert(HOST, host);
    request
        .headers_mut()
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("toci/", env!("CARGO_PKG_VERSION"))));
    if length > 0 || matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(Outgoing { request, progress })
}

/// Where an answer redirects to, if it does.
fn redirect(
    what: &str,
    url: &Url,
    response: &Response<Incoming>,
) -> Result<Option<Url>, HttpError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
    let unclear =
        || HttpError::Redirected { what: what.to_owned(), to: "an unclear address".into() };
    let location = location.ok_or_else(unclear)?;
    url.redirected(location).map(Some).map_err(|_| unclear())
}

/// An error of hyper's: of the connection, or of the local file that was to be sent.
fn broken(what: &str, source: hyper::Error) -> HttpError {
    let what = what.to_owned();
    let local: Option<&io::Error> = std::error::Error::source(&source)
        .and_then(|e| e.downcast_ref())
        .filter(|_| source.is_user());
    match local {
        Some(e) => HttpError::File { what, source: io::Error::new(e.kind(), e.to_string()) },
        None => HttpError::Broken { what, source: Box::new(source) },
    }
}

/// An answer whose body is still on its way.
pub struct Answering {
    what: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    /// Where the connection goes when the body was read to its end.
    back: Option<(Http, Url, Connection)>,
}

impl Answering {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// A header, if it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// An error if its status is not 2xx.
    pub async fn well(self) -> Result<Answering, HttpError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let answer = self.read(super::ANSWER_MAX_BYTES).await?;
        Err(answer.unwelcome())
    }

    /// The next piece; `None` at the end. Cancel-safe.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let Ok(frame) = tokio::time::timeout(STALL_LIMIT, self.body.frame()).await else {
                return Err(HttpError::TooSlow { what: self.what.clone(), limit: STALL_LIMIT });
            };
            match frame {
                None => {
                    if let Some((http, url, connection)) = self.back.take() {
                        http.keep(&url, connection);
                    }
                    return Ok(None);
                }
                Some(Err(source)) => {
                    let source = Box::new(source);
                    return Err(HttpError::Broken { what: self.what.clone(), source });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Writes the rest of the body to `to` as it comes; how many bytes it were.
    pub async fn save(mut self, to: &mut (impl AsyncWrite + Unpin)) -> Result<u64, HttpError> {
        let mut total = 0;
        while let Some(piece) = self.piece().await? {
            let file = |source| HttpError::File { what: self.what.clone(), source };
            to.write_all(&piece).await.map_err(file)?;
            total += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
        let flushed = to.flush().await;
        flushed.map_err(|source| HttpError::File { what: self.what.clone(), source })?;
        Ok(total)
    }

    /// The whole answer, if its body is at most `max` bytes.
    pub async fn read(mut self, max: usize) -> Result<Answer, HttpError> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if body.len() + piece.len() > max {
                return Err(HttpError::TooLong { what: self.what, max });
            }
            body.extend_from_slice(&piece);
        }
        let (what, status, headers) = (self.what, self.status, self.headers);
        Ok(Answer { what, status, headers, body: body.freeze() })
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Answering");
        shown.field("what", &self.what).field("status", &self.status).finish_non_exhaustive()
    }
}

/// A whole answer.
#[derive(Clone)]
pub struct Answer {
    what: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// A header, if it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// An error if its status is not 2xx.
    pub fn well(self) -> Result<Answer, HttpError> {
        if self.status.is_success() { Ok(self) } else { Err(self.unwelcome()) }
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Its body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        self.json_after(b"")
    }

    /// Its body as JSON, without a prefix that it may have (Gerrit's `)]}'` and a line end).
    pub fn json_after<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<T, HttpError> {
        let body = self.body.strip_prefix(prefix).unwrap_or(&self.body);
        serde_json::from_slice(body)
            .map_err(|source| HttpError::Unexpected { what: self.what.clone(), source })
    }

    /// The error that a status outside of 2xx is.
    #[must_use]
    pub fn unwelcome(&self) -> HttpError {
        let (what, text) = (self.what.clone(), shown(&self.body));
        HttpError::Status { what, status: self.status(), text }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Answer");
        shown.field("what", &self.what).field("status", &self.status);
        shown.field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}
