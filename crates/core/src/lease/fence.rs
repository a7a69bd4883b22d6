//! The fence of one TE on its host: which generation may touch it, and until when. Pure: the host
//! (and the simulator) feeds wishes, ticks and results of resets, and executes the effects in order.
//!
//! ```text
//!                    Serve g (newer, only from Clean)
//!        Clean ───────────────────────────────▶ Serving
//!          ▲                                       │ Vacate, BurnIn, Quarantine, a newer
//!   ResetDone                                      │ generation, or its own limit has passed
//!          │                                       ▼
//!      Resetting ◀──────────────────────────  cut off, mark kept
//!          │ ResetFailed      Vacate g+1
//!          ▼
//!        Broken ──▶ Resetting          Quarantine from anywhere ──▶ Quarantined ──▶ Resetting
//! ```
//!
//! What holds, whatever is lost, doubled, late or out of order:
//! * The generation never goes back, and a generation that was cut off is never opened again.
//! * At most one generation is open, and only after the TE was reset since the one before.
//! * The mark is on disk before the gateway opens and before a reset begins, so a restart at any
//!   point does not forget a cut-off. A restarted agent goes on serving an open generation to its
//!   limit, so that an upgrade of the agent loses no job; after a reboot of the host it does not.

use crate::id::{Generation, LeaseId};
use crate::time::Time;
use core::time::Duration;

/// A repeated wish moves the limit only if it differs by at least this much: messages say whole
/// seconds, and every move costs a write of the mark.
pub const LIMIT_JITTER: Duration = Duration::from_secs(2);

/// What the host keeps on disk for each TE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Newest generation seen.
    pub generation: Generation,
    /// Present while that generation is being served; absent once it is cut off for good.
    pub open: Option<Open>,
}

/// The lease that is being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The lease.
    pub lease: LeaseId,
    /// When the host ends it by itself, by the host's boot clock.
    pub until: Time,
}

/// What the server wants of the TE (wire `TeTask`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Serve a lease.
    Serve {
        /// The lease.
        lease: LeaseId,
        /// Time until the host ends it by itself.
        left: Duration,
    },
    /// Cut off and reset.
    Vacate,
    /// Cut off, reset, and try the TE out.
    BurnIn,
    /// Cut off, machines off, disks left for inspection.
    Quarantine,
}

/// What happens to a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceEvent {
    /// A wish of the server arrived, perhaps not for the first time. The host feeds its newest
    /// wish again after every `ResetDone`, since a `Serve` is only taken up from `Clean`.
    Desired {
        /// The generation it speaks of.
        generation: Generation,
        /// The wish.
        task: Task,
    },
    /// Time has passed.
    Tick,
    /// A reset is through and the self-check is good.
    ResetDone {
        /// The generation of the `Reset` effect.
        generation: Generation,
    },
    /// A reset or its self-check failed.
    ResetFailed {
        /// The generation of the `Reset` effect.
        generation: Generation,
        /// What, for people.
        reason: String,
    },
}

/// What the host must do, in this order; each is done before the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceEffect {
    /// Shut the gateway, cut its sessions, kill every credential of this generation and older.
    CutOff {
        /// The generation.
        generation: Generation,
    },
    /// Keep the mark on disk (fsync) before going on.
    Persist(Mark),
    /// Make the credentials, open the gateway for this generation only, confirm to the server.
    Open {
        /// The lease.
        lease: LeaseId,
        /// Its generation.
        generation: Generation,
    },
    /// Begin a reset in the background; it is answered by `ResetDone` or `ResetFailed`.
    Reset {
        /// To be named in the answer.
        generation: Generation,
        /// Also boot the seed for a moment.
        burn_in: bool,
    },
    /// Machines off; disks stay as they are.
    PowerOff {
        /// The generation.
        generation: Generation,
    },
}

/// Where the TE stands, as reported to the server (wire `TeReportState`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Being reset; nobody has access.
    Resetting,
    /// Blank, checked, nobody's.
    Clean,
    /// Open for the generation.
    Serving,
    /// Something is wrong; nobody has access.
    Broken(String),
}

/// A wish of an older generation than the newest seen: the host takes no notice of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("generation {wanted} is older than {seen}, the newest this host has seen")]
pub struct StaleGeneration {
    /// The generation of the wish.
    pub wanted: Generation,
    /// The newest seen.
    pub seen: Generation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// A reset is under way.
    Resetting,
    /// The reset is through.
    Clean,
    /// One generation has access.
    Serving(Open),
    /// The reset failed.
    Broken(String),
    /// Off and out of use.
    Quarantined,
}

/// The fence of one TE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    generation: Generation,
    state: State,
}

impl Fence {
    /// The fence of a TE that was never served: it asks for its first reset.
    #[must_use]
    pub fn new() -> (Fence, Vec<FenceEffect>) {
        Fence::closed(Generation(0))
    }

    fn closed(generation: Generation) -> (Fence, Vec<FenceEffect>) {
        let fence = Fence { generation, state: State::Resetting };
        let effects = vec![
            FenceEffect::Persist(fence.mark()),
            FenceEffect::Reset { generation, burn_in: false },
        ];
        (fence, effects)
    }

    /// The fence as the mark on disk has it, after a restart of the agent. `same_boot` says that
    /// the host itself did not restart, so its machines still run and its boot clock went on.
    #[must_use]
    pub fn restored(mark: Mark, same_boot: bool, now: Time) -> (Fence, Vec<FenceEffect>) {
        match mark.open {
            Some(open) if same_boot && now < open.until => {
                let fence = Fence { generation: mark.generation, state: State::Serving(open) };
                let effects =
                    vec![FenceEffect::Open { lease: open.lease, generation: mark.generation }];
                (fence, effects)
            }
            Some(_) | None => Fence::closed(mark.generation),
        }
    }

    /// Newest generation seen.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether a command of `generation` may touch the TE now. Asked before every command.
    #[must_use]
    pub fn allows(&self, generation: Generation, now: Time) -> bool {
        match &self.state {
            State::Serving(open) => generation == self.generation && now < open.until,
            State::Resetting | State::Clean | State::Broken(_) | State::Quarantined => false,
        }
    }

    /// The lease being served and its limit.
    #[must_use]
    pub fn open(&self) -> Option<Open> {
        match &self.state {
            State::Serving(open) => Some(*open),
            State::Resetting | State::Clean | State::Broken(_) | State::Quarantined => None,
        }
    }

    /// When `Tick` has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        self.open().map(|o| o.until)
    }

    /// Where the TE stands.
    #[must_use]
    pub fn report(&self) -> Standing {
        match &self.state {
            State::Resetting => Standing::Resetting,
            State::Clean => Standing::Clean,
            State::Serving(_) => Standing::Serving,
            State::Broken(reason) => Standing::Broken(reason.clone()),
            State::Quarantined => Standing::Broken("quarantined by the server".into()),
        }
    }

    /// What belongs on disk now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { generation: self.generation, open: self.open() }
    }

    /// Takes up an event.
    pub fn on(
        &mut self,
        event: FenceEvent,
        now: Time,
    ) -> Result<Vec<FenceEffect>, StaleGeneration> {
        match event {
            FenceEvent::Desired { generation, task } => {
                if generation < self.generation {
                    return Err(StaleGeneration { wanted: generation, seen: self.generation });
                }
                Ok(if generation == self.generation {
                    self.same_generation(task, now)
                } else {
                    self.newer_generation(generation, task, now)
                })
            }
            FenceEvent::Tick => Ok(match &self.state {
                State::Serving(open) if now >= open.until => self.reset(false),
                State::Serving(_)
                | State::Resetting
                | State::Clean
                | State::Broken(_)
                | State::Quarantined => vec![],
            }),
            FenceEvent::ResetDone { generation } => {
                self.finish(generation, State::Clean);
                Ok(vec![])
            }
            FenceEvent::ResetFailed { generation, reason } => {
                self.finish(generation, State::Broken(reason));
                Ok(vec![])
            }
        }
    }

    /// The result of a reset counts only for the reset that is awaited.
    fn finish(&mut self, generation: Generation, end: State) {
        if generation == self.generation && self.state == State::Resetting {
            self.state = end;
        }
    }

    fn same_generation(&mut self, task: Task, now: Time) -> Vec<FenceEffect> {
        match (task, &self.state) {
            (Task::Serve { lease, left }, State::Serving(open)) if open.lease == lease => {
                let until = now.after(left);
                let moved = until.since(open.until).max(open.until.since(until));
                if moved < LIMIT_JITTER {
                    return vec![];
                }
                self.state = State::Serving(Open { lease, until });
                vec![FenceEffect::Persist(self.mark())]
            }
            // This generation was cut off here (or is another's): it is never opened again.
            (
                Task::Serve { .. },
                State::Serving(_)
                | State::Resetting
                | State::Clean
                | State::Broken(_)
                | State::Quarantined,
            ) => vec![],
            (Task::Vacate, State::Serving(_) | State::Quarantined) => self.reset(false),
            (Task::BurnIn, State::Serving(_) | State::Quarantined) => self.reset(true),
            // Done, under way, or failed: the server raises the generation to ask for another.
            (Task::Vacate | Task::BurnIn, State::Resetting | State::Clean | State::Broken(_)) => {
                vec![]
            }
            (
                Task::Quarantine,
                State::Serving(_) | State::Resetting | State::Clean | State::Broken(_),
            ) => self.quarantine(),
            (Task::Quarantine, State::Quarantined) => vec![],
        }
    }

    fn newer_generation(
        &mut self,
        generation: Generation,
        task: Task,
        now: Time,
    ) -> Vec<FenceEffect> {
        match (task, &self.state) {
            (Task::Serve { lease, left }, State::Clean) => {
                self.generation = generation;
                self.state = State::Serving(Open { lease, until: now.after(left) });
                vec![FenceEffect::Persist(self.mark()), FenceEffect::Open { lease, generation }]
            }
            // A newer grant proves that the one served here is over. It waits for the reset.
            (Task::Serve { .. }, State::Serving(_)) => self.reset(false),
            (Task::Serve { .. }, State::Resetting | State::Broken(_) | State::Quarantined) => {
                vec![]
            }
            (Task::Vacate | Task::BurnIn | Task::Quarantine, _any) => {
                let mut effects = self.cut_off();
                self.generation = generation;
                effects.extend(match task {
                    Task::Quarantine => self.quarantine(),
                    Task::Vacate | Task::Serve { .. } => self.reset(false),
                    Task::BurnIn => self.reset(true),
                });
                effects
            }
        }
    }

    fn cut_off(&mut self) -> Vec<FenceEffect> {
        match self.state {
            State::Serving(_) => {
                self.state = State::Resetting;
                vec![FenceEffect::CutOff { generation: self.generation }]
            }
            State::Resetting | State::Clean | State::Broken(_) | State::Quarantined => vec![],
        }
    }

    fn reset(&mut self, burn_in: bool) -> Vec<FenceEffect> {
        let mut effects = self.cut_off();
        self.state = State::Resetting;
        effects.push(FenceEffect::Persist(self.mark()));
        effects.push(FenceEffect::Reset { generation: self.generation, burn_in });
        effects
    }

    fn quarantine(&mut self) -> Vec<FenceEffect> {
        let mut effects = self.cut_off();
        self.state = State::Quarantined;
        effects.push(FenceEffect::Persist(self.mark()));
        effects.push(FenceEffect::PowerOff { generation: self.generation });
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(s: i64) -> Time {
        Time(s * 1_000_000)
    }

    fn serve(g: u64) -> FenceEvent {
        FenceEvent::Desired {
            generation: Generation(g),
            task: Task::Serve { lease: LeaseId(g), left: HOUR },
        }
    }

    fn wish(g: u64, task: Task) -> FenceEvent {
        FenceEvent::Desired { generation: Generation(g), task }
    }

    fn clean() -> Fence {
        let (mut f, _) = Fence::new();
        f.on(FenceEvent::ResetDone { generation: Generation(0) }, at(0)).unwrap();
        f
    }

    #[test]
    fn a_lease_opens_is_cut_off_and_never_opens_again() {
        let mut f = clean();
        let e = f.on(serve(1), at(0)).unwrap();
        assert!(matches!(e[..], [FenceEffect::Persist(_), FenceEffect::Open { .. }]), "{e:?}");
        assert!(f.allows(Generation(1), at(1)) && !f.allows(Generation(0), at(1)));
        let e = f.on(wish(1, Task::Vacate), at(2)).unwrap();
        assert!(
            matches!(
                e[..],
                [FenceEffect::CutOff { .. }, FenceEffect::Persist(_), FenceEffect::Reset { .. }]
            ),
            "{e:?}"
        );
        // A late copy of the grant changes nothing, before and after the reset.
        assert_eq!(f.on(serve(1), at(3)), Ok(vec![]));
        f.on(FenceEvent::ResetDone { generation: Generation(1) }, at(4)).unwrap();
        assert_eq!(f.on(serve(1), at(5)), Ok(vec![]));
        assert_eq!(f.report(), Standing::Clean);
        assert!(!f.allows(Generation(1), at(5)));
        assert!(f.on(wish(0, Task::Vacate), at(6)).is_err());
    }

    #[test]
    fn its_own_limit_cuts_off_and_extension_moves_it() {
        let mut f = clean();
        f.on(serve(1), at(0)).unwrap();
        assert_eq!(f.next_due(), Some(at(3600)));
        f.on(serve(1), at(600)).unwrap();
        assert_eq!(f.next_due(), Some(at(4200)));
        assert_eq!(f.on(FenceEvent::Tick, at(4199)), Ok(vec![]));
        assert!(!f.allows(Generation(1), at(4200)));
        assert_eq!(f.on(FenceEvent::Tick, at(4200)).unwrap().len(), 3);
        assert_eq!(f.report(), Standing::Resetting);
    }

    #[test]
    fn a_restart_goes_on_but_a_reboot_does_not() {
        let mut f = clean();
        f.on(serve(1), at(0)).unwrap();
        let (again, e) = Fence::restored(f.mark(), true, at(10));
        assert!(again.allows(Generation(1), at(11)));
        assert!(matches!(e[..], [FenceEffect::Open { .. }]));
        for (same_boot, now) in [(false, at(10)), (true, at(3600))] {
            let (closed, _) = Fence::restored(f.mark(), same_boot, now);
            assert!(!closed.allows(Generation(1), at(11)));
            assert_eq!(closed.report(), Standing::Resetting);
        }
    }

    fn any_event() -> impl Strategy<Value = FenceEvent> {
        let task = prop_oneof![
            (0u64..6, 1u64..100)
                .prop_map(|(l, s)| Task::Serve { lease: LeaseId(l), left: Duration::from_secs(s) }),
            Just(Task::Vacate),
            Just(Task::BurnIn),
            Just(Task::Quarantine),
        ];
        prop_oneof![
            4 => (0u64..6, task).prop_map(|(g, task)| wish(g, task)),
            1 => Just(FenceEvent::Tick),
            2 => (0u64..6).prop_map(|g| FenceEvent::ResetDone { generation: Generation(g) }),
            1 => (0u64..6).prop_map(|g| FenceEvent::ResetFailed {
                generation: Generation(g),
                reason: "x".into()
            }),
        ]
    }

    proptest! {
        /// A closed generation stays closed, the generation never goes back, and each opening
        /// follows a reset, whatever the order of events and restarts.
        #[test]
        fn fencing_holds(events in proptest::collection::vec((any_event(), any::<bool>()), 1..80)) {
            let (mut f, _) = Fence::new();
            let mut disk = f.mark();
            let mut closed_below = Generation(0);
            let mut now = at(0);
            for (event, restart) in events {
                now = now.after(Duration::from_secs(3));
                let before = f.generation();
                let was_open = f.open().is_some();
                if let Ok(effects) = f.on(event, now) {
                    for e in effects {
                        match e {
                            FenceEffect::Persist(m) => disk = m,
                            FenceEffect::CutOff { generation } => closed_below = generation,
                            FenceEffect::Open { generation, .. } => {
                                prop_assert!(generation > closed_below);
                                prop_assert!(!was_open);
                                prop_assert_eq!(disk.generation, generation);
                            }
                            FenceEffect::Reset { .. } | FenceEffect::PowerOff { .. } => {
                                prop_assert_eq!(disk.open, None);
                            }
                        }
                    }
                }
                prop_assert!(f.generation() >= before);
                if restart {
                    let (again, _) = Fence::restored(disk, true, now);
                    prop_assert!(again.generation() >= f.generation());
                    prop_assert!(again.open().is_none() || again.open() == f.open());
                    f = again;
                }
            }
        }
    }
}
