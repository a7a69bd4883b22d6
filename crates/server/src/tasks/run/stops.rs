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
    /// It may not begin now: its job is paused, or the server ends soon and the next one begins it.
    Hold,
    /// Its item does not need it any more.
    Cancel,
    /// Somebody stopped it.
    Abort,
}

/// Which interruptions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heed {
    /// All.
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
        let Stops { clock, order, lost, lease } = self;
        tokio::select! {
            () = gone(lost) => Event::NodeLost,
            event = ordered(order), if heed != Heed::Least => event,
            () = ended(lease), if heed == Heed::All => Event::TestenvLost,
            () = due(clock, deadline) => Event::TimeUp,
        }
    }

    /// Returns when it may go on, or is stopped.
    pub(super) async fn until_not_held(&mut self) {
        if self.order.wait_for(|order| *order != Order::Hold).await.is_err() {
            std::future::pending().await
        }
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

/// A sender that went away says nothing about the node.
async fn until(lost: &mut watch::Receiver<bool>) {
    if lost.wait_for(|lost| *lost).await.is_err() {
        std::future::pending().await
    }
}

async fn ordered(order: &mut watch::Receiver<Order>) -> Event {
    let ordered = order
        .wait_for(|order| matches!(order, Order::Cancel | Order::Abort))
        .await
        .map(|order| *order);
    match ordered {
        Ok(Order::Abort) => Event::Abort,
        Ok(Order::Cancel) => Event::Cancel,
        // The server stops: nobody can say what becomes of the run.
        Ok(Order::Go | Order::Hold) | Err(_) => std::future::pending().await,
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
