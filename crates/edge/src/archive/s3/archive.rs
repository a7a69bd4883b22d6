//! An archive in an S3-compatible store: `<prefix>/<path of the run>/…` in one bucket, path-style addresses.
//!
//! Compressed text lies under the name that people see, with `Content-Encoding: gzip`, so that a browser that reads the
//! bucket itself shows it as text. The index page is put last: a run without one is not whole.

use super::call::{Bucket, SENT_AT_ONCE};
use super::listing::Listed;
use super::put::INDEX;
use super::sign::Signer;
use crate::archive::folder::Stage;
use crate::archive::{ArchiveError, Entry, Found, Object};
use crate::http::{Http, Secret, Url};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use toci_core::log::LogPath;
use toci_core::log::arrange::seen_as;

/// Larger files are sent in parts of this size, in bytes.
pub const PART_BYTES: u64 = 64 << 20;
/// Attempts of one request whose failure may pass: no answer, or one that says "later".
pub const ATTEMPTS_MAX: u32 = 4;

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
    bucket: Bucket,
    prefix: String,
    staging: PathBuf,
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
        let bucket = Bucket { http, endpoint, signer, name: bucket, part_bytes };
        Ok(S3Archive { bucket, prefix, staging: staging.to_owned() })
    }

    pub(in crate::archive) fn stage(&self, name: &str) -> Result<Stage, ArchiveError> {
        Stage::new(&self.staging, name)
    }

    pub(in crate::archive) async fn commit(
        &self,
        stage: Stage,
        at: &LogPath,
    ) -> Result<(), ArchiveError> {
        let before = self.bucket.list(&self.below(at), false).await?;
        let files = files_of(stage.path()).map_err(ArchiveError::io("read", stage.path()))?;
        let key = |file: &str| format!("{}/{}", self.key(at), seen_as(file));
        // Half replaced, it is not taken for whole.
        let index = key(INDEX);
        if before.entries.iter().any(|(key, _, _)| *key == index) {
            self.bucket.delete(vec![index]).await?;
        }
        let (last, most): (Vec<&String>, Vec<&String>) = files.iter().partition(|f| *f == INDEX);
        for some in [most, last] {
            let some: Vec<(PathBuf, String)> =
                some.into_iter().map(|file| (stage.path().join(file), key(file))).collect();
            let sent = stream::iter(some).map(|(path, key)| self.bucket.put(path, key));
            sent.buffer_unordered(SENT_AT_ONCE).try_collect::<()>().await?;
        }
        let kept: std::collections::BTreeSet<String> = files.iter().map(|file| key(file)).collect();
        let before = before.entries.into_iter().map(|(key, _, _)| key);
        self.bucket.delete(before.filter(|key| !kept.contains(key)).collect()).await
    }

    pub(in crate::archive) async fn find(
        &self,
        at: &LogPath,
    ) -> Result<Option<Found>, ArchiveError> {
        if !at.is_root() {
            let key = self.key(at);
            if let Some(object) = self.bucket.get(&key).await? {
                return Ok(Some(Found::File(object)));
            }
            // As it is stored, for whoever asks for that.
            if seen_as(&key) != key
                && let Some(object) = self.bucket.get(seen_as(&key)).await?
                && object.is_text
            {
                return Ok(Some(Found::File(Object { is_text: false, ..object })));
            }
        }
        let below = self.below(at);
        let listing = self.bucket.list(&below, true).await?;
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

    pub(in crate::archive) async fn remove(&self, at: &LogPath) -> Result<(), ArchiveError> {
        if at.is_root() {
            return Ok(());
        }
        // A listing has an end; what is left is found by the next one.
        loop {
            let listing = self.bucket.list(&self.below(at), false).await?;
            self.bucket
                .delete(listing.entries.into_iter().map(|(key, _, _)| key).collect())
                .await?;
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
    use crate::http::fake::{Fake, Reply};
    use crate::http::{Method, Trust};
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
