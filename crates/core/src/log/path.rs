//! Places in the archive: relative paths of plain names, which cannot leave it and hide nothing.

use crate::pipeline::RunWish;
use crate::run::variables::log_path;
use core::fmt;

/// Longest path, in bytes.
pub const PATH_MAX_BYTES: usize = 1024;
/// Longest name between two slashes, in bytes; file systems take 255, and ours may append `.gz` and a number.
pub const NAME_MAX_BYTES: usize = 200;

/// A text that is no place in the archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no path of the log archive: {why}")]
pub struct NotALogPath {
    /// The text, shortened.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// A place in the archive. Empty: its root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPath(String);

impl LogPath {
    /// The text, checked. Slashes at its ends are dropped.
    pub fn new(text: &str) -> Result<LogPath, NotALogPath> {
        let refuse = |why| NotALogPath { text: text.chars().take(80).collect(), why };
        let trimmed = text.trim_matches('/');
        if trimmed.len() > PATH_MAX_BYTES {
            return Err(refuse("it is longer than 1,024 bytes"));
        }
        if trimmed.is_empty() {
            return Ok(LogPath::default());
        }
        if trimmed.starts_with('.') {
            return Err(refuse("it begins with a dot"));
        }
        if let Some(why) = trimmed.split('/').find_map(wrong_name) {
            return Err(refuse(why));
        }
        Ok(LogPath(trimmed.to_owned()))
    }

    /// Where the logs of a run lie: LOG_PATH, with what is no plain name replaced.
    #[must_use]
    pub fn of(wish: &RunWish) -> LogPath {
        let path = log_path(wish);
        let names = path.split('/').filter(|name| !name.is_empty()).map(plain_name);
        let mut joined = names.collect::<Vec<_>>().join("/");
        if joined.starts_with('.') {
            joined.replace_range(..1, "_");
        }
        LogPath(joined)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the archive itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// A place below this one.
    pub fn join(&self, below: &str) -> Result<LogPath, NotALogPath> {
        LogPath::new(&format!("{}/{below}", self.0))
    }

    /// The folder that it is in; the root is in none.
    #[must_use]
    pub fn parent(&self) -> Option<LogPath> {
        if self.is_root() {
            return None;
        }
        let parent = self.0.rsplit_once('/').map_or("", |(parent, _)| parent);
        Some(LogPath(parent.to_owned()))
    }

    /// Whether it is this place, or below it.
    #[must_use]
    pub fn is_within(&self, place: &str) -> bool {
        self.0.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// As part of a URL.
    #[must_use]
    pub fn encoded(&self) -> String {
        encoded(&self.0)
    }
}

impl fmt::Display for LogPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Percent-encodes all but what RFC 3986 reserves for nobody, and slashes.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What is wrong with a name, if anything is.
#[must_use]
pub fn wrong_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("a name between slashes is empty");
    }
    if name == "." || name == ".." {
        return Some("`.` and `..` are no names");
    }
    if name.len() > NAME_MAX_BYTES {
        return Some("a name is longer than 200 bytes");
    }
    let bad = |c: char| c.is_control() || c == '/' || c == '\\' || c == '\u{fffd}';
    name.chars().any(bad).then_some("a name holds a control character or a backslash")
}

/// The nearest name that is none of the wrong ones.
#[must_use]
pub fn plain_name(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        let c = if c.is_control() || matches!(c, '/' | '\\' | '\u{fffd}') { '_' } else { c };
        if out.len() + c.len_utf8() > NAME_MAX_BYTES {
            break;
        }
        out.push(c);
    }
    match out.as_str() {
        "" | "." => "_".to_owned(),
        ".." => "__".to_owned(),
        _ => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_the_archive() {
        for bad in [
            "..",
            "a/../b",
            "a/./b",
            "a//b",
            ".staging/x",
            "a/\0",
            "a\\b",
            "a/\n",
            "../../etc/passwd",
        ] {
            assert!(LogPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(LogPath::new(&"x".repeat(201)).is_err());
        assert!(LogPath::new(&"x/".repeat(600)).is_err());
        for good in ["", "/", "01/1/1/check/job/abcdef0/", "a/.testr/0", "a/..b", "ä ö"] {
            assert!(LogPath::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_place_has_what_is_below_it_and_not_what_is_called_alike() {
        let at = LogPath::new("a/b/c").unwrap();
        for (place, is_within) in [
            ("a/b/c", true),
            ("a/b", true),
            ("a", true),
            ("a/b/c/d", false),
            ("a/b/", false),
            ("b", false),
        ] {
            assert_eq!(at.is_within(place), is_within, "{place}");
        }
        assert!(!LogPath::new("a/bc").unwrap().is_within("a/b"));
    }

    #[test]
    fn names_become_plain() {
        assert_eq!(plain_name(".."), "__");
        assert_eq!(plain_name(""), "_");
        assert_eq!(plain_name("a/b\n\\"), "a_b__");
        assert_eq!(plain_name(&"ä".repeat(150)).len(), NAME_MAX_BYTES);
        for name in ["..", ".", "", "a\0", &"x".repeat(999)] {
            assert_eq!(wrong_name(&plain_name(name)), None);
        }
    }

    #[test]
    fn parents_and_urls() {
        let path = LogPath::new("01/1/1").unwrap();
        assert_eq!(path.parent(), Some(LogPath::new("01/1").unwrap()));
        assert_eq!(LogPath::new("a").unwrap().parent(), Some(LogPath::default()));
        assert_eq!(LogPath::default().parent(), None);
        assert_eq!(LogPath::new("a b/c#d?e").unwrap().encoded(), "a%20b/c%23d%3Fe");
        assert_eq!(path.join("x/y").unwrap().as_str(), "01/1/1/x/y");
        assert!(path.join("../..").is_err());
    }
}
