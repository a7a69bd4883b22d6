//! The loop of the node task: events in, rows on disk, then answers and jobs.

use super::error::NodeError;
use super::handle::{Environments, NodeHandle, NodeNews};
use super::job::{Done, Jobs};
use super::{BATCH_MAX, COMMANDS_MAX};
use crate::clock::Clock;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{AutoholdId, NodeId, ProviderName, RunId};
use toci_core::node::{Changes, Event, Node, NodeState, Outcome, Pool, ProviderRow, Request};
use toci_core::refused::Refused;
use toci_edge::provider::{Machine, Provider};
use toci_store::{NodeBatch, Store, StoreError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

/// How often the task looks at what time alone does.
const TICK: Duration = Duration::from_secs(1);

pub(super) type Taken = oneshot::Sender<Result<Vec<NodeHandle>, NodeError>>;
pub(super) type Applied = oneshot::Sender<Result<(), NodeError>>;
pub(super) type Look = Box<dyn FnOnce(&State) + Send>;

pub(super) enum Command {
    /// A run wants nodes; answered when it has them.
    Take { request: Request, reply: Taken },
    /// Something happened; nobody waits for an answer.
    Tell(Event),
    /// Somebody wants something; answered once it is on disk.
    Apply { event: Event, reply: Applied },
    /// Looks at the pool as it is on disk.
    Look(Look),
}

/// What the task owns.
pub(super) struct State {
    pub(super) pool: Pool,
    pub(super) providers: BTreeMap<ProviderName, Arc<dyn Provider>>,
    pub(super) machines: HashMap<NodeId, Machine>,
    environments: Environments,
    clock: Clock,
    store: Store,
    jobs: Jobs,
    done: mpsc::Receiver<Done>,
    /// What is not on disk yet, because the disk refused.
    unwritten: Changes,
    takers: HashMap<RunId, Vec<Taken>>,
    /// Served, but the way to some node is not known again yet.
    served: BTreeMap<RunId, Vec<NodeId>>,
    watches: HashMap<NodeId, watch::Sender<bool>>,
    news: broadcast::Sender<NodeNews>,
}

/// What a round has to answer.
#[derive(Default)]
struct Replies {
    applied: Vec<(Applied, Result<(), Refused>)>,
    refused: Vec<(Taken, NodeError)>,
    looks: Vec<Look>,
}

impl State {
    pub(super) fn new(
        pool: Pool,
        clock: Clock,
        store: Store,
        (providers, environments): (BTreeMap<ProviderName, Arc<dyn Provider>>, Environments),
        news: broadcast::Sender<NodeNews>,
    ) -> State {
        let (sender, done) = mpsc::channel(COMMANDS_MAX);
        State {
            pool,
            jobs: Jobs::new(&providers, sender),
            providers,
            machines: HashMap::new(),
            environments,
            clock,
            store,
            done,
            unwritten: Changes::default(),
            takers: HashMap::new(),
            served: BTreeMap::new(),
            watches: HashMap::new(),
            news,
        }
    }

    /// Runs until every handle is dropped or another server takes over.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.find_again();
        let mut next_tick = Instant::now();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut ended = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                n = commands.recv_many(&mut batch, BATCH_MAX) => {
                    if n == 0 {
                        return;
                    }
                }
                // It has a sender of its own and never closes.
                _ = self.done.recv_many(&mut ended, BATCH_MAX) => {}
                () = tokio::time::sleep_until(next_tick) => {}
            }
            let mut replies = Replies::default();
            for done in ended.drain(..) {
                self.ended(done);
            }
            for command in batch.drain(..) {
                self.take_in(command, &mut replies);
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tell(Event::Tick);
                self.jobs.list_due(&self.providers, self.clock.now());
            }
            if self.commit(replies).await.is_err() {
                return;
            }
        }
    }

    /// After a start: the ways to nodes that are in use or held.
    fn find_again(&mut self) {
        let nodes: Vec<Node> = self
            .pool
            .nodes()
            .filter(|n| matches!(n.state, NodeState::InUse(_) | NodeState::Held))
            .cloned()
            .collect();
        for node in nodes {
            self.jobs.find(&self.providers, node);
        }
    }

    fn take_in(&mut self, command: Command, replies: &mut Replies) {
        match command {
            Command::Take { request, reply } => {
                let run = request.run;
                match self.pool.on(Event::Ask(request), self.clock.now()) {
                    Ok(()) => self.takers.entry(run).or_default().push(reply),
                    Err(refused) => replies.refused.push((reply, NodeError::of_request(refused))),
                }
            }
            Command::Tell(event) => self.tell(event),
            Command::Apply { event, reply } => {
                let result = self.pool.on(event, self.clock.now());
                replies.applied.push((reply, result));
            }
            Command::Look(look) => replies.looks.push(look),
        }
    }

    fn tell(&mut self, event: Event) {
        if let Event::GiveBack(run) = &event {
            self.takers.remove(run);
            self.served.remove(run);
            let mine =
                |id: &NodeId| self.pool.node(*id).is_some_and(|n| n.state.run() == Some(*run));
            self.watches.retain(|id, _| !mine(id));
        }
        // What is told is never refused.
        let _ = self.pool.on(event, self.clock.now());
    }

    fn ended(&mut self, done: Done) {
        match done {
            Done::Found { node, machine: Some(machine) } => {
                self.machines.insert(node, machine);
            }
            Done::Found { node, machine: None } => {
                let reason = "it is not there any more".to_owned();
                self.tell(Event::Lost { node, reason });
            }
            Done::NotFound { node } => {
                if let Some(node) = self.pool.node(node).cloned() {
                    self.jobs.find_later(&self.providers, node);
                }
            }
            Done::Job { node, event, machine } => {
                if let Some(machine) = machine {
                    self.machines.insert(node, machine);
                }
                self.jobs.finished(node);
                self.tell(event);
            }
            Done::Other(event) => self.tell(event),
        }
    }

    /// Writes what changed, then answers and begins what is wanted. An error means that another server has taken over.
    async fn commit(&mut self, replies: Replies) -> Result<(), ()> {
        let changes = self.pool.take_changes();
        for (provider, text) in &changes.news {
            tracing::warn!(%provider, "{text}");
        }
        merge(&mut self.unwritten, changes);
        match self.write().await {
            Ok(()) => self.let_out(replies),
            Err(StoreError::TakenOver) => {
                tracing::error!("another server has taken over; the node task stops");
                return Err(());
            }
            Err(error) => {
                tracing::error!(error = ?error, "the nodes could not be written; nothing is begun until they are");
                let failed = || NodeError::Failed(format!("nothing was changed: {error}"));
                for (reply, _) in replies.applied {
                    let _ = reply.send(Err(failed()));
                }
                for (reply, error) in replies.refused {
                    let _ = reply.send(Err(error));
                }
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let Changes { nodes, gone, autoholds, providers, .. } = &self.unwritten;
        if nodes.is_empty() && gone.is_empty() && autoholds.is_empty() && providers.is_empty() {
            return Ok(());
        }
        let row = |name: &ProviderName| self.pool.provider_row(name).cloned();
        let rows: Vec<ProviderRow> = providers.iter().filter_map(row).collect();
        let well = providers.iter().filter(|name| self.pool.provider_row(name).is_none());
        let nodes = self.unwritten.nodes.iter().filter_map(|id| self.pool.node(*id).cloned());
        let wishes =
            self.pool.autoholds().filter(|wish| self.unwritten.autoholds.contains(&wish.id));
        let there = |id: &AutoholdId| self.pool.autoholds().any(|wish| wish.id == *id);
        let spent = self.unwritten.autoholds.iter().copied().filter(|id| !there(id));
        let batch = NodeBatch {
            autoholds: wishes.cloned().collect(),
            autoholds_gone: spent.collect(),
            providers_gone: well.cloned().collect(),
            providers: rows,
            nodes: nodes.collect(),
            gone: self.unwritten.gone.iter().copied().collect(),
            last_node: self.pool.last_node(),
        };
        self.store.commit_nodes(&batch).await
    }

    fn let_out(&mut self, replies: Replies) {
        let changes = std::mem::take(&mut self.unwritten);
        // Nobody may follow any of the news.
        for node in changes.nodes.iter().filter_map(|id| self.node(*id)) {
            let _ = self.news.send(NodeNews::Changed(Arc::new(node)));
        }
        if !changes.providers.is_empty() {
            for provider in self.providers() {
                if changes.providers.iter().any(|name| name.as_str() == provider.name) {
                    let _ = self.news.send(NodeNews::Provider(Arc::new(provider)));
                }
            }
        }
        for id in &changes.gone {
            self.machines.remove(id);
            let _ = self.news.send(NodeNews::Gone(*id));
        }
        for (run, outcome) in changes.outcomes {
            match outcome {
                Outcome::Served(nodes) => {
                    self.served.insert(run, nodes);
                }
                Outcome::GivenUp(why) => self.answer(run, || Err(NodeError::Failed(why.clone()))),
                Outcome::Impossible(why) => {
                    self.answer(run, || Err(NodeError::Impossible(why.clone())));
                }
            }
        }
        self.hand_out();
        self.tell_lost();
        for (reply, result) in replies.applied {
            // Who no longer listens does not need the answer.
            let _ = reply.send(result.map_err(NodeError::from));
        }
        for (reply, error) in replies.refused {
            let _ = reply.send(Err(error));
        }
        for look in replies.looks {
            look(self);
        }
        let wanted = self.pool.wanted();
        self.jobs.adapt(&self.pool, &wanted, &self.machines, &self.providers);
    }

    /// Answers those who are served, once the ways to all their nodes are known.
    fn hand_out(&mut self) {
        let runs: Vec<RunId> = self.served.keys().copied().collect();
        for run in runs {
            let nodes = self.served.get(&run).cloned().unwrap_or_default();
            let in_use =
                |id: &NodeId| self.pool.node(*id).is_some_and(|n| n.state == NodeState::InUse(run));
            if !nodes.iter().all(in_use) {
                self.served.remove(&run);
                self.answer(run, || Err(NodeError::Failed("its node was lost".to_owned())));
            } else if nodes.iter().all(|id| self.machines.contains_key(id)) {
                self.served.remove(&run);
                let handles: Vec<NodeHandle> =
                    nodes.iter().filter_map(|id| self.handle(*id)).collect();
                self.answer(run, || Ok(handles.clone()));
            }
        }
    }

    fn handle(&mut self, id: NodeId) -> Option<NodeHandle> {
        let node = self.pool.node(id)?;
        let machine = self.machines.get(&id)?;
        let lost = self.watches.entry(id).or_insert_with(|| watch::Sender::new(false));
        Some(NodeHandle {
            id,
            name: node.name.clone(),
            label: node.label.clone(),
            provider: node.provider.to_string(),
            cloud_address: machine.address,
            environment: self.environments.get(&node.provider).cloned().unwrap_or_default(),
            session: machine.session.clone(),
            lost: lost.subscribe(),
        })
    }

    fn answer(&mut self, run: RunId, answer: impl Fn() -> Result<Vec<NodeHandle>, NodeError>) {
        for taker in self.takers.remove(&run).unwrap_or_default() {
            // One that went away has withdrawn its wish as well.
            let _ = taker.send(answer());
        }
    }

    /// A node that a run has and that is not in use any more was lost: what is given back is not watched any more.
    fn tell_lost(&mut self) {
        let lost: BTreeSet<NodeId> = self
            .watches
            .keys()
            .filter(|id| {
                !matches!(self.pool.node(**id).map(|n| n.state), Some(NodeState::InUse(_)))
            })
            .copied()
            .collect();
        for id in lost {
            if let Some(watch) = self.watches.remove(&id) {
                tracing::warn!(node = %id, "a node that a run has is lost");
                watch.send_replace(true);
            }
        }
    }
}

/// Later changes win; nothing is forgotten.
fn merge(older: &mut Changes, newer: Changes) {
    for id in &newer.gone {
        older.nodes.remove(id);
    }
    older.nodes.extend(newer.nodes);
    older.gone.extend(newer.gone);
    older.autoholds.extend(newer.autoholds);
    older.providers.extend(newer.providers);
    older.outcomes.extend(newer.outcomes);
}
