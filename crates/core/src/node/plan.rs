//! Who gets which node, and which nodes are to be built: worked out anew after each event, from nothing but what is.

mod elsewhere;

use super::fit::Fit;
use super::model::NodeState;
use super::pool::{Entry, Pool, Provider};
use super::settings::Amount;
use crate::id::{Label, NodeId, ProviderName, RunId};
use std::collections::{BTreeMap, BTreeSet};

/// Why nodes go that a run has.
pub(super) const ELSEWHERE: &str =
    "its run goes on elsewhere: more of its nodes cannot be made here";

/// What is left at a provider while requests are gone through.
#[derive(Clone, Debug)]
struct Room {
    /// Free now.
    free: Amount,
    /// Free once what is being deleted is gone.
    coming: Amount,
    /// Nodes more, by label.
    more: BTreeMap<Label, u64>,
    /// Somebody waits for this provider: nobody behind gets its room.
    closed: bool,
}

/// Nodes of one label at one provider that nobody has.
#[derive(Clone, Debug, Default)]
struct Shelf {
    /// Ready, the oldest first.
    ready: Vec<NodeId>,
    /// Being made.
    pending: u64,
    /// Being made, but not to be counted on where there is another way: see [`super::late`].
    late: u64,
}

impl Shelf {
    fn counted_on(&self) -> u64 {
        u64::try_from(self.ready.len()).unwrap_or(u64::MAX).saturating_add(self.pending)
    }
}

/// A round of planning.
struct Round<'a> {
    pool: &'a Pool,
    rooms: BTreeMap<&'a ProviderName, Room>,
    shelves: BTreeMap<(&'a ProviderName, &'a Label), Shelf>,
    /// How often a label was asked for lately.
    demand: BTreeMap<&'a Label, u64>,
    hand: Vec<(NodeId, RunId)>,
    build: Vec<(ProviderName, Label)>,
    /// Runs that give back what they have and go on elsewhere.
    leave: Vec<RunId>,
    /// Room that requests could not find.
    unmet: Vec<(&'a ProviderName, &'a Label)>,
}

impl Pool {
    /// Serves who can be served, begins what has to be built, makes room.
    pub(super) fn settle(&mut self) {
        self.answer();
        self.refuse_the_impossible();
        let mut round = Round::new(self);
        round.requests();
        let evicted = round.make_room();
        round.min_ready();
        let spare = round.spare();
        let (hand, build, leave) = (round.hand, round.build, round.leave);
        for run in leave {
            self.release(run, ELSEWHERE);
        }
        for (id, run) in hand {
            let job = self.requests.get(&run).map(|w| w.request.job.clone()).unwrap_or_default();
            if let Some(entry) = self.nodes.get_mut(&id) {
                entry.row.job = job;
            }
            self.set(id, NodeState::Handing(run));
        }
        for (provider, label) in build {
            self.begin(&provider, &label);
        }
        for id in evicted {
            self.delete(id, "nobody asked for it and others need the room");
        }
        for id in spare {
            self.delete(id, "it is more than min_ready asks for");
        }
    }
}

impl<'a> Round<'a> {
    fn new(pool: &'a Pool) -> Round<'a> {
        let mut demand: BTreeMap<&Label, u64> = BTreeMap::new();
        for label in &pool.history {
            *demand.entry(label).or_default() += 1;
        }
        let rooms = pool.providers.iter().map(|(name, p)| (name, room(pool, name, p))).collect();
        let mut shelves: BTreeMap<(&ProviderName, &Label), Shelf> = BTreeMap::new();
        for entry in pool.nodes.values() {
            let shelf = shelves.entry((&entry.row.provider, &entry.row.label)).or_default();
            match entry.row.state {
                NodeState::Ready => shelf.ready.push(entry.row.id),
                NodeState::Building | NodeState::Testing if pool.is_late(entry) => shelf.late += 1,
                NodeState::Building | NodeState::Testing => shelf.pending += 1,
                NodeState::Handing(_)
                | NodeState::InUse(_)
                | NodeState::Held
                | NodeState::Deleting => {}
            }
        }
        let (hand, build) = (Vec::new(), Vec::new());
        let (leave, unmet) = (Vec::new(), Vec::new());
        Round { pool, rooms, shelves, demand, hand, build, leave, unmet }
    }

    fn requests(&mut self) {
        let pool = self.pool;
        let waiting = pool.requests.iter().filter(|(_, waiter)| !waiter.resumes);
        let waiting = waiting.map(|(run, waiter)| (waiter.rank(), *run));
        let (mut begun, mut rest): (Vec<_>, Vec<_>) =
            waiting.partition(|(_, run)| pool.place_of(*run).is_some());
        // Who has some of its nodes already goes first there: it keeps them until it has all, so whoever waited for those
        // would wait for ever.
        begun.sort_unstable();
        for (rank, run) in begun {
            let Some((place, label, need)) = pool.lacking(run) else { continue };
            if self.is_stuck(place, label, need) {
                rest.push((rank, run));
            }
            self.serve(run, place, label, need);
        }
        rest.sort_unstable();
        for (_, run) in rest {
            self.begin_somewhere(run);
        }
    }

    /// Serves a run with all of its nodes at one provider. One that has some already goes only where it gets them soon,
    /// and gives back what it has.
    fn begin_somewhere(&mut self, run: RunId) {
        let pool = self.pool;
        let Some(waiter) = pool.requests.get(&run) else { return };
        let (label, count) = (&waiter.label, waiter.request.count);
        let (place, need) = (pool.place_of(run), count as usize);
        // Where it does not fit nobody keeps room for it: others may have that.
        let able = |name: &ProviderName, p: &Provider| match p.fit(label, count) {
            Some(Fit::Fits | Fit::Unknown) => true,
            Some(Fit::Taken(_) | Fit::Never(_)) => pool.ready_at(name, label) >= need,
            None => false,
        };
        let better = |name: &'a ProviderName| {
            place.is_none_or(|place| place != name && self.gives_soon(name, label, need))
        };
        let able = pool.providers.iter().filter(|(n, p)| better(n) && able(n, p));
        let best = able.map(|(n, _)| n).min_by_key(|name| self.badness(name, label, need));
        let Some(best) = best else { return };
        if place.is_some() {
            self.leave.push(run);
        }
        self.serve(run, best, label, need);
    }

    /// The smaller the better: all of it soon, by a provider that does not hang; then most of it ready now, then where
    /// others need it least.
    fn badness(
        &self,
        name: &'a ProviderName,
        label: &'a Label,
        need: usize,
    ) -> (u64, usize, bool, u64, u64, u64) {
        let empty = Shelf::default();
        let closed = self.rooms.get(name).is_none_or(|room| room.closed);
        let shelf = self.shelves.get(&(name, label)).unwrap_or(&empty);
        let shelf = if closed && shelf.ready.len() < need { &empty } else { shelf };
        let need_more = need.saturating_sub(shelf.ready.len());
        let soon = u64::try_from(need_more).unwrap_or(u64::MAX).saturating_sub(shelf.pending);
        let unbuilt = soon - self.buildable(name, label).min(soon);
        let hangs = soon > 0 && (shelf.late > 0 || !self.is_open(name, label));
        let free = self.rooms.get(name).map_or(0, |r| r.free.servers);
        (
            unbuilt.saturating_mul(2).saturating_add(u64::from(hangs)),
            need_more,
            self.is_silent(name),
            soon,
            self.pressure(name, label),
            u64::MAX - free,
        )
    }

    fn serve(&mut self, run: RunId, name: &'a ProviderName, label: &'a Label, need: usize) {
        let closed = self.rooms.get(name).is_none_or(|room| room.closed);
        let shelf = self.shelves.entry((name, label)).or_default();
        if closed && shelf.ready.len() < need {
            // Whoever waits for this provider's room is before us: what we cannot use now may have to go.
            return;
        }
        let taken: Vec<NodeId> = shelf.ready.drain(..need.min(shelf.ready.len())).collect();
        let mut missing = need - taken.len();
        if missing == 0 {
            self.hand.extend(taken.into_iter().map(|id| (id, run)));
            return;
        }
        // What is ready stays so, but nobody else gets it.
        let pending = u64::try_from(missing).unwrap_or(u64::MAX).min(shelf.pending);
        shelf.pending -= pending;
        missing -= usize::try_from(pending).unwrap_or(missing);
        // The best provider hangs: there is no other way, and the same one is not asked for still more.
        let late = u64::try_from(missing).unwrap_or(u64::MAX).min(shelf.late);
        shelf.late -= late;
        missing -= usize::try_from(late).unwrap_or(missing);
        while missing > 0 && self.buildable(name, label) > 0 {
            self.build(name, label);
            missing -= 1;
        }
        if missing > 0 && self.lacks_room(name, label) {
            // After failures it is about one only.
            let tried = if self.is_unsure(name, label) { 1 } else { missing };
            self.unmet.extend(core::iter::repeat_n((name, label), tried));
            if let Some(room) = self.rooms.get_mut(name) {
                room.closed = true;
            }
        }
    }

    /// Deletes nodes that nobody asked for where somebody waits for room.
    fn make_room(&mut self) -> Vec<NodeId> {
        let mut evicted = Vec::new();
        for (name, label) in core::mem::take(&mut self.unmet) {
            let Some(cost) = self.cost(name, label) else { continue };
            while !self.rooms.get(name).is_some_and(|room| fits(room, cost)) {
                let idle = self.shelves.iter_mut().find_map(|((at, of), shelf)| {
                    (*at == name && *of != label).then(|| shelf.ready.pop()).flatten()
                });
                let Some(id) = idle else { break };
                let Some(node) = self.pool.node(id) else { break };
                let freed = self.cost(name, &node.label).unwrap_or(Amount::NONE);
                if let Some(room) = self.rooms.get_mut(name) {
                    room.coming = room.coming.and(freed);
                }
                evicted.push(id);
            }
            // What is on its way is this request's.
            if let Some(room) = self.rooms.get_mut(name) {
                let rest = cost.less(room.free).map(|_| room.free).unwrap_or(cost);
                let from_coming = cost.less(rest).unwrap_or(Amount::NONE);
                room.free = room.free.less(rest).unwrap_or(Amount::NONE);
                room.coming = room.coming.less(from_coming).unwrap_or(Amount::NONE);
            }
        }
        evicted
    }

    /// Fills up to `min_ready`, one of each label at a time; labels with the fewest providers first.
    fn min_ready(&mut self) {
        let pool = self.pool;
        let mut labels: Vec<_> = pool.settings.labels.iter().collect();
        labels.sort_by_key(|spec| {
            let demand = self.demand.get(&spec.name).copied().unwrap_or(0);
            (self.able(&spec.name), u64::MAX - demand)
        });
        let mut begun = true;
        while begun {
            begun = false;
            for spec in &labels {
                let label = &spec.name;
                let wanted = u64::from(spec.min_ready);
                if self.on_shelves(label) >= wanted {
                    continue;
                }
                // What is late is made up for, but not where it is late.
                let enough = self.on_shelves_perhaps(label) >= wanted;
                let best = pool
                    .providers
                    .keys()
                    .filter(|name| self.buildable(name, label) > 0)
                    .filter(|name| !enough || self.late(name, label) == 0)
                    .min_by_key(|name| {
                        let free = self.rooms.get(name).map_or(0, |room| room.free.servers);
                        let late = self.late(name, label) > 0;
                        (late, self.pressure(name, label), u64::MAX - free)
                    });
                if let Some(name) = best {
                    self.build(name, label);
                    self.shelves.entry((name, label)).or_default().pending += 1;
                    begun = true;
                }
            }
        }
    }

    /// Nodes that have been ready for long, more than anybody wants.
    fn spare(&self) -> Vec<NodeId> {
        let pool = self.pool;
        let since = |id: &NodeId| pool.nodes.get(id).map_or(pool.now, |e: &Entry| e.row.since);
        let mut out = Vec::new();
        for spec in &pool.settings.labels {
            let shelves = self.shelves.iter().filter(|((_, label), _)| **label == spec.name);
            let mut ready: Vec<NodeId> = shelves.flat_map(|(_, s)| s.ready.clone()).collect();
            ready.sort_by_key(since);
            let more = ready.len().saturating_sub(spec.min_ready as usize);
            let old = |id: &NodeId| since(id).after(pool.policy.spare) <= pool.now;
            out.extend(ready.into_iter().take(more).filter(old));
        }
        let known: BTreeSet<&Label> = pool.settings.labels.iter().map(|l| &l.name).collect();
        let unknown = self.shelves.iter().filter(|((name, label), _)| {
            !known.contains(label) || self.cost(name, label).is_none()
        });
        out.extend(unknown.flat_map(|(_, shelf)| shelf.ready.clone()));
        out
    }

    fn build(&mut self, name: &'a ProviderName, label: &'a Label) {
        let Some(cost) = self.cost(name, label) else { return };
        if let Some(room) = self.rooms.get_mut(name) {
            room.free = room.free.less(cost).unwrap_or(Amount::NONE);
            if let Some(more) = room.more.get_mut(label) {
                *more = more.saturating_sub(1);
            }
        }
        self.build.push((name.clone(), label.clone()));
    }

    fn cost(&self, name: &ProviderName, label: &Label) -> Option<Amount> {
        self.pool.providers.get(name)?.cost(label)
    }

    /// Whether builds may be begun there at all, room or not.
    fn is_open(&self, name: &ProviderName, label: &Label) -> bool {
        let pool = self.pool;
        let Some(provider) = pool.providers.get(name) else { return false };
        let row = &provider.row;
        let failing = row.troubles.get(label).is_some_and(|t| t.until > pool.now);
        provider.answers() && row.paused.is_none() && !failing
    }

    /// Whether it is the provider's room that is short: a label's own limit, or a pause, is no reason to keep others out.
    fn lacks_room(&self, name: &ProviderName, label: &Label) -> bool {
        let more = self.rooms.get(name).and_then(|room| room.more.get(label)).copied();
        more.unwrap_or(0) > 0 && self.is_open(name, label) && !self.is_being_tried(name, label)
    }

    /// Whether builds failed there and one is being tried.
    fn is_being_tried(&self, name: &ProviderName, label: &Label) -> bool {
        let of_these = |e: &&Entry| e.row.provider == *name && e.row.label == *label && !e.proven;
        let building = |e: &&Entry| matches!(e.row.state, NodeState::Building | NodeState::Testing);
        self.is_unsure(name, label)
            && (self.build.iter().any(|(p, l)| p == name && l == label)
                || self.pool.nodes.values().filter(of_these).any(|e| building(&e)))
    }

    /// Whether builds failed there, or there was no room: one at a time is tried.
    fn is_unsure(&self, name: &ProviderName, label: &Label) -> bool {
        let full = self.pool.providers.get(name).is_some_and(|p| p.full.contains_key(label));
        full || self.pool.trouble(name, label).is_some()
    }

    /// Whether its cloud has said that it has no room for this, a short while ago.
    fn is_full(&self, name: &ProviderName, label: &Label) -> bool {
        let full = self.pool.providers.get(name).and_then(|p| p.full.get(label));
        full.is_some_and(|full| full.until > self.pool.now)
    }

    /// How many can be begun there now.
    fn buildable(&self, name: &ProviderName, label: &Label) -> u64 {
        let (Some(room), Some(cost)) = (self.rooms.get(name), self.cost(name, label)) else {
            return 0;
        };
        if room.closed || !self.is_open(name, label) || self.is_full(name, label) {
            return 0;
        }
        let most = room.more.get(label).copied().unwrap_or(0).min(room.free.holds(cost));
        if self.is_unsure(name, label) {
            return most.min(u64::from(!self.is_being_tried(name, label)));
        }
        most
    }

    /// How much others need this provider: lately asked for labels that few providers offer weigh most.
    fn pressure(&self, name: &ProviderName, label: &Label) -> u64 {
        let Some(provider) = self.pool.providers.get(name) else { return 0 };
        let others = provider.spec.pools.keys().filter(|other| *other != label);
        others
            .map(|other| {
                let asked = self.demand.get(other).copied().unwrap_or(0);
                asked * 1000 / self.able(other).max(1)
            })
            .sum()
    }

    /// How many providers offer a label.
    fn able(&self, label: &Label) -> u64 {
        let able = self.pool.providers.values().filter(|p| p.spec.offers(label, 1)).count();
        u64::try_from(able).unwrap_or(u64::MAX)
    }

    /// Nodes of a label that nobody has or waits for, where providers answer and do not hang.
    fn on_shelves(&self, label: &Label) -> u64 {
        let counts = |name: &ProviderName, of: &Label| of == label && !self.is_silent(name);
        let of_label = self.shelves.iter().filter(|((name, of), _)| counts(name, of));
        of_label.map(|(_, shelf)| shelf.counted_on()).sum()
    }

    /// The same, with those that may still be of use when their providers recover.
    fn on_shelves_perhaps(&self, label: &Label) -> u64 {
        let of_label = self.shelves.iter().filter(|((_, of), _)| *of == label);
        of_label.map(|(_, shelf)| shelf.counted_on().saturating_add(shelf.late)).sum()
    }

    fn is_silent(&self, name: &ProviderName) -> bool {
        self.pool.providers.get(name).is_none_or(|provider| self.pool.is_silent(provider))
    }

    fn late(&self, name: &'a ProviderName, label: &'a Label) -> u64 {
        self.shelves.get(&(name, label)).map_or(0, |shelf| shelf.late)
    }
}

fn room(pool: &Pool, name: &ProviderName, provider: &Provider) -> Room {
    let mut used = Amount::NONE;
    let mut coming = Amount::NONE;
    let mut more: BTreeMap<Label, u64> =
        provider.spec.pools.iter().map(|(label, pool)| (label.clone(), pool.max)).collect();
    for entry in pool.nodes.values().filter(|e| e.row.provider == *name) {
        // A label that is not configured any more still takes a machine.
        let one = Amount { servers: 1, ..Amount::NONE };
        let cost = provider.cost(&entry.row.label).unwrap_or(one);
        used = used.and(cost);
        // What cannot be deleted takes its room, and is not waited for.
        if entry.row.state == NodeState::Deleting && !pool.is_overdue(entry) {
            coming = coming.and(cost);
        }
        if let Some(more) = more.get_mut(&entry.row.label) {
            *more = more.saturating_sub(1);
        }
    }
    // Strangers take room as well until they are gone.
    let strangers = u32::try_from(provider.aliens.len()).unwrap_or(u32::MAX);
    let one = Amount { servers: 1, ..Amount::NONE };
    let (used, coming) = (used.and(one.times(strangers)), coming.and(one.times(strangers)));
    let quota = provider.quota();
    let free = Amount {
        servers: quota.servers.saturating_sub(used.servers),
        cpus: quota.cpus.saturating_sub(used.cpus),
        memory_mib: quota.memory_mib.saturating_sub(used.memory_mib),
    };
    Room { free, coming, more, closed: false }
}

/// Whether a node fits once everything that is being deleted is gone.
fn fits(room: &Room, cost: Amount) -> bool {
    room.free.and(room.coming).less(cost).is_some()
}
