//! Runs: one attempt of a job on a node.
//!
//! ```text
//! GET  /runs?ended=N         -> [Run]     read-only; all that are not over, then the newest N that are
//! GET  /runs/{id}            -> Run       read-only
//! GET  /runs/{id}/console    -> SSE       read-only; `console` ConsoleText from the start on, then as it comes;
//!                                         `run` Run when the run is over
//! POST /runs/{id}/cancel     -> Run       operator
//! GET  /run-troubles         -> [RunTrouble]  read-only
//! GET  /alerts               -> Alerts    read-only; troubles, paused jobs, providers that are not well or paused,
//!                                         nodes that cannot be deleted, the test network
//! POST /jobs/{job}/pause     PauseOrder -> JobPause  operator; what runs goes on, nothing begins
//! POST /jobs/{job}/resume    -> 204       operator
//! ```

use super::node::ProviderPause;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Event name of a `ConsoleText`.
pub const EVENT_CONSOLE: &str = "console";
/// Event name of a `Run`.
pub const EVENT_RUN: &str = "run";

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It has no node yet.
    WaitingNode,
    /// It has a node, but no test environment yet.
    WaitingTestenv,
    /// Its workspace is set up.
    Preparing,
    /// Scripts of `pre` run.
    Pre,
    /// The job runs.
    Running,
    /// Scripts of `post` run.
    Post,
    /// Logs are fetched and archived.
    Collecting,
    /// It is over.
    Over,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// 32 hex digits, ZUUL_UUID.
    pub id: String,
    /// Its job.
    pub job: String,
    /// Whether its result counts.
    pub voting: bool,
    /// 1 for the first.
    pub attempt: u32,
    /// Of which pipeline.
    pub pipeline: String,
    /// Of which item; 32 hex digits.
    pub item: String,
    /// The project under test; may be empty.
    pub project: String,
    /// Its branch; may be empty.
    pub branch: String,
    /// What it is about: `1234,5`, a ref, a branch.
    pub subject: String,
    /// Where it stands.
    pub state: RunState,
    /// What it waits for; empty when it does not wait.
    pub waits_for: String,
    /// SUCCESS, FAILURE, TIMED_OUT, ...; absent while it is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Its nodes; the first one runs the scripts.
    pub nodes: Vec<String>,
    /// Its test environment's lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// When it was first wanted.
    pub queued_us: i64,
    /// When node and test environment were there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_us: Option<i64>,
    /// When all was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<i64>,
    /// Console, then logs; may be empty.
    pub url: String,
    /// The first error, or why the infrastructure failed; may be empty.
    pub note: String,
}

/// Whole lines of a console, each `<RFC 3339 time> | <text>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleText {
    /// With their line feeds.
    pub text: String,
}

/// A job or a provider whose runs fail by the infrastructure, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunTrouble {
    /// `job NAME` or `provider NAME`.
    pub of: String,
    /// Failures in a row.
    pub failures: u32,
    /// Since when.
    pub since_us: i64,
    /// What was said of the last one.
    pub last: String,
}

/// Event name of a `RunTrouble` that has just become one.
pub const EVENT_ALERT: &str = "alert";

/// Event name of a `JobPause` that has just begun.
pub const EVENT_JOB_PAUSED: &str = "job_paused";

/// What somebody has to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alerts {
    /// Jobs and providers that fail by the infrastructure again and again.
    pub troubles: Vec<RunTrouble>,
    /// Jobs of which nothing begins.
    pub paused_jobs: Vec<JobPause>,
    /// Providers that cannot be reached, are paused, or give no nodes for a while.
    pub providers: Vec<ProviderAlert>,
    /// Nodes that cannot be deleted.
    #[serde(default)]
    pub nodes: Vec<NodeAlert>,
    /// The test network's ports are not as they should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub testnet: Option<TestnetAlert>,
}

/// The test network's ports are not as they should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetAlert {
    /// The network's name.
    pub network: String,
    /// Since when something is wrong.
    pub since_us: i64,
    /// What is wrong now: the cloud does not do as it should, or something of somebody else's is in the way.
    pub problems: Vec<String>,
}

/// A job that is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobPause {
    /// Its name.
    pub job: String,
    /// Since when.
    pub since_us: i64,
    /// Who paused it; `toci` itself after so many failures in a row.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Pause a job or a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseOrder {
    /// Why, for those who wait.
    pub reason: String,
}

/// A node that is being deleted for longer than `delete_limit_s`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeAlert {
    /// `N<number>`.
    pub node: String,
    /// What its provider calls it.
    pub name: String,
    /// Where it is.
    pub provider: String,
    /// Since when it is being deleted.
    pub since_us: i64,
    /// What its provider said last.
    pub reason: String,
}

/// A provider that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProviderAlert {
    /// Its name.
    pub provider: String,
    /// What is wrong with it.
    pub problems: Vec<String>,
    /// Somebody has paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<ProviderPause>,
    /// It gives no nodes until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until_us: Option<i64>,
}
