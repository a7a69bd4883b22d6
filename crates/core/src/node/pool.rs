//! The pool itself: what it holds, how it is loaded, and the one entry for every event.

use super::ask::{Request, Waiter};
use super::autohold::{Autohold, Failure, Meant};
use super::model::{Node, NodeState, Rows};
use super::pause::ProviderRow;
use super::policy::Policy;
use super::settings::{Amount, ProviderSpec, Room, Settings};
use crate::id::{AutoholdId, Label, NodeId, ProviderName, RunId};
use crate::refused::Refused;
use crate::time::Time;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Everything that can happen to the pool. What it says of a node that is in another state than it supposes changes
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A run asks for nodes. Again is no harm: the same run gets the same nodes.
    Ask(Request),
    /// A run does not want them any more, or is over.
    GiveBack(RunId),
    /// How making a node ended: what finds it again, or why it failed.
    Built {
        /// Which.
        node: NodeId,
        /// How.
        result: Result<String, String>,
    },
    /// Its cloud has no room for a node that was to be made. Nothing has failed.
    NoRoom {
        /// Which.
        node: NodeId,
        /// What the cloud said.
        reason: String,
    },
    /// Whether a node is fit for a run.
    Tested {
        /// Which.
        node: NodeId,
        /// Or why not.
        result: Result<(), String>,
    },
    /// Whether a node's guard was written.
    Handed {
        /// Which.
        node: NodeId,
        /// Or why not.
        result: Result<(), String>,
    },
    /// A node is not there any more.
    Lost {
        /// Which.
        node: NodeId,
        /// What was seen.
        reason: String,
    },
    /// How deleting a node ended.
    Deleted {
        /// Which.
        node: NodeId,
        /// Or why it is still there.
        result: Result<(), String>,
    },
    /// What a provider has of ours.
    Listed {
        /// Which.
        provider: ProviderName,
        /// When the question was put.
        asked: Time,
        /// Names, or why it could not be asked.
        result: Result<BTreeSet<String>, String>,
    },
    /// What room a provider's cloud has for us.
    Room {
        /// Which.
        provider: ProviderName,
        /// How much.
        room: Room,
    },
    /// Deleting a machine that no row knows was tried; the next list says whether it worked.
    AlienDone {
        /// Where.
        provider: ProviderName,
        /// Which.
        name: String,
    },
    /// Keep a node for people: at once, or when its run is over.
    Hold {
        /// Which.
        node: NodeId,
        /// From now.
        length: Duration,
        /// Why.
        reason: String,
    },
    /// Keep the nodes of failures to come.
    Autohold(Meant),
    /// Do not, after all.
    DeleteAutohold(AutoholdId),
    /// A run failed by its job's own fault; its nodes are not given back yet.
    Failed(Failure),
    /// Delete a node, also one that is held; refused while a run has it.
    Delete(NodeId),
    /// Build nothing there any more.
    PauseProvider {
        /// Where.
        provider: ProviderName,
        /// Who says so.
        by: String,
        /// Why.
        reason: String,
    },
    /// Build there again, also where builds failed.
    ResumeProvider(ProviderName),
    /// Time has passed.
    Tick,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These are its nodes.
    Served(Vec<NodeId>),
    /// It could not be served, or lost what it had, and why.
    GivenUp(String),
    /// No provider can ever serve it, and why.
    Impossible(String),
}

/// What changed since the last [`Pool::take_changes`]. Rows are written first, in one transaction; then the rest is
/// told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Nodes to write, if they are still there.
    pub nodes: BTreeSet<NodeId>,
    /// Nodes whose rows are to be removed.
    pub gone: BTreeSet<NodeId>,
    /// Wishes to hold to write, or to remove if they are not there any more.
    pub autoholds: BTreeSet<AutoholdId>,
    /// Providers whose rows are to be written, or to be removed if nothing is kept of them any more.
    pub providers: BTreeSet<ProviderName>,
    /// Requests that are over.
    pub outcomes: BTreeMap<RunId, Outcome>,
    /// For people: what went wrong with a provider, or that it is well again.
    pub news: Vec<(ProviderName, String)>,
}

impl Changes {
    /// Nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// A node and what is known of it while the pool lives.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) row: Node,
    /// It was ready once: when it fails now, that is no failed build.
    pub(super) proven: bool,
    /// When its build was begun.
    pub(super) begun: Time,
    /// When it was last found fit.
    pub(super) seen: Time,
    /// Until when it waits for its run, after a restart.
    pub(super) reclaim: Option<Time>,
    /// Deleting it is not tried before ...
    pub(super) not_before: Time,
    /// ... for so often it failed.
    pub(super) failures: u32,
    /// People were told that it is being deleted for too long.
    pub(super) told_overdue: bool,
}

impl Entry {
    fn new(row: Node, proven: bool, now: Time) -> Entry {
        Entry {
            row,
            proven,
            begun: now,
            seen: now,
            reclaim: None,
            not_before: now,
            failures: 0,
            told_overdue: false,
        }
    }
}

/// A provider and what is known of it while the pool lives.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) spec: ProviderSpec,
    /// Since when it is asked.
    pub(super) begun: Time,
    /// When its last good list was asked for; none: not yet asked.
    pub(super) listed: Option<Time>,
    /// Why it cannot be asked at present.
    pub(super) unreachable: Option<String>,
    /// Machines of ours that no row knows.
    pub(super) aliens: BTreeSet<String>,
    /// When nodes went that an older list may still name.
    pub(super) buried: BTreeMap<String, Time>,
    /// What its cloud said of its room.
    pub(super) told: Option<Room>,
    /// Labels that its cloud had no room for.
    pub(super) full: BTreeMap<Label, Full>,
    /// How long the latest builds of each label took.
    pub(super) times: BTreeMap<Label, VecDeque<Duration>>,
    pub(super) row: ProviderRow,
}

/// A cloud had no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// So often in a row.
    pub(super) times: u32,
    /// It is not asked again before this.
    pub(super) until: Time,
    /// What it said.
    pub(super) reason: String,
}

impl Provider {
    fn new(spec: ProviderSpec, now: Time) -> Provider {
        Provider {
            row: ProviderRow::new(spec.name.clone()),
            spec,
            begun: now,
            listed: None,
            unreachable: None,
            aliens: BTreeSet::new(),
            buried: BTreeMap::new(),
            told: None,
            full: BTreeMap::new(),
            times: BTreeMap::new(),
        }
    }

    /// All that may be taken of it.
    pub(super) fn quota(&self) -> Amount {
        let told = self.told.as_ref().map(|room| room.capacity);
        told.map_or(self.spec.quota, |capacity| capacity.least(self.spec.quota))
    }

    /// What a node of a label takes.
    pub(super) fn cost(&self, label: &Label) -> Option<Amount> {
        let spec = self.spec.pools.get(label)?.cost;
        let told = self.told.as_ref().and_then(|room| room.costs.get(label)).copied();
        Some(told.unwrap_or(spec))
    }
}

/// All nodes and all requests. See [`super`].
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) policy: Policy,
    pub(super) settings: Settings,
    pub(super) now: Time,
    pub(super) nodes: BTreeMap<NodeId, Entry>,
    pub(super) last_node: u64,
    pub(super) providers: BTreeMap<ProviderName, Provider>,
    pub(super) requests: BTreeMap<RunId, Waiter>,
    pub(super) autoholds: BTreeMap<AutoholdId, Autohold>,
    /// Labels of the latest requests.
    pub(super) history: VecDeque<Label>,
    /// So many nodes of a label in one request were once possible somewhere, by what was told of quotas.
    pub(super) possible: BTreeMap<Label, u32>,
    pub(super) changes: Changes,
}

impl Pool {
    /// The pool as the store has it. What was begun and not finished is deleted; see [`super`].
    #[must_use]
    pub fn load(rows: Rows, settings: Settings, policy: Policy, now: Time) -> Pool {
        let providers = settings
            .providers
            .iter()
            .map(|spec| (spec.name.clone(), Provider::new(spec.clone(), now)))
            .collect();
        let mut pool = Pool {
            policy,
            settings,
            now,
            nodes: BTreeMap::new(),
            last_node: rows.last_node,
            providers,
            requests: BTreeMap::new(),
            autoholds: rows.autoholds.into_iter().map(|wish| (wish.id, wish)).collect(),
            history: VecDeque::new(),
            possible: BTreeMap::new(),
            changes: Changes::default(),
        };
        for row in rows.nodes {
            pool.load_node(row);
        }
        for row in rows.providers {
            pool.load_provider(row);
        }
        pool
    }

    fn load_node(&mut self, row: Node) {
        let id = row.id;
        self.last_node = self.last_node.max(id.0);
        let state = row.state;
        let known = self.providers.contains_key(&row.provider);
        let mut entry = Entry::new(row, true, self.now);
        if matches!(state, NodeState::InUse(_)) {
            entry.reclaim = Some(self.now.after(self.policy.reclaim));
        }
        self.nodes.insert(id, entry);
        if !known {
            // Whoever removed the provider from the settings looks after what is there.
            self.forget(id);
            return;
        }
        match state {
            NodeState::Building | NodeState::Testing | NodeState::Handing(_) => {
                self.delete(id, "the server stopped while it was being made ready");
            }
            NodeState::Ready => self.set(id, NodeState::Testing),
            NodeState::InUse(_) | NodeState::Held | NodeState::Deleting => {}
        }
    }

    /// Takes an event in; the answer is who it was about.
    pub fn on(&mut self, event: Event, now: Time) -> Result<(), Refused> {
        self.now = self.now.max(now);
        match event {
            Event::Ask(request) => self.ask(request)?,
            Event::GiveBack(run) => self.give_back(run),
            Event::Built { node, result } => self.built(node, result),
            Event::NoRoom { node, reason } => self.no_room(node, &reason),
            Event::Tested { node, result } => self.tested(node, result),
            Event::Handed { node, result } => self.handed(node, result),
            Event::Lost { node, reason } => self.lost(node, &reason),
            Event::Deleted { node, result } => self.deleted(node, result),
            Event::Listed { provider, asked, result } => self.listed(&provider, asked, result),
            Event::Room { provider, room } => self.told_room(&provider, room),
            Event::AlienDone { provider, name } => {
                if let Some(provider) = self.providers.get_mut(&provider) {
                    provider.aliens.remove(&name);
                }
            }
            Event::Hold { node, length, reason } => self.hold(node, length, &reason)?,
            Event::Autohold(meant) => self.autohold(meant)?,
            Event::DeleteAutohold(id) => self.delete_autohold(id)?,
            Event::Failed(failure) => self.failed(&failure),
            Event::Delete(node) => self.delete_by_hand(node)?,
            Event::PauseProvider { provider, by, reason } => {
                self.pause_provider(&provider, &by, &reason)?;
            }
            Event::ResumeProvider(provider) => self.resume_provider(&provider)?,
            Event::Tick => {}
        }
        self.pass_time();
        self.end_autoholds();
        self.settle();
        Ok(())
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// The highest number that was ever given.
    #[must_use]
    pub fn last_node(&self) -> u64 {
        self.last_node
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id).map(|entry| &entry.row)
    }

    /// All nodes, the oldest first.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Node> {
        self.nodes.values().map(|entry| &entry.row)
    }

    /// What an operator configured.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The label of those who do not say.
    #[must_use]
    pub fn default_label(&self) -> Option<&Label> {
        self.settings.labels.first().map(|label| &label.name)
    }

    /// Changes a node's state and notes that its row must be written.
    pub(super) fn set(&mut self, id: NodeId, state: NodeState) {
        let now = self.now;
        if let Some(entry) = self.nodes.get_mut(&id)
            && entry.row.state != state
        {
            entry.row.state = state;
            entry.row.since = now;
            self.changes.nodes.insert(id);
        }
    }

    /// Wants a node deleted.
    pub(super) fn delete(&mut self, id: NodeId, reason: &str) {
        let now = self.now;
        if let Some(entry) = self.nodes.get_mut(&id)
            && entry.row.state != NodeState::Deleting
        {
            entry.row.reason = shortened(reason);
            entry.row.hold = None;
            entry.not_before = now;
            entry.failures = 0;
            entry.told_overdue = false;
            self.set(id, NodeState::Deleting);
        }
    }

    /// A node is gone.
    pub(super) fn forget(&mut self, id: NodeId) {
        let Some(entry) = self.nodes.remove(&id) else { return };
        self.changes.nodes.remove(&id);
        self.changes.gone.insert(id);
        if let Some(provider) = self.providers.get_mut(&entry.row.provider) {
            provider.buried.insert(entry.row.name, self.now);
            if !entry.row.machine.is_empty() {
                // Its room is free.
                for full in provider.full.values_mut() {
                    full.until = full.until.min(self.now);
                }
            }
        }
    }

    /// A new node, to be built.
    pub(super) fn begin(&mut self, provider: &ProviderName, label: &Label) -> NodeId {
        self.last_node += 1;
        let id = NodeId(self.last_node);
        let row = Node {
            id,
            name: format!("{label}-{provider}-{}", id.0),
            label: label.clone(),
            provider: provider.clone(),
            state: NodeState::Building,
            since: self.now,
            machine: String::new(),
            job: String::new(),
            hold: None,
            reason: String::new(),
        };
        self.nodes.insert(id, Entry::new(row, false, self.now));
        self.changes.nodes.insert(id);
        id
    }

    /// `pause_min`, doubled with each failure after the first, up to `pause_max`.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.policy.pause_min.saturating_mul(1 << doublings).min(self.policy.pause_max)
    }
}

/// A reason, cut to what may be kept.
pub(super) fn shortened(text: &str) -> String {
    cut(text, super::policy::TEXT_MAX_BYTES).to_owned()
}

/// A text, cut to so many bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
