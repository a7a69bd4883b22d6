//! Jobs: work at providers and on nodes, one at a time for each node.

use super::{GUARD, PROVIDER_JOBS_MAX};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{Label, NodeId, ProviderName};
use toci_core::node::{Event, Node, Pool, Wanted};
use toci_core::shell::quoted;
use toci_core::time::Time;
use toci_edge::node::Session;
use toci_edge::provider::{Machine, Provider, ProviderError};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long after a failed question where a node is it is put again.
const FIND_AGAIN: Duration = Duration::from_secs(5);
/// Longest time to make a machine, its boot included.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);
/// Longest ready check, and longest writing of a guard.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// Longest time to delete a machine.
const DELETE_LIMIT: Duration = Duration::from_secs(600);
/// Longest answer to what a provider has.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// How a job ended.
#[derive(Debug)]
pub(super) enum Done {
    /// Work on a node.
    Job { node: NodeId, event: Event, machine: Option<Machine> },
    /// A node was looked for after a restart.
    Found { node: NodeId, machine: Option<Machine> },
    /// Its provider could not be asked.
    NotFound { node: NodeId },
    /// Lists, machines that no node is.
    Other(Event),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Build,
    Test,
    Hand,
    Delete,
}

const KINDS: [Kind; 4] = [Kind::Build, Kind::Test, Kind::Hand, Kind::Delete];

#[derive(Debug)]
struct Running {
    kind: Kind,
    task: JoinHandle<()>,
    /// It has told how it ended.
    finished: bool,
}

#[derive(Debug)]
struct Listing {
    next: Instant,
    task: Option<JoinHandle<()>>,
}

/// All jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    done: mpsc::Sender<Done>,
    running: HashMap<NodeId, Running>,
    lists: BTreeMap<ProviderName, Listing>,
    permits: BTreeMap<(ProviderName, Kind), Arc<Semaphore>>,
    aliens: HashSet<(ProviderName, String)>,
}

/// What a job works with.
struct Tools {
    provider: Arc<dyn Provider>,
    permits: Arc<Semaphore>,
    node: Node,
    machine: Option<Machine>,
}

impl Jobs {
    pub(super) fn new(
        providers: &BTreeMap<ProviderName, Arc<dyn Provider>>,
        done: mpsc::Sender<Done>,
    ) -> Jobs {
        let now = Instant::now();
        // One kind of work that hangs keeps no other one waiting.
        let permits = |name: &ProviderName| {
            let name = name.clone();
            KINDS.map(|kind| ((name.clone(), kind), Arc::new(Semaphore::new(PROVIDER_JOBS_MAX))))
        };
        Jobs {
            done,
            running: HashMap::new(),
            lists: providers
                .keys()
                .map(|n| (n.clone(), Listing { next: now, task: None }))
                .collect(),
            permits: providers.keys().flat_map(permits).collect(),
            aliens: HashSet::new(),
        }
    }

    pub(super) fn finished(&mut self, node: NodeId) {
        if let Some(running) = self.running.get_mut(&node) {
            running.finished = true;
        }
    }

    /// Begins what is wanted and does not run, aborts what is not wanted any more.
    pub(super) fn adapt(
        &mut self,
        pool: &Pool,
        wanted: &Wanted,
        machines: &HashMap<NodeId, Machine>,
        providers: &BTreeMap<ProviderName, Arc<dyn Provider>>,
    ) {
        let mut kinds: HashMap<NodeId, Kind> = HashMap::new();
        for (ids, kind) in [
            (&wanted.builds, Kind::Build),
            (&wanted.tests, Kind::Test),
            (&wanted.hand_overs, Kind::Hand),
            (&wanted.deletes, Kind::Delete),
        ] {
            kinds.extend(ids.iter().map(|id| (*id, kind)));
        }
        self.running.retain(|id, running| {
            if !kinds.contains_key(id) {
                running.task.abort();
            }
            kinds.contains_key(id) || !running.task.is_finished()
        });
        for (id, kind) in kinds {
            let before = match self.running.get(&id) {
                Some(running) if running.kind == kind && !running.finished => continue,
                Some(_) => self.running.remove(&id).map(|running| running.task),
                None => None,
            };
            let Some(node) = pool.node(id).cloned() else { continue };
            let permits = self.permits.get(&(node.provider.clone(), kind)).cloned();
            let (Some(provider), Some(permits)) = (providers.get(&node.provider).cloned(), permits)
            else {
                continue;
            };
            let tools = Tools { provider, permits, node, machine: machines.get(&id).cloned() };
            let task = self.begin(id, kind, tools, before);
            self.running.insert(id, Running { kind, task, finished: false });
        }
        for alien in &wanted.aliens {
            if let Some(provider) = providers.get(&alien.0)
                && self.aliens.insert(alien.clone())
            {
                self.delete_alien(Arc::clone(provider), alien.clone());
            }
        }
        self.aliens.retain(|alien| wanted.aliens.contains(alien));
    }

    fn begin(
        &self,
        node: NodeId,
        kind: Kind,
        tools: Tools,
        before: Option<JoinHandle<()>>,
    ) -> JoinHandle<()> {
        let done = self.done.clone();
        tokio::spawn(async move {
            if let Some(before) = before {
                before.abort();
                // Aborted or ended, either is well.
                let _ = before.await;
            }
            let Ok(_permit) = Arc::clone(&tools.permits).acquire_owned().await else { return };
            let (event, machine) = match kind {
                Kind::Build => build(&tools).await,
                Kind::Test => test(&tools).await,
                Kind::Hand => hand(&tools).await,
                Kind::Delete => delete(&tools).await,
            };
            // The task has ended: nobody needs to know.
            let _ = done.send(Done::Job { node, event, machine }).await;
        })
    }

    fn delete_alien(&self, provider: Arc<dyn Provider>, (of, name): (ProviderName, String)) {
        let done = self.done.clone();
        tokio::spawn(async move {
            if let Err(error) = in_time(DELETE_LIMIT, provider.delete(&name, "")).await {
                tracing::warn!(provider = %of, name, %error, "a machine that no node is cannot be deleted");
            }
            let _ = done.send(Done::Other(Event::AlienDone { provider: of, name })).await;
        });
    }

    /// Asks those providers what they have whose time has come.
    pub(super) fn list_due(
        &mut self,
        providers: &BTreeMap<ProviderName, Arc<dyn Provider>>,
        asked: Time,
    ) {
        let now = Instant::now();
        for (name, listing) in &mut self.lists {
            let Some(provider) = providers.get(name).cloned() else { continue };
            if now < listing.next || listing.task.as_ref().is_some_and(|t| !t.is_finished()) {
                continue;
            }
            listing.next = now + provider.list_every();
            let (done, name) = (self.done.clone(), name.clone());
            listing.task = Some(tokio::spawn(async move {
                let result = in_time(LIST_LIMIT, provider.list()).await;
                let result = result.map_err(|e| e.to_string());
                if let Some(room) = provider.room() {
                    let event = Event::Room { provider: name.clone(), room };
                    let _ = done.send(Done::Other(event)).await;
                }
                let _ =
                    done.send(Done::Other(Event::Listed { provider: name, asked, result })).await;
            }));
        }
    }

    /// Looks for a node after a restart.
    pub(super) fn find(&self, providers: &BTreeMap<ProviderName, Arc<dyn Provider>>, node: Node) {
        self.look_for(providers, node, Duration::ZERO);
    }

    /// The same, after a pause.
    pub(super) fn find_later(
        &self,
        providers: &BTreeMap<ProviderName, Arc<dyn Provider>>,
        node: Node,
    ) {
        self.look_for(providers, node, FIND_AGAIN);
    }

    fn look_for(
        &self,
        providers: &BTreeMap<ProviderName, Arc<dyn Provider>>,
        node: Node,
        pause: Duration,
    ) {
        let Some(provider) = providers.get(&node.provider).cloned() else { return };
        let done = self.done.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let found = in_time(LIST_LIMIT, provider.find(&node.name, &node.machine)).await;
            let found = match found {
                Ok(machine) => Done::Found { node: node.id, machine },
                Err(error) => {
                    tracing::warn!(node = %node.id, %error, "a node cannot be looked for");
                    Done::NotFound { node: node.id }
                }
            };
            let _ = done.send(found).await;
        });
    }
}

async fn in_time<T>(
    limit: Duration,
    work: toci_edge::provider::Work<'_, Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(ProviderError::said(
            "wait for the provider",
            format!("it took more than {} s", limit.as_secs()),
        )),
    }
}

async fn build(tools: &Tools) -> (Event, Option<Machine>) {
    let node = &tools.node;
    let label: &Label = &node.label;
    match in_time(BUILD_LIMIT, tools.provider.create(&node.name, label)).await {
        Ok(machine) => {
            let result = Ok(machine.token.clone());
            (Event::Built { node: node.id, result }, Some(machine))
        }
        Err(error) if error.no_room => {
            (Event::NoRoom { node: node.id, reason: error.to_string() }, None)
        }
        Err(error) => (Event::Built { node: node.id, result: Err(error.to_string()) }, None),
    }
}

async fn test(tools: &Tools) -> (Event, Option<Machine>) {
    let node = &tools.node;
    let machine = match &tools.machine {
        Some(machine) => Ok(Some(machine.clone())),
        None => in_time(LIST_LIMIT, tools.provider.find(&node.name, &node.machine)).await,
    };
    let (result, machine) = match machine {
        Ok(Some(machine)) => (ready_check(&machine.session).await, Some(machine)),
        Ok(None) => (Err("it is not there".to_owned()), None),
        Err(error) => (Err(error.to_string()), None),
    };
    (Event::Tested { node: node.id, result }, machine)
}

/// A node is ready when commands run on it and no run ever had it.
async fn ready_check(session: &Session) -> Result<(), String> {
    let text = format!("true && if [ -e {GUARD} ]; then cat {GUARD} >&2; exit 3; fi");
    match session.run("the ready check", &text, b"", CHECK_LIMIT).await {
        Ok(_) => Ok(()),
        Err(error) => Err(told(&error)),
    }
}

async fn hand(tools: &Tools) -> (Event, Option<Machine>) {
    let node = &tools.node;
    let result = match &tools.machine {
        Some(machine) => {
            let run = node.state.run().map(|run| run.to_string()).unwrap_or_default();
            let words = quoted(&format!("run {run}, job {}", node.job));
            let folder = GUARD.rsplit_once('/').map_or("/", |(folder, _)| folder);
            // Without clobbering: of two who try, one fails.
            let text = format!("set -e -C; umask 022; mkdir -p {folder}; echo {words} >{GUARD}");
            let written = machine.session.run("write the guard", &text, b"", CHECK_LIMIT).await;
            written.map(drop).map_err(|error| told(&error))
        }
        None => Err("the way to it is not known".to_owned()),
    };
    (Event::Handed { node: node.id, result }, None)
}

async fn delete(tools: &Tools) -> (Event, Option<Machine>) {
    let node = &tools.node;
    let result = in_time(DELETE_LIMIT, tools.provider.delete(&node.name, &node.machine)).await;
    (Event::Deleted { node: node.id, result: result.map_err(|e| e.to_string()) }, None)
}

fn told(error: &dyn std::error::Error) -> String {
    ProviderError::new("", error).why
}
