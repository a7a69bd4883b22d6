//! Why a demo cannot go on.

use toci_client::api::ClientError;
use toci_core::chain::Chain;

/// What functions here give.
pub type Result<T, E = DemoError> = core::result::Result<T, E>;

/// The world's fault, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DemoError {
    /// What happened: a lowercase fragment.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl DemoError {
    /// An error.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> DemoError {
        DemoError { message: message.into(), hint: hint.into() }
    }

    /// An error with its causes.
    pub fn failed(what: impl core::fmt::Display, source: &dyn core::error::Error) -> DemoError {
        DemoError::new(format!("{what}: {}", Chain(source)), "")
    }
}

impl From<ClientError> for DemoError {
    fn from(error: ClientError) -> DemoError {
        DemoError::failed("ask the control plane", &error)
    }
}
