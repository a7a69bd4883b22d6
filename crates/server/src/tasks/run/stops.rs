//! What interrupts a run.

use crate::clock::Clock;
use std::sync::Arc;
use toci_core::run::steps::Event;
use toci_core::time::Time;
use toci_wire::api::Lease;
use tokio::sync::watch;

/// What people and the gate want of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It should run.
    Go,
    /// Its item does not need it any more.
    Cancel,
    /// Somebody stopped it.
    Abort,
}

/// Which interruptions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heed {
    /// All, and that it may not begin now: it only waits.
    Waiting,
    /// All that ends a run.
    All,
    /// Not the end of the TE: its verdict is known already.
    ButTestenv,
    /// Only what makes going on impossible: the run is over already.
    Least,
}

/// Everything that may interrupt a run.
#[derive(Debug)]
pub(super) struct Stops {
    pub(super) clock: Clock,
    pub(super) order: watch::Receiver<Order>,
    /// It may not begin now: its job is paused, or the server ends soon and the next one begins it.
    pub(super) held: watch::Receiver<bool>,
    /// One a node.
    pub(super) lost: Vec<watch::Receiver<bool>>,
    pub(super) lease: Option<watch::Receiver<Arc<Lease>>>,
}

impl Stops {
    /// The work's outcome, or what came before its end.
    pub(super) async fn or<T>(
        &mut self,
        deadline: Option<Time>,
        heed: Heed,
        work: impl Future<Output = T>,
    ) -> Result<T, Event> {
        tokio::select! {
            biased;
            event = self.any(deadline, heed) => Err(event),
            done = work => Ok(done),
        }
    }

    async fn any(&mut self, deadline: Option<Time>, heed: Heed) -> Event {
        let Stops { clock, order, held, lost, lease } = self;
        tokio::select! {
            biased;
            () = gone(lost) => Event::NodeLost,
            event = ordered(order), if heed != Heed::Least => event,
            () = ended(lease), if matches!(heed, Heed::Waiting | Heed::All) => Event::TestenvLost,
            () = until(held), if heed == Heed::Waiting => Event::Held,
            () = due(clock, deadline) => Event::TimeUp,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    pub(super) fn is_aborted(&self) -> bool {
        *self.order.borrow() == Order::Abort
    }

    pub(super) fn is_node_lost(&self) -> bool {
        self.lost.iter().any(|lost| *lost.borrow())
    }
}

async fn due(clock: &Clock, deadline: Option<Time>) {
    match deadline {
        Some(at) => tokio::time::sleep(at.since(clock.now())).await,
        None => std::future::pending().await,
    }
}

async fn gone(lost: &mut [watch::Receiver<bool>]) {
    if lost.is_empty() {
        return std::future::pending().await;
    }
    let waits = lost.iter_mut().map(|lost| Box::pin(until(lost)));
    futures_util::future::select_all(waits).await;
}

/// Returns when it is so. A sender that went away says nothing.
async fn until(so: &mut watch::Receiver<bool>) {
    if so.wait_for(|so| *so).await.is_err() {
        std::future::pending().await
    }
}

async fn ordered(order: &mut watch::Receiver<Order>) -> Event {
    let ordered = order.wait_for(|order| *order != Order::Go).await.map(|order| *order);
    match ordered {
        Ok(Order::Abort) => Event::Abort,
        Ok(Order::Cancel) => Event::Cancel,
        // The server stops: nobody can say what becomes of the run.
        Ok(Order::Go) | Err(_) => std::future::pending().await,
    }
}

async fn ended(lease: &mut Option<watch::Receiver<Arc<Lease>>>) {
    match lease {
        Some(lease) => {
            // Without the lease task nothing can be said of it any more.
            let _ = lease.wait_for(|lease| lease.state.is_over()).await;
        }
        None => std::future::pending().await,
    }
}
