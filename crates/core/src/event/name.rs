//! Names of things that live in sources. Each is checked once, at the edge, so that none can be mistaken for an
//! option of git, leave a folder, or break a line of a log.

use crate::id::SourceName;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// Longest project, branch or ref name, in bytes.
pub const GIT_NAME_MAX_BYTES: usize = 255;

/// A text that is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {why}")]
pub struct NotAName {
    /// What it was meant to be.
    pub what: &'static str,
    /// The text, shortened.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

fn refuse(what: &'static str, text: &str, why: &'static str) -> NotAName {
    NotAName { what, text: text.chars().take(80).collect(), why }
}

/// The rules of `git check-ref-format` that matter here, plus: no leading dash, plain ASCII graphics only.
fn check_git_name(what: &'static str, s: &str) -> Result<(), NotAName> {
    let plain = |b: u8| {
        b.is_ascii_graphic() && !matches!(b, b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\')
    };
    if s.is_empty() || s.len() > GIT_NAME_MAX_BYTES {
        return Err(refuse(what, s, "it must have 1 to 255 bytes"));
    }
    if !s.bytes().all(plain) {
        return Err(refuse(what, s, "blanks, control characters and ~^:?*[\\ are not allowed"));
    }
    let part = |p: &str| {
        !p.is_empty() && !p.starts_with(['.', '-']) && !p.ends_with(".lock") && !p.ends_with('.')
    };
    if !s.split('/').all(part) || s.contains("..") || s.contains("@{") {
        return Err(refuse(
            what,
            s,
            "parts between slashes may not be empty, begin with . or -, end with . or .lock, or hold ..",
        ));
    }
    Ok(())
}

macro_rules! git_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        impl $name {
            /// The text, checked.
            pub fn new(s: impl Into<String>) -> Result<Self, NotAName> {
                let s = s.into();
                check_git_name($what, &s)?;
                Ok(Self(s))
            }
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = NotAName;
            fn try_from(s: String) -> Result<Self, NotAName> {
                Self::new(s)
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }
        impl FromStr for $name {
            type Err = NotAName;
            fn from_str(s: &str) -> Result<Self, NotAName> {
                Self::new(s)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

git_name!(
    /// A project as its source calls it, e.g. `openstack/tripleo-ci`.
    ProjectName,
    "project name"
);
git_name!(
    /// A branch without `refs/heads/`, e.g. `stable/icehouse`.
    Branch,
    "branch name"
);
git_name!(
    /// A full ref, e.g. `refs/changes/01/1/1`, `refs/heads/master`, `refs/tags/1.0`.
    RefName,
    "ref name"
);

impl ProjectName {
    /// The last part, e.g. `tripleo-ci`: the folder of a checkout, `{name}` in templates.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

/// A project of one source. Two sources may have projects of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProjectKey {
    /// Its source.
    pub source: SourceName,
    /// Its name there.
    pub name: ProjectName,
}

impl fmt::Display for ProjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.name)
    }
}

/// A commit id: 40 or 64 lower-case hex digits. All zeros means "none", as in ref updates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(String);

impl Revision {
    /// The text, checked.
    pub fn new(s: impl Into<String>) -> Result<Self, NotAName> {
        let s = s.into();
        let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
        if matches!(s.len(), 40 | 64) && s.bytes().all(hex) {
            Ok(Self(s))
        } else {
            Err(refuse("commit id", &s, "it must have 40 or 64 hex digits"))
        }
    }

    /// "No commit": the old side of a new ref, the new side of a deleted one.
    #[must_use]
    pub fn none() -> Revision {
        Revision("0".repeat(40))
    }

    /// Whether this is "no commit".
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Revision {
    type Error = NotAName;
    fn try_from(s: String) -> Result<Self, NotAName> {
        Self::new(s)
    }
}

impl From<Revision> for String {
    fn from(n: Revision) -> String {
        n.0
    }
}

impl FromStr for Revision {
    type Err = NotAName;
    fn from_str(s: &str) -> Result<Self, NotAName> {
        Self::new(s)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_be_options_or_leave_folders_are_refused() {
        for bad in [
            "", "-x", "a/-x", "a/../b", "..", ".git", "a//b", "/a", "a/", "a b", "a\nb", "a.lock",
            "a:b", "a@{1}", "ü",
        ] {
            assert!(ProjectName::new(bad).is_err(), "{bad:?}");
            assert!(Branch::new(bad).is_err(), "{bad:?}");
        }
        for good in
            ["a", "openstack/tripleo-ci", "stable/icehouse", "refs/changes/01/1/1", "1.0", "a+b"]
        {
            assert_eq!(RefName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(ProjectName::new("openstack/tripleo-ci").unwrap().short(), "tripleo-ci");
    }

    #[test]
    fn commit_ids_are_hex() {
        assert!(Revision::new("g".repeat(40)).is_err());
        assert!(Revision::new("abc").is_err());
        assert!(Revision::none().is_none());
        assert!(!Revision::new("a".repeat(40)).unwrap().is_none());
    }
}
