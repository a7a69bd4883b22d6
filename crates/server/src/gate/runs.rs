//! What the run stage needs of its neighbours: nodes of the pool, and the log archive.

use crate::tasks::log::{self, LogStore};
use crate::tasks::node::{self, NodePool};
use crate::tasks::run::{
    Archive, Archived, Finished, NodeError, NodeHandle, NodeRequest, Nodes, Unarchived,
};
use futures_util::future::BoxFuture;
use toci_core::chain::Chain;
use toci_core::id::RunId;

/// Nodes of the pool.
#[derive(Debug)]
pub(super) struct PooledNodes(pub(super) Option<NodePool>);

impl Nodes for PooledNodes {
    fn take(&self, request: NodeRequest) -> BoxFuture<'_, Result<Vec<NodeHandle>, NodeError>> {
        Box::pin(async move {
            let Some(pool) = &self.0 else {
                let why = "the server has no [[label]] and [[provider]]";
                return Err(NodeError::Impossible(why.to_owned()));
            };
            let request = node::NodeRequest {
                run: request.run,
                label: request.label,
                count: request.count,
                precedence: request.precedence,
                relative_priority: request.relative_priority,
                since: request.since,
                job: request.job,
            };
            match pool.take(request).await {
                Ok(nodes) => Ok(nodes.into_iter().map(handle).collect()),
                Err(node::NodeError::Impossible(why)) => Err(NodeError::Impossible(why)),
                Err(error) => Err(NodeError::Failed(error.to_string())),
            }
        })
    }

    fn give_back<'a>(&'a self, run: RunId, failed: bool, job: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(pool) = &self.0 {
                pool.give_back(run, failed, job).await;
            }
        })
    }
}

fn handle(node: node::NodeHandle) -> NodeHandle {
    NodeHandle {
        name: node.name,
        label: node.label,
        provider: node.provider,
        address: node.cloud_address,
        session: node.session,
        lost: node.lost,
    }
}

impl Archive for LogStore {
    fn archive<'a>(
        &'a self,
        finished: Finished<'a>,
    ) -> BoxFuture<'a, Result<Archived, Unarchived>> {
        Box::pin(async move {
            let Finished { wish, result, folder, mask } = finished;
            let finished = log::Finished { wish, result, folder, mask };
            match LogStore::archive(self, finished).await {
                Ok(log::Archived { url, first_error }) => Ok(Archived { url, first_error }),
                Err(error) => Err(Unarchived(Chain(&error).to_string())),
            }
        })
    }
}
