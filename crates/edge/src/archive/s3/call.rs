//! One bucket, and requests to it: signed, tried again where that may help.

use super::archive::ATTEMPTS_MAX;
use super::listing::{Listed, listed};
use super::put::{Kind, encoded};
use super::sign::{Signer, Unsigned};
use crate::archive::{ArchiveError, LISTED_MAX, Object};
use crate::http::{Answer, Answering, Http, HttpError, Method, Request, Url, quote};
use futures_util::{StreamExt, TryStreamExt, stream};
use ring::digest::{SHA256, digest};
use std::io;
use std::time::Duration;
use toci_core::hex::hex;
use toci_core::pause::Pause;
use tokio_util::io::StreamReader;

/// Files that are sent or removed at the same time.
pub(super) const SENT_AT_ONCE: usize = 4;
/// Answers to one listing that are asked for at most; each has up to 1,000 keys.
const LIST_PAGES_MAX: usize = 50;
/// Pause after the first attempt; each further one is twice as long ...
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// ... up to this.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Longest error that is read, in bytes.
const ERROR_MAX_BYTES: usize = 64 << 10;

/// A bucket, and who we are there.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) http: Http,
    pub(super) endpoint: Url,
    pub(super) signer: Signer,
    pub(super) name: String,
    /// Larger files are sent in parts of this size.
    pub(super) part_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Listed>,
    pub(super) is_cut: bool,
}

/// How often one request was tried, and how long to wait before the next time.
#[derive(Debug)]
pub(super) struct Tries {
    made: u32,
    pause: Pause,
}

impl Tries {
    pub(super) fn new() -> Tries {
        Tries { made: 0, pause: Pause::new(PAUSE_MIN, PAUSE_MAX) }
    }

    /// Waits if it is worth another one.
    pub(super) async fn again(&mut self, error: &ArchiveError) -> bool {
        self.made += 1;
        let passes = match error {
            ArchiveError::Remote { source, .. } => source.may_pass(),
            ArchiveError::Full { .. } | ArchiveError::Io { .. } | ArchiveError::Unclear { .. } => {
                false
            }
        };
        if !passes || self.made >= ATTEMPTS_MAX {
            return false;
        }
        tracing::debug!(?error, attempt = self.made, "a request to the log store is tried again");
        tokio::time::sleep(self.pause.longer()).await;
        true
    }
}

impl Bucket {
    /// A request with a short text.
    pub(super) async fn call(
        &self,
        method: Method,
        key: &str,
        query: &[(String, String)],
        text: &str,
        kind: Option<Kind>,
    ) -> Result<Answer, ArchiveError> {
        let what = match method {
            Method::DELETE => "delete",
            Method::GET => "list",
            _ => "put",
        };
        let hash = hex(digest(&SHA256, text.as_bytes()).as_ref());
        let mut tries = Tries::new();
        loop {
            let request = self.signed(method.clone(), key, query, &hash);
            let of = kind.map_or("application/xml", |kind| kind.of);
            let request =
                if method == Method::POST { request.body(of, text.to_owned()) } else { request };
            let sent = self.http.send(encoded(request, kind)).await;
            match sent.and_then(Answer::well).map_err(remote(what, key)) {
                Err(error) if tries.again(&error).await => {}
                done => return done,
            }
        }
    }

    /// The object of a key; none: there is none.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Object>, ArchiveError> {
        let mut tries = Tries::new();
        let answer = loop {
            let request = self.signed(Method::GET, key, &[], EMPTY);
            let answer = match self.http.open(request).await {
                Ok(answer) if answer.status() == 404 => {
                    // Read to its end, so that the connection can be used again.
                    let _ = answer.read(ERROR_MAX_BYTES).await;
                    return Ok(None);
                }
                Ok(answer) => answer.well().await,
                Err(error) => Err(error),
            };
            match answer.map_err(remote("get", key)) {
                Err(error) if tries.again(&error).await => {}
                done => break done?,
            }
        };
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        let bytes = length.ok_or_else(|| unclear(key, "the answer has no length".to_owned()))?;
        let is_text = answer.header("content-encoding") == Some("gzip");
        let pieces = stream::try_unfold(answer, async |mut answer: Answering| {
            let piece = answer.piece().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(piece.map(|piece| (piece, answer)))
        });
        Ok(Some(Object { is_text, bytes, body: Box::pin(StreamReader::new(Box::pin(pieces))) }))
    }

    /// Removes these keys; they may be gone.
    pub(super) async fn delete(&self, keys: Vec<String>) -> Result<(), ArchiveError> {
        let gone = stream::iter(keys).map(|key| self.delete_one(key));
        gone.buffer_unordered(SENT_AT_ONCE).try_collect().await
    }

    async fn delete_one(&self, key: String) -> Result<(), ArchiveError> {
        match self.call(Method::DELETE, &key, &[], "", None).await {
            Err(ArchiveError::Remote { source, .. }) if source.status() == Some(404) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Keys, or with `flat` only those of one level and what stands before the next slash.
    pub(super) async fn list(&self, prefix: &str, flat: bool) -> Result<Listing, ArchiveError> {
        let mut whole = Listing::default();
        let mut token = None;
        for _ in 0..LIST_PAGES_MAX {
            let mut query = vec![pair("list-type", "2"), pair("prefix", prefix)];
            if flat {
                query.push(pair("delimiter", "/"));
            }
            query.extend(token.take().map(|token: String| pair("continuation-token", &token)));
            let answer = self.call(Method::GET, "", &query, "", None).await?;
            let (entries, next) = listed(&answer.text()).map_err(|why| unclear(prefix, why))?;
            whole.entries.extend(entries);
            token = next;
            whole.is_cut = token.is_some();
            if !whole.is_cut || flat && whole.entries.len() >= LISTED_MAX {
                break;
            }
        }
        Ok(whole)
    }

    pub(super) fn signed(
        &self,
        method: Method,
        key: &str,
        query: &[(String, String)],
        hash: &str,
    ) -> Request {
        let names = key.split('/').filter(|_| !key.is_empty()).map(quote);
        let path: String = std::iter::once(quote(&self.name))
            .chain(names)
            .map(|name| format!("/{name}"))
            .collect();
        let url = query.iter().fold(self.endpoint.join(&path), |url, (n, v)| url.query(n, v));
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let host = url.authority();
        let headers = [
            ("host", host.as_str()),
            ("x-amz-content-sha256", hash),
            ("x-amz-date", time.as_str()),
        ];
        let authorization = self.signer.authorization(&Unsigned {
            method: method.as_str(),
            path: url.path(),
            query,
            headers: &headers,
            body: hash,
            time: &time,
        });
        Request::new(method, &url)
            .header("x-amz-content-sha256", hash)
            .header("x-amz-date", &time)
            .secret_header("authorization", &authorization)
    }
}

pub(super) fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

pub(super) fn remote(what: &'static str, key: &str) -> impl FnOnce(HttpError) -> ArchiveError {
    let key = key.to_owned();
    move |source| match source {
        HttpError::Status { status: 507, .. } => ArchiveError::Full { what, path: key.into() },
        source => ArchiveError::Remote { what, key, source: Box::new(source) },
    }
}

pub(super) fn unclear(key: &str, why: String) -> ArchiveError {
    ArchiveError::Unclear { what: "use", key: key.to_owned(), why }
}

pub(super) fn said(
    key: &str,
    what: &str,
    found: Result<Option<String>, String>,
) -> Result<String, ArchiveError> {
    match found {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(unclear(key, format!("the answer has no {what}"))),
        Err(why) => Err(unclear(key, why)),
    }
}
