//! Where the server is: `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/PATH`.

use core::fmt;
use core::str::FromStr;
use hyper::Uri;
use std::path::PathBuf;

/// Port of an `http://` or `https://` address that names none.
const DEFAULT_PORT: u16 = 8080;

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Plain HTTP.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// HTTP over TLS; the certificate must fit the name.
    Tls {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// HTTP over a unix socket.
    Unix(PathBuf),
}

/// An address that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a server address: {reason} (write http://HOST:PORT, https://HOST:PORT or unix:/PATH)"
)]
pub struct BadEndpoint {
    text: String,
    reason: &'static str,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = |reason| BadEndpoint { text: text.chars().take(200).collect(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() || path.contains('\0') {
                Err(bad("the path is missing"))
            } else {
                Ok(Endpoint::Unix(PathBuf::from(path)))
            };
        }
        let uri: Uri = text.parse().map_err(|_| bad("it is not a URL"))?;
        let authority = uri.authority().ok_or_else(|| bad("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(bad("user names and passwords do not belong there"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("it must end after the port"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, "")) => return Err(bad("the port is missing")),
            Some((_, p)) if !p.ends_with(']') => p.parse().map_err(|_| bad("bad port"))?,
            Some(_) | None => DEFAULT_PORT,
        };
        match uri.scheme_str() {
            Some("http") => Ok(Endpoint::Tcp { host, port }),
            Some("https") => Ok(Endpoint::Tls { host, port }),
            Some(_) | None => Err(bad("unknown scheme")),
        }
    }
}

impl Endpoint {
    /// What stands in the `Host` header.
    pub(super) fn host_header(&self) -> String {
        match self {
            Endpoint::Tcp { host, port } | Endpoint::Tls { host, port } => {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }
            Endpoint::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { .. } => write!(f, "http://{}", self.host_header()),
            Endpoint::Tls { .. } => write!(f, "https://{}", self.host_header()),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed) in [
            ("http://10.0.0.1:99", "http://10.0.0.1:99"),
            ("http://ci.example/", "http://ci.example:8080"),
            ("https://ci.example", "https://ci.example:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[::1]", "http://[::1]:8080"),
            ("unix:/run/toci.sock", "unix:/run/toci.sock"),
            ("unix:///run/toci.sock", "unix:/run/toci.sock"),
            ("unix:toci.sock", "unix:toci.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for bad in [
            "",
            "ci.example:8080",
            "ftp://h",
            "http://",
            "http://a:b@h",
            "http://h:x",
            "http://h:",
            "http://h/api",
            "http://h?x",
            "unix:",
            "http://h:99999",
            "/run/toci.sock",
        ] {
            let error = bad.parse::<Endpoint>().expect_err(bad).to_string();
            assert!(error.contains("write http://HOST:PORT"), "{error}");
        }
    }
}
