//! Nodes and where they come from.
//!
//! ```text
//! GET  /nodes                  -> [Node]           read-only
//! GET  /nodes/{node}           -> Node             read-only
//! POST /nodes/{node}/hold      NodeHold -> Node    operator; a node in use is kept when its run is over
//! POST /nodes/{node}/delete    -> 204              operator; refused while a run has it
//! GET  /autoholds              -> [Autohold]       read-only
//! POST /autoholds              AutoholdRequest -> Autohold   operator
//! POST /autoholds/{autohold}/delete -> 204         operator
//! GET  /providers              -> [Provider]       read-only
//! POST /providers/{provider}/pause  PauseOrder -> 204  operator; what is there is used, nothing is built
//! POST /providers/{provider}/resume -> 204         operator; also ends a pause after failed builds
//! GET  /images                 -> [NodeImage]      read-only
//! POST /images/{image}/rebuild -> 204              operator; the old one stays in use until the new one was tried
//! POST /images/{image}/withdraw -> 204             operator; of an image's id: nodes are made of the one before it
//! ```

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Its provider makes it.
    Building,
    /// Whether it is fit for a run is being found out.
    Testing,
    /// Fit and free.
    Ready,
    /// Chosen for a run.
    Handing,
    /// A run has it.
    InUse,
    /// Kept for people to look at.
    Held,
    /// Not needed any more; its provider has not said yet that it is gone.
    Deleting,
}

/// A machine for one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// `N` and a number that is never used again.
    pub id: String,
    /// What its provider calls it.
    pub name: String,
    /// What jobs ask for.
    pub label: String,
    /// Where it is.
    pub provider: String,
    /// What it is doing.
    pub state: NodeState,
    /// Since when.
    pub since_us: i64,
    /// Its address in its cloud, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The run that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The job that has it or had it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// Kept for people until then: at once, or when its run is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until_us: Option<i64>,
    /// Why it is held or deleted; what its provider said when that did not work.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// It is being deleted for longer than `delete_limit_s`, and goes on being; somebody has to see why it does not go.
    #[serde(default)]
    pub overdue: bool,
}

/// Body of `POST /nodes/{node}/hold`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeHold {
    /// From now.
    pub for_s: u64,
    /// Why.
    pub reason: String,
}

/// Body of `POST /autoholds`: keep the nodes of the next failures of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoholdRequest {
    /// Of this job.
    pub job: String,
    /// Only of this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Only of this change (`1234`, `1234,5`) or ref (`refs/heads/master`, `master`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Of so many failures.
    pub count: u32,
    /// How long the nodes of each are kept.
    pub for_s: u64,
    /// Why.
    pub reason: String,
}

/// A standing wish to keep the nodes of failures to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Autohold {
    /// `A` and a number that is never used again.
    pub id: String,
    /// Of this job.
    pub job: String,
    /// Only of this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Only of this change or ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Failures that it is still for.
    pub left: u32,
    /// How long the nodes of each are kept.
    pub for_s: u64,
    /// Why, and who said so.
    pub reason: String,
    /// When it ends, spent or not.
    pub until_us: i64,
}

/// Where nodes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// `local`, `static` or `libvirt`.
    pub kind: String,
    /// It was asked and answered.
    pub reachable: bool,
    /// Nodes at most.
    pub max_servers: u64,
    /// Its nodes by state.
    pub nodes: BTreeMap<String, u64>,
    /// Labels it offers.
    pub labels: Vec<String>,
    /// What is wrong; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Somebody has paused it: nothing is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<ProviderPause>,
    /// After failures, no node of some label is built before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until_us: Option<i64>,
}

/// Nothing is built at a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProviderPause {
    /// Since when.
    pub since_us: i64,
    /// Who paused it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What an image is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// It is being made.
    Building,
    /// Whether a machine boots from it is being found out.
    Testing,
    /// Machines boot from it.
    Ready,
    /// It could not be made, or nothing boots from it.
    Failed,
    /// No node is made of it any more; some may still lie on it.
    Withdrawn,
    /// Not needed any more.
    Deleting,
}

/// What a provider makes its machines of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeImage {
    /// `<name>-<hash of its recipe>-<second of its build>`.
    pub id: String,
    /// What labels call it.
    pub name: String,
    /// Whose.
    pub provider: String,
    /// What it is doing.
    pub state: ImageState,
    /// Nodes are made of it; others of its name that are ready are kept for the day on which it is withdrawn.
    pub serves: bool,
    /// Since when.
    pub since_us: i64,
    /// When its build began.
    pub made_us: i64,
    /// Machines boot from it under KVM.
    pub kvm: bool,
    /// Builds that failed in a row.
    pub failures: u32,
    /// Why it failed; while it is built, the last line of its build.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub told: String,
    /// The log of its build, on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}
