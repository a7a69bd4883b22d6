//! The order of a run: what it waits for, what it does next, and when it has to stop.
//!
//! ```text
//!   WaitingNode ─node─▶ WaitingTestenv ─TE─▶ Preparing ─done─▶ Running ─last step, failure, time up─▶ Post ─▶ Collecting ─▶ Over
//!        │                    │                  │                │ node lost                           (always, within its own limit)
//!        └──── wait limit, no node, no TE ───────┴────────────────┴──────────────────────────────────────────────────▶ Over
//! ```
//!
//! While a run waits it may be held: it gives back what it has and is forgotten, and begins anew when it may.
//!
//! Waiting is not running: the job's time limit begins with `Preparing`.

use crate::layout::JobRun;
use crate::log::collect::is_wanted;
use crate::pipeline::RunResult;
use crate::time::Time;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// Limit of collecting logs, and of archiving them.
pub const COLLECT_LIMIT: Duration = Duration::from_secs(600);

/// Which list of scripts a step is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Before the job.
    Pre,
    /// The job.
    Run,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has no node yet.
    WaitingNode,
    /// It has a node, but no test environment yet.
    WaitingTestenv,
    /// The workspace is set up.
    Preparing {
        /// Since when: the job's time limit counts from here.
        since: Time,
    },
    /// A script of pre or run is running.
    Running {
        /// Since when the job's time limit counts.
        since: Time,
        /// Which list.
        part: Part,
        /// Which of it.
        step: usize,
    },
    /// A script of post is running.
    Post {
        /// Since when the limit of post counts.
        since: Time,
        /// Which.
        step: usize,
        /// What the run comes to, if post goes well.
        verdict: RunResult,
    },
    /// Logs are fetched and archived.
    Collecting {
        /// Since when.
        since: Time,
        /// What the run comes to.
        verdict: RunResult,
    },
    /// It has ended.
    Over(RunResult),
}

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its nodes are there.
    Node,
    /// There will be no node, or it was lost.
    NodeLost,
    /// Its test environment is there.
    Testenv,
    /// There will be no test environment, or it was lost.
    TestenvLost,
    /// The workspace is set up.
    Prepared,
    /// It can never run as it is configured: no such node, test environment, project, secret.
    Unpreparable,
    /// A script ended.
    Ended {
        /// With 0.
        well: bool,
    },
    /// The limit of the present state has passed.
    TimeUp,
    /// Somebody stopped it.
    Abort,
    /// Its item does not need it any more.
    Cancel,
    /// It may not begin now. Whoever drives it puts it back, as if it had never been taken up.
    Held,
    /// Everything is in the archive, or the limit has passed.
    Collected,
}

impl State {
    /// What follows. An event that does not belong to the state changes nothing.
    #[must_use]
    pub fn on(self, event: Event, job: &JobRun, now: Time) -> State {
        match event {
            Event::Cancel => return self.cut(RunResult::Canceled, now),
            Event::Abort => return self.cut(RunResult::Aborted, now),
            Event::NodeLost => return self.without_node(),
            Event::Node
            | Event::Testenv
            | Event::TestenvLost
            | Event::Prepared
            | Event::Unpreparable
            | Event::Ended { .. }
            | Event::TimeUp
            | Event::Collected
            | Event::Held => {}
        }
        match self {
            State::WaitingNode => match event {
                Event::Node if job.testenv.is_some() => State::WaitingTestenv,
                Event::Node => State::Preparing { since: now },
                Event::TimeUp => State::Over(RunResult::NodeFailure),
                Event::Unpreparable => State::Over(RunResult::ConfigError),
                _ => self,
            },
            State::WaitingTestenv => match event {
                Event::Testenv => State::Preparing { since: now },
                Event::Unpreparable => State::Over(RunResult::ConfigError),
                Event::TestenvLost | Event::TimeUp => State::Over(RunResult::TeFailure),
                _ => self,
            },
            State::Preparing { since } => match event {
                Event::Prepared => running(job, since, Part::Pre, 0, now),
                Event::Unpreparable => {
                    State::Collecting { since: now, verdict: RunResult::ConfigError }
                }
                // Nothing of the job has run: a workspace that takes that long is the infrastructure's fault.
                Event::TimeUp => State::Collecting { since: now, verdict: RunResult::NodeFailure },
                Event::TestenvLost => {
                    State::Collecting { since: now, verdict: RunResult::TeFailure }
                }
                _ => self,
            },
            State::Running { since, part, step } => match event {
                Event::Ended { well: true } => running(job, since, part, step + 1, now),
                Event::Ended { well: false } => post(job, RunResult::Failure, now),
                Event::TimeUp => post(job, RunResult::TimedOut, now),
                Event::TestenvLost => post(job, RunResult::TeFailure, now),
                _ => self,
            },
            State::Post { since, step, verdict } => match event {
                Event::Ended { well } => {
                    let verdict = if well { verdict } else { spoiled(verdict) };
                    if step + 1 < job.post.len() {
                        State::Post { since, step: step + 1, verdict }
                    } else {
                        State::Collecting { since: now, verdict }
                    }
                }
                Event::TimeUp => State::Collecting { since: now, verdict: spoiled(verdict) },
                _ => self,
            },
            State::Collecting { verdict, .. } => match event {
                Event::Collected | Event::TimeUp => State::Over(verdict),
                _ => self,
            },
            State::Over(_) => self,
        }
    }

    /// When [`Event::TimeUp`] is due. `queued` is when the run was first wanted.
    #[must_use]
    pub fn deadline(self, job: &JobRun, queued: Time) -> Option<Time> {
        match self {
            State::WaitingNode | State::WaitingTestenv => job.wait_timeout.map(|d| queued.after(d)),
            State::Preparing { since } | State::Running { since, .. } => {
                Some(since.after(job.timeout))
            }
            State::Post { since, .. } => Some(since.after(job.post_timeout)),
            State::Collecting { since, .. } => Some(since.after(COLLECT_LIMIT)),
            State::Over(_) => None,
        }
    }

    /// Whether something of it may have run on a node.
    #[must_use]
    pub fn has_begun(self) -> bool {
        match self {
            State::WaitingNode | State::WaitingTestenv => false,
            State::Preparing { .. }
            | State::Running { .. }
            | State::Post { .. }
            | State::Collecting { .. }
            | State::Over(_) => true,
        }
    }

    /// Whether the test environment is still needed. Collecting begins with what its host sees of it, after which it is
    /// given back; of a run that nobody needs any more it is given back at once.
    #[must_use]
    pub fn needs_testenv(self) -> bool {
        match self {
            State::WaitingTestenv
            | State::Preparing { .. }
            | State::Running { .. }
            | State::Post { .. } => true,
            State::Collecting { verdict, .. } => is_wanted(verdict),
            State::WaitingNode | State::Over(_) => false,
        }
    }

    /// Whether it is certain that it failed, and by the job's own fault.
    #[must_use]
    pub fn has_failed(self) -> bool {
        let verdict = match self {
            State::WaitingNode
            | State::WaitingTestenv
            | State::Preparing { .. }
            | State::Running { .. }
            | State::Post { .. } => return false,
            State::Collecting { verdict, .. } | State::Over(verdict) => verdict,
        };
        match verdict {
            RunResult::Failure | RunResult::TimedOut | RunResult::PostFailure => true,
            RunResult::Success
            | RunResult::Aborted
            | RunResult::Canceled
            | RunResult::Skipped
            | RunResult::NodeFailure
            | RunResult::TeFailure
            | RunResult::Lost
            | RunResult::RetryLimit
            | RunResult::ConfigError => false,
        }
    }

    /// Stopped from outside: what ran is killed, its logs are kept, post does not run.
    fn cut(self, verdict: RunResult, now: Time) -> State {
        match self {
            State::WaitingNode | State::WaitingTestenv => State::Over(verdict),
            State::Preparing { .. } | State::Running { .. } | State::Post { .. } => {
                State::Collecting { since: now, verdict }
            }
            State::Collecting { since, .. } => State::Collecting { since, verdict },
            State::Over(result) => State::Over(result),
        }
    }

    /// Without a node nothing can be run or fetched.
    fn without_node(self) -> State {
        match self {
            State::WaitingNode
            | State::WaitingTestenv
            | State::Preparing { .. }
            | State::Running { .. } => State::Over(RunResult::NodeFailure),
            // What the job came to is known already.
            State::Post { verdict, .. } => State::Over(spoiled(verdict)),
            State::Collecting { verdict, .. } => State::Over(verdict),
            State::Over(result) => State::Over(result),
        }
    }
}

/// The next script, or what comes after the last.
fn running(job: &JobRun, since: Time, part: Part, step: usize, now: Time) -> State {
    let (pre, run) = (job.pre.len(), job.run.len());
    match part {
        Part::Pre if step < pre => State::Running { since, part, step },
        Part::Pre if run > 0 => State::Running { since, part: Part::Run, step: 0 },
        Part::Run if step < run => State::Running { since, part, step },
        Part::Pre | Part::Run => post(job, RunResult::Success, now),
    }
}

fn post(job: &JobRun, verdict: RunResult, now: Time) -> State {
    if job.post.is_empty() {
        State::Collecting { since: now, verdict }
    } else {
        State::Post { since: now, step: 0, verdict }
    }
}

/// Post failed: only a success is spoiled by it.
fn spoiled(verdict: RunResult) -> RunResult {
    if verdict == RunResult::Success { RunResult::PostFailure } else { verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Script, TestenvWish};

    fn job(pre: usize, run: usize, post: usize, testenv: bool) -> JobRun {
        let scripts = |n| vec![Script::Inline("true".into()); n];
        JobRun {
            pre: scripts(pre),
            run: scripts(run),
            post: scripts(post),
            node: None,
            nodes: 1,
            testenv: testenv.then_some(TestenvWish { label: None, shape: None, count: 1 }),
            timeout: Duration::from_secs(100),
            post_timeout: Duration::from_secs(10),
            wait_timeout: Some(Duration::from_secs(5)),
            attempts: 3,
            artifacts: vec![],
            env: vec![],
            secrets: vec![],
            projects: vec![],
            override_branch: None,
            project_branches: vec![],
        }
    }

    fn walk(job: &JobRun, events: &[Event]) -> State {
        let mut now = Time(0);
        events.iter().fold(State::WaitingNode, |state, event| {
            now = now.after(Duration::from_secs(1));
            state.on(*event, job, now)
        })
    }

    const WELL: Event = Event::Ended { well: true };
    const BADLY: Event = Event::Ended { well: false };

    #[test]
    fn a_run_goes_through_all_its_scripts() {
        let job = job(1, 2, 1, true);
        let events = [
            Event::Node,
            Event::Testenv,
            Event::Prepared,
            WELL,
            WELL,
            WELL,
            WELL,
            Event::Collected,
        ];
        assert_eq!(walk(&job, &events), State::Over(RunResult::Success));
        let running = walk(&job, &events[..5]);
        assert!(matches!(running, State::Running { part: Part::Run, step: 1, .. }), "{running:?}");
        assert!(matches!(walk(&job, &events[..6]), State::Post { step: 0, .. }));
    }

    #[test]
    fn post_runs_after_a_failure_and_a_time_limit_and_spoils_only_a_success() {
        let job = job(0, 1, 1, false);
        let start = [Event::Node, Event::Prepared];
        for (end, post, result) in [
            (WELL, WELL, RunResult::Success),
            (WELL, BADLY, RunResult::PostFailure),
            (WELL, Event::TimeUp, RunResult::PostFailure),
            (BADLY, WELL, RunResult::Failure),
            (BADLY, BADLY, RunResult::Failure),
            (Event::TimeUp, WELL, RunResult::TimedOut),
        ] {
            let events = [&start[..], &[end, post, Event::Collected]].concat();
            assert_eq!(walk(&job, &events), State::Over(result), "{end:?} {post:?}");
        }
    }

    #[test]
    fn waiting_has_its_own_limit_and_is_not_running() {
        let job = job(0, 1, 0, true);
        assert_eq!(State::WaitingNode.deadline(&job, Time(0)), Some(Time(5_000_000)));
        assert_eq!(walk(&job, &[Event::TimeUp]), State::Over(RunResult::NodeFailure));
        assert_eq!(walk(&job, &[Event::Node, Event::TimeUp]), State::Over(RunResult::TeFailure));
        let since = Time(7_000_000);
        assert_eq!(State::Preparing { since }.deadline(&job, Time(0)), Some(Time(107_000_000)));
    }

    #[test]
    fn losing_the_infrastructure_is_no_failure_of_the_job() {
        let job = job(0, 1, 1, true);
        let start = [Event::Node, Event::Testenv, Event::Prepared];
        let node = [&start[..], &[Event::NodeLost]].concat();
        assert_eq!(walk(&job, &node), State::Over(RunResult::NodeFailure));
        let te = [&start[..], &[Event::TestenvLost, WELL, Event::Collected]].concat();
        assert_eq!(walk(&job, &te), State::Over(RunResult::TeFailure));
        // The job was through when its node went away.
        let late = [&start[..], &[BADLY, Event::NodeLost]].concat();
        assert_eq!(walk(&job, &late), State::Over(RunResult::Failure));
    }

    #[test]
    fn a_cancelled_run_keeps_its_logs_and_gives_its_testenv_back() {
        let job = job(0, 1, 1, true);
        let cut = walk(&job, &[Event::Node, Event::Testenv, Event::Prepared, Event::Cancel]);
        assert!(matches!(cut, State::Collecting { verdict: RunResult::Canceled, .. }));
        assert!(!cut.needs_testenv());
        assert_eq!(walk(&job, &[Event::Cancel]), State::Over(RunResult::Canceled));
        assert_eq!(walk(&job, &[Event::Abort, Event::Node]), State::Over(RunResult::Aborted));
    }

    #[test]
    fn every_sequence_of_events_ends_and_what_is_over_stays_over() {
        let job = job(1, 1, 1, true);
        let all = [
            Event::Node,
            Event::NodeLost,
            Event::Testenv,
            Event::TestenvLost,
            Event::Prepared,
            Event::Unpreparable,
            WELL,
            BADLY,
            Event::TimeUp,
            Event::Abort,
            Event::Cancel,
            Event::Held,
            Event::Collected,
        ];
        // Breadth first over the states, times folded away: from each, TimeUp alone leads to the end.
        let mut seen = vec![State::WaitingNode];
        let mut at = 0;
        while at < seen.len() {
            let state = seen[at];
            at += 1;
            for event in all {
                let next = state.on(event, &job, Time(0));
                if let State::Over(_) = state {
                    assert_eq!(next, state);
                }
                if !seen.contains(&next) {
                    seen.push(next);
                }
            }
            let end = (0..5).fold(state, |s, _| s.on(Event::TimeUp, &job, Time(0)));
            assert!(matches!(end, State::Over(_)), "{state:?} never ends");
        }
        assert!(seen.len() > 20);
    }
}
