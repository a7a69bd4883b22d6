//! Files on their way into a bucket: at once, or in parts.

use super::call::{Bucket, Tries, pair, remote, said, unclear};
use super::listing::first;
use crate::archive::ArchiveError;
use crate::http::{Answer, Method, Request};
use ring::digest::{Context, SHA256};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use toci_core::hex::hex;
use toci_core::log::arrange::seen_as;

/// The page that makes a run whole.
pub(super) const INDEX: &str = "index.html";

/// What is sent: so many bytes of a file from there on, and their hash.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    file: &'a Path,
    from: u64,
    length: u64,
    hash: &'a str,
}

/// How a browser takes a file that reads the bucket itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) of: &'static str,
    pub(super) is_text: bool,
}

fn kind_of(key: &str, is_text: bool) -> &'static str {
    match key.rsplit('.').next().unwrap_or_default() {
        _ if is_text => "text/plain; charset=utf-8",
        _ if key.rsplit('/').next() == Some(INDEX) => "text/html; charset=utf-8",
        "png" => "image/png",
        _ => "application/octet-stream",
    }
}

pub(super) fn encoded(request: Request, kind: Option<Kind>) -> Request {
    if kind.is_some_and(|kind| kind.is_text) {
        return request.header("content-encoding", "gzip");
    }
    request
}

impl Bucket {
    /// Sends a file.
    pub(super) async fn put(&self, file: PathBuf, key: String) -> Result<(), ArchiveError> {
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
