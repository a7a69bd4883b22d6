//! Carries out what the machine decides.

use super::follow::{self, NEWS_QUEUE, News, own_deadline};
use super::machine::{Effect, Event, Machine};
use super::progress::{LIVE_PERIOD, Progress, names};
use crate::args::RunArgs;
use crate::duration::show;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::interrupt::Interrupts;
use crate::output::word;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Backoff};
use toci_client::command::{CommandSpec, DataFile, Ended, Running, StartCommand};
use toci_core::chain::Chain;
use toci_wire::api::{Hold, Lease, LeaseRequest, LeaseState, Release};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;

/// How long the first call is repeated when nobody answers: a server that restarts is back within seconds.
const FIRST_CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a wait goes on without an answer from the server.
const AWAY_WHILE_WAITING_LIMIT: Duration = Duration::from_secs(600);
/// How long giving back (or holding) is tried; after that the server notices by itself that we are gone.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(10);
/// How long fetching the TE JSON is tried.
const FETCH_LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of `purpose`, as the server accepts them.
const PURPOSE_MAX_BYTES: usize = 256;
/// What to do when the data file cannot be written.
const NO_DATA_FILE: &str =
    "free space there, or name a folder of yours that has some with XDG_RUNTIME_DIR";

/// The whole of `toci lease run`.
///
/// # Errors
/// The request was refused or the server could not be reached before anything ran; everything later is told on
/// standard error and by the exit code.
pub async fn run(client: &ApiClient, args: &RunArgs, json: bool) -> Result<ExitCode> {
    let mut interrupts =
        Interrupts::listen().map_err(|e| CliError::failed("listen for signals", &e))?;
    let request = request_of(args);
    let asked = Instant::now();
    let until = asked + FIRST_CALL_LIMIT;
    let mut backoff = Backoff::new();
    let lease = tokio::select! {
        answer = backoff.retry(until, async || client.request_lease(&request).await) => answer?,
        signal = interrupts.next() => {
            return Ok(Exit::Signal(u8::try_from(signal).unwrap_or(0)).into());
        }
    };
    let (sender, news) = mpsc::channel(NEWS_QUEUE);
    let period = Duration::from_secs(lease.heartbeat_s.max(1));
    let followers = [
        tokio::spawn(follow::stream(client.clone(), lease.id.clone(), sender.clone())),
        tokio::spawn(follow::heartbeats(client.clone(), lease.id.clone(), period, sender)),
    ];
    let mut driver = Driver {
        client,
        args,
        machine: Machine::new(args.hold_on_failure.is_some()),
        progress: Progress::new(args.quiet, json),
        deadline: own_deadline(&lease, asked),
        lease,
        asked,
        away: None,
        grace_over: None,
        running: None,
        files: Vec::new(),
        end_is_told: false,
    };
    let code = driver.drive(news, interrupts).await;
    followers.iter().for_each(JoinHandle::abort);
    Ok(ExitCode::from(code))
}

fn request_of(args: &RunArgs) -> LeaseRequest {
    let command = || {
        let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    };
    let mut purpose = args.purpose.clone().unwrap_or_else(command);
    purpose.retain(|c| !c.is_control());
    while purpose.len() > PURPOSE_MAX_BYTES {
        purpose.pop();
    }
    LeaseRequest {
        label: args.label.clone(),
        shape: args.shape.clone(),
        count: args.count,
        project: args.project.clone(),
        priority: args.priority,
        timeout_s: args.timeout.map(|d| d.as_secs()),
        wait_timeout_s: args.wait_timeout.map(|d| d.as_secs()),
        purpose: Some(purpose),
        idempotency_key: Some(uuid::Uuid::new_v4().to_string()),
    }
}

struct Driver<'a> {
    client: &'a ApiClient,
    args: &'a RunArgs,
    machine: Machine,
    progress: Progress,
    lease: Lease,
    asked: Instant,
    /// When the lease ends by our own clock.
    deadline: Option<Instant>,
    /// Since when the server has not answered, and what it looks like.
    away: Option<(Instant, String)>,
    grace_over: Option<Instant>,
    running: Option<Running>,
    files: Vec<DataFile>,
    end_is_told: bool,
}

/// Sleeps until a moment, or for ever when there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

async fn ended(running: &mut Option<Running>) -> Ended {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}

impl Driver<'_> {
    async fn drive(&mut self, mut news: Receiver<News>, mut interrupts: Interrupts) -> u8 {
        let lease = self.lease.clone();
        let mut event = self.learn(lease);
        loop {
            for effect in event.map(|e| self.machine.on(e)).unwrap_or_default() {
                if let Some(code) = self.carry_out(effect).await {
                    return code;
                }
            }
            if self.machine.is_waiting() {
                let away = self.away.as_ref().map(|(_, reason)| reason.as_str());
                self.progress.waiting(&self.lease, away);
            }
            let next_line = self.machine.is_waiting().then(|| Instant::now() + LIVE_PERIOD);
            event = tokio::select! {
                biased;
                end = ended(&mut self.running) => Some(Event::Ended(end)),
                signal = interrupts.next() => Some(Event::Signal(signal)),
                Some(item) = news.recv() => self.hear(item),
                () = at(self.grace_over) => { self.grace_over = None; Some(Event::GraceOver) }
                () = at(self.deadline) => Some(self.time_is_over()),
                () = at(next_line) => None,
            };
        }
    }

    fn hear(&mut self, news: News) -> Option<Event> {
        match news {
            News::Lease(lease) => {
                if self.away.take().is_some() && !self.machine.is_waiting() {
                    self.progress.note("the server answers again");
                }
                self.learn(*lease)
            }
            News::Away(since, reason) => {
                if self.away.is_none() && !self.machine.is_waiting() {
                    self.progress.note(&format!("{reason}; the command goes on"));
                }
                self.away = Some((since, reason));
                (since.elapsed() >= AWAY_WHILE_WAITING_LIMIT).then_some(Event::ServerAway)
            }
            News::Disowned(error) => {
                let error = CliError::from(error);
                self.progress.error(&error);
                Some(Event::Disowned(error.exit))
            }
        }
    }

    fn learn(&mut self, lease: Lease) -> Option<Event> {
        let state = lease.state;
        let changed = state != self.lease.state;
        self.deadline = own_deadline(&lease, Instant::now());
        self.lease = lease;
        if changed {
            self.progress.json(&self.lease);
        }
        if state.is_over() && changed {
            let reason = self.lease.reason.clone();
            self.tell_end(state, &reason);
        }
        let waited_long_enough = state == LeaseState::Refused
            && self.args.wait_timeout.is_some_and(|limit| self.asked.elapsed() >= limit);
        Some(if waited_long_enough { Event::WaitedLongEnough } else { Event::Lease(state) })
    }

    /// By our own clock, before the server has said so.
    fn time_is_over(&mut self) -> Event {
        self.deadline = None;
        self.tell_end(LeaseState::Expired, "its time is over, by the clock of this machine");
        Event::TimeOver
    }

    /// Why the command is ended, or does not begin: told once, whoever noticed first.
    fn tell_end(&mut self, state: LeaseState, reason: &str) {
        if !std::mem::replace(&mut self.end_is_told, true) {
            let said = format!("lease {} is {}: {reason}", self.lease.id, word(&state));
            self.progress.problem(&said);
        }
    }

    async fn carry_out(&mut self, effect: Effect) -> Option<u8> {
        match effect {
            Effect::Start => {
                if let Err(error) = self.start().await {
                    self.progress.error(&error);
                    return self.after_failed_start(error.exit).await;
                }
            }
            Effect::PassOn(signal) => {
                if let Some(running) = &self.running {
                    running.signal(signal);
                }
                self.start_grace();
            }
            Effect::Terminate => {
                if let Some(running) = &self.running {
                    running.terminate();
                }
                self.start_grace();
            }
            Effect::Kill => {
                self.progress.problem("the command did not end in time: killed");
                if let Some(running) = &self.running {
                    running.kill();
                }
            }
            Effect::Release => {
                self.clear().await;
                self.give_back(None).await;
            }
            Effect::Hold => {
                self.clear().await;
                self.give_back(self.args.hold_on_failure).await;
            }
            Effect::Finish(code) => {
                self.clear().await;
                return Some(code);
            }
        }
        None
    }

    /// `Start` was the last effect, so what follows from its failure is carried out here.
    async fn after_failed_start(&mut self, exit: Exit) -> Option<u8> {
        let mut code = None;
        for effect in self.machine.on(Event::NotStarted(exit)) {
            match effect {
                Effect::Release => self.give_back(None).await,
                Effect::Finish(with) => code = Some(with),
                Effect::Start
                | Effect::PassOn(_)
                | Effect::Terminate
                | Effect::Kill
                | Effect::Hold => {}
            }
        }
        code
    }

    fn start_grace(&mut self) {
        self.grace_over.get_or_insert_with(|| Instant::now() + self.args.grace);
    }

    /// Ends what the command left in its group, and removes the data files.
    async fn clear(&mut self) {
        if let Some(running) = self.running.take() {
            running.finish(self.args.grace).await;
        }
        self.files.clear();
    }

    async fn start(&mut self) -> Result<()> {
        let until = Instant::now() + FETCH_LIMIT;
        let (client, id) = (self.client, self.lease.id.clone());
        let testenvs =
            Backoff::new().retry(until, async || client.lease_testenvs(&id).await).await?;
        if testenvs.is_empty() {
            return Err(CliError::new(Exit::RunFailed, "the lease has no test environment", ""));
        }
        for te in &testenvs {
            let json = serde_json::to_vec_pretty(&te.te_json)
                .map_err(|e| CliError::failed("make the TE JSON", &e))?;
            let stem = format!("toci-{id}-{}", te.testenv);
            let file = DataFile::create(&stem, &json)
                .map_err(|e| CliError::new(Exit::RunFailed, Chain(&e).to_string(), NO_DATA_FILE))?;
            self.files.push(file);
        }
        let mut all = OsString::new();
        for file in &self.files {
            if !all.is_empty() {
                all.push(":");
            }
            all.push(file.path());
        }
        let spec = CommandSpec {
            command: self.args.command.clone(),
            environment: vec![
                ("TE_DATAFILE".into(), self.files[0].path().into()),
                ("TE_DATAFILES".into(), all),
                ("TOCI_LEASE".into(), id.clone().into()),
                ("TOCI_SERVER".into(), self.client.server().to_string().into()),
            ],
        };
        let left = self.lease.left_s.map(|left| format!(", {} left", show(left)));
        let waited = show(self.asked.elapsed().as_secs());
        self.progress.note(&format!(
            "lease {id} is active on {} after {waited}{}",
            names(&self.lease),
            left.unwrap_or_default()
        ));
        let running = Running::start(&spec, &self.files).map_err(|e| {
            let (exit, hint) = match &e {
                StartCommand::NotFound { .. } => (Exit::CommandNotFound, "check the name and PATH"),
                StartCommand::CannotRun { .. } => (Exit::CannotRun, "is it executable?"),
            };
            CliError::new(exit, e.to_string(), hint)
        })?;
        self.running = Some(running);
        Ok(())
    }

    /// Gives the lease back, or holds it; a refused hold is a release.
    async fn give_back(&mut self, hold_for: Option<Duration>) {
        let (client, id) = (self.client, self.lease.id.clone());
        let until = Instant::now() + GIVE_BACK_LIMIT;
        if let Some(duration) = hold_for {
            let hold = Hold { for_s: duration.as_secs(), reason: "the command failed".into() };
            match Backoff::new().retry(until, async || client.hold(&id, &hold).await).await {
                Ok(_) => {
                    self.progress.note(&format!(
                        "lease {id} is held for {}; give it back with: toci lease release {id}",
                        show(duration.as_secs())
                    ));
                    return;
                }
                Err(e) => self.progress.problem(&format!("cannot hold {id}, releasing it: {e}")),
            }
        }
        let release = Release::default();
        match Backoff::new().retry(until, async || client.release(&id, &release).await).await {
            Ok(_) => self.progress.note(&format!("lease {id} is released")),
            Err(e) => self.progress.problem(&format!(
                "cannot release {id}: {e}. The server takes it back when it misses our heartbeats"
            )),
        }
    }
}
