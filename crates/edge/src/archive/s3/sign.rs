//! AWS Signature Version 4, as S3-compatible stores want it: every request is signed with a key that is good for one day,
//! one region and one service; the secret itself is never sent.

use crate::http::{Secret, quote};
use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};
use std::fmt::Write as _;
use toci_core::hex::hex;

/// What a request is signed with.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) access_key: String,
    pub(super) secret_key: Secret,
    pub(super) region: String,
}

/// A request to be signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// Quoted as it is sent.
    pub(super) path: &'a str,
    /// Name and value, not quoted.
    pub(super) query: &'a [(String, String)],
    /// Names in small letters and values; `host` must be among them.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// Hex SHA-256 of the body.
    pub(super) body: &'a str,
    /// `YYYYMMDDTHHMMSSZ`.
    pub(super) time: &'a str,
}

impl Signer {
    /// The value of the Authorization header.
    pub(super) fn authorization(&self, request: &Unsigned<'_>) -> String {
        let day = request.time.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let mut headers = request.headers.to_vec();
        headers.sort_unstable();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut query: Vec<(String, String)> =
            request.query.iter().map(|(n, v)| (quote(n), quote(v))).collect();
        query.sort_unstable();
        let query: Vec<String> = query.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, query.join("&"));
        for (name, value) in headers {
            // Writing to a String cannot fail.
            let _ = writeln!(canonical, "{name}:{}", value.trim());
        }
        let _ = write!(canonical, "\n{names}\n{}", request.body);
        let text = format!(
            "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
            request.time,
            hex(digest(&SHA256, canonical.as_bytes()).as_ref())
        );
        let mut key = hmac(format!("AWS4{}", self.secret_key.reveal()).as_bytes(), day);
        for part in [&self.region, "s3", "aws4_request"] {
            key = hmac(&key, part);
        }
        let signature = hex(&hmac(&key, &text));
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            self.access_key
        )
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the S3 documentation, "Signature Calculations for the Authorization Header".
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            region: "us-east-1".into(),
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let time = "20130524T000000Z";
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let usual = [host, ("x-amz-content-sha256", empty), ("x-amz-date", time)];
        let ranged = [host, ("range", "bytes=0-9"), usual[1], usual[2]];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let list = [pair("max-keys", "2"), pair("prefix", "J")];
        let lifecycle = [pair("lifecycle", "")];
        let get = Unsigned {
            method: "GET",
            path: "/test.txt",
            query: &[],
            headers: &ranged,
            body: empty,
            time,
        };
        let asked = |query| Unsigned { path: "/", query, headers: &usual, ..get };
        let text = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let date = ("date", "Fri, 24 May 2013 00:00:00 GMT");
        let class = ("x-amz-storage-class", "REDUCED_REDUNDANCY");
        let sent = [date, host, ("x-amz-content-sha256", text), usual[2], class];
        let put = Unsigned {
            method: "PUT",
            path: "/test%24file.text",
            headers: &sent,
            body: text,
            ..get
        };
        for (request, signature) in [
            (get, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            (put, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
            (asked(&lifecycle), "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            (asked(&list), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let header = signer.authorization(&request);
            assert!(header.ends_with(&format!("Signature={signature}")), "{header}");
        }
    }
}
