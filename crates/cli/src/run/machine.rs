//! What `toci lease run` does when: a pure state machine.
//!
//! ```text
//! Waiting ──lease active──▶ Running ──command ended──▶ Over
//!    │                        │ signal, or the lease ended
//!    │                        ▼
//!    │                     Stopping ──command ended──▶ Over      TERM or the signal, after the grace KILL
//!    └──signal, refused, server away──▶ Over
//! ```

use crate::exit::Exit;
use toci_client::command::Ended;
use toci_wire::api::LeaseState;

/// Signal number of Ctrl-C.
const SIGINT: i32 = 2;

/// Where the run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For a TE.
    Waiting,
    /// The command runs; `held`: somebody put the lease on hold meanwhile.
    Running { held: bool },
    /// The command is asked to end, and why.
    Stopping(Why),
    /// Nothing more to do.
    Over,
}

/// Why the command has to end before it wants to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// We were asked to; the lease is still ours.
    Interrupted,
    /// The lease is not ours any more; end with this code.
    LeaseEnded(Exit),
}

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// News of the lease.
    Lease(LeaseState),
    /// The wait limit was over when the lease was refused.
    WaitedLongEnough,
    /// By our own clock the lease is over; the server may be away.
    TimeOver,
    /// The server cannot be reached for so long that waiting makes no sense.
    ServerAway,
    /// The server refuses to know us or the lease.
    Disowned(Exit),
    /// SIGINT, SIGTERM or SIGHUP.
    Signal(i32),
    /// The command could not be started.
    NotStarted(Exit),
    /// The command has ended.
    Ended(Ended),
    /// The time between TERM and KILL is over.
    GraceOver,
}

/// Something to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Fetch the TE JSON, start the command.
    Start,
    /// Send this signal to the command's group and start the grace.
    PassOn(i32),
    /// Send TERM to the command's group and start the grace.
    Terminate,
    /// Send KILL to the command's group.
    Kill,
    /// Give the lease back.
    Release,
    /// Keep the lease for debugging; if that is refused, give it back.
    Hold,
    /// End with this code.
    Finish(u8),
}

/// The state of one run.
#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    hold_on_failure: bool,
}

impl Machine {
    pub(super) fn new(hold_on_failure: bool) -> Machine {
        Machine { phase: Phase::Waiting, hold_on_failure }
    }

    /// Whether the wait for a TE goes on.
    pub(super) fn is_waiting(&self) -> bool {
        self.phase == Phase::Waiting
    }

    /// What to do now that `event` has happened.
    pub(super) fn on(&mut self, event: Event) -> Vec<Effect> {
        let (phase, effects) = match self.phase {
            Phase::Waiting => self.while_waiting(event),
            Phase::Running { held } => self.while_running(held, event),
            Phase::Stopping(why) => Self::while_stopping(why, event),
            Phase::Over => (Phase::Over, vec![]),
        };
        self.phase = phase;
        effects
    }

    fn while_waiting(&self, event: Event) -> (Phase, Vec<Effect>) {
        let over = |effects: &[Effect]| (Phase::Over, effects.to_vec());
        let finish = |exit: Exit| Effect::Finish(exit.code());
        match event {
            Event::Lease(LeaseState::Waiting | LeaseState::Granted) => (Phase::Waiting, vec![]),
            Event::Lease(LeaseState::Active) => {
                (Phase::Running { held: false }, vec![Effect::Start])
            }
            Event::Lease(LeaseState::Held) => (Phase::Running { held: true }, vec![Effect::Start]),
            Event::Lease(
                state @ (LeaseState::Released
                | LeaseState::Expired
                | LeaseState::Lost
                | LeaseState::Revoked
                | LeaseState::Refused),
            ) => over(&[finish(exit_of(state))]),
            Event::WaitedLongEnough => over(&[finish(Exit::WaitTimeout)]),
            Event::ServerAway => over(&[Effect::Release, finish(Exit::Unreachable)]),
            Event::Disowned(exit) => over(&[finish(exit)]),
            Event::Signal(n) => {
                let exit = Exit::Signal(u8::try_from(n).unwrap_or(0));
                over(&[Effect::Release, finish(exit)])
            }
            Event::TimeOver | Event::NotStarted(_) | Event::Ended(_) | Event::GraceOver => {
                (Phase::Waiting, vec![])
            }
        }
    }

    fn while_running(&self, held: bool, event: Event) -> (Phase, Vec<Effect>) {
        let stop = |exit| (Phase::Stopping(Why::LeaseEnded(exit)), vec![Effect::Terminate]);
        match event {
            Event::Lease(LeaseState::Waiting | LeaseState::Granted | LeaseState::Active) => {
                (Phase::Running { held }, vec![])
            }
            Event::Lease(LeaseState::Held) => (Phase::Running { held: true }, vec![]),
            Event::Lease(
                state @ (LeaseState::Released
                | LeaseState::Expired
                | LeaseState::Lost
                | LeaseState::Revoked
                | LeaseState::Refused),
            ) => stop(exit_of(state)),
            Event::TimeOver => stop(Exit::Expired),
            Event::Disowned(_) => stop(Exit::Lost),
            Event::Signal(n) => (Phase::Stopping(Why::Interrupted), vec![Effect::PassOn(n)]),
            Event::NotStarted(exit) => {
                (Phase::Over, vec![Effect::Release, Effect::Finish(exit.code())])
            }
            Event::Ended(ended) => {
                let finish = Effect::Finish(ended.shell_code());
                let failed = !matches!(ended, Ended::Code(0) | Ended::Signal(SIGINT));
                let effects = match (held, self.hold_on_failure && failed) {
                    (true, _) => vec![finish],
                    (false, true) => vec![Effect::Hold, finish],
                    (false, false) => vec![Effect::Release, finish],
                };
                (Phase::Over, effects)
            }
            Event::WaitedLongEnough | Event::ServerAway | Event::GraceOver => {
                (Phase::Running { held }, vec![])
            }
        }
    }

    fn while_stopping(why: Why, event: Event) -> (Phase, Vec<Effect>) {
        match event {
            Event::Signal(n) => (Phase::Stopping(why), vec![Effect::PassOn(n)]),
            Event::GraceOver => (Phase::Stopping(why), vec![Effect::Kill]),
            Event::Ended(ended) => {
                let effects = match why {
                    Why::Interrupted => vec![Effect::Release, Effect::Finish(ended.shell_code())],
                    Why::LeaseEnded(exit) => vec![Effect::Finish(exit.code())],
                };
                (Phase::Over, effects)
            }
            Event::NotStarted(exit) => {
                (Phase::Over, vec![Effect::Release, Effect::Finish(exit.code())])
            }
            Event::Lease(_)
            | Event::WaitedLongEnough
            | Event::TimeOver
            | Event::ServerAway
            | Event::Disowned(_) => (Phase::Stopping(why), vec![]),
        }
    }
}

/// The exit code for a lease that ended before the command did.
fn exit_of(state: LeaseState) -> Exit {
    match state {
        LeaseState::Expired => Exit::Expired,
        LeaseState::Lost => Exit::Lost,
        LeaseState::Revoked | LeaseState::Released => Exit::Revoked,
        LeaseState::Refused => Exit::Refused,
        LeaseState::Waiting | LeaseState::Granted | LeaseState::Active | LeaseState::Held => {
            Exit::Ok
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hold: bool, events: &[Event]) -> Vec<Effect> {
        let mut machine = Machine::new(hold);
        events.iter().flat_map(|event| machine.on(*event)).collect()
    }

    const ACTIVE: Event = Event::Lease(LeaseState::Active);

    #[test]
    fn a_command_runs_and_the_lease_is_given_back() {
        let effects = run(
            false,
            &[Event::Lease(LeaseState::Waiting), ACTIVE, ACTIVE, Event::Ended(Ended::Code(3))],
        );
        assert_eq!(effects, [Effect::Start, Effect::Release, Effect::Finish(3)]);
    }

    #[test]
    fn a_failure_is_held_only_when_asked_for() {
        let failed = Event::Ended(Ended::Code(1));
        assert_eq!(run(true, &[ACTIVE, failed])[1], Effect::Hold);
        assert_eq!(run(true, &[ACTIVE, Event::Ended(Ended::Code(0))])[1], Effect::Release);
        assert_eq!(run(true, &[ACTIVE, Event::Ended(Ended::Signal(SIGINT))])[1], Effect::Release);
        let held_by_hand = run(false, &[ACTIVE, Event::Lease(LeaseState::Held), failed]);
        assert_eq!(held_by_hand, [Effect::Start, Effect::Finish(1)]);
    }

    #[test]
    fn the_end_of_the_lease_ends_the_command_and_decides_the_code() {
        for (state, code) in [
            (LeaseState::Expired, 112),
            (LeaseState::Lost, 113),
            (LeaseState::Revoked, 114),
            (LeaseState::Released, 114),
        ] {
            let events =
                [ACTIVE, Event::Lease(state), Event::GraceOver, Event::Ended(Ended::Signal(9))];
            let expected = [Effect::Start, Effect::Terminate, Effect::Kill, Effect::Finish(code)];
            assert_eq!(run(true, &events), expected, "{state:?}");
        }
        let away =
            run(false, &[ACTIVE, Event::ServerAway, Event::TimeOver, Event::Ended(Ended::Code(0))]);
        assert_eq!(away, [Effect::Start, Effect::Terminate, Effect::Finish(112)]);
    }

    #[test]
    fn signals_are_passed_on_and_then_the_lease_is_released() {
        let events = [ACTIVE, Event::Signal(15), Event::Signal(2), Event::Ended(Ended::Signal(15))];
        let expected = [
            Effect::Start,
            Effect::PassOn(15),
            Effect::PassOn(2),
            Effect::Release,
            Effect::Finish(143),
        ];
        assert_eq!(run(true, &events), expected);
        assert_eq!(run(false, &[Event::Signal(2)]), [Effect::Release, Effect::Finish(130)]);
    }

    #[test]
    fn a_wait_ends_with_its_own_codes() {
        assert_eq!(run(false, &[Event::WaitedLongEnough]), [Effect::Finish(111)]);
        assert_eq!(run(false, &[Event::Lease(LeaseState::Refused)]), [Effect::Finish(110)]);
        assert_eq!(run(false, &[Event::ServerAway])[1], Effect::Finish(115));
    }

    #[test]
    fn nothing_happens_after_the_end() {
        let events =
            [ACTIVE, Event::Ended(Ended::Code(0)), ACTIVE, Event::Signal(2), Event::GraceOver];
        assert_eq!(run(false, &events), [Effect::Start, Effect::Release, Effect::Finish(0)]);
    }
}
