//! Random sequences of requests, losses and time: what must hold after each step.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

/// One step; numbers choose among what exists.
#[derive(Clone, Debug)]
enum Step {
    Connect,
    ConnectInside,
    Disconnect(usize),
    CanDo(usize, u8, bool),
    CantDo(usize, u8),
    Reset(usize),
    Sleep(usize),
    Grab(usize),
    Begin(usize, usize),
    Submit(usize, u8, u8, u8, bool),
    Work(usize, usize, u8),
    Cancel(usize),
    Drop(u8),
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let c = 0..6usize;
    let f = 0..3u8;
    prop_oneof![
        2 => Just(Step::Connect),
        1 => Just(Step::ConnectInside),
        1 => c.clone().prop_map(Step::Disconnect),
        4 => (c.clone(), f.clone(), any::<bool>()).prop_map(|(c, f, t)| Step::CanDo(c, f, t)),
        1 => (c.clone(), f.clone()).prop_map(|(c, f)| Step::CantDo(c, f)),
        1 => c.clone().prop_map(Step::Reset),
        4 => c.clone().prop_map(Step::Sleep),
        6 => c.clone().prop_map(Step::Grab),
        6 => (c.clone(), f.clone(), 0..3u8, 0..4u8, any::<bool>())
            .prop_map(|(c, f, p, u, b)| Step::Submit(c, f, p, u, b)),
        6 => (c.clone(), 0..8usize, 0..5u8).prop_map(|(c, j, k)| Step::Work(c, j, k)),
        2 => (c.clone(), 0..8usize).prop_map(|(c, j)| Step::Begin(c, j)),
        1 => (0..8usize).prop_map(Step::Cancel),
        1 => f.prop_map(Step::Drop),
        2 => (0..700_000u32).prop_map(Step::Pass),
    ]
}

fn name(f: u8) -> String {
    format!("f{f}")
}

struct Run {
    world: World,
    conns: Vec<ConnId>,
    handles: Vec<String>,
    /// Assigned and not ended, with its worker; a job must never be in here twice.
    running: HashMap<String, ConnId>,
    /// Grabs of each connection that have no answer yet.
    open_grabs: HashMap<ConnId, usize>,
}

impl Run {
    fn conn(&self, n: usize) -> Option<ConnId> {
        (!self.conns.is_empty()).then(|| self.conns[n % self.conns.len()])
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Connect => {
                let id = self.world.connect();
                self.conns.push(id);
            }
            Step::ConnectInside => {
                let id = self.world.connect_as(PeerKind::InProcess, None);
                self.conns.push(id);
            }
            Step::Begin(c, j) => {
                if let (Some(id), false) = (self.conn(*c), self.handles.is_empty()) {
                    let handle = &self.handles[j % self.handles.len()];
                    self.world.broker.begin(id, handle.as_bytes());
                }
            }
            Step::Drop(f) => {
                if let Some(id) = self.conn(0) {
                    let function = name(*f);
                    let drop = AdminCommand::DropFunction(function.as_bytes());
                    self.world.broker.admin(id, drop, &mut self.world.said);
                }
            }
            Step::Cancel(j) => {
                if let (Some(id), false) = (self.conn(0), self.handles.is_empty()) {
                    let handle = self.handles[j % self.handles.len()].clone();
                    self.world.broker.admin(
                        id,
                        AdminCommand::CancelJob(handle.as_bytes()),
                        &mut self.world.said,
                    );
                }
            }
            Step::Pass(micros) => self.world.pass(i64::from(*micros)),
            Step::Disconnect(c) => {
                if let Some(id) = self.conn(*c) {
                    self.conns.retain(|other| *other != id);
                    self.running.retain(|_, worker| *worker != id);
                    self.world.disconnect(id);
                }
            }
            Step::CanDo(c, ..)
            | Step::CantDo(c, _)
            | Step::Reset(c)
            | Step::Sleep(c)
            | Step::Grab(c)
            | Step::Submit(c, ..)
            | Step::Work(c, ..) => {
                if let Some(id) = self.conn(*c) {
                    self.ask(id, step);
                }
            }
        }
    }

    fn ask(&mut self, id: ConnId, step: &Step) {
        let w = &mut self.world;
        match step {
            Step::CanDo(_, f, limited) => {
                let timeout_ms = if *limited { 1300 } else { 0 };
                w.ask(id, Request::CanDo { function: name(*f).as_bytes(), timeout_ms });
            }
            Step::CantDo(_, f) => w.ask(id, Request::CantDo { function: name(*f).as_bytes() }),
            Step::Reset(_) => w.ask(id, Request::ResetAbilities),
            Step::Sleep(_) => w.ask(id, Request::PreSleep),
            Step::Grab(_) => {
                *self.open_grabs.entry(id).or_default() += 1;
                w.grab(id);
            }
            Step::Submit(_, f, precedence, unique, background) => {
                let function = name(*f);
                let unique = ["", "u", "v", "-"][usize::from(*unique)];
                let submit = Submit {
                    precedence: Precedence::ORDER[usize::from(*precedence)],
                    background: *background,
                    ..submit_of(&function, unique, "p")
                };
                w.ask(id, Request::Submit(submit));
            }
            Step::Work(_, j, kind) => {
                if self.handles.is_empty() {
                    return;
                }
                let handle = self.handles[j % self.handles.len()].clone();
                let kinds = [
                    WorkKind::Data,
                    WorkKind::Warning,
                    WorkKind::Complete,
                    WorkKind::Exception,
                    WorkKind::Fail,
                ];
                let kind = kinds[usize::from(*kind)];
                let ends = !matches!(kind, WorkKind::Data | WorkKind::Warning);
                w.done(id, kind, &handle, "d");
                if ends && self.running.get(&handle) == Some(&id) {
                    self.running.remove(&handle);
                }
            }
            Step::Connect
            | Step::ConnectInside
            | Step::Disconnect(_)
            | Step::Begin(..)
            | Step::Cancel(_)
            | Step::Drop(_)
            | Step::Pass(_) => {}
        }
    }

    /// Read what was said, then compare the broker with what must hold.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for (id, said) in std::mem::take(&mut self.world.said.0) {
            for line in said {
                let mut words = line.split(' ');
                match (words.next(), words.next()) {
                    (Some("CREATED"), Some(handle)) => self.handles.push(handle.to_owned()),
                    (Some("NO_JOB"), _) => self.answered(id)?,
                    (Some("ASSIGN"), _) => {
                        self.answered(id)?;
                        let handle = words.next().unwrap_or_default().to_owned();
                        prop_assert!(self.conns.contains(&id), "assigned to one that has gone");
                        self.running.insert(handle, id);
                    }
                    _ => {}
                }
            }
        }
        self.check_totals()?;
        self.world.broker.check_invariants().map_err(TestCaseError::fail)
    }

    fn answered(&mut self, id: ConnId) -> Result<(), TestCaseError> {
        let open = self.open_grabs.entry(id).or_default();
        prop_assert!(*open > 0, "an answer to nothing");
        *open -= 1;
        Ok(())
    }

    fn check_totals(&mut self) -> Result<(), TestCaseError> {
        let figures = self.world.broker.figures();
        prop_assert_eq!(figures.total, figures.running + figures.waiting);
        let mut totals = (0, 0);
        for f in 0..3 {
            let view = self.world.broker.function(name(f).as_bytes());
            totals.0 += view.queued + view.taken + view.running;
            totals.1 += view.running;
        }
        prop_assert_eq!(totals, (figures.total, figures.running));
        prop_assert!(figures.running <= self.running.len(), "a running job was never assigned");
        let distinct: HashSet<&String> = self.running.keys().collect();
        prop_assert_eq!(distinct.len(), self.running.len());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_the_broker_stays_whole(
        steps in proptest::collection::vec(step(), 1..120),
        gearmand in any::<bool>(),
    ) {
        let settings = if gearmand { Settings::gearmand("h") } else { Settings::geard() };
        let world = World::new(settings);
        let mut run =
            Run { world, conns: vec![], handles: vec![], running: HashMap::new(), open_grabs: HashMap::new() };
        for step in &steps {
            run.apply(step);
            run.check()?;
        }
        run.world.pass(GRAB_PATIENCE_US);
        run.check()?;
        for id in &run.conns {
            prop_assert_eq!(run.open_grabs.get(id).copied().unwrap_or(0), 0, "each grab is answered once");
        }
        // When all have gone, nothing is left but what was submitted in the background.
        for id in run.conns.clone() {
            run.world.disconnect(id);
        }
        run.world.broker.check_invariants().map_err(TestCaseError::fail)?;
        prop_assert_eq!(run.world.broker.figures().running, 0);
        prop_assert_eq!(run.world.broker.figures().workers, 0);
    }
}

impl Broker {
    /// The sentences in [`Broker`]'s documentation, checked the slow way.
    fn check_invariants(&self) -> Result<(), String> {
        use super::super::conn::Rest;
        use super::super::job::JobState;
        for (number, job) in self.jobs.iter() {
            let function = &self.functions[job.function];
            match job.state {
                JobState::Queued { .. } => {
                    if !function.queued_jobs().contains(&number) {
                        return Err(format!("{number:?} is queued but in no queue"));
                    }
                }
                JobState::Running { worker, .. } | JobState::Taken { worker, .. } => {
                    let known =
                        self.conns.get(worker).is_some_and(|c| c.assigned.contains(&number));
                    if !known || function.queued_jobs().contains(&number) {
                        return Err(format!("{number:?} runs on a worker that does not know it"));
                    }
                    if !job.is_running() && !self.is_inside(worker) {
                        return Err(format!("{number:?} is held back by a worker outside"));
                    }
                }
                JobState::Scheduled { at } => {
                    if !self.scheduled.contains(&(at, number)) {
                        return Err(format!("{number:?} is scheduled for no time"));
                    }
                }
            }
            if !job.background && job.clients.is_empty() && job.worker().is_none() {
                return Err(format!("{number:?} waits but nobody waits for it"));
            }
        }
        for (id, function) in self.functions.iter() {
            let woken = self
                .conns
                .iter()
                .filter(|(_, c)| matches!(c.rest, Rest::Woken { function: f, .. } if f == id))
                .count();
            if woken != function.woken as usize {
                return Err(format!("{woken} woken workers, counted {}", function.woken));
            }
            if function.wants_a_worker() && !function.sleepers.is_empty() {
                return Err("a job waits beside a sleeping worker that nobody wakes".to_owned());
            }
            let able = self.conns.iter().filter(|(_, c)| c.abilities.contains_key(&id)).count();
            if able != function.workers as usize {
                return Err(format!("{able} workers, counted {}", function.workers));
            }
            for (place, sleeper) in function.sleepers.iter().enumerate() {
                let conn = self.conns.get(*sleeper).ok_or("a sleeper has gone")?;
                let at = conn.abilities.get(&id).map(|a| a.sleeper as usize);
                if at != Some(place) || !matches!(conn.rest, Rest::Asleep | Rest::Waiting { .. }) {
                    return Err("a sleeper does not know its place".to_owned());
                }
            }
        }
        Ok(())
    }
}
