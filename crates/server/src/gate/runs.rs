//! What the run stage needs of its neighbours: nodes of the pool, and the log archive.

use crate::tasks::log::{Archived, Finished, LogError, LogStore};
use crate::tasks::node::{NodeError, NodeHandle, NodePool, NodeRequest};
use crate::tasks::run::{Archive, Nodes};
use futures_util::future::BoxFuture;
use toci_core::id::RunId;
use toci_core::node::{Failure, Hold};

/// Nodes of the pool, if the server has one.
impl Nodes for Option<NodePool> {
    fn take(&self, request: NodeRequest) -> BoxFuture<'_, Result<Vec<NodeHandle>, NodeError>> {
        Box::pin(async move {
            match self {
                Some(pool) => pool.take(request).await,
                None => {
                    let why = "the server has no [[label]] and [[provider]]";
                    Err(NodeError::Impossible(why.to_owned()))
                }
            }
        })
    }

    fn failed(&self, failure: Failure) -> BoxFuture<'_, Option<Hold>> {
        Box::pin(async move {
            let held = self.as_ref()?.failed(failure).await;
            held.unwrap_or_else(|error| {
                tracing::warn!(%error, "whether a failed run's nodes are kept cannot be asked");
                None
            })
        })
    }

    fn give_back(&self, run: RunId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(pool) = self {
                pool.give_back(run).await;
            }
        })
    }
}

impl Archive for LogStore {
    fn archive<'a>(&'a self, finished: Finished<'a>) -> BoxFuture<'a, Result<Archived, LogError>> {
        Box::pin(LogStore::archive(self, finished))
    }
}
