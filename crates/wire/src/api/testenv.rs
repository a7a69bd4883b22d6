//! Test environments and hosts.
//!
//! ```text
//! GET  /testenvs                           -> [TestEnv]          read-only
//! GET  /testenvs/{te}                      -> TestEnv            read-only
//! POST /testenvs/{te}/drain                -> TestEnv            operator
//! POST /testenvs/{te}/undrain              -> TestEnv            operator; also ends a quarantine, by burn-in
//! POST /testenvs/{te}/quarantine           Quarantine -> TestEnv operator
//! POST /testenvs/{te}/reset                -> TestEnv            operator; refused while leased
//! POST /testenvs/{te}/power                PowerRequest -> [MachineState]   holder, operator
//! GET  /testenvs/{te}/machines/{m}/console    -> text/plain, ?follow=true streams   holder, operator
//! GET  /testenvs/{te}/machines/{m}/screenshot -> image/png       holder, operator
//! PUT  /testenvs/{te}/machines/{m}/image   qcow2 or raw bytes -> ImagePushed  holder, operator
//! GET  /hosts, /hosts/{host}               -> Host               read-only
//! POST /hosts/{host}/drain|undrain         -> Host               operator
//! POST /hosts/enrol-tokens                 EnrolTokenRequest -> EnrolTokenResponse   operator
//! POST /hosts/enrol                        EnrolRequest -> Enrolled     no token but the one-time one
//! DELETE /hosts/{host}                     -> 204; refused while it has leases       operator
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a TE is doing, as the server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TeState {
    /// Nothing is known yet: its host has not reported it since it was (re)built.
    Unknown,
    /// Clean and free.
    Ready,
    /// Chosen for a lease; the host has not confirmed yet.
    Granted,
    /// In use.
    Leased,
    /// Kept for debugging.
    Held,
    /// Being cut off and made blank again; not granted before the host has confirmed it.
    Resetting,
    /// Being tried out before it returns from quarantine.
    BurnIn,
    /// Failed its self-check, or taken out by hand; see `reason`.
    Quarantined,
}

/// A test environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestEnv {
    /// `<host>-<N>`.
    pub id: String,
    /// Its host.
    pub host: String,
    /// Its number on the host.
    pub number: u32,
    /// What it is doing.
    pub state: TeState,
    /// Its host is cut off from the server: `state` is the last known.
    pub host_connection: Connection,
    /// No new grants; the running lease goes on.
    pub draining: bool,
    /// Its shape.
    pub shape: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Generation of the last grant.
    pub generation: u64,
    /// The lease that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Why it is quarantined; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Machines, seed first, with the power state last reported.
    pub machines: Vec<MachineState>,
    /// When `state` was entered.
    pub since_us: i64,
}

/// One machine of a TE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineState {
    /// libvirt domain name: `seed_<N>` or `baremetalbrbm<N>_<i>`.
    pub name: String,
    /// Whether it runs.
    pub on: bool,
}

/// What to do with a machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Start it.
    On,
    /// Pull the plug.
    Off,
    /// Press reset.
    Reset,
    /// Only say how it is.
    Status,
}

/// Body of `POST /testenvs/{te}/power`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// Domain name; absent means every machine of the TE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What to do.
    pub action: PowerAction,
}

/// Body of `POST /testenvs/{te}/quarantine`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// For people.
    pub reason: String,
}

/// Answer to `PUT /testenvs/{te}/machines/{m}/image`: the image is in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImagePushed {
    /// Bytes received by the host.
    pub bytes: u64,
    /// Hex SHA-256 of them.
    pub sha256: String,
    /// `qcow2` or `raw`.
    pub format: String,
}

/// Whether a host is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// Its stream is open and its reports are fresh.
    Connected,
    /// It is silent; its TEs are not granted.
    CutOff,
}

/// A TE host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its name.
    pub id: String,
    /// Whether it is there.
    pub connection: Connection,
    /// No new grants on any of its TEs.
    pub draining: bool,
    /// Its TEs.
    pub testenvs: Vec<String>,
    /// What it says of itself in its last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<HostStatus>,
    /// When it was last heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_us: Option<i64>,
    /// When it was enrolled.
    pub enrolled_us: i64,
}

/// What a host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostStatus {
    /// Version of toci-host.
    pub version: String,
    /// `kvm` or `qemu`, as the boot probe found.
    pub accelerator: String,
    /// `system` or `netdev`.
    pub datapath: String,
    /// `sandbox` or `host`.
    pub mode: String,
    /// Total memory, MiB.
    pub memory_mib: u64,
    /// CPUs.
    pub cpus: u32,
    /// Free disk where images lie, MiB.
    pub disk_free_mib: u64,
    /// What is wrong, for people; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Its own NIC and those of its seeds on the network that nodes are on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub legs: Vec<NetworkLeg>,
}

/// A NIC on the network that hosts, seeds and nodes share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkLeg {
    /// The number of the TE whose seed it belongs to; absent for the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub testenv: Option<u32>,
    /// Its MAC.
    pub mac: String,
    /// The address that it has, or is to be given by the network's DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}
