//! An `http://` or `https://` address, checked once.

use super::error::HttpError;
use core::fmt;
use core::fmt::Write as _;
use core::str::FromStr;
use hyper::Uri;

/// Where a request goes: scheme, server, path and query. `Display` leaves the query out: secrets may stand in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    /// Begins with a slash.
    path: String,
    /// Without its question mark.
    query: String,
}

impl Url {
    /// The text, checked. User names and passwords do not belong there, fragments neither.
    pub fn parse(text: &str) -> Result<Url, HttpError> {
        let bad = |why| HttpError::BadUrl { url: shown(text), why };
        let uri: Uri = text.parse().map_err(|_| bad("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(bad("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(bad("user names and passwords do not belong there"));
        }
        if text.contains('#') {
            return Err(bad("it may not have a fragment (#)"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, p)) if !p.ends_with(']') => p.parse().map_err(|_| bad("bad port"))?,
            Some(_) | None if tls => 443,
            Some(_) | None => 80,
        };
        let query = uri.query().unwrap_or_default().to_owned();
        Ok(Url { tls, host, port, path: uri.path().to_owned(), query })
    }

    /// The same server, with `path` (quoted already, beginning with a slash) after its own path; without a query.
    #[must_use]
    pub fn join(&self, path: &str) -> Url {
        let before = self.path.trim_end_matches('/');
        let slash = if path.starts_with('/') { "" } else { "/" };
        Url { path: format!("{before}{slash}{path}"), query: String::new(), ..self.clone() }
    }

    /// The same with one more `name=value` in its query, quoted here.
    #[must_use]
    pub fn query(&self, name: &str, value: &str) -> Url {
        let pair = format!("{}={}", quote(name), quote(value));
        let before = if self.query.is_empty() { "" } else { "&" };
        Url { query: format!("{}{before}{pair}", self.query), ..self.clone() }
    }

    /// Where a redirect leads that was answered to a request for this: a whole URL or a path of the same server.
    pub(super) fn redirected(&self, location: &str) -> Result<Url, HttpError> {
        if !location.starts_with('/') || location.starts_with("//") {
            return Url::parse(location);
        }
        let scheme = if self.tls { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}{location}", self.authority()))
    }

    /// Whether both are on the same server and port, by the same scheme.
    #[must_use]
    pub fn same_server(&self, other: &Url) -> bool {
        (self.tls, self.port) == (other.tls, other.port)
            && self.host.eq_ignore_ascii_case(&other.host)
    }

    /// Whether it is `https://`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port, also when it is the scheme's own.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path, quoted as it is sent.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query as it is sent, without its question mark; empty when there is none.
    #[must_use]
    pub fn query_text(&self) -> &str {
        &self.query
    }

    /// What the `Host` header says: the port only when it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Scheme and server, e.g. `https://review.example.org`.
    #[must_use]
    pub fn server(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }

    /// Path and query as they are sent.
    pub(super) fn target(&self) -> String {
        if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server(), self.path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

impl FromStr for Url {
    type Err = HttpError;
    fn from_str(text: &str) -> Result<Url, HttpError> {
        Url::parse(text)
    }
}

/// A text without what may be secret in it: the part before `@` and the query.
fn shown(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let text = match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    };
    text.chars().take(200).collect()
}

/// One part of a path, or a name or value of a query: everything but `A-Z a-z 0-9 - . _ ~` quoted (RFC 3986, 2.3).
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            quoted.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(quoted, "%{byte:02X}");
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_joined_and_shown_without_their_query() {
        let url = Url::parse("https://review.example.org/r/?token=hush").unwrap();
        assert_eq!(url.to_string(), "https://review.example.org/r/");
        assert_eq!(format!("{url:?}"), "Url(https://review.example.org/r/)");
        assert_eq!((url.port(), url.target().as_str()), (443, "/r/?token=hush"));
        let joined = url.join("/a/changes/").query("q", "status:open is:x").query("n", "5");
        assert_eq!(joined.target(), "/r/a/changes/?q=status%3Aopen%20is%3Ax&n=5");
        let bare = Url::parse("http://[::1]:8080").unwrap();
        assert_eq!(bare.join("/x").to_string(), "http://[::1]:8080/x");
        assert_eq!((bare.host(), bare.authority().as_str()), ("::1", "[::1]:8080"));
        assert_eq!(Url::parse("http://h:80/").unwrap().authority(), "h");
    }

    #[test]
    fn what_is_no_url_says_why_without_secrets() {
        for bad in [
            "",
            "h",
            "/x",
            "ftp://h/",
            "http://",
            "http://u:hush@h/",
            "http://h:x/",
            "http://h:99999/",
            "http://h/#f",
            "http://h:/",
            "http://h/\n",
        ] {
            let error = Url::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn redirects_stay_on_their_server_or_do_not() {
        let url = Url::parse("https://h/a").unwrap();
        assert!(url.same_server(&url.redirected("/b?c").unwrap()));
        assert!(url.same_server(&url.redirected("https://H:443/b").unwrap()));
        for elsewhere in ["http://h/b", "https://h:444/b", "https://evil/b"] {
            assert!(!url.same_server(&url.redirected(elsewhere).unwrap()), "{elsewhere}");
        }
        assert!(url.redirected("//evil/b").is_err());
    }

    #[test]
    fn parts_are_quoted() {
        assert_eq!(quote("openstack/tripleo-ci ü"), "openstack%2Ftripleo-ci%20%C3%BC");
    }
}
