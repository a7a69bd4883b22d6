//! A simulated TE host: the real fence, a made-up gateway, resets that take time, its own clock.

use crate::message::{Happening, Key};
use crate::random::Random;
use crate::runs::Mutation;
use std::collections::BTreeMap;
use std::time::Duration;
use toci_core::id::{Generation, HostId, Label, ShapeName, TeId};
use toci_core::lease::fence::{Fence, FenceEffect, FenceEvent, LIMIT_JITTER, Mark, Standing, Task};
use toci_core::lease::{DesiredTe, ReportedState, ReportedTe};
use toci_core::time::Time;

/// How often a host looks at its fences; it reports every fifth time, and when something changed.
pub(crate) const TIMER: Duration = Duration::from_secs(1);
const REPORT_EVERY: u64 = 5;

/// One TE on the host.
pub(crate) struct SimTe {
    pub(crate) fence: Fence,
    /// On disk: survives the agent and the host.
    disk: Mark,
    /// Every key ever made; on disk too. The fence alone decides which of them work.
    pub(crate) keys: Vec<Key>,
    /// Whose traces are on the machines; a reset clears them.
    pub(crate) dirty: Option<Generation>,
    /// What happened, told independently of the fence: everything up to this is cut off.
    pub(crate) cut_off: Option<Generation>,
    /// The latest moment, by the host's clock, that was ever asked for as the limit.
    limit: BTreeMap<Generation, Time>,
    noted: Option<Generation>,
    wish: Option<DesiredTe>,
}

pub(crate) struct SimHost {
    /// Its place among the hosts.
    index: usize,
    mutation: Mutation,
    pub(crate) up: bool,
    /// Raised with every start, so that what a dead agent began is not taken for this one's.
    pub(crate) life: u64,
    /// True time at which its boot clock was zero.
    booted: Time,
    sequence: u64,
    timer: u64,
    pub(crate) tes: BTreeMap<TeId, SimTe>,
}

/// What a command met.
pub(crate) enum Gate {
    Refused,
    Accepted,
    /// Accepted although it must not be, and why.
    Wrong(String),
}

type Later = Vec<(Duration, Happening)>;

impl SimHost {
    pub(crate) fn new(index: usize, id: &HostId, tes: u32, mutation: Mutation) -> SimHost {
        let mut host = SimHost {
            index,
            mutation,
            up: false,
            life: 0,
            booted: Time(0),
            sequence: 0,
            timer: 0,
            tes: BTreeMap::new(),
        };
        for n in 1..=tes {
            let (fence, _) = Fence::new();
            let te = SimTe {
                disk: fence.mark(),
                fence,
                keys: vec![],
                dirty: None,
                cut_off: None,
                limit: BTreeMap::new(),
                noted: None,
                wish: None,
            };
            if let Ok(te_id) = TeId::of(id, n) {
                host.tes.insert(te_id, te);
            }
        }
        host
    }

    pub(crate) fn clock(&self, now: Time) -> Time {
        Time(now.0 - self.booted.0)
    }

    pub(crate) fn start(&mut self, same_boot: bool, now: Time, random: &mut Random) -> Later {
        self.up = true;
        self.life += 1;
        self.sequence = 0;
        if !same_boot {
            self.booted = now;
        }
        let clock = self.clock(now);
        let mut later = vec![(TIMER, Happening::HostTimer { host: self.index, life: self.life })];
        let ids: Vec<TeId> = self.tes.keys().cloned().collect();
        for id in ids {
            let Some(te) = self.tes.get_mut(&id) else { continue };
            te.noted = None;
            te.wish = None;
            let (fence, effects) = Fence::restored(te.disk, same_boot, clock);
            // A crash cuts off whatever the mark does not bring back.
            if fence.open().is_none() && te.fence.open().is_some() {
                te.cut_off = te.cut_off.max(Some(te.fence.generation()));
            }
            te.fence = fence;
            later.extend(self.execute(&id, effects, random));
        }
        later.push((Duration::ZERO, Happening::Hello { host: self.index }));
        later
    }

    /// Does what the fence says, in order.
    fn execute(&mut self, id: &TeId, effects: Vec<FenceEffect>, random: &mut Random) -> Later {
        let life = self.life;
        let mut later = vec![];
        let Some(te) = self.tes.get_mut(id) else { return later };
        for effect in effects {
            match effect {
                FenceEffect::CutOff { generation } => {
                    te.cut_off = te.cut_off.max(Some(generation));
                }
                FenceEffect::Persist(mark) => {
                    let forget =
                        self.mutation == Mutation::HostForgetsToPersist && mark.open.is_none();
                    if !forget {
                        te.disk = mark;
                    }
                }
                FenceEffect::Open { generation, .. } => {
                    if !te.keys.iter().any(|k| k.generation == generation) {
                        let nonce = random.next();
                        te.keys.push(Key { te: id.clone(), generation, nonce });
                    }
                    te.noted = None;
                    if let Some(key) = te.keys.iter().find(|k| k.generation == generation) {
                        let key = key.clone();
                        later.push((Duration::ZERO, Happening::Serving { host: self.index, key }));
                    }
                }
                FenceEffect::Reset { generation, .. } => {
                    let takes = Duration::from_millis(500 + random.below(6_000));
                    let good = !random.per_mille(30);
                    let te = id.clone();
                    later.push((
                        takes,
                        Happening::ResetEnds { host: self.index, life, te, generation, good },
                    ));
                }
                FenceEffect::PowerOff { .. } => {}
            }
        }
        later
    }

    pub(crate) fn wish(&mut self, wish: Vec<DesiredTe>, now: Time, random: &mut Random) -> Later {
        let mut later = vec![];
        for desired in wish {
            later.extend(self.want(&desired, now, random));
            if let Some(te) = self.tes.get_mut(&desired.id) {
                te.wish = Some(desired);
            }
        }
        later
    }

    fn want(&mut self, desired: &DesiredTe, now: Time, random: &mut Random) -> Later {
        let clock = self.clock(now);
        let Some(te) = self.tes.get_mut(&desired.id) else { return vec![] };
        if let Task::Serve { left, .. } = desired.task {
            let until = clock.after(left);
            let limit = te.limit.entry(desired.generation).or_insert(until);
            *limit = until.max(*limit);
        }
        let event = FenceEvent::Desired { generation: desired.generation, task: desired.task };
        // A wish that is too old is taken no notice of.
        let effects = te.fence.on(event, clock).unwrap_or_default();
        self.execute(&desired.id, effects, random)
    }

    pub(crate) fn timer(&mut self, now: Time, random: &mut Random) -> Later {
        let clock = self.clock(now);
        let mut later = vec![(TIMER, Happening::HostTimer { host: self.index, life: self.life })];
        let ids: Vec<TeId> = self.tes.keys().cloned().collect();
        let mut changed = false;
        for id in ids {
            let Some(te) = self.tes.get_mut(&id) else { continue };
            if self.mutation != Mutation::IgnoreHostExpiry {
                let effects = te.fence.on(FenceEvent::Tick, clock).unwrap_or_default();
                changed |= !effects.is_empty();
                later.extend(self.execute(&id, effects, random));
            }
            let Some(te) = self.tes.get(&id) else { continue };
            let generation = te.fence.generation();
            if te.fence.open().is_some() && te.noted != Some(generation) {
                // Not answered yet: say it again.
                if let Some(key) = te.keys.iter().find(|k| k.generation == generation) {
                    let key = key.clone();
                    later.push((Duration::ZERO, Happening::Serving { host: self.index, key }));
                }
            }
        }
        self.timer += 1;
        if changed || self.timer.is_multiple_of(REPORT_EVERY) {
            later.push((Duration::ZERO, self.report()));
        }
        later
    }

    pub(crate) fn reset_ends(
        &mut self,
        id: &TeId,
        generation: Generation,
        good: bool,
        now: Time,
        random: &mut Random,
    ) -> Later {
        let clock = self.clock(now);
        let Some(te) = self.tes.get_mut(id) else { return vec![] };
        if te.fence.generation() != generation || te.fence.report() != Standing::Resetting {
            return vec![];
        }
        let event = if good {
            if self.mutation != Mutation::HostSkipsReset {
                te.dirty = None;
            }
            FenceEvent::ResetDone { generation }
        } else {
            FenceEvent::ResetFailed { generation, reason: "the self-check failed".into() }
        };
        // Results of resets are never refused.
        let _ = te.fence.on(event, clock);
        let wish = te.wish.clone();
        let mut later = vec![(Duration::ZERO, self.report())];
        if let Some(wish) = wish {
            later.extend(self.want(&wish, now, random));
        }
        later
    }

    pub(crate) fn noted(&mut self, te: &TeId, generation: Generation) {
        if let Some(te) = self.tes.get_mut(te) {
            te.noted = Some(generation);
        }
    }

    pub(crate) fn report(&mut self) -> Happening {
        self.sequence += 1;
        let tes = self.tes.iter().zip(1..).filter_map(|((id, te), number)| {
            Some(ReportedTe {
                id: id.clone(),
                number,
                shape: ShapeName::new("seed-2").ok()?,
                labels: vec![Label::new("devtest").ok()?],
                generation: te.fence.generation(),
                state: match te.fence.report() {
                    Standing::Resetting => ReportedState::Resetting,
                    Standing::Clean => ReportedState::Clean,
                    Standing::Serving => ReportedState::Serving,
                    Standing::Broken(reason) => ReportedState::Broken(reason),
                },
            })
        });
        let tes = tes.collect();
        Happening::Report { host: self.index, boot: self.life, sequence: self.sequence, tes }
    }

    /// Whether the gateway would take a command with this key now.
    pub(crate) fn accepts(&self, key: &Key, now: Time) -> bool {
        let Some(te) = self.tes.get(&key.te) else { return false };
        if !self.up || !te.keys.contains(key) {
            return false;
        }
        match self.mutation {
            Mutation::SkipGenerationCheck => true,
            Mutation::IgnoreHostExpiry => {
                te.fence.open().is_some() && te.fence.generation() == key.generation
            }
            Mutation::None
            | Mutation::GrantBeforeClean
            | Mutation::ServerForgetsToPersist
            | Mutation::HostForgetsToPersist
            | Mutation::HostSkipsReset
            | Mutation::DropQueue
            | Mutation::TimersRunAhead
            | Mutation::WishesNotSent => te.fence.allows(key.generation, self.clock(now)),
        }
    }

    /// A command arrives at the gateway.
    pub(crate) fn command(&mut self, key: &Key, now: Time) -> Gate {
        if !self.accepts(key, now) {
            return Gate::Refused;
        }
        let clock = self.clock(now);
        let Some(te) = self.tes.get_mut(&key.te) else { return Gate::Refused };
        let (name, generation) = (&key.te, key.generation);
        if te.cut_off >= Some(generation) {
            return Gate::Wrong(format!(
                "{name} took a command of generation {generation}, which was cut off"
            ));
        }
        if te.limit.get(&generation).is_none_or(|l| clock > l.after(LIMIT_JITTER)) {
            return Gate::Wrong(format!(
                "{name} took a command of generation {generation} after its limit"
            ));
        }
        if te.dirty.is_some_and(|d| d != generation) {
            return Gate::Wrong(format!("{name} was not reset before generation {generation}"));
        }
        te.dirty = Some(generation);
        Gate::Accepted
    }
}
