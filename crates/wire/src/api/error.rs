//! How the API says no.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whose fault it is. Decides whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The caller's: the same request will be refused again (HTTP 4xx).
    Refused,
    /// The world's: the same request may work later (HTTP 5xx).
    Failed,
}

/// Body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// What happened, where, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}{}", if hint.is_empty() { String::new() } else { format!(" ({hint})") })]
pub struct ApiError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// A stable word for programs, e.g. `unknown_label`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// What to do next, for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}
