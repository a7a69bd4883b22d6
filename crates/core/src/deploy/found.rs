//! What is.

use super::wish::Version;
use serde::Serialize;

/// What starts services on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Services {
    /// systemd runs.
    Systemd,
    /// Nothing that we know: a script of ours keeps the host running, until the machine goes down.
    None,
}

/// How the service stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It does not run.
    Stopped,
    /// It runs, and is not well (yet).
    Unwell,
    /// This version serves the host.
    Well(Version),
    /// A `toci-host` that was not put there by us runs on the same state.
    Foreign,
}

/// One setting that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key, from the top, with dots.
    pub key: String,
    /// Its value there; absent: it is not set.
    pub from: Option<String>,
    /// Its value as it should be; absent: it should not be set.
    pub to: Option<String>,
}

/// The configuration that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigState {
    /// None.
    Missing,
    /// As it should be, to the letter.
    Same,
    /// These settings differ; none: only comments or the layout do.
    Differs(Vec<Difference>),
}

/// A machine as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// `ID` of os-release.
    pub distribution: String,
    /// `VERSION_ID` of os-release; empty where a distribution has none.
    pub release: String,
    /// In the words of `uname -m`.
    pub arch: String,
    /// Whether we are root there.
    pub is_root: bool,
    /// All of it, MiB.
    pub memory_mib: u64,
    /// How many.
    pub cpus: u32,
    /// Where the host keeps its state.
    pub state: String,
    /// Free where the state is or will be, MiB.
    pub disk_free_mib: u64,
    /// What starts services.
    pub services: Services,
    /// Packages that are not installed.
    pub missing_packages: Vec<String>,
    /// Versions of the program that are there.
    pub installed: Vec<Version>,
    /// The version that is started.
    pub current: Option<Version>,
    /// The one before, for a roll-back.
    pub previous: Option<Version>,
    /// The configuration.
    pub config: ConfigState,
    /// Text of the unit or of the keeper's script.
    #[serde(skip)]
    pub service: Option<String>,
    /// Whether it has a credential for the server.
    pub has_credential: bool,
    /// How the service stands.
    pub standing: Standing,
}

/// What the server knows of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AtServer {
    /// It is enrolled.
    pub is_enrolled: bool,
    /// Its TEs that somebody uses.
    pub in_use: Vec<String>,
}
