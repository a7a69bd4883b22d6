//! What a run needs of the node pool.

use crate::tasks::node::{NodeError, NodeHandle, NodeRequest};
use futures_util::future::BoxFuture;
use toci_core::id::RunId;
use toci_core::node::{Failure, Hold};

/// Where nodes come from.
pub trait Nodes: core::fmt::Debug + Send + Sync {
    /// Waits until the nodes are there. Dropping the future withdraws the wish.
    fn take(&self, request: NodeRequest) -> BoxFuture<'_, Result<Vec<NodeHandle>, NodeError>>;

    /// The run failed by its job's own fault: how long its nodes will be kept, if somebody wants to look at them. Comes
    /// before they are given back; again is no harm.
    fn failed(&self, failure: Failure) -> BoxFuture<'_, Option<Hold>>;

    /// The run is over with its nodes, if it has any: they are deleted, or held for debugging. Again is no harm.
    fn give_back(&self, run: RunId) -> BoxFuture<'_, ()>;
}
