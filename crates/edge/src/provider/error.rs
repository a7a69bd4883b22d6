//! What providers say when something did not work.

use toci_core::chain::Chain;

/// Why a provider did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct ProviderError {
    /// What was tried.
    pub what: String,
    /// What went wrong.
    pub why: String,
    /// There is no room for it now. Nothing has failed.
    pub no_room: bool,
}

impl ProviderError {
    /// An error from whatever can be shown, with its causes.
    pub fn new(what: impl Into<String>, error: &dyn std::error::Error) -> ProviderError {
        ProviderError { what: what.into(), why: Chain(error).to_string(), no_room: false }
    }

    /// There is no room, as this error says.
    pub fn no_room(what: impl Into<String>, error: &dyn std::error::Error) -> ProviderError {
        ProviderError { no_room: true, ..ProviderError::new(what, error) }
    }

    /// An error in words.
    pub fn said(what: impl Into<String>, why: impl Into<String>) -> ProviderError {
        ProviderError { what: what.into(), why: why.into(), no_room: false }
    }
}
