//! A world around a pool: providers whose machines, failures and answers the test decides; rows that outlive a crash.

use crate::id::{AutoholdId, Label, NodeId, ProviderName, RunId};
use crate::layout::Precedence;
use crate::node::{
    Amount, Autohold, Event, LabelSpec, Node, NodeState, Outcome, Policy, Pool, PoolSpec,
    ProviderRow, ProviderSpec, Request, Room, Rows, Settings, Wanted,
};
use crate::time::Time;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

pub(super) fn provider_name(name: &str) -> ProviderName {
    ProviderName::new(name).unwrap()
}

pub(super) fn labels(all: &[(&str, u32)]) -> Vec<LabelSpec> {
    all.iter().map(|(n, min_ready)| LabelSpec { name: label(n), min_ready: *min_ready }).collect()
}

/// A provider with these servers and MiB of memory; each label takes so much memory.
pub(super) fn provider(name: &str, max: u64, memory: u64, offers: &[(&str, u64)]) -> ProviderSpec {
    let pool = |memory_mib: u64| PoolSpec {
        max: u64::MAX,
        cost: Amount { servers: 1, cpus: 1, memory_mib },
    };
    ProviderSpec {
        name: provider_name(name),
        quota: Amount { servers: max, cpus: u64::MAX, memory_mib: memory },
        pools: offers.iter().map(|(n, memory)| (label(n), pool(*memory))).collect(),
    }
}

pub(super) struct World {
    pub(super) pool: Pool,
    settings: Settings,
    pub(super) now: Time,
    /// What is on disk.
    pub(super) rows: BTreeMap<NodeId, Node>,
    autoholds: BTreeMap<AutoholdId, Autohold>,
    pub(super) providers: BTreeMap<ProviderName, ProviderRow>,
    last_node: u64,
    /// Machines that exist, by provider.
    pub(super) machines: BTreeMap<ProviderName, BTreeSet<String>>,
    /// Every name that was ever built.
    built: BTreeSet<String>,
    /// Which run each node was given to.
    pub(super) given: BTreeMap<NodeId, RunId>,
    pub(super) outcomes: BTreeMap<RunId, Outcome>,
    pub(super) news: Vec<String>,
    asked: BTreeMap<RunId, Request>,
}

impl World {
    pub(super) fn new(settings: Settings) -> World {
        let now = Time(1_000_000);
        let pool = Pool::load(Rows::default(), settings.clone(), Policy::default(), now);
        let machines =
            settings.providers.iter().map(|p| (p.name.clone(), BTreeSet::new())).collect();
        World {
            pool,
            settings,
            now,
            rows: BTreeMap::new(),
            autoholds: BTreeMap::new(),
            providers: BTreeMap::new(),
            last_node: 0,
            machines,
            built: BTreeSet::new(),
            given: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            news: Vec::new(),
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.on(Event::Tick).unwrap();
    }

    pub(super) fn on(&mut self, event: Event) -> Result<(), String> {
        let answer = self.pool.on(event, self.now).map_err(|r| r.code.to_owned());
        let changes = self.pool.take_changes();
        for id in &changes.nodes {
            self.rows.insert(*id, self.pool.node(*id).unwrap().clone());
        }
        for id in &changes.gone {
            self.rows.remove(id);
        }
        for id in &changes.autoholds {
            match self.pool.autoholds().find(|wish| wish.id == *id) {
                Some(wish) => self.autoholds.insert(*id, wish.clone()),
                None => self.autoholds.remove(id),
            };
        }
        assert!(self.pool.autoholds().eq(self.autoholds.values()), "a wish is not written");
        for name in &changes.providers {
            match self.pool.provider_row(name) {
                Some(row) => self.providers.insert(name.clone(), row.clone()),
                None => self.providers.remove(name),
            };
        }
        self.last_node = self.pool.last_node();
        self.news.extend(changes.news.into_iter().map(|(p, text)| format!("{p} {text}")));
        for (run, outcome) in changes.outcomes {
            if let Outcome::Served(nodes) = &outcome {
                assert_eq!(nodes.len(), self.asked[&run].count as usize);
                let places: BTreeSet<_> =
                    nodes.iter().map(|id| &self.pool.node(*id).unwrap().provider).collect();
                assert_eq!(places.len(), 1, "nodes of one run at {places:?}");
                for id in nodes {
                    let before = self.given.insert(*id, run);
                    assert!(before.is_none_or(|r| r == run), "{id} is given to a second run");
                }
            }
            self.outcomes.insert(run, outcome);
        }
        self.check();
        answer
    }

    fn check(&self) {
        for spec in &self.settings.providers {
            let mine = || self.pool.nodes().filter(|n| n.provider == spec.name);
            let ours = |name: &&String| name.as_str() != "stranger";
            let exist = self.machines[&spec.name].iter().filter(ours).count() as u64;
            assert!(exist.max(mine().count() as u64) <= spec.quota.servers, "{}", spec.name);
            let memory: u64 =
                mine().filter_map(|n| spec.pools.get(&n.label)).map(|p| p.cost.memory_mib).sum();
            assert!(memory <= spec.quota.memory_mib, "{}: {memory} MiB", spec.name);
        }
        for spec in &self.settings.providers {
            let row = self.pool.provider_row(&spec.name);
            assert_eq!(self.providers.get(&spec.name), row, "a provider is not written");
        }
        assert_eq!(self.rows.len(), self.pool.nodes().count());
        for node in self.pool.nodes() {
            assert_eq!(self.rows.get(&node.id), Some(node), "a row is not written");
        }
    }

    pub(super) fn ask(&mut self, run: u128, of: &str, count: u32) -> Result<(), String> {
        self.ask_as(run, of, count, Precedence::Normal)
    }

    pub(super) fn ask_as(
        &mut self,
        run: u128,
        of: &str,
        count: u32,
        precedence: Precedence,
    ) -> Result<(), String> {
        let request = Request {
            run: RunId(run),
            label: Some(label(of)),
            count,
            precedence,
            relative_priority: 0,
            since: Time(self.now.0 + i64::try_from(run).unwrap()),
            job: "job".into(),
        };
        self.asked.insert(RunId(run), request.clone());
        self.on(Event::Ask(request))
    }

    pub(super) fn list(&mut self, name: &ProviderName, well: bool) {
        let names = self.machines[name].clone();
        let result = if well { Ok(names) } else { Err("no route".to_owned()) };
        self.on(Event::Listed { provider: name.clone(), asked: self.now, result }).unwrap();
    }

    /// A provider's cloud tells of its quotas, and what others of the project leave of them.
    pub(super) fn room(&mut self, name: &str, quota: Amount, capacity: Amount) {
        let (provider, costs) = (provider_name(name), BTreeMap::new());
        let room = Room { capacity, quota, costs };
        self.on(Event::Room { provider, room }).unwrap();
    }

    pub(super) fn list_all(&mut self) {
        let names: Vec<ProviderName> = self.machines.keys().cloned().collect();
        for name in names {
            self.list(&name, true);
        }
    }

    /// Does one piece of what is wanted; `well` says whether it works. False when there is nothing to do.
    pub(super) fn work(&mut self, pick: usize, well: bool) -> bool {
        let wanted: Wanted = self.pool.wanted();
        let nodes = wanted.builds.iter().chain(&wanted.tests).chain(&wanted.hand_overs);
        let mut all: Vec<NodeId> = nodes.chain(&wanted.deletes).copied().collect();
        all.sort_unstable();
        if let Some((provider, name)) = wanted.aliens.first().cloned() {
            self.remove_alien(provider, name);
            return true;
        }
        if all.is_empty() {
            return false;
        }
        let node = self.pool.node(all[pick % all.len()]).unwrap().clone();
        self.work_on(&node, well);
        true
    }

    /// A machine that no node is goes.
    pub(super) fn remove_alien(&mut self, provider: ProviderName, name: String) {
        self.machines.get_mut(&provider).unwrap().remove(&name);
        self.on(Event::AlienDone { provider, name }).unwrap();
    }

    /// Does one piece of what is wanted for such nodes; false when there is nothing to do.
    pub(super) fn work_where(&mut self, such: impl Fn(&Node) -> bool, well: bool) -> bool {
        let wanted: Wanted = self.pool.wanted();
        let nodes = wanted.builds.iter().chain(&wanted.tests).chain(&wanted.hand_overs);
        let mut nodes = nodes.chain(&wanted.deletes).filter_map(|id| self.pool.node(*id));
        let Some(node) = nodes.find(|node| such(node)).cloned() else { return false };
        self.work_on(&node, well);
        true
    }

    pub(super) fn work_on(&mut self, node: &Node, well: bool) {
        let id = node.id;
        let ok = |why: &str| if well { Ok(()) } else { Err(why.to_owned()) };
        let machines = self.machines.get_mut(&node.provider).unwrap();
        let event = match node.state {
            NodeState::Building => {
                // One that fails may have left something behind.
                assert!(self.built.insert(node.name.clone()), "{} is used again", node.name);
                machines.insert(node.name.clone());
                let result = if well { Ok("m".to_owned()) } else { Err("no image".to_owned()) };
                Event::Built { node: id, result }
            }
            NodeState::Testing => Event::Tested { node: id, result: ok("no bash") },
            NodeState::Handing(_) => Event::Handed { node: id, result: ok("used already") },
            NodeState::Deleting => {
                if well {
                    machines.remove(&node.name);
                }
                Event::Deleted { node: id, result: ok("busy") }
            }
            NodeState::Ready | NodeState::InUse(_) | NodeState::Held => return,
        };
        self.on(event).unwrap();
    }

    /// Does all that is wanted, as well as can be.
    pub(super) fn work_off(&mut self) {
        for _ in 0..10_000 {
            if !self.work(0, true) {
                return;
            }
        }
        panic!("it never ends: {:?}", self.pool.wanted());
    }

    /// The server dies (perhaps in the middle of builds) and comes back.
    pub(super) fn crash(&mut self, half_built: bool) {
        if half_built {
            for node in self.rows.values().filter(|n| n.state == NodeState::Building) {
                self.built.insert(node.name.clone());
                self.machines.get_mut(&node.provider).unwrap().insert(node.name.clone());
            }
        }
        let rows = Rows {
            last_node: self.last_node,
            nodes: self.rows.values().cloned().collect(),
            autoholds: self.autoholds.values().cloned().collect(),
            providers: self.providers.values().cloned().collect(),
        };
        self.pool = Pool::load(rows, self.settings.clone(), Policy::default(), self.now);
        self.on(Event::Tick).unwrap();
    }

    pub(super) fn states(&self) -> Vec<&'static str> {
        self.pool.nodes().map(|n| n.state.word()).collect()
    }

    pub(super) fn served(&self, run: u128) -> Option<&[NodeId]> {
        match self.outcomes.get(&RunId(run)) {
            Some(Outcome::Served(nodes)) => Some(nodes),
            Some(Outcome::GivenUp(_) | Outcome::Impossible(_)) | None => None,
        }
    }
}
