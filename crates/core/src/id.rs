//! The names of things. Each is its own type so that one cannot be passed for another.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// Longest name of a host, label, shape or project, in bytes.
pub const NAME_MAX_BYTES: usize = 64;

/// A name that is no name: empty, too long, or with characters that would need quoting somewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a valid name: use 1 to 64 of a-z A-Z 0-9 . _ - and start with a letter or digit"
)]
pub struct BadName(pub String);

fn check_name(s: &str) -> Result<(), BadName> {
    let ok = !s.is_empty()
        && s.len() <= NAME_MAX_BYTES
        && s.as_bytes()[0].is_ascii_alphanumeric()
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if ok { Ok(()) } else { Err(BadName(s.chars().take(80).collect())) }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        impl $name {
            /// The text, checked: see [`BadName`] for what is refused.
            pub fn new(s: impl Into<String>) -> Result<Self, BadName> {
                let s = s.into();
                check_name(&s)?;
                Ok(Self(s))
            }
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(s: String) -> Result<Self, BadName> {
                Self::new(s)
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }
        impl FromStr for $name {
            type Err = BadName;
            fn from_str(s: &str) -> Result<Self, BadName> {
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

name_id!(
    /// A TE host, e.g. `tehost1`.
    HostId
);
name_id!(
    /// A test environment, `<host>-<N>`, e.g. `tehost1-2` for TE number 2 on `tehost1`.
    TeId
);
name_id!(
    /// What a request asks for and a TE offers, e.g. `devtest`.
    Label
);
name_id!(
    /// What a TE is made of, e.g. `seed-2` (a seed and two blank nodes).
    ShapeName
);
name_id!(
    /// A source of changes by the name that its configuration gives it ("connection" in Zuul), e.g. `gerrit`.
    SourceName
);
name_id!(
    /// Who a request is for; fairness and limits are counted by project.
    Project
);

name_id!(
    /// Where nodes come from, e.g. `local` or `rack1`.
    ProviderName
);

impl TeId {
    /// The id of TE number `n` on `host`.
    pub fn of(host: &HostId, n: u32) -> Result<TeId, BadName> {
        TeId::new(format!("{host}-{n}"))
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!(concat!($letter, "{}"), self.0))
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(s: &str) -> Result<Self, BadName> {
                s.strip_prefix($letter)
                    .filter(|d| d.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|d| d.parse().ok())
                    .map($name)
                    .ok_or_else(|| BadName(s.chars().take(80).collect()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

number_id!(
    /// A lease, printed `L<number>`. Numbers are given in order and never reused.
    LeaseId,
    'L'
);
number_id!(
    /// A node, printed `N<number>`. Numbers are given in order and never reused, as nodes are not.
    NodeId,
    'N'
);
number_id!(
    /// A wish to hold the nodes of failures to come, printed `A<number>`. Numbers are never reused.
    AutoholdId,
    'A'
);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{:032x}", self.0))
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(s: &str) -> Result<Self, BadName> {
                let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
                match u128::from_str_radix(s, 16) {
                    Ok(n) if s.len() == 32 && s.bytes().all(hex) => Ok(Self(n)),
                    Ok(_) | Err(_) => Err(BadName(s.chars().take(80).collect())),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// An item of a pipeline; 32 hex digits.
    ItemId
);
hex_id!(
    /// One speculative state of an item with its runs; 32 hex digits, `Z` before them in refs.
    BuildSetId
);
hex_id!(
    /// One attempt of a job; 32 hex digits, ZUUL_UUID.
    RunId
);
hex_id!(
    /// One thing to tell; 32 hex digits.
    ReportId
);

/// How often a TE has been granted. Every grant increments it; host and gateway refuse an older one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation of the next grant.
    #[must_use]
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
