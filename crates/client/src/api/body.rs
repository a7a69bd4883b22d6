//! What is sent and received: small JSON in one piece, everything else piece by piece with back-pressure.

use super::error::ClientError;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

/// Bytes read at once from an upload's source.
const UPLOAD_CHUNK_BYTES: usize = 256 * 1024;

/// Body of a request.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// A body in one piece.
pub(super) fn whole(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Bytes to be sent, read as fast as the server takes them.
pub struct Upload {
    pub(super) body: RequestBody,
    pub(super) length: Option<u64>,
    /// Pieces taken so far, to tell a slow upload from one that stands still.
    pub(super) progress: Arc<AtomicU64>,
}

impl Upload {
    /// Everything that `source` yields. `length` in bytes, when it is known, lets the server check that all arrived.
    pub fn from_reader(source: impl AsyncRead + Send + 'static, length: Option<u64>) -> Upload {
        let pieces = ReaderStream::with_capacity(source, UPLOAD_CHUNK_BYTES);
        let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync();
        Upload::counted(body, length)
    }

    /// Bytes that are in memory already.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Upload {
        let bytes = bytes.into();
        let length = u64::try_from(bytes.len()).ok();
        Upload::counted(whole(bytes), length)
    }

    fn counted(body: RequestBody, length: Option<u64>) -> Upload {
        let progress = Arc::new(AtomicU64::new(0));
        let body = Counted { body, length, progress: progress.clone() };
        Upload { body: body.boxed_unsync(), length, progress }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("length", &self.length).finish_non_exhaustive()
    }
}

struct Counted {
    body: RequestBody,
    length: Option<u64>,
    progress: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.progress.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self.length {
            Some(length) => hyper::body::SizeHint::with_exact(length),
            None => self.body.size_hint(),
        }
    }
}

/// Bytes that arrive piece by piece; the server waits while nobody reads.
pub struct Download {
    pub(super) body: Incoming,
    pub(super) server: String,
    pub(super) what: String,
    pub(super) content_type: String,
}

impl Download {
    /// What the server calls it, e.g. `image/png`; empty when it says nothing.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The next piece; `None` at the end. Cancel-safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(ClientError::Broken {
                        server: self.server.clone(),
                        what: self.what.clone(),
                        source: Box::new(source),
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Everything, if it is at most `max` bytes.
    pub async fn collect(mut self, max: usize) -> Result<Bytes, ClientError> {
        let mut all = bytes::BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            if all.len() + piece.len() > max {
                return Err(ClientError::Protocol {
                    server: self.server,
                    what: self.what,
                    reason: format!("it is longer than {max} bytes"),
                });
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("what", &self.what).finish_non_exhaustive()
    }
}
