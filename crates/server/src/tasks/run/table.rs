//! What the desk knows of its runs: one entry a run, what is paused, what fails again and again.

use super::console::Mark;
use super::stops::Order;
use std::collections::BTreeMap;
use std::sync::Arc;
use toci_core::id::RunId;
use toci_core::run::record::Record;
use toci_core::run::streak::{Streaks, Watched};
use toci_core::run::trouble::Troubles;
use toci_store::JobPause;
use tokio::sync::{broadcast, watch};

#[derive(Debug, Default)]
pub(super) struct Table {
    /// The server ends when what has begun is over; nothing else begins.
    pub(super) draining: bool,
    /// Nothing of these jobs begins.
    pub(super) paused: BTreeMap<String, JobPause>,
    pub(super) known: BTreeMap<RunId, Known>,
    pub(super) troubles: Troubles,
    pub(super) streaks: Streaks,
}

/// A run that has a task, or had one and is still wanted.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) view: watch::Receiver<Arc<Record>>,
    pub(super) order: watch::Sender<Order>,
    held: watch::Sender<bool>,
    pub(super) marks: watch::Receiver<Mark>,
    job: String,
    /// Counted for a pause of its job; none: it is not.
    pub(super) watched: Option<Watched>,
    pub(super) over: bool,
}

/// The other side of a [`Known`]: what a run's task tells, and what it is told.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) view: View,
    pub(super) order: watch::Receiver<Order>,
    pub(super) held: watch::Receiver<bool>,
    pub(super) marks: watch::Sender<Mark>,
}

/// Where a run's steps are shown: to those who follow this run, and to those who follow all.
#[derive(Clone, Debug)]
pub(super) struct View {
    one: watch::Sender<Arc<Record>>,
    all: broadcast::Sender<Arc<Record>>,
}

impl View {
    /// Both know of it when this returns: a server that ends after the last run has told the end of that run.
    pub(super) fn show(&self, record: Arc<Record>) {
        self.one.send_replace(Arc::clone(&record));
        // Nobody may follow.
        let _ = self.all.send(record);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Record>> {
        self.one.subscribe()
    }
}

impl Table {
    /// A new entry, whose steps are told to `all`.
    pub(super) fn enter(
        &mut self,
        record: Record,
        watched: Option<Watched>,
        all: broadcast::Sender<Arc<Record>>,
    ) -> Entry {
        let (id, job) = (record.run, record.job.to_string());
        let (one, seen) = watch::channel(Arc::new(record));
        let (order, ordered) = watch::channel(Order::Go);
        let (held, is_held) = watch::channel(self.is_held(&job));
        let (marks, marked) = watch::channel(Mark::default());
        let known = Known { view: seen, order, held, marks: marked, job, watched, over: false };
        self.known.insert(id, known);
        Entry { view: View { one, all }, order: ordered, held: is_held, marks }
    }

    /// Whether a run of this job may not begin.
    pub(super) fn is_held(&self, job: &str) -> bool {
        self.draining || self.paused.contains_key(job)
    }

    /// Tells every run whether it may begin. Those that have begun do not heed it.
    pub(super) fn hold_or_go(&self) {
        for known in self.known.values() {
            let next = self.is_held(&known.job);
            known.held.send_if_modified(|held| std::mem::replace(held, next) != next);
        }
    }
}

impl Known {
    /// Stops it, unless it is stopped already.
    pub(super) fn stop(&self, how: Order) {
        self.order.send_if_modified(|order| {
            let goes = *order == Order::Go;
            if goes {
                *order = how;
            }
            goes
        });
    }
}
