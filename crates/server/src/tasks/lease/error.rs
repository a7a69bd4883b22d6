//! How the lease book says no.

use std::sync::Arc;
use toci_core::refused::Refused;
use toci_store::StoreError;
use toci_wire::api::{ApiError, ErrorKind};

/// Why a command had no effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BookError {
    /// The caller's fault.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store failed: nothing was done, or (very rarely) it was done and could not be told.
    #[error("the lease book could not be written")]
    Failed(#[source] Arc<StoreError>),
    /// The lease task has ended; the server is shutting down.
    #[error("the lease task has ended")]
    Stopped,
}

impl BookError {
    /// The error as the API tells it. The database's own words stay in the server's log.
    #[must_use]
    pub fn api_error(&self) -> ApiError {
        match self {
            BookError::Refused(r) => ApiError {
                kind: ErrorKind::Refused,
                code: r.code.into(),
                message: r.message.clone(),
                hint: r.hint.clone(),
            },
            BookError::Failed(error) => store_failure(error, self.to_string()),
            BookError::Stopped => ApiError {
                kind: ErrorKind::Failed,
                code: "stopping".into(),
                message: self.to_string(),
                hint: "try again in a moment".into(),
            },
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            BookError::Refused(r) => match r.code {
                "not_holder" => 403,
                "no_such_lease" | "no_such_testenv" | "no_such_host" => 404,
                "unknown_label" | "unknown_shape" | "never_fits" | "bad_request" | "bad_report" => {
                    422
                }
                "queue_full" | "hold_budget" => 429,
                _ => 409,
            },
            BookError::Failed(_) | BookError::Stopped => 503,
        }
    }
}

/// Refuses to let anybody but its owner use a lease.
pub(crate) fn is_holder(
    caller: &str,
    lease: impl core::fmt::Display,
    owner: &str,
) -> Result<(), Refused> {
    if caller == owner {
        return Ok(());
    }
    Err(Refused::new(
        "not_holder",
        format!("{lease} belongs to {owner}, and you are {caller}"),
        "use the token with which it was asked for",
    ))
}

/// A failure of the store as the API tells it: a full disk is something that people can act on, the rest is for the
/// log.
pub(crate) fn store_failure(error: &StoreError, otherwise: String) -> ApiError {
    let (code, message, hint) = match error {
        StoreError::DiskFull { .. } => (
            "disk_full",
            format!("nothing was changed: on the server {error}"),
            "free space there: the server then goes on by itself, and nothing granted is lost",
        ),
        _ => ("store_failed", otherwise, "try again; the server's log has the cause"),
    };
    ApiError { kind: ErrorKind::Failed, code: code.into(), message, hint: hint.into() }
}
