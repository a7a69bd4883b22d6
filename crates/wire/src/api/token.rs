//! Tokens: who may call the API, and as what.
//!
//! ```text
//! POST   /tokens        TokenRequest -> NewToken     operator
//! GET    /tokens        -> [TokenInfo]               operator
//! DELETE /tokens/{id}   -> 204                       operator; open streams of the token end
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything that is not secret.
    ReadOnly,
    /// Besides looking: ask for leases, and use the own ones.
    Client,
    /// Be the TE host named by the token's subject, and nothing else.
    Host,
    /// Everything except reading the credentials of somebody else's lease.
    Operator,
}

impl Role {
    /// The spelling used in JSON and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::ReadOnly => "read_only",
            Role::Client => "client",
            Role::Host => "host",
            Role::Operator => "operator",
        }
    }
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.as_str())
    }
}

impl core::str::FromStr for Role {
    type Err = BadRole;
    fn from_str(s: &str) -> Result<Self, BadRole> {
        [Role::ReadOnly, Role::Client, Role::Host, Role::Operator]
            .into_iter()
            .find(|role| role.as_str() == s)
            .ok_or_else(|| BadRole(s.chars().take(40).collect()))
    }
}

/// A word that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: use client, host, operator or read_only")]
pub struct BadRole(pub String);

/// A wish for a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is good for.
    pub role: Role,
    /// Who it stands for: the owner of its leases, or the name of the host.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub subject: String,
    /// How long it is good for, seconds. Absent: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub ttl_s: Option<u64>,
}

/// A new token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// Names the token without being a secret; for `DELETE /tokens/{id}`.
    pub id: String,
    /// The secret; shown once, stored only as a hash.
    pub token: String,
    /// What it is good for.
    pub role: Role,
    /// Who it stands for.
    pub subject: String,
    /// When it dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_us: Option<i64>,
}

impl core::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NewToken")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

/// A token as it is listed: without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Names the token.
    pub id: String,
    /// What it is good for.
    pub role: Role,
    /// Who it stands for.
    pub subject: String,
    /// When it was made.
    pub created_us: i64,
    /// When it dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_us: Option<i64>,
}
