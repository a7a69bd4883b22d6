//! The loop of the pipeline task: batch, apply, commit, tell.

use super::handle::{BATCH_MAX, Cursor, ENDED_MAX, Ended, GateError, News};
use crate::clock::now;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use toci_core::layout::Layout;
use toci_core::pipeline::{Answer, Gate, Input, Policy, Wanted};
use toci_core::time::Time;
use toci_store::{GateBatch, Store, StoreError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// The gate is ticked at least so often.
const TICK: Duration = Duration::from_secs(10);

pub(super) type Look = Box<dyn FnOnce(&State) + Send>;
type Reply = oneshot::Sender<Result<Answer, GateError>>;

pub(super) enum Command {
    /// Changes the gate; answered once that is on disk.
    Apply { input: Box<Input>, cursor: Option<Cursor>, reply: Reply },
    /// Looks at the gate as it is on disk.
    Look(Look),
}

/// What the task owns.
pub(super) struct State {
    pub(super) gate: Gate,
    pub(super) layout: Arc<Layout>,
    pub(super) ended: VecDeque<Arc<Ended>>,
    policy: Policy,
    store: Store,
    publish: watch::Sender<Arc<Wanted>>,
    news: broadcast::Sender<News>,
    /// A commit failed and the gate could not be read again yet.
    broken: Option<Arc<StoreError>>,
}

impl State {
    pub(super) fn new(
        gate: Gate,
        layout: Arc<Layout>,
        policy: Policy,
        store: Store,
        publish: watch::Sender<Arc<Wanted>>,
        news: broadcast::Sender<News>,
    ) -> State {
        State { gate, layout, ended: VecDeque::new(), policy, store, publish, news, broken: None }
    }

    /// Runs until every handle is dropped or another server takes the book over.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        // The first tick walks through what was read.
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                n = commands.recv_many(&mut batch, BATCH_MAX) => {
                    if n == 0 {
                        return;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
            if self.round(&mut batch).await.is_err() {
                tracing::error!("another server has taken the gate over; this one stops");
                return;
            }
            let now = now();
            let due = self.gate.next_due(now).map_or(TICK, |due| due.since(now));
            pause = if self.broken.is_some() { Duration::from_secs(1) } else { due.min(TICK) };
        }
    }

    /// One batch. A failed commit has been told to all concerned.
    async fn round(&mut self, batch: &mut Vec<Command>) -> Result<(), ()> {
        if self.broken.is_some() {
            self.read_again().await;
        }
        let now = now();
        let mut looks: Vec<Look> = Vec::new();
        let mut answers: Vec<(Reply, Result<Answer, GateError>)> = Vec::new();
        let mut cursors = Vec::new();
        let tick = self.apply(Input::Tick, now);
        for command in batch.drain(..) {
            match command {
                Command::Look(look) => looks.push(look),
                Command::Apply { input, cursor, reply } => {
                    let answer = self.apply(*input, now);
                    if answer.is_ok() {
                        cursors.extend(cursor);
                    }
                    answers.push((reply, answer));
                }
            }
        }
        let failure = if self.broken.is_some() { None } else { self.commit(cursors).await.err() };
        match &failure {
            Some(failure) => {
                self.broken = Some(Arc::clone(failure));
                self.read_again().await;
            }
            None => {
                let taken = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
                let all: Vec<Answer> = tick.iter().chain(taken).cloned().collect();
                self.tell(&all, now);
            }
        }
        for (reply, answer) in answers {
            let answer = match (&failure, answer) {
                (Some(failure), Ok(_)) => Err(GateError::Failed(Arc::clone(failure))),
                (_, answer) => answer,
            };
            // Who no longer listens does not need the answer.
            let _ = reply.send(answer);
        }
        for look in looks {
            look(self);
        }
        match failure.as_deref() {
            Some(StoreError::TakenOver) => Err(()),
            Some(_) | None => Ok(()),
        }
    }

    fn apply(&mut self, input: Input, now: Time) -> Result<Answer, GateError> {
        if let Some(failure) = &self.broken {
            return Err(GateError::Failed(Arc::clone(failure)));
        }
        if let Input::Layout(layout) = &input {
            self.layout = Arc::clone(layout);
        }
        Ok(self.gate.on(input, now, &mut fresh)?)
    }

    async fn commit(&mut self, cursors: Vec<Cursor>) -> Result<(), Arc<StoreError>> {
        let changes = self.gate.take_changes();
        if changes.is_empty() && cursors.is_empty() {
            return Ok(());
        }
        let batch = GateBatch {
            items: changes.items.iter().filter_map(|id| self.gate.item_row(*id)).collect(),
            removed_items: changes.removed_items.into_iter().collect(),
            reports: changes.reports.iter().filter_map(|id| self.gate.report_row(*id)).collect(),
            removed_reports: changes.removed_reports.into_iter().collect(),
            waiting: changes.waiting.iter().filter_map(|id| self.gate.waiting_row(id)).collect(),
            removed_waiting: changes.removed_waiting.into_iter().collect(),
            state: changes.state.then(|| self.gate.state_row()),
            cursors,
        };
        self.store.commit_gate(&batch).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the gate cannot be written");
            Arc::new(error)
        })
    }

    /// After a commit: what is wanted now, and what happened.
    fn tell(&mut self, answers: &[Answer], now: Time) {
        let wanted = self.gate.wanted();
        self.publish.send_if_modified(|known| {
            let news = **known != wanted;
            if news {
                *known = Arc::new(wanted);
            }
            news
        });
        for answer in answers {
            for note in &answer.notes {
                tracing::info!(code = note.code, pipeline = ?note.pipeline, "{}", note.text);
            }
            for left in &answer.left {
                tracing::info!(item = %left.item, pipeline = %left.pipeline, end = ?left.end, "an item left");
                let ended = Arc::new(Ended { left: left.clone(), at: now });
                if self.ended.len() >= ENDED_MAX {
                    self.ended.pop_front();
                }
                self.ended.push_back(Arc::clone(&ended));
                // Nobody may follow.
                let _ = self.news.send(News::Left(ended));
            }
            for (pipeline, project) in &answer.merged_in {
                let _ = self.news.send(News::MergedIn(pipeline.clone(), project.clone()));
            }
        }
    }

    /// Reads the gate from the store, as after a restart.
    async fn read_again(&mut self) {
        match self.store.read_gate().await {
            Ok(rows) => {
                self.gate = Gate::load(Arc::clone(&self.layout), self.policy.clone(), rows);
                self.broken = None;
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the gate cannot be read again"
                );
                self.broken = Some(Arc::new(error));
            }
        }
    }
}

/// A new id.
fn fresh() -> u128 {
    uuid::Uuid::new_v4().as_u128()
}
