//! The broker itself: who is connected, what each asked for, and what time brings.

use super::acl::Acl;
use super::conn::{Conn, Conns, Rest};
use super::function::{FunctionId, Functions};
use super::job::{Job, JobNo, Jobs};
use super::settings::{CLIENT_ID_MAX_BYTES, Settings};
use super::vocabulary::{ConnId, Message, Now, Outbox, Peer, PeerKind, Request, StatusAnswer};
use crate::time::Time;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Counts over the whole broker, as statsd shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Jobs in any state.
    pub total: usize,
    /// Jobs with a worker.
    pub running: usize,
    /// Jobs without one.
    pub waiting: usize,
    /// Connections that registered at least one function.
    pub workers: usize,
}

/// How one function stands, for connections within the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionView {
    /// Jobs that wait for a worker now.
    pub queued: usize,
    /// Jobs that a worker within the process has taken and not begun.
    pub taken: usize,
    /// Jobs that a worker works on.
    pub running: usize,
    /// Connections from outside the process that registered it.
    pub outside_workers: usize,
    /// Connections within the process that registered it.
    pub inside_workers: usize,
}

/// A Gearman broker as a value: requests in, messages out, no socket and no clock.
///
/// What holds after every call (and is checked by the tests):
/// a job is in exactly one of the states of `JobState` and in exactly the indexes of that state;
/// a function never has both a sleeping or waiting worker and a queued job that no woken worker is coming for.
pub struct Broker {
    pub(super) settings: Settings,
    pub(super) acl: Option<Acl>,
    pub(super) conns: Conns,
    pub(super) functions: Functions,
    pub(super) jobs: Jobs,
    pub(super) running: usize,
    pub(super) workers: usize,
    pub(super) next_job: u64,
    pub(super) next_sequence: u64,
    pub(super) next_registration: u64,
    /// Woken workers by the steady time until which they are counted on; old entries stay until
    /// their time comes.
    pub(super) woken: VecDeque<(Time, ConnId)>,
    /// Workers that wait for a job by the steady time until which they do; the same holds for old entries.
    pub(super) waiting: VecDeque<(Time, ConnId)>,
    /// Running jobs with a time limit, by steady time.
    pub(super) expiries: BTreeSet<(Time, JobNo)>,
    /// Scheduled jobs, by calendar time.
    pub(super) scheduled: BTreeSet<(Time, JobNo)>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker without connections. With an ACL, everything is denied that it does not allow.
    #[must_use]
    pub fn new(settings: Settings, acl: Option<Acl>) -> Broker {
        Broker {
            next_job: settings.first_job,
            settings,
            acl,
            conns: Conns::default(),
            functions: Functions::default(),
            jobs: Jobs::default(),
            running: 0,
            workers: 0,
            next_sequence: 1,
            next_registration: 1,
            woken: VecDeque::new(),
            waiting: VecDeque::new(),
            expiries: BTreeSet::new(),
            scheduled: BTreeSet::new(),
        }
    }

    /// A new connection.
    pub fn connect(&mut self, peer: Peer) -> ConnId {
        self.conns.add(peer)
    }

    /// A connection has gone: its queued jobs go, its running ones are lost to their clients or
    /// queued again, as the settings say.
    pub fn disconnect(&mut self, now: Now, id: ConnId, out: &mut impl Outbox) {
        if self.conns.get(id).is_none() {
            return;
        }
        let woken_for = self.leave_rest(id);
        self.forget_abilities(id);
        let Some(conn) = self.conns.remove(id) else { return };
        if let Some(function) = woken_for {
            self.balance(now, function, out);
        }
        let Conn { assigned, submitted, .. } = *conn;
        for number in assigned {
            self.lose_worker(now, number, out);
        }
        for number in submitted {
            self.lose_client(number, id, out);
        }
    }

    /// A packet from `from`; a connection that has gone is ignored.
    pub fn request(&mut self, now: Now, from: ConnId, request: Request<'_>, out: &mut impl Outbox) {
        if self.conns.get(from).is_none() {
            return;
        }
        self.answer_open_grab(from, out);
        match request {
            Request::CanDo { function, timeout_ms } => {
                self.register(now, from, function, timeout_ms, out);
            }
            Request::CantDo { function } => self.unregister(now, from, function, out),
            Request::ResetAbilities => self.reset_abilities(now, from, out),
            Request::PreSleep => self.sleep(now, from, out),
            Request::Grab(style) => self.grab(now, from, style, out),
            Request::AllYours => self.all_yours(from, out),
            Request::Submit(submit) => self.submit(now, from, submit, out),
            Request::WorkStatus { handle, numerator, denominator } => {
                self.work_status(from, handle, numerator, denominator, out);
            }
            Request::Work { kind, handle, data } => self.work(from, kind, handle, data, out),
            Request::GetStatus { handle } => {
                let number = self.jobs.find(handle);
                self.answer_status(from, handle, number, false, out);
            }
            Request::GetStatusUnique { unique } => {
                let number = self.jobs.with_unique(unique);
                self.answer_status(from, unique, number, true, out);
            }
            Request::Echo { data } => out.send(from, Message::Echo { data }),
            Request::Option { name } => self.set_option(from, name, out),
            Request::SetClientId { id } => self.set_client_id(from, id, out),
        }
    }

    /// Workers are never given a job without asking, so that this hint changes nothing; gearmand
    /// does not know it at all.
    fn all_yours(&mut self, from: ConnId, out: &mut impl Outbox) {
        use super::settings::ForeignWork;
        match self.settings.foreign_work {
            ForeignWork::Ignore => {}
            ForeignWork::Error => out.send(
                from,
                Message::Error { code: "INVALID_COMMAND", text: "Command not expected" },
            ),
        }
    }

    fn answer_status(
        &self,
        to: ConnId,
        name: &[u8],
        number: Option<JobNo>,
        with_clients: bool,
        out: &mut impl Outbox,
    ) {
        let job = number.and_then(|n| self.jobs.get(n));
        let progress = job.and_then(|j| j.progress.as_ref());
        out.send(
            to,
            Message::Status(StatusAnswer {
                name,
                known: job.is_some(),
                running: job.is_some_and(Job::is_running),
                numerator: progress.map_or(b"0", |p| &p.numerator),
                denominator: progress.map_or(b"0", |p| &p.denominator),
                clients: with_clients.then(|| job.map_or(0, |j| j.clients.len())),
            }),
        );
    }

    fn set_option(&mut self, from: ConnId, name: &[u8], out: &mut impl Outbox) {
        if name.eq_ignore_ascii_case(b"exceptions") {
            if let Some(conn) = self.conns.get_mut(from) {
                conn.wants_exceptions = true;
            }
            out.send(from, Message::Option { name });
        } else {
            let text = "Server does not recognize given option";
            out.send(from, Message::Error { code: "UNKNOWN_OPTION", text });
        }
    }

    fn set_client_id(&mut self, from: ConnId, id: &[u8], out: &mut impl Outbox) {
        if id.len() > CLIENT_ID_MAX_BYTES {
            let text = "The client id is longer than 1024 bytes";
            out.send(from, Message::Error { code: "ARGUMENT_TOO_LARGE", text });
        } else if let Some(conn) = self.conns.get_mut(from) {
            // `workers` separates its columns by spaces and its lines by line feeds.
            let clean = |b: &u8| if b.is_ascii_whitespace() || *b == 0 { b'_' } else { *b };
            let id: Box<[u8]> = id.iter().map(clean).collect();
            // `workers` would lose a column.
            conn.client_id = (!id.is_empty()).then_some(id);
        }
    }

    /// What time has brought: job time limits, scheduled jobs, workers that were woken and did
    /// not come, or that wait for a job which does not come. Call it when [`Broker::next_wake`] says so; calling it more often does no harm.
    pub fn tick(&mut self, now: Now, out: &mut impl Outbox) {
        while let Some((until, conn)) = self.woken.front().copied() {
            if until > now.steady {
                break;
            }
            self.woken.pop_front();
            self.overdue(now, conn, until, out);
        }
        while let Some((until, conn)) = self.waiting.front().copied() {
            if until > now.steady {
                break;
            }
            self.waiting.pop_front();
            self.waited(conn, until, out);
        }
        while let Some((at, number)) = self.expiries.first().copied() {
            if at > now.steady {
                break;
            }
            self.expiries.pop_first();
            self.expire(now, number, out);
        }
        while let Some((at, number)) = self.scheduled.first().copied() {
            if at > now.calendar {
                break;
            }
            self.scheduled.pop_first();
            self.enqueue_scheduled(now, number, out);
        }
    }

    /// How long until [`Broker::tick`] has something to do, at the latest.
    #[must_use]
    pub fn next_wake(&self, now: Now) -> Option<Duration> {
        /// The calendar may jump, so a scheduled job is looked at this often.
        const CALENDAR_CHECK: Duration = Duration::from_secs(1);
        let steady = [
            self.woken.front().map(|w| w.0),
            self.waiting.front().map(|w| w.0),
            self.expiries.first().map(|e| e.0),
        ];
        let steady = steady.into_iter().flatten().map(|at| at.since(now.steady));
        let calendar = self.scheduled.first().map(|s| s.0.since(now.calendar).min(CALENDAR_CHECK));
        steady.chain(calendar).min()
    }

    /// Counts over the whole broker.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let total = self.jobs.len();
        Figures {
            total,
            running: self.running,
            waiting: total - self.running,
            workers: self.workers,
        }
    }

    /// How one function stands; zeros when nobody ever named it.
    #[must_use]
    pub fn function(&self, name: &[u8]) -> FunctionView {
        let Some(function) = self.functions.find(name).map(|id| &self.functions[id]) else {
            return FunctionView::default();
        };
        let inside = function.inside.len();
        FunctionView {
            queued: function.queued(),
            taken: function.taken as usize,
            running: function.running as usize,
            outside_workers: function.workers as usize - inside,
            inside_workers: inside,
        }
    }

    /// How many functions a connection has registered: what its grabs and sleeps cost grows with it.
    #[must_use]
    pub fn weight(&self, id: ConnId) -> usize {
        self.conns.get(id).map_or(0, |c| c.abilities.len())
    }

    pub(super) fn is_inside(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|c| match c.peer.kind {
            PeerKind::InProcess => true,
            PeerKind::Local | PeerKind::Remote => false,
        })
    }

    pub(super) fn may(&self, from: ConnId, allows: impl Fn(&Acl, Option<&str>) -> bool) -> bool {
        let Some(acl) = &self.acl else { return true };
        // The server's own parts are not subjects: nobody can connect as one of them.
        self.is_inside(from) || allows(acl, self.conns.get(from).and_then(Conn::subject))
    }

    pub(super) fn rest(&self, id: ConnId) -> Rest {
        self.conns.get(id).map_or(Rest::Awake, |c| c.rest)
    }

    /// Take a job out of everything that knows it. The caller tells whoever must hear of it.
    pub(super) fn remove_job(&mut self, number: JobNo) -> Option<super::job::Job> {
        let job = self.jobs.remove(number)?;
        self.leave_state(number, &job);
        for client in &job.clients {
            if let Some(conn) = self.conns.get_mut(*client) {
                conn.submitted.remove(&number);
            }
        }
        Some(job)
    }

    /// Undo what the job's state put into indexes and counts.
    pub(super) fn leave_state(&mut self, number: JobNo, job: &super::job::Job) {
        use super::job::JobState;
        let function: FunctionId = job.function;
        match job.state {
            JobState::Scheduled { at } => {
                self.scheduled.remove(&(at, number));
                self.functions[function].scheduled -= 1;
            }
            JobState::Queued { sequence } => {
                self.functions[function].remove(job.precedence, sequence);
            }
            JobState::Taken { worker, sequence: _ } => {
                self.functions[function].taken -= 1;
                if let Some(conn) = self.conns.get_mut(worker) {
                    conn.assigned.remove(&number);
                }
            }
            JobState::Running { worker, sequence: _, expires } => {
                self.functions[function].running -= 1;
                self.running -= 1;
                if let Some(at) = expires {
                    self.expiries.remove(&(at, number));
                }
                if let Some(conn) = self.conns.get_mut(worker) {
                    conn.assigned.remove(&number);
                }
            }
        }
    }
}
