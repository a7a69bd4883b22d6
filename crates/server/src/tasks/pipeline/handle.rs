//! The handle by which everybody else reaches the gate.

use super::run::{Command, State};
use crate::clock::now;
use std::sync::Arc;
use std::time::Duration;
use toci_core::event::{ChangeKey, ProjectKey, SourceName};
use toci_core::layout::{Layout, PipelineName};
use toci_core::pipeline::{
    Answer, Gate, Input, ItemView, PipelineView, Policy, ReportWish, Wanted,
};
use toci_core::refused::Refused;
use toci_core::time::Time;
use toci_store::{EndedFilter, EndedItem, Store, StoreError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Inputs that wait for the task at most; beyond that callers wait.
const COMMANDS_MAX: usize = 1024;
/// Inputs of one transaction at most.
pub(super) const BATCH_MAX: usize = 256;
/// Items that left are remembered for so long.
const ENDED_KEPT: Duration = Duration::from_secs(180 * 24 * 3600);
/// Items that left and are remembered at most, the newest ones.
const ENDED_KEPT_MAX: usize = 200_000;
/// How often those beyond that are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// News that a slow follower may be behind before it misses some.
const NEWS_MAX: usize = 1024;
/// Pause before an input is sent again that could not be written.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why an input was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GateError {
    /// The caller's fault.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be written; nothing of it happened.
    #[error("the gate could not be written")]
    Failed(#[source] Arc<StoreError>),
    /// The server stops.
    #[error("the gate has stopped")]
    Stopped,
}

/// How far a source was heard: its name, the cursor's name and text.
pub type Cursor = (SourceName, String, String);

/// What happened in the gate, for whoever follows it.
#[derive(Clone, Debug)]
pub enum News {
    /// An item entered.
    Entered(Arc<ItemView>),
    /// An item left.
    Left(Arc<EndedItem>),
    /// A report was delivered.
    Told(Arc<ReportWish>),
    /// A pipeline listens to merges, and a change of this project merged in this one.
    MergedIn(PipelineName, ProjectKey),
}

/// A handle to the gate; clones are cheap. The task behind it ends when all are dropped.
#[derive(Clone, Debug)]
pub struct GateHandle {
    store: Store,
    commands: mpsc::Sender<Command>,
    wanted: watch::Receiver<Arc<Wanted>>,
    news: broadcast::Sender<News>,
}

impl GateHandle {
    /// Reads the gate from the store, whose book this server must have claimed, and starts the task. What is wanted is known
    /// when this returns: the runs that another server left behind are looked up in it.
    pub async fn start(
        store: Store,
        layout: Arc<Layout>,
        policy: Policy,
    ) -> Result<GateHandle, StoreError> {
        let rows = store.read_gate().await?;
        let gate = Gate::load(Arc::clone(&layout), policy.clone(), rows);
        let (publish, wanted) = watch::channel(Arc::new(Wanted::default()));
        let news = broadcast::Sender::new(NEWS_MAX);
        let state = State::new(gate, layout, policy, store.clone(), publish, news.clone());
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(state.run(receiver));
        let gate = GateHandle { store, commands, wanted, news };
        // A gate that has stopped already says so to whoever asks next.
        let _ = gate.look(|_| ()).await;
        Ok(gate)
    }

    /// Takes an input; it is on disk when this returns.
    pub async fn submit(&self, input: Input) -> Result<Answer, GateError> {
        self.apply(input, None).await
    }

    /// The same; how far the source was heard is written in the same transaction.
    pub async fn heard(&self, input: Input, cursor: Cursor) -> Result<Answer, GateError> {
        self.apply(input, Some(cursor)).await
    }

    /// Sends an input until it is written. Inputs of the world are never refused; `None` means that the gate has stopped.
    pub async fn deliver(&self, input: Input, cursor: Option<Cursor>) -> Option<Answer> {
        loop {
            match self.apply(input.clone(), cursor.clone()).await {
                Ok(answer) => return Some(answer),
                Err(GateError::Refused(refused)) => {
                    tracing::warn!(%refused, "the gate refused what it should have taken");
                    return Some(Answer::default());
                }
                Err(GateError::Failed(_)) => tokio::time::sleep(AGAIN_AFTER).await,
                Err(GateError::Stopped) => return None,
            }
        }
    }

    async fn apply(&self, input: Input, cursor: Option<Cursor>) -> Result<Answer, GateError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Apply { input: Box::new(input), cursor, reply };
        self.commands.send(command).await.map_err(|_| GateError::Stopped)?;
        answer.await.unwrap_or(Err(GateError::Stopped))
    }

    /// What the world should do now, level-triggered.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.clone()
    }

    /// What happens from now on.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// All pipelines with their queues.
    pub async fn status(&self) -> Result<Vec<PipelineView>, GateError> {
        self.look(|state| state.gate.status()).await
    }

    /// One item.
    pub async fn item(&self, id: toci_core::id::ItemId) -> Result<Option<ItemView>, GateError> {
        self.look(move |state| state.gate.item_view(id)).await
    }

    /// Changes that another queue keeps out.
    pub async fn waiting(&self) -> Result<Vec<ChangeKey>, GateError> {
        self.look(|state| state.gate.waiting_changes()).await
    }

    /// Items that left, the newest first.
    pub async fn ended(&self, filter: &EndedFilter) -> Result<Vec<EndedItem>, GateError> {
        self.store.ended_items(filter).await.map_err(|error| GateError::Failed(Arc::new(error)))
    }

    /// Forgets what left long ago, until it is dropped.
    pub(crate) async fn forget_ended(self) {
        loop {
            let before = Time(now().0.saturating_sub(Time(0).after(ENDED_KEPT).0));
            if let Err(error) = self.store.prune_ended_items(before, ENDED_KEPT_MAX).await {
                tracing::warn!(error = ?error, "items that left long ago could not be forgotten");
            }
            tokio::time::sleep(PRUNE_EVERY).await;
        }
    }

    /// The layout in use.
    pub async fn layout(&self) -> Result<Arc<Layout>, GateError> {
        self.look(|state| Arc::clone(&state.layout)).await
    }

    async fn look<T: Send + 'static>(
        &self,
        at: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, GateError> {
        let (reply, answer) = oneshot::channel();
        let look = Command::Look(Box::new(move |state: &State| {
            // Who no longer listens does not need the answer.
            let _ = reply.send(at(state));
        }));
        self.commands.send(look).await.map_err(|_| GateError::Stopped)?;
        answer.await.map_err(|_| GateError::Stopped)
    }
}
