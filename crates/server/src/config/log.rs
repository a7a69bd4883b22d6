//! `[logs]`: where the logs of runs are kept, for how long, and who may read them.

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long logs are kept when nothing else is said (origin.md 9.4).
const KEEP_DAYS: u64 = 120;
/// Longest time that can be said, in days: a century.
const KEEP_DAYS_MAX: u64 = 36_500;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogsFile {
    store: Option<String>,
    url: Option<String>,
    keep_days: Option<u64>,
    public: Option<bool>,
}

/// Settings of the log archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsConfig {
    /// Where logs are kept.
    pub store: LogsStore,
    /// What people see before the path of a run, without a slash at its end.
    pub url: String,
    /// How long they are kept; none: for ever.
    pub keep: Option<Duration>,
    /// Whether the server lets everybody read them who reaches it, without a token.
    pub public: bool,
}

/// Where logs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogsStore {
    /// In a folder.
    Folder(PathBuf),
}

/// What the defaults depend on.
pub(super) struct Surroundings<'a> {
    pub(super) state: &'a Path,
    pub(super) listen: &'a [SocketAddr],
    pub(super) tls: bool,
}

pub(super) fn filled_in(file: LogsFile, around: &Surroundings<'_>) -> Result<LogsConfig, String> {
    let store = match file.store.as_deref() {
        None => LogsStore::Folder(around.state.join("logs")),
        Some(text) => store(text, around.state)?,
    };
    let url = match file.url {
        Some(url) => checked_url(&url)?,
        None => format!("{}/logs", around.base_url()),
    };
    let keep_days = file.keep_days.unwrap_or(KEEP_DAYS);
    if keep_days > KEEP_DAYS_MAX {
        return Err(format!("logs.keep_days is more than {KEEP_DAYS_MAX}: use 0 for ever"));
    }
    let keep = (keep_days > 0).then(|| Duration::from_secs(keep_days * 86_400));
    let is_local = around.listen.iter().all(|address| address.ip().is_loopback());
    Ok(LogsConfig { store, url, keep, public: file.public.unwrap_or(is_local) })
}

fn store(text: &str, state: &Path) -> Result<LogsStore, String> {
    match text.split_once(':') {
        Some(("folder", path)) if !path.is_empty() => Ok(LogsStore::Folder(state.join(path))),
        _ => Err(format!("logs.store is `{text}`: use folder:PATH")),
    }
}

fn checked_url(url: &str) -> Result<String, String> {
    let plain =
        url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'?' | b'#'));
    if !(url.starts_with("http://") || url.starts_with("https://")) || !plain {
        return Err(format!("logs.url is `{url}`: use http://… or https://… without ? and #"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

impl Surroundings<'_> {
    /// Where people reach the API when nothing else is said.
    pub(super) fn base_url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        match self.listen.first() {
            Some(address) => format!("{scheme}://{address}"),
            None => format!("{scheme}://localhost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, listen: &[&str]) -> Result<LogsConfig, String> {
        let listen: Vec<SocketAddr> = listen.iter().map(|a| a.parse().unwrap()).collect();
        let around = Surroundings { state: Path::new("/s"), listen: &listen, tls: false };
        filled_in(toml::from_str(text).unwrap(), &around)
    }

    #[test]
    fn defaults_follow_from_where_the_server_listens() {
        let config = filled("", &["127.0.0.1:8080"]).unwrap();
        assert_eq!(config.store, LogsStore::Folder("/s/logs".into()));
        assert_eq!(config.url, "http://127.0.0.1:8080/logs");
        assert_eq!(config.keep, Some(Duration::from_secs(120 * 86_400)));
        assert!(config.public);
        assert!(!filled("", &["127.0.0.1:8080", "0.0.0.0:80"]).unwrap().public);
        assert!(filled("public = true", &["0.0.0.0:80"]).unwrap().public);
        assert_eq!(filled("keep_days = 0", &[]).unwrap().keep, None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("store = \"ftp:x\"", "use folder:PATH"),
            ("store = \"folder:\"", "use folder:PATH"),
            ("url = \"ci.example.org\"", "use http://"),
            ("url = \"http://x/\\\"y\"", "use http://"),
            ("keep_days = 99999", "use 0 for ever"),
        ] {
            let error = filled(text, &[]).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let config =
            filled("store = \"folder:mine\"\nurl = \"https://ci.example.org/logs/\"", &[]).unwrap();
        assert_eq!(config.store, LogsStore::Folder("/s/mine".into()));
        assert_eq!(config.url, "https://ci.example.org/logs");
    }
}
