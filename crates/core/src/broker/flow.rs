//! The life of a job: submitted, queued, taken, worked on, ended or lost.

use super::function::FunctionId;
use super::job::{Handle, Job, JobNo, JobState, Progress};
use super::machine::Broker;
use super::rest::{TOO_MANY_FUNCTIONS, bad_function_name};
use super::schedule;
use super::settings::{
    ClientLoss, Coalescing, Exceptions, Expiry, ForeignWork, GrabOrder, HandleHost,
    PROGRESS_MAX_BYTES, WorkerLoss,
};
use super::vocabulary::{
    Assignment, ConnId, GrabStyle, Message, Now, Outbox, PeerKind, Precedence, Submit, When,
    WorkKind,
};
use crate::time::Time;
use std::sync::Arc;

/// Most clients of one coalesced job.
const CLIENTS_PER_JOB_MAX: usize = 10_000;

/// gearmand's words.
const QUEUE_FULL: Message<'static> =
    Message::Error { code: "QUEUE_ERROR", text: "Job queue is full" };

impl Broker {
    /// Any of the `SUBMIT_JOB` packets. `JOB_CREATED` goes out before any worker hears of the job.
    pub(super) fn submit(
        &mut self,
        now: Now,
        from: ConnId,
        submit: Submit<'_>,
        out: &mut impl Outbox,
    ) {
        let function = match self.check_submit(from, &submit) {
            Ok(function) => function,
            Err(error) => return out.send(from, error),
        };
        if let Some(number) = self.existing(function, &submit) {
            return self.join(from, number, &submit, out);
        }
        let start = match start_of(now, submit.when) {
            Ok(start) => start,
            Err(error) => return out.send(from, error),
        };
        if self.is_full(function, &submit) {
            return out.send(from, QUEUE_FULL);
        }
        let number = self.add_job(from, function, &submit, start);
        if let Some(job) = self.jobs.get(number) {
            out.send(from, Message::JobCreated { handle: job.handle.as_bytes() });
        }
        match start {
            Some(at) => {
                self.scheduled.insert((at, number));
                self.functions[function].scheduled += 1;
            }
            None => self.enqueue(now, number, out),
        }
    }

    fn check_submit(
        &mut self,
        from: ConnId,
        submit: &Submit<'_>,
    ) -> Result<FunctionId, Message<'static>> {
        if let Some(error) = bad_function_name(submit.function) {
            return Err(error);
        }
        if submit.unique.len() > self.settings.unique_max_bytes {
            let text = "Unique value too large";
            return Err(Message::Error { code: "ARGUMENT_TOO_LARGE", text });
        }
        if !self.may(from, |acl, subject| acl.may_invoke(subject, submit.function)) {
            return Err(Message::Error { code: "0", text: "Permission denied by ACL" });
        }
        self.functions
            .get_or_add(submit.function, self.settings.limits.functions)
            .ok_or(TOO_MANY_FUNCTIONS)
    }

    fn is_full(&self, function: FunctionId, submit: &Submit<'_>) -> bool {
        let limits = self.settings.limits;
        let function = &self.functions[function];
        let max = function.max_queue[submit.precedence.index()];
        self.jobs.len() >= limits.jobs
            || self.jobs.payload_bytes().saturating_add(submit.payload.len()) > limits.payload_bytes
            // As in gearmand, all jobs of the function count, whatever their precedence and state.
            || max.is_some_and(|max| function.total() >= max as usize)
    }

    fn coalesces(&self) -> bool {
        match self.settings.coalescing {
            Coalescing::Never => false,
            Coalescing::ByUnique => true,
        }
    }

    /// The job that this submission is one with.
    fn existing(&self, function: FunctionId, submit: &Submit<'_>) -> Option<JobNo> {
        if submit.unique.is_empty() || !self.coalesces() {
            None
        } else if submit.unique == b"-" {
            self.jobs.with_payload(function, submit.payload)
        } else {
            self.jobs.with_function_and_unique(function, submit.unique)
        }
    }

    fn join(&mut self, from: ConnId, number: JobNo, submit: &Submit<'_>, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get_mut(number) else { return };
        if submit.background {
            job.background = true;
        } else if job.clients.len() >= CLIENTS_PER_JOB_MAX {
            return out.send(from, QUEUE_FULL);
        } else {
            // A client that submits twice hears twice, as each of its two tasks expects.
            job.clients.push(from);
            if let Some(conn) = self.conns.get_mut(from) {
                conn.submitted.insert(number);
            }
        }
        out.send(from, Message::JobCreated { handle: job.handle.as_bytes() });
    }

    fn add_job(
        &mut self,
        from: ConnId,
        function: FunctionId,
        submit: &Submit<'_>,
        start: Option<Time>,
    ) -> JobNo {
        let number = JobNo(self.next_job);
        self.next_job += 1;
        let host = match &self.settings.handle_host {
            HandleHost::ClientAddress => self.conns.get(from).map_or("", |c| &c.peer.address),
            HandleHost::Fixed(host) => host,
        };
        let handle = Handle::new(host, number);
        let by_payload = submit.unique == b"-" && self.coalesces();
        let clients = if submit.background { Vec::new() } else { vec![from] };
        // Until it is queued it is scheduled for its time, or for no time at all.
        let state = JobState::Scheduled { at: start.unwrap_or_default() };
        let job = Job {
            handle,
            function,
            unique: Arc::from(submit.unique),
            payload: Arc::from(submit.payload),
            reducer: submit.reducer.map(Box::from),
            precedence: submit.precedence,
            state,
            background: submit.background,
            by_payload,
            clients,
            progress: None,
            losses: 0,
        };
        self.jobs.insert(number, job);
        if !submit.background
            && let Some(conn) = self.conns.get_mut(from)
        {
            conn.submitted.insert(number);
        }
        number
    }

    /// The calendar time of a job has come; it is out of `scheduled` already.
    pub(super) fn enqueue_scheduled(&mut self, now: Now, number: JobNo, out: &mut impl Outbox) {
        if let Some(job) = self.jobs.get(number) {
            let function = job.function;
            self.functions[function].scheduled -= 1;
            self.enqueue(now, number, out);
        }
    }

    fn enqueue(&mut self, now: Now, number: JobNo, out: &mut impl Outbox) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.queue_at(now, number, sequence, out);
    }

    fn queue_at(&mut self, now: Now, number: JobNo, sequence: u64, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get_mut(number) else { return };
        job.state = JobState::Queued { sequence };
        let (function, precedence) = (job.function, job.precedence);
        self.functions[function].push(precedence, sequence, number);
        self.balance(now, function, out);
        for inside in &self.functions[function].inside {
            out.send(*inside, Message::Noop);
        }
    }

    /// Any of the `GRAB_JOB` packets.
    pub(super) fn grab(&mut self, now: Now, from: ConnId, style: GrabStyle, out: &mut impl Outbox) {
        let woken_for = self.leave_rest(from);
        let has_just_ended = self.takes_ended(from);
        match self.next_job_for(from) {
            Some(number) => self.assign(now, from, number, style, out),
            None if has_just_ended => self.wait_for_job(now, from, style),
            None => out.send(from, Message::NoJob),
        }
        if let Some(function) = woken_for {
            self.balance(now, function, out);
        }
    }

    /// A worker that waits for a job is called: it gets the best one that it can do.
    pub(super) fn serve(
        &mut self,
        now: Now,
        worker: ConnId,
        style: GrabStyle,
        out: &mut impl Outbox,
    ) {
        self.leave_rest(worker);
        match self.next_job_for(worker) {
            Some(number) => self.assign(now, worker, number, style, out),
            None => out.send(worker, Message::NoJob),
        }
    }

    /// Whether a worker outside has ended a job since it last asked for one.
    fn takes_ended(&mut self, from: ConnId) -> bool {
        let inside = self.is_inside(from);
        let ended = self.conns.get_mut(from).is_some_and(|c| std::mem::take(&mut c.has_ended));
        ended && !inside
    }

    /// High before normal before low; in each the order that the settings say. One pass over the
    /// worker's functions, most of which have no job.
    fn next_job_for(&self, worker: ConnId) -> Option<JobNo> {
        let abilities = &self.conns.get(worker)?.abilities;
        let mut best: [Option<(u64, JobNo)>; 3] = [None; 3];
        for (id, ability) in abilities {
            let function = &self.functions[*id];
            if function.queued() == 0 {
                continue;
            }
            for precedence in Precedence::ORDER {
                let Some((sequence, number)) = function.head(precedence) else { continue };
                let rank = match self.settings.grab_order {
                    GrabOrder::Arrival => sequence,
                    GrabOrder::LastRegistered => u64::MAX - ability.registered,
                };
                let slot = &mut best[precedence.index()];
                if slot.is_none_or(|(least, _)| rank < least) {
                    *slot = Some((rank, number));
                }
            }
        }
        best.into_iter().flatten().next().map(|(_, number)| number)
    }

    fn assign(
        &mut self,
        now: Now,
        worker: ConnId,
        number: JobNo,
        style: GrabStyle,
        out: &mut impl Outbox,
    ) {
        let Some(job) = self.jobs.get_mut(number) else { return };
        let JobState::Queued { sequence } = job.state else { return };
        let Some(conn) = self.conns.get_mut(worker) else { return };
        let timeout = conn.abilities.get(&job.function).and_then(|a| a.timeout);
        let expires = timeout.map(|t| now.steady.after(t));
        conn.assigned.insert(number);
        let function = &mut self.functions[job.function];
        function.remove(job.precedence, sequence);
        match conn.peer.kind {
            PeerKind::InProcess => {
                job.state = JobState::Taken { worker, sequence };
                function.taken += 1;
            }
            PeerKind::Local | PeerKind::Remote => {
                job.state = JobState::Running { worker, sequence, expires };
                function.running += 1;
                self.running += 1;
                if let Some(at) = expires {
                    self.expiries.insert((at, number));
                }
            }
        }
        out.send(
            worker,
            Message::JobAssign(Assignment {
                style,
                handle: job.handle.as_bytes(),
                function: &function.name,
                unique: &job.unique,
                reducer: job.reducer.as_deref(),
                payload: &job.payload,
            }),
        );
    }

    /// A worker within the process begins to work on a job that it has taken: from now on it is a running one.
    /// Anything else changes nothing: the job may have gone meanwhile.
    pub fn begin(&mut self, worker: ConnId, handle: &[u8]) {
        let Some(number) = self.jobs.find(handle) else { return };
        let Some(job) = self.jobs.get_mut(number) else { return };
        let JobState::Taken { worker: taker, sequence } = job.state else { return };
        if taker != worker {
            return;
        }
        job.state = JobState::Running { worker, sequence, expires: None };
        let function = &mut self.functions[job.function];
        function.taken -= 1;
        function.running += 1;
        self.running += 1;
    }

    /// The job of `handle`, if `from` is its worker: nobody else may speak of it.
    fn own_job(&self, from: ConnId, handle: &[u8], out: &mut impl Outbox) -> Option<JobNo> {
        let number = self
            .jobs
            .find(handle)
            .filter(|n| self.jobs.get(*n).is_some_and(|j| j.worker() == Some(from)));
        let after_exception = self
            .conns
            .get(from)
            .is_some_and(|c| c.excepted.is_some() && c.excepted == Handle::number(handle));
        if number.is_none() && !after_exception {
            match self.settings.foreign_work {
                ForeignWork::Ignore => {}
                ForeignWork::Error => {
                    let text = "Job given in work result not found";
                    out.send(from, Message::Error { code: "JOB_NOT_FOUND", text });
                }
            }
        }
        number
    }

    /// `WORK_STATUS`.
    pub(super) fn work_status(
        &mut self,
        from: ConnId,
        handle: &[u8],
        numerator: &[u8],
        denominator: &[u8],
        out: &mut impl Outbox,
    ) {
        let Some(number) = self.own_job(from, handle, out) else { return };
        if numerator.len() > PROGRESS_MAX_BYTES || denominator.len() > PROGRESS_MAX_BYTES {
            let text = "A number of WORK_STATUS is longer than 32 bytes";
            return out.send(from, Message::Error { code: "ARGUMENT_TOO_LARGE", text });
        }
        let Some(job) = self.jobs.get_mut(number) else { return };
        job.progress =
            Some(Progress { numerator: numerator.into(), denominator: denominator.into() });
        for client in &job.clients {
            out.send(*client, Message::WorkStatus { handle, numerator, denominator });
        }
    }

    /// `WORK_DATA`, `_WARNING`, `_COMPLETE`, `_FAIL`, `_EXCEPTION`; the last three end the job.
    pub(super) fn work(
        &mut self,
        from: ConnId,
        kind: WorkKind,
        handle: &[u8],
        data: &[u8],
        out: &mut impl Outbox,
    ) {
        let Some(number) = self.own_job(from, handle, out) else { return };
        match kind {
            WorkKind::Data | WorkKind::Warning => {
                if let Some(job) = self.jobs.get(number) {
                    for client in &job.clients {
                        out.send(*client, Message::Work { kind, handle, data });
                    }
                }
            }
            WorkKind::Complete | WorkKind::Fail => {
                if let Some(conn) = self.conns.get_mut(from) {
                    conn.has_ended = true;
                }
                if let Some(job) = self.remove_job(number) {
                    for client in &job.clients {
                        out.send(*client, Message::Work { kind, handle, data });
                    }
                }
            }
            WorkKind::Exception => {
                if let Some(conn) = self.conns.get_mut(from) {
                    conn.excepted = Some(number);
                    conn.has_ended = true;
                }
                if let Some(job) = self.remove_job(number) {
                    for client in &job.clients {
                        self.send_exception(*client, handle, data, out);
                    }
                }
            }
        }
    }

    fn send_exception(&self, client: ConnId, handle: &[u8], data: &[u8], out: &mut impl Outbox) {
        let wanted = match self.settings.exceptions {
            Exceptions::Always => true,
            Exceptions::WhenAsked => self.conns.get(client).is_some_and(|c| c.wants_exceptions),
        };
        let (kind, data) =
            if wanted { (WorkKind::Exception, data) } else { (WorkKind::Fail, &b""[..]) };
        out.send(client, Message::Work { kind, handle, data });
    }

    /// End a job that no worker ends: its clients get `WORK_FAIL`, and a worker within the
    /// process hears that it works in vain.
    pub(super) fn fail_job(&mut self, number: JobNo, out: &mut impl Outbox) {
        if let Some(job) = self.remove_job(number) {
            let handle = job.handle.as_bytes();
            for client in &job.clients {
                out.send(*client, Message::Work { kind: WorkKind::Fail, handle, data: b"" });
            }
            if let Some(worker) = job.worker().filter(|w| self.is_inside(*w)) {
                out.send(worker, Message::JobAbandoned { handle });
            }
        }
    }

    pub(super) fn lose_worker(&mut self, now: Now, number: JobNo, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get_mut(number) else { return };
        job.losses = job.losses.saturating_add(1);
        let waited_for = job.background || !job.clients.is_empty();
        match self.settings.worker_loss {
            WorkerLoss::Requeue { attempts } if waited_for && job.losses < attempts => {
                self.requeue(now, number, out);
            }
            WorkerLoss::Requeue { .. } | WorkerLoss::Fail => self.fail_job(number, out),
        }
    }

    /// Its worker took longer than it said.
    pub(super) fn expire(&mut self, now: Now, number: JobNo, out: &mut impl Outbox) {
        let waited_for =
            self.jobs.get(number).is_some_and(|j| j.background || !j.clients.is_empty());
        match self.settings.expiry {
            Expiry::Requeue if waited_for => self.requeue(now, number, out),
            Expiry::Requeue | Expiry::Fail => self.fail_job(number, out),
        }
    }

    fn requeue(&mut self, now: Now, number: JobNo, out: &mut impl Outbox) {
        // Taken out and put back, so that its state can be left by the same code as at its end.
        let Some(mut job) = self.jobs.remove(number) else { return };
        let (JobState::Running { sequence, .. } | JobState::Taken { sequence, .. }) = job.state
        else {
            self.jobs.insert(number, job);
            return;
        };
        self.leave_state(number, &job);
        // What the lost worker had done is to be done again.
        job.progress = None;
        self.jobs.insert(number, job);
        self.queue_at(now, number, sequence, out);
    }

    pub(super) fn lose_client(&mut self, number: JobNo, client: ConnId, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get_mut(number) else { return };
        job.clients.retain(|c| *c != client);
        if job.background || !job.clients.is_empty() {
            return;
        }
        let Some(worker) = job.worker() else {
            self.remove_job(number);
            return;
        };
        let handle = job.handle;
        match self.settings.client_loss {
            ClientLoss::Forget => drop(self.remove_job(number)),
            ClientLoss::RunOn => {}
        }
        if self.is_inside(worker) {
            out.send(worker, Message::JobAbandoned { handle: handle.as_bytes() });
        }
    }
}

/// The calendar time at which a job starts, `None` for at once.
fn start_of(now: Now, when: When<'_>) -> Result<Option<Time>, Message<'static>> {
    match when {
        When::Now => Ok(None),
        When::Epoch(text) => {
            let text_wanted = "The epoch time is not a whole number of seconds";
            let at = schedule::epoch(text)
                .ok_or(Message::Error { code: "INVALID_ARGUMENT", text: text_wanted })?;
            Ok(Some(at).filter(|at| *at > now.calendar))
        }
        When::Calendar(fields) => {
            let text = "No such time: minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-6";
            let at = schedule::next_match(now.calendar, fields)
                .ok_or(Message::Error { code: "INVALID_ARGUMENT", text })?;
            Ok(Some(at))
        }
    }
}
