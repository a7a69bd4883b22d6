//! Leases: exclusive, time-limited use of test environments.
//!
//! ```text
//! POST   /leases                 LeaseRequest -> Lease          client
//! GET    /leases                 -> [Lease]                     read-only
//! GET    /leases/{id}            -> Lease                       read-only
//! GET    /leases/{id}/stream     -> SSE of Lease, one each change; ends with the lease
//! GET    /leases/{id}/testenvs   -> [LeaseTestenv]              holder only: has credentials
//! POST   /leases/{id}/heartbeat  -> Lease                       holder
//! POST   /leases/{id}/extend     Extend -> Lease                holder, operator
//! POST   /leases/{id}/release    Release -> Lease               holder, operator
//! POST   /leases/{id}/hold       Hold -> Lease                  holder, operator
//! POST   /leases/{id}/revoke     Revoke -> Lease                operator
//! GET    /events                 -> SSE of changes to leases, testenvs, hosts (event name says which)
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a client asks for. With `label` and `shape`, TEs that have both; with neither, any TE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// Only TEs that offer this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub label: Option<String>,
    /// Only TEs of this shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub shape: Option<String>,
    /// How many TEs, all or none of them at once. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub count: Option<u32>,
    /// Who it is for; fairness and hold budgets are counted by project. Absent: the token's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub project: Option<String>,
    /// 0 (low) to 100 (high). Absent: 50. Waiting raises it, so nobody starves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub priority: Option<u8>,
    /// How long the TE is wanted, counted from the grant. Absent: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub timeout_s: Option<u64>,
    /// How long to wait in the queue before the request is refused. Absent: without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_timeout_s: Option<u64>,
    /// What it is for, shown to people, e.g. a job's name or a command. At most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub purpose: Option<String>,
    /// Chosen by the client; a repeated request with the same key and subject gets the same lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub idempotency_key: Option<String>,
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// In the queue; see `waiting`.
    Waiting,
    /// TEs are chosen and durable; their hosts have not yet all confirmed.
    Granted,
    /// The holder has the TEs; the clock runs.
    Active,
    /// Kept for debugging after the run, until `expires_us`; no heartbeats are needed.
    Held,
    /// The holder gave it back.
    Released,
    /// Its time was over.
    Expired,
    /// The holder's heartbeats stopped.
    Lost,
    /// An operator, or the loss of its host, ended it.
    Revoked,
    /// It never got a TE: withdrawn, wait limit passed, or impossible.
    Refused,
}

impl LeaseState {
    /// Whether the lease is over for good.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            LeaseState::Waiting | LeaseState::Granted | LeaseState::Active | LeaseState::Held => {
                false
            }
            LeaseState::Released
            | LeaseState::Expired
            | LeaseState::Lost
            | LeaseState::Revoked
            | LeaseState::Refused => true,
        }
    }
}

/// Why a request waits and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// Place in the queue among requests that compete for the same TEs; 1 is next.
    pub position: u32,
    /// For people, e.g. `all 4 TEs of label devtest are in use`.
    pub reason: String,
    /// Estimate from recent lease times; absent while too few test environments are in reach to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_s: Option<u64>,
}

/// A lease, as everybody may see it: no credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// `L<number>`.
    pub id: String,
    /// Where it stands.
    pub state: LeaseState,
    /// Who asked: the token's subject.
    pub owner: String,
    /// Who it is for.
    pub project: String,
    /// The label asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The shape asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// How many TEs.
    pub count: u32,
    /// As asked for, without ageing.
    pub priority: u8,
    /// What it is for.
    pub purpose: String,
    /// The TEs granted, with the generation of each grant; empty while waiting.
    pub testenvs: Vec<LeasedTe>,
    /// Present while waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Why it ended or was refused; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it was asked for.
    pub requested_us: i64,
    /// When it became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_us: Option<i64>,
    /// When it ends unless extended. Absent while waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_us: Option<i64>,
    /// Seconds left by the server's clock. Absent while waiting and after the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_s: Option<u64>,
    /// Send a heartbeat at least this often while active.
    pub heartbeat_s: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<i64>,
}

/// One TE of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeasedTe {
    /// The TE.
    pub testenv: String,
    /// The generation of this grant.
    pub generation: u64,
}

/// What the holder gets for each TE.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseTestenv {
    /// The TE.
    pub testenv: String,
    /// The generation of this grant.
    pub generation: u64,
    /// The TE JSON of origin.md 3.3, to be written to TE_DATAFILE. Holds the lease's private key.
    #[schema(value_type = Object)]
    pub te_json: serde_json::Value,
}

impl core::fmt::Debug for LeaseTestenv {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LeaseTestenv")
            .field("testenv", &self.testenv)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// More time, counted from now, up to the server's maximum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// Seconds from now that the lease should still last.
    #[schema(minimum = 1)]
    pub for_s: u64,
}

/// Give it back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Keep it for debugging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Seconds from now; taken from the project's hold budget.
    #[schema(minimum = 1)]
    pub for_s: u64,
    /// For people.
    pub reason: String,
}

/// Take it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// For people; the holder sees it.
    pub reason: String,
}
