//! An archive in an S3-compatible store: `<prefix>/<path of the run>/…` in one bucket, path-style addresses.
//!
//! Compressed text lies under the name that people see, with `Content-Encoding: gzip`, so that a browser that reads the
//! bucket itself shows it as text. The index page is put last: a run without one is not whole.

use super::folder::Stage;
use super::port::{ArchiveError, Entry, Found, LISTED_MAX, Object};
use super::s3_listing::{Listed, first, listed};
use super::sign::{Signer, Unsigned, hex};
use crate::http::{Answer, Answering, Http, HttpError, Method, Request, Secret, Url, quote};
use futures_util::{StreamExt, TryStreamExt, stream};
use ring::digest::{Context, SHA256, digest};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::log::LogPath;
use toci_core::log::arrange::seen_as;
use toci_core::pause::Pause;
use tokio_util::io::StreamReader;

/// Files that are sent at the same time.
const SENT_AT_ONCE: usize = 4;
/// Answers to one listing that are asked for at most; each has up to 1,000 keys.
const LIST_PAGES_MAX: usize = 50;
/// Larger files are sent in parts of this size, in bytes.
pub const PART_BYTES: u64 = 64 << 20;
/// Attempts of one request whose failure may pass: no answer, or one that says "later".
pub const ATTEMPTS_MAX: u32 = 4;
/// Pause after the first of them; each further one is twice as long ...
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// ... up to this.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The page that makes a run whole.
const INDEX: &str = "index.html";
/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Longest error that is read, in bytes.
const ERROR_MAX_BYTES: usize = 64 << 10;

/// Where and as whom.
#[derive(Clone, Debug)]
pub struct S3Place {
    /// The store, e.g. `https://s3.example.org`.
    pub endpoint: Url,
    /// Its region.
    pub region: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// What every key begins with; may be empty.
    pub prefix: String,
    /// Access key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: Secret,
    /// Larger files are sent in parts of this size; stores want 5 MiB at least. Usually [`PART_BYTES`].
    pub part_bytes: u64,
}

/// An archive in an S3-compatible store.
#[derive(Clone, Debug)]
pub struct S3Archive {
    http: Http,
    endpoint: Url,
    signer: Signer,
    bucket: String,
    prefix: String,
    part_bytes: u64,
    staging: PathBuf,
}

/// What is sent: so many bytes of a file from there on, and their hash.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    file: &'a Path,
    from: u64,
    length: u64,
    hash: &'a str,
}

/// How often one request was tried, and how long to wait before the next time.
#[derive(Debug)]
struct Tries {
    made: u32,
    pause: Pause,
}

impl Tries {
    fn new() -> Tries {
        Tries { made: 0, pause: Pause::new(PAUSE_MIN, PAUSE_MAX) }
    }

    /// Waits if it is worth another one.
    async fn again(&mut self, error: &ArchiveError) -> bool {
        self.made += 1;
        let passes = match error {
            ArchiveError::Remote { source, .. } => match &**source {
                HttpError::Unreachable { .. }
                | HttpError::TooSlow { .. }
                | HttpError::Broken { .. } => true,
                HttpError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
                HttpError::BadUrl { .. }
                | HttpError::BadHeader { .. }
                | HttpError::Trust { .. }
                | HttpError::TooLong { .. }
                | HttpError::Redirected { .. }
                | HttpError::Unexpected { .. }
                | HttpError::File { .. } => false,
            },
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

impl S3Archive {
    /// Nothing is sent yet. Runs are packed below `staging`, which is cleared.
    pub fn open(http: Http, place: S3Place, staging: &Path) -> Result<S3Archive, ArchiveError> {
        match fs::remove_dir_all(staging) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ArchiveError::io("clear", staging)(error)),
        }
        let S3Place { endpoint, region, bucket, prefix, access_key, secret_key, part_bytes } =
            place;
        let signer = Signer { access_key, secret_key, region };
        let prefix = prefix.trim_matches('/').to_owned();
        let staging = staging.to_owned();
        Ok(S3Archive { http, endpoint, signer, bucket, prefix, part_bytes, staging })
    }

    pub(super) fn stage(&self, name: &str) -> Result<Stage, ArchiveError> {
        Stage::new(&self.staging, name)
    }

    pub(super) async fn commit(&self, stage: Stage, at: &LogPath) -> Result<(), ArchiveError> {
        let before = self.list(&self.below(at), false).await?;
        let files = files_of(stage.path()).map_err(ArchiveError::io("read", stage.path()))?;
        let key = |file: &str| format!("{}/{}", self.key(at), seen_as(file));
        let (last, most): (Vec<&String>, Vec<&String>) = files.iter().partition(|f| *f == INDEX);
        for some in [most, last] {
            let some: Vec<(PathBuf, String)> =
                some.into_iter().map(|file| (stage.path().join(file), key(file))).collect();
            let sent = stream::iter(some).map(|(path, key)| self.put(path, key));
            sent.buffer_unordered(SENT_AT_ONCE).try_collect::<()>().await?;
        }
        let kept: std::collections::BTreeSet<String> = files.iter().map(|file| key(file)).collect();
        let before = before.entries.into_iter().map(|(key, _, _)| key);
        self.delete(before.filter(|key| !kept.contains(key)).collect()).await
    }

    pub(super) async fn find(&self, at: &LogPath) -> Result<Option<Found>, ArchiveError> {
        if !at.is_root() {
            let key = self.key(at);
            if let Some(object) = self.get(&key).await? {
                return Ok(Some(Found::File(object)));
            }
            // As it is stored, for whoever asks for that.
            if seen_as(&key) != key
                && let Some(object) = self.get(seen_as(&key)).await?
                && object.is_text
            {
                return Ok(Some(Found::File(Object { is_text: false, ..object })));
            }
        }
        let below = self.below(at);
        let listing = self.list(&below, true).await?;
        if listing.entries.is_empty() && !at.is_root() {
            return Ok(None);
        }
        let entry = |(key, bytes, is_file): Listed| {
            let name = key.strip_prefix(&below)?.trim_end_matches('/');
            (!name.is_empty()).then(|| Entry { is_file, name: name.to_owned(), bytes })
        };
        let mut entries: Vec<Entry> = listing.entries.into_iter().filter_map(entry).collect();
        entries.sort();
        Ok(Some(Found::Folder(entries, listing.is_cut)))
    }

    pub(super) async fn remove(&self, at: &LogPath) -> Result<(), ArchiveError> {
        if at.is_root() {
            return Ok(());
        }
        // A listing has an end; what is left is found by the next one.
        loop {
            let listing = self.list(&self.below(at), false).await?;
            self.delete(listing.entries.into_iter().map(|(key, _, _)| key).collect()).await?;
            if !listing.is_cut {
                return Ok(());
            }
        }
    }

    fn key(&self, at: &LogPath) -> String {
        let parts = [self.prefix.as_str(), at.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// What the keys below a place begin with.
    fn below(&self, at: &LogPath) -> String {
        let key = self.key(at);
        if key.is_empty() { key } else { format!("{key}/") }
    }

    async fn put(&self, file: PathBuf, key: String) -> Result<(), ArchiveError> {
        let (path, part) = (file.clone(), self.part_bytes);
        let hashed = tokio::task::spawn_blocking(move || hashes(&path, part)).await;
        let (hashes, length) = hashed
            .map_err(io::Error::other)
            .and_then(|h| h)
            .map_err(ArchiveError::io("read", &file))?;
        let is_text = seen_as(&file.to_string_lossy()) != file.to_string_lossy();
        let kind = Kind { of: kind_of(&key, is_text), is_text };
        if let [hash] = &hashes[..] {
            let piece = Piece { file: &file, from: 0, length, hash };
            return self.put_piece(&key, &[], piece, Some(kind)).await.map(drop);
        }
        let begun = self.call(Method::POST, &key, &[pair("uploads", "")], "", Some(kind)).await?;
        let upload = said(&key, "UploadId", first(&begun.text(), "UploadId"))?;
        let parts = hashes.iter().zip(0..).map(|(hash, n)| {
            let from = n * part;
            Piece { file: &file, from, length: part.min(length - from), hash }
        });
        let sent = self.put_parts(&key, &upload, parts.collect()).await;
        if sent.is_err() {
            // What was sent would stay, and cost, unseen. A store that cannot be reached has no way to be told.
            let _ = self.call(Method::DELETE, &key, &[pair("uploadId", &upload)], "", None).await;
        }
        sent
    }

    async fn put_parts(
        &self,
        key: &str,
        upload: &str,
        parts: Vec<Piece<'_>>,
    ) -> Result<(), ArchiveError> {
        let mut list = String::from("<CompleteMultipartUpload>");
        for (piece, number) in parts.into_iter().zip(1..) {
            let query = [pair("partNumber", &number.to_string()), pair("uploadId", upload)];
            let answer = self.put_piece(key, &query, piece, None).await?;
            let tag = answer.header("etag").map(str::to_owned).unwrap_or_default();
            let tag = quick_xml::escape::escape(&tag);
            list.push_str(&format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            ));
        }
        list.push_str("</CompleteMultipartUpload>");
        let query = [pair("uploadId", upload)];
        let answer = self.call(Method::POST, key, &query, &list, None).await?;
        // It may answer 200 before it knows.
        match first(&answer.text(), "Message") {
            Ok(None) => Ok(()),
            Ok(Some(why)) | Err(why) => Err(unclear(key, why)),
        }
    }

    async fn put_piece(
        &self,
        key: &str,
        query: &[(String, String)],
        piece: Piece<'_>,
        kind: Option<Kind>,
    ) -> Result<Answer, ArchiveError> {
        let reading = || ArchiveError::io("read", piece.file);
        let mut tries = Tries::new();
        loop {
            let mut file = fs::File::open(piece.file).map_err(reading())?;
            file.seek(SeekFrom::Start(piece.from)).map_err(reading())?;
            let request = self.signed(Method::PUT, key, query, piece.hash);
            let of = kind.map_or("application/octet-stream", |kind| kind.of);
            let request = request.upload(of, tokio::fs::File::from_std(file), piece.length);
            let sent = self.http.send(encoded(request, kind)).await;
            match sent.and_then(Answer::well).map_err(remote("put", key)) {
                Err(error) if tries.again(&error).await => {}
                done => return done,
            }
        }
    }

    /// A request with a short text.
    async fn call(
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

    async fn get(&self, key: &str) -> Result<Option<Object>, ArchiveError> {
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

    async fn delete(&self, keys: Vec<String>) -> Result<(), ArchiveError> {
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
    async fn list(&self, prefix: &str, flat: bool) -> Result<Listing, ArchiveError> {
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

    fn signed(&self, method: Method, key: &str, query: &[(String, String)], hash: &str) -> Request {
        let names = key.split('/').filter(|_| !key.is_empty()).map(quote);
        let path: String = std::iter::once(quote(&self.bucket))
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

/// How a browser takes a file that reads the bucket itself.
#[derive(Clone, Copy, Debug)]
struct Kind {
    of: &'static str,
    is_text: bool,
}

fn kind_of(key: &str, is_text: bool) -> &'static str {
    match key.rsplit('.').next().unwrap_or_default() {
        _ if is_text => "text/plain; charset=utf-8",
        _ if key.rsplit('/').next() == Some(INDEX) => "text/html; charset=utf-8",
        "png" => "image/png",
        _ => "application/octet-stream",
    }
}

fn encoded(request: Request, kind: Option<Kind>) -> Request {
    if kind.is_some_and(|kind| kind.is_text) {
        return request.header("content-encoding", "gzip");
    }
    request
}

#[derive(Debug, Default)]
struct Listing {
    entries: Vec<Listed>,
    is_cut: bool,
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn remote(what: &'static str, key: &str) -> impl FnOnce(HttpError) -> ArchiveError {
    let key = key.to_owned();
    move |source| match source {
        HttpError::Status { status: 507, .. } => ArchiveError::Full { what, path: key.into() },
        source => ArchiveError::Remote { what, key, source: Box::new(source) },
    }
}

fn unclear(key: &str, why: String) -> ArchiveError {
    ArchiveError::Unclear { what: "use", key: key.to_owned(), why }
}

fn said(
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

/// SHA-256 of each part of a file, of which there is one at least; and its length.
fn hashes(path: &Path, part: u64) -> io::Result<(Vec<String>, u64)> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    let (mut out, mut buffer, mut left) = (Vec::new(), vec![0; 256 << 10], length);
    loop {
        let mut hash = Context::new(&SHA256);
        let mut rest = part.min(left);
        left -= rest;
        while rest > 0 {
            let most = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let got = file.read(&mut buffer[..most])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hash.update(&buffer[..got]);
            rest -= got as u64;
        }
        out.push(hex(hash.finish().as_ref()));
        if left == 0 {
            return Ok((out, length));
        }
    }
}

/// All files below a folder of our own making, relative to it.
fn files_of(folder: &Path) -> io::Result<Vec<String>> {
    let mut out = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((here, prefix)) = folders.pop() {
        for entry in fs::read_dir(here)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                folders.push((entry.path(), format!("{name}/")));
            } else {
                out.push(name);
            }
        }
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Trust;
    use crate::http::fake::{Fake, Reply};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn archive(fake: &Fake, staging: &Path) -> S3Archive {
        let place = S3Place {
            endpoint: fake.url.clone(),
            region: "eu".into(),
            bucket: "logs".into(),
            prefix: "/ci/".into(),
            access_key: "me".into(),
            secret_key: Secret::new("hush"),
            part_bytes: 4,
        };
        S3Archive::open(Http::new(&Trust::System).unwrap(), place, staging).unwrap()
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_nothing_else() {
        let (count, folder) = (AtomicUsize::new(0), tempfile::tempdir().unwrap());
        let fake = Fake::start(move |seen| match seen.target.as_str() {
            "/logs/ci/denied" => Reply::new(403, "<Error><Code>AccessDenied</Code></Error>"),
            "/logs/ci/down" => Reply::new(503, "later"),
            _ if count.fetch_add(1, Ordering::Relaxed) < 2 => Reply::new(500, "oops"),
            _ => Reply::new(200, "text").header("content-encoding", "gzip"),
        })
        .await;
        let archive = archive(&fake, folder.path());
        let find = async |at: &str| archive.find(&LogPath::new(at).unwrap()).await;
        assert!(matches!(find("a").await.unwrap(), Some(Found::File(object)) if object.is_text));
        assert_eq!(fake.seen().len(), 3);
        let denied = format!("{:?}", find("denied").await.unwrap_err());
        assert!(denied.contains("AccessDenied") && !denied.contains("hush"), "{denied}");
        assert_eq!(fake.seen().len(), 4);
        find("down").await.unwrap_err();
        assert_eq!(fake.seen().len(), 4 + ATTEMPTS_MAX as usize);
        assert!(!format!("{archive:?}").contains("hush"));
    }

    #[tokio::test]
    async fn a_large_file_goes_in_parts_and_parts_of_a_failure_are_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::start(|seen| match (seen.method.as_str(), seen.target.as_str()) {
            ("GET", _) => Reply::new(200, "<ListBucketResult/>"),
            ("POST", target) if target.ends_with("?uploads=") => {
                Reply::new(200, "<R><UploadId>a+b</UploadId></R>")
            }
            ("PUT", target) if target.contains("bad.bin?partNumber=2&") => Reply::new(400, "no"),
            ("DELETE", _) => Reply::new(204, ""),
            ("POST", _) => Reply::new(200, "<CompleteMultipartUploadResult/>"),
            _ => Reply::new(200, "").header("etag", "\"t\""),
        })
        .await;
        let archive = archive(&fake, &folder.path().join("staging"));
        let commit = async |name: &str, bytes: &[u8]| {
            let stage = archive.stage("run").unwrap();
            fs::write(stage.path().join(name), bytes).unwrap();
            archive.commit(stage, &LogPath::new("1").unwrap()).await
        };
        commit("good.txt.gz", b"0123456789").await.unwrap();
        commit("bad.bin", b"01234").await.unwrap_err();
        let sent: Vec<(String, String)> = fake
            .seen()
            .iter()
            .filter(|seen| seen.method != Method::GET)
            .map(|seen| {
                let text = String::from_utf8_lossy(&seen.body).into_owned();
                (format!("{} {}", seen.method, seen.target), text)
            })
            .collect();
        let part =
            |n| format!("<Part><PartNumber>{n}</PartNumber><ETag>&quot;t&quot;</ETag></Part>");
        let whole = format!(
            "<CompleteMultipartUpload>{}{}{}</CompleteMultipartUpload>",
            part(1),
            part(2),
            part(3)
        );
        let expected = [
            ("POST /logs/ci/1/good.txt?uploads=", ""),
            ("PUT /logs/ci/1/good.txt?partNumber=1&uploadId=a%2Bb", "0123"),
            ("PUT /logs/ci/1/good.txt?partNumber=2&uploadId=a%2Bb", "4567"),
            ("PUT /logs/ci/1/good.txt?partNumber=3&uploadId=a%2Bb", "89"),
            ("POST /logs/ci/1/good.txt?uploadId=a%2Bb", whole.as_str()),
            ("POST /logs/ci/1/bad.bin?uploads=", ""),
            ("PUT /logs/ci/1/bad.bin?partNumber=1&uploadId=a%2Bb", "0123"),
            ("PUT /logs/ci/1/bad.bin?partNumber=2&uploadId=a%2Bb", "4"),
            ("DELETE /logs/ci/1/bad.bin?uploadId=a%2Bb", ""),
        ];
        let expected: Vec<(String, String)> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(sent, expected);
        let begun = &fake.seen()[1];
        assert_eq!(begun.header("content-encoding"), "gzip");
        assert_eq!(begun.header("content-type"), "text/plain; charset=utf-8");
        assert!(fs::read_dir(folder.path().join("staging")).unwrap().next().is_none());
    }
}
