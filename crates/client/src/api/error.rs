//! How a call can fail, and what to do then.

use std::time::Duration;
use toci_wire::api::{ApiError, ErrorKind};

/// Why a call did not work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no, or could not.
    #[error("{error}")]
    Api {
        /// HTTP status.
        status: u16,
        /// What the server says.
        error: ApiError,
    },
    /// Nobody answers at the server's address.
    #[error("cannot reach {server}: {reason} ({hint})")]
    Unreachable {
        /// The address that was tried.
        server: String,
        /// Where it went wrong, for people.
        reason: String,
        /// What to do.
        hint: &'static str,
        /// The cause.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The connection broke after the request was sent: it may or may not have been carried out.
    #[error("connection to {server} broke during {what}")]
    Broken {
        /// The server.
        server: String,
        /// During what.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer took longer than its limit.
    #[error("{server} did not answer {what} within {} s", limit.as_secs())]
    TooSlow {
        /// The server.
        server: String,
        /// What was asked.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer is not what the API says; usually something else listens at the address.
    #[error(
        "{server} gave an answer to {what} that is not toci's: {reason} (is it a toci server of this version?)"
    )]
    Protocol {
        /// The server.
        server: String,
        /// What was asked.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The data to send could not be read.
    #[error("read the data to send")]
    Source(#[source] std::io::Error),
}

impl ClientError {
    /// Whether the same call may work later: the server is away, slow, or failed for its own reasons.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Api { status, error } => {
                *status == 429 || matches!(error.kind, ErrorKind::Failed)
            }
            ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::TooSlow { .. } => true,
            ClientError::Protocol { .. } | ClientError::Source(_) => false,
        }
    }

    /// The server's stable word for the error, when it was the server that spoke.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Api { error, .. } => Some(&error.code),
            ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::TooSlow { .. }
            | ClientError::Protocol { .. }
            | ClientError::Source(_) => None,
        }
    }

    /// The HTTP status, when it was the server that spoke.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Api { status, .. } => Some(*status),
            ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::TooSlow { .. }
            | ClientError::Protocol { .. }
            | ClientError::Source(_) => None,
        }
    }
}
