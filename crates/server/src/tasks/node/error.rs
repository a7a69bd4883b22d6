//! How the node pool says no.

use toci_core::refused::Refused;

/// Why there are no nodes, or why a command had no effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// No label and no provider can ever give them.
    #[error("{0}")]
    Impossible(String),
    /// They could not be had, or were lost.
    #[error("{0}")]
    Failed(String),
    /// The caller's fault.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The node task has ended; the server is shutting down.
    #[error("the node task has ended")]
    Stopped,
}

impl NodeError {
    /// A refused request, as a run sees it.
    pub(super) fn of_request(refused: Refused) -> NodeError {
        match refused.code {
            "nodes_lost" | "queue_full" => NodeError::Failed(refused.to_string()),
            _ => NodeError::Impossible(refused.to_string()),
        }
    }
}
