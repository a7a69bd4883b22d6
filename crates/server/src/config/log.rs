//! `[logs]`: where the logs of runs are kept, for how long, and who may read them.

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::log::collect::{ADDED_MAX, ADDED_MAX_BYTES, Command, INFO_FILE, Rules, wrong_path};
use toci_edge::archive::PART_BYTES;
use toci_wire::settings::Wrong;

/// How long logs are kept when nothing else is said (origin.md 9.4).
const KEEP_DAYS: u64 = 120;
/// Longest time that can be said, in days: a century.
const KEEP_DAYS_MAX: u64 = 36_500;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogsFile {
    store: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_file: Option<PathBuf>,
    secret_key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    url: Option<String>,
    keep_days: Option<u64>,
    public: Option<bool>,
    collect: CollectFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CollectFile {
    nodes: bool,
    testenvs: bool,
    commands: Vec<String>,
    folders: Vec<String>,
    left_out: Vec<String>,
}

impl Default for CollectFile {
    fn default() -> CollectFile {
        let [commands, folders, left_out] = [(); 3].map(|()| Vec::new());
        CollectFile { nodes: true, testenvs: true, commands, folders, left_out }
    }
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
    /// What is collected when a run is over.
    pub collect: Rules,
}

/// Where logs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogsStore {
    /// In a folder.
    Folder(PathBuf),
    /// In an S3-compatible store.
    S3(S3Config),
}

/// An S3-compatible store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with.
    pub prefix: String,
    /// `https://…`.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// File with the access key.
    pub access_key_file: PathBuf,
    /// File with its secret.
    pub secret_key_file: PathBuf,
    /// Certificate authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Where runs are packed before they are sent.
    pub staging: PathBuf,
    /// Larger files are sent in parts of this size, in bytes.
    pub part_bytes: u64,
}

/// What the defaults depend on.
pub(super) struct Surroundings<'a> {
    pub(super) state: &'a Path,
    pub(super) listen: &'a [SocketAddr],
    pub(super) tls: bool,
}

pub(super) fn filled_in(file: LogsFile, around: &Surroundings<'_>) -> Result<LogsConfig, Wrong> {
    let store = store(&file, around.state)?;
    let url = match &file.url {
        Some(url) => checked_url("url", url)?,
        None => format!("{}/logs", around.base_url()),
    };
    let keep_days = file.keep_days.unwrap_or(KEEP_DAYS);
    if keep_days > KEEP_DAYS_MAX {
        let why = format!("it is more than {KEEP_DAYS_MAX}: use 0 for ever");
        return Err(Wrong::at("keep_days", why));
    }
    let keep = (keep_days > 0).then(|| Duration::from_secs(keep_days * 86_400));
    let is_local = around.listen.iter().all(|address| address.ip().is_loopback());
    let public = file.public.unwrap_or(is_local);
    let collect = rules(file.collect).map_err(|wrong| wrong.below("collect"))?;
    Ok(LogsConfig { store, url, keep, public, collect })
}

/// The usual rules and what is added to them.
fn rules(file: CollectFile) -> Result<Rules, Wrong> {
    let mut rules = Rules { nodes: file.nodes, testenvs: file.testenvs, ..Rules::default() };
    for (name, added) in
        [("commands", &file.commands), ("folders", &file.folders), ("left_out", &file.left_out)]
    {
        if added.len() > ADDED_MAX {
            return Err(Wrong::at(name, format!("it has more than {ADDED_MAX} entries")));
        }
    }
    for (list, paths) in [("folders", &file.folders), ("left_out", &file.left_out)] {
        for (number, path) in paths.iter().enumerate() {
            if let Some(why) = wrong_path(path) {
                let why = format!("`{path}` {why}: use e.g. var/lib/mine");
                return Err(Wrong::from(why).entry(list, number));
            }
        }
    }
    for (number, text) in file.commands.into_iter().enumerate() {
        if text.is_empty() || text.len() > ADDED_MAX_BYTES || text.contains('\0') {
            let why = format!("`{text}` is empty or longer than 1,000 bytes");
            return Err(Wrong::from(why).entry("commands", number));
        }
        rules.commands.push(Command { file: INFO_FILE.to_owned(), text, of_machine: true });
    }
    rules.folders.extend(file.folders);
    rules.left_out.extend(file.left_out);
    Ok(rules)
}

fn store(file: &LogsFile, state: &Path) -> Result<LogsStore, Wrong> {
    let text = file.store.as_deref().unwrap_or("folder:logs");
    if let Some(place) = text.strip_prefix("s3://") {
        return s3(file, place, state).map(LogsStore::S3);
    }
    let only_s3 = [
        ("endpoint", file.endpoint.is_some()),
        ("region", file.region.is_some()),
        ("access_key_file", file.access_key_file.is_some()),
        ("secret_key_file", file.secret_key_file.is_some()),
        ("ca_file", file.ca_file.is_some()),
    ];
    if let Some((name, _)) = only_s3.iter().find(|(_, is_set)| *is_set) {
        let why = "it is for a store in S3 only: use store = \"s3://BUCKET/PREFIX\"";
        return Err(Wrong::at(name, why));
    }
    match text.split_once(':') {
        Some(("folder", path)) if !path.is_empty() => Ok(LogsStore::Folder(state.join(path))),
        _ => {
            let why = format!("it is `{text}`: use folder:PATH or s3://BUCKET/PREFIX");
            Err(Wrong::at("store", why))
        }
    }
}

fn s3(file: &LogsFile, place: &str, state: &Path) -> Result<S3Config, Wrong> {
    let needed = |name: &str| Wrong::at(name, "it is missing, and needed for a store in S3");
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err(Wrong::at("store", "it names no bucket: use s3://BUCKET/PREFIX"));
    }
    let path = |given: &Option<PathBuf>, name: &str| {
        given.as_ref().map(|path| state.join(path)).ok_or_else(|| needed(name))
    };
    let endpoint = file.endpoint.as_deref().ok_or_else(|| needed("endpoint"))?;
    Ok(S3Config {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        endpoint: checked_url("endpoint", endpoint)?,
        region: file.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_file: path(&file.access_key_file, "access_key_file")?,
        secret_key_file: path(&file.secret_key_file, "secret_key_file")?,
        ca_file: file.ca_file.as_ref().map(|path| state.join(path)),
        staging: state.join("logs-staging"),
        part_bytes: PART_BYTES,
    })
}

fn checked_url(name: &str, url: &str) -> Result<String, Wrong> {
    let plain =
        url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'?' | b'#'));
    if !(url.starts_with("http://") || url.starts_with("https://")) || !plain {
        let why = format!("it is `{url}`: use http://… or https://… without ? and #");
        return Err(Wrong::at(name, why));
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
        filled_in(toml::from_str(text).unwrap(), &around).map_err(|wrong| wrong.to_string())
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
    fn what_is_collected_is_the_usual_and_what_is_added() {
        let text =
            "[collect]\ntestenvs = false\ncommands = [\"virsh list\"]\nfolders = [\"srv/log\"]";
        let rules = filled(text, &[]).unwrap().collect;
        assert!(rules.nodes && !rules.testenvs);
        assert_eq!(rules.folders.last().unwrap(), "srv/log");
        assert!(rules.commands.len() > 10 && rules.commands.last().unwrap().text == "virsh list");
        for bad in ["folders = [\"/etc\"]", "left_out = [\"a/../b\"]", "commands = [\"\"]"] {
            let error = filled(&format!("[collect]\n{bad}"), &[]).unwrap_err();
            assert!(error.starts_with("collect."), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("store = \"ftp:x\"", "use folder:PATH"),
            ("store = \"folder:\"", "use folder:PATH"),
            ("store = \"s3://\"", "names no bucket"),
            ("store = \"s3://logs\"", "endpoint: it is missing"),
            ("store = \"s3://logs\"\nendpoint = \"s3.example.org\"", "use http://"),
            ("store = \"s3://logs\"\nendpoint = \"https://s3\"", "access_key_file: it is missing"),
            ("region = \"eu\"", "for a store in S3 only"),
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
        let text = "store = \"s3://logs/ci/\"\nendpoint = \"https://s3.example.org/\"\n\
                    access_key_file = \"key\"\nsecret_key_file = \"/etc/secret\"";
        let LogsStore::S3(s3) = filled(text, &[]).unwrap().store else { panic!("not in S3") };
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("logs", "ci"));
        assert_eq!(s3.endpoint, "https://s3.example.org");
        assert_eq!(
            (s3.access_key_file, s3.secret_key_file),
            ("/s/key".into(), "/etc/secret".into())
        );
    }
}
