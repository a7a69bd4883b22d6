//! Which cloud, and who one is there: `clouds.yaml`, `secure.yaml`, `clouds-public.yaml` and `OS_*` variables, merged as
//! openstacksdk does, to one [`CloudSettings`].
//!
//! ```text
//!   OS_* (no cloud named) ─────────────────────────────▶ ┐
//!   clouds-public.yaml: public-clouds.<profile>          │
//!     ◀ clouds.yaml: clouds.<name>                       ├─▶ one map of values, each with its place ─▶ CloudSettings
//!     ◀ its entry of `regions`                           │
//!     ◀ secure.yaml: clouds.<name>                       │
//! ```
//!
//! Whoever reads the files finds out where to look by [`places`]. Keys that mean nothing here are left alone: the same
//! files serve every OpenStack tool. `-` and `_` in keys are the same.

mod merge;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::{
    Auth, CloudSettings, Domain, Interface, Named, Scope, TlsSettings, UserRef, cloud, cloud_names,
};

use std::collections::BTreeMap;

/// Longest of these files, in bytes.
pub const CLOUDS_FILE_MAX_BYTES: usize = 1 << 20;
/// Values in one of these files at most, those that aliases repeat included.
pub const CLOUDS_FILE_VALUES_MAX: usize = 50_000;

/// A file's text and what it is called.
#[derive(Clone, Copy)]
pub struct CloudsText<'a> {
    /// For messages.
    pub file: &'a str,
    /// It may hold secrets.
    pub text: &'a str,
}

impl core::fmt::Debug for CloudsText<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CloudsText").field("file", &self.file).finish_non_exhaustive()
    }
}

/// All that says something about clouds. Files that are not there are none. `Debug` does not show the environment.
#[derive(Clone, Copy)]
pub struct CloudsInput<'a> {
    /// `clouds.yaml`.
    pub clouds: Option<CloudsText<'a>>,
    /// `secure.yaml`.
    pub secure: Option<CloudsText<'a>>,
    /// `clouds-public.yaml`.
    pub public: Option<CloudsText<'a>>,
    /// The environment; only names that begin with `OS_` are looked at.
    pub variables: &'a BTreeMap<String, String>,
}

impl core::fmt::Debug for CloudsInput<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut shown = f.debug_struct("CloudsInput");
        shown.field("clouds", &self.clouds).field("secure", &self.secure);
        shown.field("public", &self.public).finish_non_exhaustive()
    }
}

/// Why there is no cloud to be had. `place` names a file with line and column, a file, or a variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct CloudsError {
    /// `FILE:LINE:COLUMN`, `FILE`, or the name of a variable.
    pub place: String,
    /// Which key, what is wrong, what to do.
    pub message: String,
}

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudsFile {
    /// `clouds.yaml`
    Clouds,
    /// `secure.yaml`
    Secure,
    /// `clouds-public.yaml`
    Public,
}

impl CloudsFile {
    fn variable(self) -> &'static str {
        match self {
            CloudsFile::Clouds => "OS_CLIENT_CONFIG_FILE",
            CloudsFile::Secure => "OS_CLIENT_SECURE_FILE",
            CloudsFile::Public => "OS_CLIENT_VENDOR_FILE",
        }
    }

    fn stem(self) -> &'static str {
        match self {
            CloudsFile::Clouds => "clouds",
            CloudsFile::Secure => "secure",
            CloudsFile::Public => "clouds-public",
        }
    }
}

/// Where a file may be, in the order in which to look; the first one that is there counts. Relative to the folder that
/// the program runs in.
#[must_use]
pub fn places(file: CloudsFile, variables: &BTreeMap<String, String>) -> Vec<String> {
    let given = |name: &str| variables.get(name).filter(|text| !text.is_empty());
    let mut places: Vec<String> = given(file.variable()).cloned().into_iter().collect();
    let mut folders = vec![".".to_owned()];
    folders.extend(given("XDG_CONFIG_HOME").map(|home| format!("{home}/openstack")));
    folders.extend(given("HOME").map(|home| format!("{home}/.config/openstack")));
    folders.push("/etc/openstack".to_owned());
    for folder in folders {
        let at = |ending| format!("{folder}/{}.{ending}", file.stem());
        places.extend(["yaml", "yml", "json"].map(at));
    }
    places
}
