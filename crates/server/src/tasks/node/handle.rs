//! The handle by which everybody else reaches the node pool.

use super::COMMANDS_MAX;
use super::error::NodeError;
use super::run::{Command, State};
use super::view::autohold;
use crate::clock::{Clock, wall};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{AutoholdId, Label, NodeId, ProviderName, RunId};
use toci_core::layout::Precedence;
use toci_core::node::{Event, Failure, Hold, Meant, Policy, Pool, Request, Settings};
use toci_core::time::Time;
use toci_edge::node::Session;
use toci_edge::openstack::CallCount;
use toci_edge::provider::Provider;
use toci_store::{Store, StoreError};
use toci_wire::api;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// News that a slow follower may be behind before it misses some.
const NEWS_MAX: usize = 1024;

/// What a pool is made of.
#[derive(Debug)]
pub struct PoolParts {
    /// Labels and providers.
    pub settings: Settings,
    /// What it decides by.
    pub policy: Policy,
    /// Every provider of the settings.
    pub providers: BTreeMap<ProviderName, Arc<dyn Provider>>,
    /// What jobs on nodes of a provider find in their environment.
    pub environments: Environments,
}

/// What jobs find in their environment, by the provider of their node.
pub(super) type Environments = BTreeMap<ProviderName, Arc<BTreeMap<String, String>>>;

/// A wish for nodes.
#[derive(Clone, Debug)]
pub struct NodeRequest {
    /// For which run. Asking again for the same run gives the same nodes.
    pub run: RunId,
    /// None: the default label, which is the first one.
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

/// A node that belongs to a run.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// Its number. A run that asks again after a restart must find the same ones.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub label: Label,
    /// Where it is.
    pub provider: String,
    /// Its address in its cloud, if it has one.
    pub cloud_address: Option<IpAddr>,
    /// What its provider wants jobs to find in their environment.
    pub environment: Arc<BTreeMap<String, String>>,
    /// The way there.
    pub session: Session,
    /// Becomes true when it is lost.
    pub lost: watch::Receiver<bool>,
}

/// A handle to the node pool; clones are cheap. The task behind it ends when all are dropped.
#[derive(Clone, Debug)]
pub struct NodePool {
    commands: mpsc::Sender<Command>,
    news: broadcast::Sender<NodeNews>,
}

/// What happens to nodes.
#[derive(Clone, Debug)]
pub enum NodeNews {
    /// A node after its change.
    Changed(Arc<api::Node>),
    /// One that is no longer known.
    Gone(NodeId),
    /// A provider that was paused or goes on, or whose builds fail or work again.
    Provider(Arc<api::Provider>),
}

impl NodePool {
    /// Reads the pool from the store, whose book must have been claimed, and starts the task.
    pub async fn start(store: Store, parts: PoolParts) -> Result<NodePool, StoreError> {
        let rows = store.read_nodes().await?;
        let least = rows.nodes.iter().map(|node| node.since).max().unwrap_or_default();
        let clock = Clock::start_at(wall().max(least));
        for node in &rows.nodes {
            if let Some(provider) = parts.providers.get(&node.provider) {
                provider.remember(&node.name, &node.machine);
            }
        }
        let pool = Pool::load(rows, parts.settings, parts.policy, clock.now());
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let news = broadcast::Sender::new(NEWS_MAX);
        let state =
            State::new(pool, clock, store, (parts.providers, parts.environments), news.clone());
        tokio::spawn(state.run(receiver));
        Ok(NodePool { commands, news })
    }

    /// What happens from now on.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<NodeNews> {
        self.news.subscribe()
    }

    /// Waits until the nodes are there. Dropping the future withdraws the wish.
    pub async fn take(&self, request: NodeRequest) -> Result<Vec<NodeHandle>, NodeError> {
        let run = request.run;
        let request = Request {
            run,
            label: request.label,
            count: request.count,
            precedence: request.precedence,
            relative_priority: request.relative_priority,
            since: request.since,
            job: request.job,
        };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Take { request, reply }).await?;
        let mut wish = Wish { pool: self, run, open: true };
        let nodes = answer.await.map_err(|_| NodeError::Stopped)?;
        wish.open = false;
        nodes
    }

    /// The run is over with these nodes: they are deleted, or kept if somebody wants to look at them.
    pub async fn give_back(&self, run: RunId) {
        // Without the task there is nobody to give anything back to; the next one finds the node and deletes it.
        let _ = self.send(Command::Tell(Event::GiveBack(run))).await;
    }

    /// The run failed by its job's own fault, before it gives its nodes back: how long they will be kept, if somebody
    /// wants to look at them.
    pub async fn failed(&self, failure: Failure) -> Result<Option<Hold>, NodeError> {
        let run = failure.run;
        self.apply(Event::Failed(failure)).await?;
        self.look(move |state| state.pool.hold_of(run).cloned()).await
    }

    /// Why these runs wait for nodes, as far as they do.
    pub async fn waiting(&self, runs: Vec<RunId>) -> Result<BTreeMap<RunId, String>, NodeError> {
        let why = |state: &State, run: RunId| Some((run, state.pool.waiting(run)?));
        self.look(move |state| runs.into_iter().filter_map(|run| why(state, run)).collect()).await
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<api::Node>, NodeError> {
        self.look(State::nodes).await
    }

    /// One node.
    pub async fn node(&self, id: NodeId) -> Result<api::Node, NodeError> {
        let found = self.look(move |state| state.node(id)).await?;
        found.ok_or_else(|| {
            let message = format!("there is no node {id}");
            toci_core::refused::Refused::new("no_such_node", message, "see `toci node list`").into()
        })
    }

    /// Nodes that are being deleted for too long.
    pub async fn overdue(&self) -> Result<Vec<api::Node>, NodeError> {
        self.look(State::overdue).await
    }

    /// All providers.
    pub async fn providers(&self) -> Result<Vec<api::Provider>, NodeError> {
        self.look(State::providers).await
    }

    /// Builds nothing more at a provider, until it is resumed. Again is no harm.
    pub async fn pause_provider(
        &self,
        provider: ProviderName,
        by: String,
        reason: String,
    ) -> Result<(), NodeError> {
        self.apply(Event::PauseProvider { provider, by, reason }).await
    }

    /// Builds there again; where builds failed, one is tried at once.
    pub async fn resume_provider(&self, provider: ProviderName) -> Result<(), NodeError> {
        self.apply(Event::ResumeProvider(provider)).await
    }

    /// All images that providers make their machines of.
    pub async fn images(&self) -> Result<Vec<api::NodeImage>, NodeError> {
        let providers = self.look(|state| state.providers.clone()).await?;
        Ok(super::view::images(&providers))
    }

    /// How many calls of their clouds providers have made.
    pub async fn cloud_calls(&self) -> Result<Vec<(ProviderName, CallCount)>, NodeError> {
        let providers = self.look(|state| state.providers.clone()).await?;
        let of = |(name, provider): (&ProviderName, &Arc<dyn Provider>)| {
            let name = name.clone();
            provider.calls().into_iter().map(move |count| (name.clone(), count))
        };
        Ok(providers.iter().flat_map(of).collect())
    }

    /// Has an image made anew wherever there is one of this name.
    pub async fn rebuild_image(&self, name: &str) -> Result<(), NodeError> {
        let providers = self.look(|state| state.providers.clone()).await?;
        let known = providers.values().filter(|provider| provider.rebuild(name)).count();
        if known > 0 {
            return Ok(());
        }
        let message = format!("there is no image {name}");
        let hint = "see `toci node images`; a new one is an [[image]] in the settings";
        Err(toci_core::refused::Refused::new("no_such_image", message, hint).into())
    }

    /// Makes no machine of the image with this id any more.
    pub async fn withdraw_image(&self, id: &str) -> Result<(), NodeError> {
        let providers = self.look(|state| state.providers.clone()).await?;
        let known = providers.values().filter(|provider| provider.withdraw(id)).count();
        if known > 0 {
            return Ok(());
        }
        let message = format!("no image that is ready has the id {id}");
        let hint = "see `toci node images`: the ids are in its first column";
        Err(toci_core::refused::Refused::new("no_such_image", message, hint).into())
    }

    /// Keeps a node for people: at once, or when its run is over.
    pub async fn hold(
        &self,
        node: NodeId,
        length: Duration,
        reason: String,
    ) -> Result<api::Node, NodeError> {
        self.apply(Event::Hold { node, length, reason }).await?;
        self.node(node).await
    }

    /// Every wish to keep the nodes of failures to come.
    pub async fn autoholds(&self) -> Result<Vec<api::Autohold>, NodeError> {
        self.look(State::autoholds).await
    }

    /// Keeps the nodes of failures to come.
    pub async fn autohold(&self, meant: Meant) -> Result<api::Autohold, NodeError> {
        self.apply(Event::Autohold(meant.clone())).await?;
        // The newest that says the same: as good as this one, should somebody have asked twice.
        let made = self.look(move |state| {
            let mut all = state.pool.autoholds().collect::<Vec<_>>();
            all.retain(|wish| wish.meant == meant);
            all.pop().map(autohold)
        });
        made.await?.ok_or_else(|| NodeError::Failed("it was spent at once".to_owned()))
    }

    /// Does not, after all.
    pub async fn delete_autohold(&self, id: AutoholdId) -> Result<(), NodeError> {
        self.apply(Event::DeleteAutohold(id)).await
    }

    /// Deletes a node, also one that is held.
    pub async fn delete(&self, node: NodeId) -> Result<(), NodeError> {
        self.apply(Event::Delete(node)).await
    }

    async fn apply(&self, event: Event) -> Result<(), NodeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Apply { event, reply }).await?;
        answer.await.map_err(|_| NodeError::Stopped)?
    }

    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |state: &State| {
            // Who no longer listens does not need the answer.
            let _ = reply.send(look(state));
        });
        self.send(Command::Look(look)).await?;
        answer.await.map_err(|_| NodeError::Stopped)
    }

    async fn send(&self, command: Command) -> Result<(), NodeError> {
        self.commands.send(command).await.map_err(|_| NodeError::Stopped)
    }
}

/// A wish that is withdrawn when whoever waits goes away.
struct Wish<'a> {
    pool: &'a NodePool,
    run: RunId,
    open: bool,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let command = Command::Tell(Event::GiveBack(self.run));
        if let Err(mpsc::error::TrySendError::Full(command)) = self.pool.commands.try_send(command)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let commands = self.pool.commands.clone();
            runtime.spawn(async move {
                // The task has ended: nothing is left to be withdrawn from.
                let _ = commands.send(command).await;
            });
        }
    }
}
