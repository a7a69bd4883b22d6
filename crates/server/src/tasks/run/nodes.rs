//! What a run needs of the node pool.

use futures_util::future::BoxFuture;
use std::net::IpAddr;
use toci_core::id::{Label, RunId};
use toci_core::layout::Precedence;
use toci_core::time::Time;
use toci_edge::node::Session;
use tokio::sync::watch;

/// A wish for nodes.
#[derive(Clone, Debug)]
pub struct NodeRequest {
    /// For which run. Asking again for the same run gives the same nodes.
    pub run: RunId,
    /// None: the default label.
    pub label: Option<Label>,
    /// How many.
    pub count: u32,
    /// How urgent.
    pub precedence: Precedence,
    /// Among equals, the smaller number goes first.
    pub relative_priority: u32,
    /// Since when it is wanted.
    pub since: Time,
    /// For which job.
    pub job: String,
}

/// No nodes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// No label and no provider can ever give them.
    #[error("{0}")]
    Impossible(String),
    /// They could not be had.
    #[error("{0}")]
    Failed(String),
}

/// A node that belongs to a run.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// Its name.
    pub name: String,
    /// What it was taken as.
    pub label: Label,
    /// Where it came from.
    pub provider: String,
    /// Its address in its cloud, if it has one.
    pub address: Option<IpAddr>,
    /// The way there.
    pub session: Session,
    /// Becomes true when it is lost.
    pub lost: watch::Receiver<bool>,
}

/// Where nodes come from.
pub trait Nodes: core::fmt::Debug + Send + Sync {
    /// Waits until the nodes are there. Dropping the future withdraws the wish.
    fn take(&self, request: NodeRequest) -> BoxFuture<'_, Result<Vec<NodeHandle>, NodeError>>;

    /// The run is over with its nodes, if it has any: they are deleted, or held for debugging. Again is no harm.
    fn give_back<'a>(&'a self, run: RunId, failed: bool, job: &'a str) -> BoxFuture<'a, ()>;
}
