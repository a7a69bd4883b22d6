//! The loop of the pipeline task: batch, apply, commit, tell.

use super::handle::{BATCH_MAX, Cursor, GateError, News};
use crate::clock::now;
use std::sync::Arc;
use std::time::Duration;
use toci_core::layout::Layout;
use toci_core::pipeline::{Answer, Gate, Input, Policy, ReportOutcome, ReportWish, Wanted};
use toci_core::time::Time;
use toci_store::{EndedItem, GateBatch, Store, StoreError};
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
    policy: Policy,
    store: Store,
    publish: watch::Sender<Arc<Wanted>>,
    news: broadcast::Sender<News>,
    /// Reports that this batch says were delivered.
    reported: Vec<ReportWish>,
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
        State { gate, layout, policy, store, publish, news, reported: Vec::new(), broken: None }
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
        let taken = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let all: Vec<Answer> = tick.iter().chain(taken).cloned().collect();
        let left = all.iter().flat_map(|answer| &answer.left).filter(|left| left.live);
        let ended: Vec<EndedItem> =
            left.map(|left| EndedItem { at: now, left: left.clone() }).collect();
        let failure = match self.broken {
            Some(_) => None,
            None => self.commit(cursors, ended.clone()).await.err(),
        };
        match &failure {
            Some(failure) => {
                self.broken = Some(Arc::clone(failure));
                self.reported.clear();
                self.read_again().await;
            }
            None => self.tell(&all, ended),
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
        let told = self.told(&input);
        if let Input::Layout(layout) = &input {
            self.layout = Arc::clone(layout);
        }
        let answer = self.gate.on(input, now, &mut fresh)?;
        self.reported.extend(told);
        Ok(answer)
    }

    /// A report that is delivered with this input.
    fn told(&self, input: &Input) -> Option<ReportWish> {
        let Input::Report { report, outcome: ReportOutcome::Done { .. } } = input else {
            return None;
        };
        let wanted = self.publish.borrow();
        wanted.reports.iter().find(|wish| wish.report == *report).cloned()
    }

    async fn commit(
        &mut self,
        cursors: Vec<Cursor>,
        ended: Vec<EndedItem>,
    ) -> Result<(), Arc<StoreError>> {
        let changes = self.gate.take_changes();
        if changes.is_empty() && cursors.is_empty() && ended.is_empty() {
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
            ended,
            cursors,
        };
        self.store.commit_gate(&batch).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the gate cannot be written");
            Arc::new(error)
        })
    }

    /// After a commit: what is wanted now, and what happened.
    fn tell(&mut self, answers: &[Answer], ended: Vec<EndedItem>) {
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
            // Nobody may follow any of the news.
            for item in answer.entered.iter().filter_map(|id| self.gate.item_view(*id)) {
                let _ = self.news.send(News::Entered(Arc::new(item)));
            }
            for (pipeline, project) in &answer.merged_in {
                let _ = self.news.send(News::MergedIn(pipeline.clone(), project.clone()));
            }
        }
        for report in std::mem::take(&mut self.reported) {
            let _ = self.news.send(News::Told(Arc::new(report)));
        }
        for one in ended {
            let left = &one.left;
            tracing::info!(item = %left.item, pipeline = %left.pipeline, end = left.end.word(), "an item left");
            let _ = self.news.send(News::Left(Arc::new(one)));
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
