//! What all handlers share.

use crate::auth::{Auth, Identity};
use crate::broker::BrokerHandle;
use crate::gate::GateParts;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::tasks::lease::LeaseBook;
use crate::tasks::log::LogStore;
use crate::tasks::node::NodePool;
use crate::testnet::TestnetHealth;
use std::sync::Arc;
use toci_store::Store;
use tokio::sync::{Notify, watch};

/// What all handlers share.
pub(crate) struct Api {
    pub(crate) book: LeaseBook,
    pub(crate) store: Store,
    pub(crate) auth: Auth,
    pub(crate) relay: Arc<Relay>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) broker: BrokerHandle,
    /// None on a server that only has leases.
    pub(crate) gate: Option<Arc<GateParts>>,
    pub(crate) logs: LogStore,
    /// None: no labels are configured.
    pub(crate) nodes: Option<NodePool>,
    /// None: there is no test network to look after.
    pub(crate) testnet: Option<TestnetHealth>,
    /// Whoever notifies it has the server exit when what runs is over.
    pub(crate) exit: Arc<Notify>,
    /// Becomes true when the server stops; streams end then.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The state of the router.
pub(crate) type Shared = Arc<Api>;

/// Tells a stream when it has to end although its subject has not.
pub(crate) struct StreamGuard {
    api: Shared,
    identity: Identity,
    stopping: watch::Receiver<bool>,
    revocations: watch::Receiver<u64>,
}

impl StreamGuard {
    pub(crate) fn new(api: &Shared, identity: Identity) -> StreamGuard {
        api.metrics.streams_open.add(1);
        StreamGuard {
            api: api.clone(),
            identity,
            stopping: api.stopping.clone(),
            revocations: api.auth.revocations(),
        }
    }

    /// Returns when the server stops or the token is no longer good. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        // What never comes.
        self.while_good(std::future::pending::<()>()).await;
    }

    /// What comes. `None` at once when the token is no longer good; when the server stops, as soon as nothing is there
    /// any more: what happened before is still told. Cancel-safe if `news` is.
    pub(crate) async fn while_good<T>(&mut self, news: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.api.auth.until_revoked(&self.identity, &mut self.revocations) => None,
            news = news => Some(news),
            // The sender lives as long as the server, so an error means the end as well.
            _ = self.stopping.wait_for(|stopping| *stopping) => None,
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.api.metrics.streams_open.sub(1);
    }
}
