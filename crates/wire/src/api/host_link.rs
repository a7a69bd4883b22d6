//! The link between a TE host and the server. The host connects outwards; the server never dials.
//!
//! It is level-triggered, so a lost, doubled or late message does no harm: the server tells the
//! whole of what it wants (`HostDesired`) whenever any of it changes, the host tells the whole of
//! what is (`HostReport`) whenever any of it changes and at least every `report_every_s`.
//!
//! ```text
//! GET  /hosts/{host}/stream                      -> SSE: `desired` HostDesired, `operation` Operation
//! POST /hosts/{host}/report                      HostReport -> 204
//! POST /hosts/{host}/testenvs/{te}/serving       ServingReport -> 204   the acknowledgement of a grant
//! POST /hosts/{host}/operations/{op}/result      OperationResult -> 204
//! POST /hosts/{host}/operations/{op}/output      bytes (console, screenshot) -> 204
//! GET  /hosts/{host}/operations/{op}/input       -> bytes (image)
//! ```
//!
//! Fencing: `generation` of a TE never goes back. A host refuses a `DesiredTe` whose generation is
//! older than one it has seen. `Serve {generation}` means: open the gateway for that generation
//! only. `Vacate {generation}` means: every credential of that generation and older is dead, then
//! reset the TE; the host confirms with `TeReportState::Clean {generation}`.

use super::testenv::{HostStatus, MachineState, PowerAction};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asked by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolTokenRequest {
    /// The only host name the token may enrol; absent means any new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub host: Option<String>,
    /// How long the token is good for. Absent: one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub ttl_s: Option<u64>,
}

/// A one-time token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolTokenResponse {
    /// The secret; shown once, stored only as a hash.
    pub token: String,
    /// When it dies unused.
    pub expires_us: i64,
}

impl core::fmt::Debug for EnrolTokenResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EnrolTokenResponse")
            .field("expires_us", &self.expires_us)
            .finish_non_exhaustive()
    }
}

/// A host introduces itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The one-time token.
    pub token: String,
    /// The name it wants.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub host: String,
}

impl core::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EnrolRequest").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A host is in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Enrolled {
    /// Its name.
    pub host: String,
    /// Its bearer token from now on; shown once, stored only as a hash.
    pub token: String,
}

impl core::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Enrolled").field("host", &self.host).finish_non_exhaustive()
    }
}

/// All that the server wants of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostDesired {
    /// One for each TE that the server knows of on the host. A TE that is not named here is left
    /// as it is and its gateway stays as it is until its own limit.
    pub testenvs: Vec<DesiredTe>,
    /// Report at least this often; the server calls a host cut off after three times this.
    pub report_every_s: u64,
}

/// What the server wants of one TE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DesiredTe {
    /// The TE.
    pub testenv: String,
    /// The generation this speaks of.
    pub generation: u64,
    /// What to do.
    pub task: TeTask,
}

/// What the host should do with a TE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum TeTask {
    /// Serve a lease: make its credentials, open the gateway, confirm with `ServingReport`.
    Serve {
        /// The lease, `L<number>`.
        lease: String,
        /// Seconds from the arrival of this message until the host ends the lease by itself.
        /// Repeated messages may make it longer (extension) or shorter.
        left_s: u64,
    },
    /// Cut off `generation` and everything older, reset, check, and report `Clean {generation}`.
    Vacate,
    /// As `Vacate`, then boot the seed for a moment as a burn-in before reporting `Clean`.
    BurnIn,
    /// Cut off `generation` and everything older; machines off; leave disks for inspection.
    Quarantine,
}

/// All that is on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostReport {
    /// New for every start of the agent; a change tells the server that the agent was away.
    pub boot_id: String,
    /// Counts up within a boot id, so that a late report is not taken for news.
    pub sequence: u64,
    /// The host as a whole.
    pub status: HostStatus,
    /// Its TEs. One that is missing here is gone.
    pub testenvs: Vec<TeReport>,
}

/// What is with one TE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TeReport {
    /// The TE.
    pub testenv: String,
    /// Its number on the host.
    pub number: u32,
    /// Its shape.
    pub shape: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Where it stands.
    pub state: TeReportState,
    /// Machines, seed first.
    pub machines: Vec<MachineState>,
}

/// Where a TE stands on its host. `generation` is the newest that the host has seen for it; it is
/// kept on disk, so a restarted host does not accept an older one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TeReportState {
    /// Being built or reset; whatever held it is cut off.
    Resetting {
        /// Newest generation seen.
        generation: u64,
    },
    /// Blank, checked, nobody's: `generation` and everything older is cut off for good.
    Clean {
        /// Newest generation seen.
        generation: u64,
    },
    /// The gateway is open for this generation only.
    Serving {
        /// The generation served.
        generation: u64,
    },
    /// Something is wrong with it; whatever held it is cut off.
    Broken {
        /// Newest generation seen.
        generation: u64,
        /// What, for people.
        reason: String,
    },
}

impl TeReportState {
    /// The newest generation the host has seen for this TE.
    #[must_use]
    pub fn generation(&self) -> u64 {
        match self {
            TeReportState::Resetting { generation }
            | TeReportState::Clean { generation }
            | TeReportState::Serving { generation }
            | TeReportState::Broken { generation, .. } => *generation,
        }
    }
}

/// The host has opened the gateway for a grant.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServingReport {
    /// The generation served.
    pub generation: u64,
    /// The TE JSON, with the key that is good for this generation only.
    #[schema(value_type = Object)]
    pub te_json: serde_json::Value,
}

impl core::fmt::Debug for ServingReport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ServingReport")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// Something a person asked for through the API that only the host can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// The TE.
    pub testenv: String,
    /// Only if the TE is at this generation; otherwise the host refuses.
    pub generation: u64,
    /// What.
    pub kind: OperationKind,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OperationKind {
    /// Answered by `OperationResult::Machines`.
    Power {
        /// Domain name; absent means every machine of the TE.
        machine: Option<String>,
        /// What to do.
        action: PowerAction,
    },
    /// Answered by bytes to `output`; follows until the server closes or the lease ends.
    Console {
        /// Domain name.
        machine: String,
        /// Go on as it grows.
        follow: bool,
    },
    /// Answered by a PNG to `output`.
    Screenshot {
        /// Domain name.
        machine: String,
    },
    /// Answered by text to `output`: power and definitions of all machines, bridges, ports and flows.
    View,
    /// The host fetches the bytes from `input` and answers `OperationResult::Image`.
    PushImage {
        /// Domain name: the seed.
        machine: String,
    },
}

/// How an operation ended. `Refused` and `Failed` may also answer one that wants bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum OperationResult {
    /// Power states after a power action.
    Machines {
        /// The machines concerned.
        machines: Vec<MachineState>,
    },
    /// The image is in place.
    Image {
        /// Bytes received.
        bytes: u64,
        /// Hex SHA-256 of them.
        sha256: String,
        /// `qcow2` or `raw`.
        format: String,
    },
    /// The caller's fault.
    Refused {
        /// Stable word.
        code: String,
        /// For people.
        message: String,
    },
    /// The world's fault.
    Failed {
        /// For people.
        message: String,
    },
}
