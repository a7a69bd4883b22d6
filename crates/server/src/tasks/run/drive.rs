//! One run, from the wish to the news of its end.

mod collecting;
mod ready;

use super::console::Console;
use super::desk::{Ended, News, Parts};
use super::environment::{self, Places};
use super::script::{End, Playing, SCRIPT_MAX_BYTES, Scene, text_of};
use super::secret::Secrets;
use super::stops::{Heed, Stops};
use super::table::{Entry, View};
use super::testenv::Tenancy;
use crate::clock::Clock;
use crate::tasks::log::Finished;
use crate::tasks::node::NodeHandle;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::event::ProjectName;
use toci_core::layout::Script;
use toci_core::node::Failure;
use toci_core::pipeline::{Input, RunResult, RunUpdate, RunWish};
use toci_core::run::record::Record;
use toci_core::run::steps::{COLLECT_LIMIT, Event, Part, State};
use toci_edge::node::{SMALL_LIMIT, Session, SessionError};

/// Attempts to write the end of a run.
const END_WRITES: u32 = 5;
/// Pause between them.
const END_WRITE_PAUSE: Duration = Duration::from_secs(1);

/// A run that is under way.
#[derive(Debug)]
pub(super) struct Drive {
    parts: Arc<Parts>,
    wish: RunWish,
    state: State,
    record: Record,
    view: View,
    news: News,
    stops: Stops,
    console: Console,
    places: Places,
    folder: PathBuf,
    nodes: Vec<NodeHandle>,
    tenancy: Option<Tenancy>,
    secrets: Secrets,
    checked_out: Vec<(ProjectName, String)>,
}

/// The folder of a run.
pub(super) fn folder_of(parts: &Parts, run: toci_core::id::RunId) -> PathBuf {
    parts.config.folder.join(run.to_string())
}

/// Where a run's console can be followed.
pub(super) fn console_url(parts: &Parts, run: toci_core::id::RunId) -> String {
    format!("{}{}/runs/{run}/console", parts.config.url, toci_wire::api::PREFIX)
}

impl Drive {
    pub(super) fn new(parts: Arc<Parts>, wish: RunWish, news: News, entry: Entry) -> Drive {
        let Entry { view, order, held, marks } = entry;
        let clock = Clock::start();
        let folder = folder_of(&parts, wish.run);
        Drive {
            record: Record::new(&wish, clock.now()),
            state: State::WaitingNode,
            view,
            news,
            stops: Stops { clock, order, held, lost: Vec::new(), lease: None },
            console: Console::new(&folder, marks).bounded(parts.config.console_head_bytes),
            places: Places::new(&parts.config),
            folder,
            nodes: Vec::new(),
            tenancy: None,
            secrets: Secrets::default(),
            checked_out: Vec::new(),
            parts,
            wish,
        }
    }

    /// Goes through all of it, unless it may not begin.
    pub(super) async fn run(mut self) -> Ended {
        self.publish();
        if !self.keep().await {
            return self.finish(RunResult::Lost).await;
        }
        loop {
            let waits = !self.state.has_begun();
            let event = match self.state {
                State::WaitingNode => self.take_nodes().await,
                State::WaitingTestenv => self.take_testenv().await,
                State::Preparing { .. } => self.prepare().await,
                State::Running { part, step, .. } => self.run_step(part, step).await,
                State::Post { step, verdict, .. } => self.post_step(step, verdict).await,
                State::Collecting { verdict, .. } => self.collect(verdict).await,
                State::Over(result) => return self.finish(result).await,
            };
            if event == Event::Held {
                return self.put_back().await;
            }
            self.go(event).await;
            // Only after it is shown as begun is it certain that whoever holds runs and counts those has counted it.
            if waits && self.stops.is_held() && !matches!(self.state, State::Over(_)) {
                return self.put_back().await;
            }
        }
    }

    /// It may not begin now: it sits on nothing, and begins anew when it may.
    async fn put_back(mut self) -> Ended {
        let run = self.wish.run;
        tracing::info!(%run, "a run that has not begun is put back");
        self.release_testenv("the run may not begin now").await;
        self.nodes.clear();
        self.parts.nodes.give_back(run).await;
        if self.stops.is_aborted() {
            return self.finish(RunResult::Aborted).await;
        }
        if let Err(error) = self.parts.store.forget_run(run).await {
            tracing::warn!(%run, %error, "a run could not be forgotten");
        }
        Ended::Forgotten(run)
    }

    /// Takes a step. Nothing runs on a node before it is written that something may.
    async fn go(&mut self, event: Event) {
        let now = self.stops.clock.now();
        let before = self.state;
        self.state = before.on(event, &self.wish.job.run, now);
        tracing::debug!(run = %self.wish.run, ?event, state = ?self.state, "a run goes on");
        if !self.state.needs_testenv() {
            self.release_testenv("the run is over").await;
        }
        let to_keep = match self.state {
            State::WaitingNode | State::Running { .. } | State::Over(_) => false,
            State::WaitingTestenv
            | State::Preparing { .. }
            | State::Post { .. }
            | State::Collecting { .. } => {
                core::mem::discriminant(&before) != core::mem::discriminant(&self.state)
            }
        };
        if let State::Over(_) = self.state {
            // People see the end when the logs are there as well.
            return;
        }
        self.record.state = self.state;
        self.record.waits_for.clear();
        if matches!(self.state, State::Preparing { .. }) && self.record.started.is_none() {
            self.record.started = Some(now);
        }
        self.publish();
        if to_keep && !self.keep().await && matches!(self.state, State::Preparing { .. }) {
            self.state = State::Over(RunResult::Lost);
        }
    }

    fn publish(&self) {
        self.view.show(Arc::new(self.record.clone()));
    }

    /// Writes it as it stands; says whether that worked.
    async fn keep(&mut self) -> bool {
        match self.parts.store.put_run(&self.record).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(run = %self.wish.run, error = ?error, "a run cannot be written");
                self.note(format!("the run could not be written: {error}"));
                false
            }
        }
    }

    /// The first note stays: what follows from it is less telling.
    fn note(&mut self, text: String) {
        if self.record.note.is_empty() {
            self.record.note = text.replace('\n', "; ");
        }
    }

    fn say(&mut self, text: impl AsRef<str>) {
        let now = self.stops.clock.now();
        for line in text.as_ref().lines() {
            self.console.line(now, format!("toci: {line}"));
        }
        self.console.flush();
    }

    fn deadline(&self) -> Option<toci_core::time::Time> {
        self.state.deadline(&self.wish.job.run, self.record.queued)
    }

    async fn run_step(&mut self, part: Part, step: usize) -> Event {
        let run = &self.wish.job.run;
        let (scripts, name) = match part {
            Part::Pre => (&run.pre, "pre"),
            Part::Run => (&run.run, "run"),
        };
        let (script, count) = (scripts.get(step).cloned(), scripts.len());
        // Without a script there is nothing that could fail.
        let Some(script) = script else { return Event::Ended { well: true } };
        self.play(&script, name, (step, count), Heed::All, "").await
    }

    async fn post_step(&mut self, step: usize, verdict: RunResult) -> Event {
        let count = self.wish.job.run.post.len();
        let Some(script) = self.wish.job.run.post.get(step).cloned() else {
            return Event::Ended { well: true };
        };
        let first = format!("export TOCI_RESULT={}\n", verdict.word());
        self.play(&script, "post", (step, count), Heed::ButTestenv, &first).await
    }

    async fn play(
        &mut self,
        script: &Script,
        part: &str,
        (step, count): (usize, usize),
        heed: Heed,
        first: &str,
    ) -> Event {
        let Some(node) = self.nodes.first() else { return Event::NodeLost };
        let session = node.session.clone();
        let title = format!("{part} script {} of {count}", step + 1);
        let what = match script {
            Script::File(file) => format!(": {file}"),
            Script::Inline(_) => String::new(),
        };
        self.say(format!("{title}{what}"));
        let folder =
            self.checked_out.first().map_or(self.places.workspace.clone(), |(_, f)| f.clone());
        let scene = Scene { places: &self.places, folder: &folder, projects: &self.checked_out };
        let text = format!("{first}{}", text_of(script, &scene));
        if text.len() > SCRIPT_MAX_BYTES {
            return self.ended_badly(format!("{title} has more than {SCRIPT_MAX_BYTES} bytes"));
        }
        let deadline = self.deadline();
        let clock = self.stops.clock;
        let name = format!("{part}-{step}");
        let start = Playing::start(&session, &scene, &name, &text, self.console.mask());
        let mut playing = match self.stops.or(deadline, heed, start).await {
            Ok(Ok(playing)) => playing,
            // The node answers, but takes no file and no process any more: the job has seen to that.
            Ok(Err(error @ SessionError::Failed { .. })) => {
                return self.ended_badly(format!("{title} could not be started: {error}"));
            }
            Ok(Err(error)) => {
                let why = format!("{title} could not be started: {error}");
                return self.infrastructure(why, Event::NodeLost);
            }
            Err(event) => {
                self.interrupted(event);
                self.end_all().await;
                return event;
            }
        };
        match self.stops.or(deadline, heed, playing.follow(&mut self.console, clock)).await {
            Ok(End::Code(0)) => Event::Ended { well: true },
            Ok(End::Code(code)) => self.ended_badly(format!("{title} ended with {code}")),
            Ok(End::Lost) => {
                let why = format!("the node was lost during {title}");
                self.infrastructure(why, Event::NodeLost)
            }
            Err(event) => {
                self.interrupted(event);
                if event != Event::NodeLost {
                    playing.terminate(self.parts.config.grace, &mut self.console, clock).await;
                    self.end_all().await;
                }
                event
            }
        }
    }

    fn ended_badly(&mut self, why: String) -> Event {
        self.say(why);
        Event::Ended { well: false }
    }

    fn interrupted(&mut self, event: Event) {
        let why = match event {
            Event::TimeUp => "the time limit is reached".to_owned(),
            Event::Abort => "somebody stopped the run".to_owned(),
            Event::Cancel => "the run is not needed any more".to_owned(),
            Event::NodeLost => "the node was lost".to_owned(),
            Event::TestenvLost => {
                let end = self.tenancy.as_ref().map(Tenancy::end).unwrap_or_default();
                format!("the test environment was lost: {end}")
            }
            Event::Node
            | Event::Testenv
            | Event::Prepared
            | Event::Unpreparable
            | Event::Ended { .. }
            | Event::Held
            | Event::Collected => return,
        };
        self.say(&why);
        self.note(why);
    }

    /// Whatever the job has left running.
    async fn end_all(&mut self) {
        let mark = environment::mark(&self.wish);
        let sessions: Vec<Session> = self.nodes.iter().map(|n| n.session.clone()).collect();
        for session in sessions {
            let ended = session.end_all(&mark);
            match tokio::time::timeout(SMALL_LIMIT, ended).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.say(error.to_string()),
                Err(_) => self.say("what runs on the node could not be ended in time"),
            }
        }
    }

    /// If somebody wants to look at this failure, nodes and test environment are kept for that.
    pub(super) async fn keep_what_failed(&mut self) {
        if !self.state.has_failed() {
            return;
        }
        let Some(hold) = self.parts.nodes.failed(Failure::of(&self.wish)).await else { return };
        let length = hold.until.since(self.stops.clock.now());
        self.say(format!("the node is kept for {} s: {}", length.as_secs(), hold.reason));
        let Some(tenancy) = self.tenancy.take() else { return };
        let length = length.min(self.parts.hold_max);
        let told = match tenancy.hold(length, &hold.reason).await {
            Ok(()) => format!("so is the test environment, for {} s", length.as_secs()),
            Err(error) => {
                // Given back as every other one.
                self.tenancy = Some(tenancy);
                format!("the test environment cannot be kept: {error}")
            }
        };
        self.say(told);
    }

    async fn release_testenv(&mut self, why: &str) {
        self.stops.lease = None;
        if let Some(tenancy) = self.tenancy.take() {
            tenancy.release(why).await;
        }
    }

    async fn tell(&self, update: RunUpdate) {
        let input = Input::Run { run: self.wish.run, update };
        if self.news.send(input).await.is_err() {
            tracing::debug!(run = %self.wish.run, "nobody hears the news of a run any more");
        }
    }

    /// Everything is given back, then archived, then written, then told.
    async fn finish(mut self, result: RunResult) -> Ended {
        self.release_testenv("the run is over").await;
        self.nodes.clear();
        self.parts.nodes.give_back(self.wish.run).await;
        self.say(format!("result: {}", result.word()));
        if let Some(broken) = self.console.finish(self.stops.clock.now()) {
            self.note(broken);
        }
        if result != RunResult::Canceled || self.record.started.is_some() {
            self.archive(result).await;
        }
        self.record.state = State::Over(result);
        self.record.ended = Some(self.stops.clock.now());
        for _ in 0..END_WRITES {
            if self.keep().await {
                break;
            }
            tokio::time::sleep(END_WRITE_PAUSE).await;
        }
        self.publish();
        let record = Arc::new(self.record.clone());
        self.tell(finished(&record)).await;
        Ended::Over(record)
    }

    async fn archive(&mut self, result: RunResult) {
        let finished =
            Finished { wish: &self.wish, result, folder: &self.folder, mask: self.console.mask() };
        let work = self.parts.archive.archive(finished);
        match tokio::time::timeout(COLLECT_LIMIT, work).await {
            Ok(Ok(archived)) => {
                self.record.url = archived.url;
                self.note(archived.first_error);
                super::recover::keep_console_only(&self.folder);
            }
            Ok(Err(error)) => {
                let why = Chain(&error).to_string();
                tracing::error!(run = %self.wish.run, error = why, "logs could not be archived");
                self.note(format!("the logs could not be archived: {why}"));
            }
            Err(_) => self.note("the logs could not be archived in time".to_owned()),
        }
    }
}

/// The news of a run that is over.
pub(super) fn finished(record: &Record) -> RunUpdate {
    RunUpdate::Finished {
        at: record.ended.unwrap_or(record.queued),
        result: record.result().unwrap_or(RunResult::Lost),
        url: record.url.clone(),
        note: record.note.clone(),
    }
}
