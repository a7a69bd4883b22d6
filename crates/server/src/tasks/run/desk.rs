//! The desk: follows what is wanted, has one task a run, and answers people.

use super::HISTORY_MAX;
use super::collect::Collection;
use super::console::{CONSOLE_FILE, ConsoleReader, Mark};
use super::drive::{Drive, finished, folder_of};
use super::nodes::Nodes;
use super::recover;
use super::stops::Order;
use super::table::{Entry, Known, Table};
use crate::clock::now;
use crate::config::RunConfig;
use crate::tasks::lease::LeaseBook;
use crate::tasks::log::{Archived, Finished, LogError};
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use toci_core::event::SourceName;
use toci_core::id::RunId;
use toci_core::pipeline::{Input, RunResult, RunUpdate, RunWish, Wanted};
use toci_core::run::record::Record;
use toci_core::run::streak::Watched;
use toci_core::run::trouble::Trouble;
use toci_edge::git::Mirrors;
use toci_store::{JobPause, Store, StoreError};
use tokio::sync::{Notify, broadcast, mpsc, watch};

/// How often what is old is removed.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
/// Steps of runs that a slow follower may be behind before it misses some.
const STEPS_MAX: usize = 1024;
/// Ends of runs that wait for the desk at most.
const ENDS_MAX: usize = 256;
/// Who pauses a job that fails again and again.
const ITSELF: &str = "toci";

/// Where news of runs go: to the gate.
pub type News = mpsc::Sender<Input>;

/// Where logs go.
pub trait Archive: core::fmt::Debug + Send + Sync {
    /// Keeps them.
    fn archive<'a>(&'a self, finished: Finished<'a>) -> BoxFuture<'a, Result<Archived, LogError>>;
}

/// What runs are made with.
#[derive(Debug)]
pub struct Parts {
    /// Runs are remembered there.
    pub store: Store,
    /// Test environments come from there.
    pub book: LeaseBook,
    /// Longest lease.
    pub lease_max: Duration,
    /// Longest hold of a lease.
    pub hold_max: Duration,
    /// Repositories come from there.
    pub mirrors: Arc<Mirrors>,
    /// ZUUL_URL, for projects of the first source.
    pub merger_url: String,
    /// The first source.
    pub first_source: Option<SourceName>,
    /// Nodes come from there.
    pub nodes: Arc<dyn Nodes>,
    /// Logs go there.
    pub archive: Arc<dyn Archive>,
    /// What is collected when runs are over.
    pub collection: Collection,
    /// Settings.
    pub config: RunConfig,
}

impl Parts {
    /// ZUUL_URL, for a project of this source: other sources may have projects of the same name.
    pub(super) fn merger_url(&self, source: &SourceName) -> String {
        let url = self.merger_url.trim_end_matches('/');
        if self.first_source.as_ref() == Some(source) {
            url.to_owned()
        } else {
            format!("{url}/@{source}")
        }
    }
}

/// The handle by which everybody else reaches the runs; clones are cheap.
#[derive(Clone, Debug)]
pub struct RunDesk {
    parts: Arc<Parts>,
    table: Arc<Mutex<Table>>,
    steps: broadcast::Sender<Arc<Record>>,
    /// Some run's end was told.
    settled: Arc<Notify>,
    /// Some job was paused or goes on.
    paused: Arc<Notify>,
    alerts: broadcast::Sender<Alert>,
}

/// What people have to know at once.
#[derive(Clone, Debug)]
pub enum Alert {
    /// A job or a provider fails by the infrastructure again and again.
    Trouble(Trouble),
    /// A job is paused.
    Paused(JobPause),
    /// A job goes on.
    Resumed(String),
}

/// A run's task has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The run is over, and that was told.
    Over(Arc<Record>),
    /// It had not begun when the last server went, or may not begin now: whoever still wants it begins it anew.
    Forgotten(RunId),
}

impl RunDesk {
    /// Ends what another server left behind and begins to follow `wanted`; what happens is told to `news`. The desk
    /// ends with the sender of `wanted`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(
        parts: Parts,
        wanted: watch::Receiver<Arc<Wanted>>,
        news: News,
    ) -> Result<RunDesk, StoreError> {
        let left = parts.store.live_runs().await?;
        let desk = RunDesk {
            parts: Arc::new(parts),
            table: Arc::default(),
            steps: broadcast::Sender::new(STEPS_MAX),
            settled: Arc::default(),
            paused: Arc::default(),
            alerts: broadcast::Sender::new(STEPS_MAX),
        };
        let pauses = desk.parts.store.job_pauses().await?;
        desk.table().paused = pauses.into_iter().map(|p| (p.job.clone(), p)).collect();
        recover::release_leases(&desk.parts).await;
        let (ends, ended) = mpsc::channel(ENDS_MAX);
        for record in left {
            desk.recover(record, wanted.clone(), news.clone(), ends.clone());
        }
        let follower =
            Follower { desk: desk.clone(), wanted, news, ends, answered: BTreeSet::new() };
        tokio::spawn(follower.run(ended));
        Ok(desk)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, record: Record, watched: Option<Watched>) -> Entry {
        self.table().enter(record, watched, self.steps.clone())
    }

    fn recover(
        &self,
        record: Record,
        wanted: watch::Receiver<Arc<Wanted>>,
        news: News,
        ends: mpsc::Sender<Ended>,
    ) {
        // Whatever becomes of it is no fault of its job.
        let Entry { view, marks, .. } = self.enter(record.clone(), None);
        let parts = Arc::clone(&self.parts);
        tokio::spawn(async move {
            let why = "the server was started anew while this ran";
            let end = if record.state.has_begun() {
                let wish = wanted.borrow().runs.iter().find(|w| w.run == record.run).cloned();
                let lost = Arc::new(recover::lose(&parts, record, why, wish, marks).await);
                view.show(Arc::clone(&lost));
                told(&news, &lost).await;
                Ended::Over(lost)
            } else {
                recover::end_for_sure(&parts, &record, why).await;
                if let Err(error) = parts.store.forget_run(record.run).await {
                    tracing::warn!(run = %record.run, %error, "a run could not be forgotten");
                }
                Ended::Forgotten(record.run)
            };
            // The desk has ended: nobody needs to know.
            let _ = ends.send(end).await;
        });
    }

    fn begin(&self, wish: RunWish, news: News, ends: mpsc::Sender<Ended>) {
        let first = Record::new(&wish, now());
        let entry = self.enter(first, Watched::of(&wish));
        let parts = Arc::clone(&self.parts);
        let (view, marks, seen) = (entry.view.clone(), entry.marks.clone(), entry.view.subscribe());
        tokio::spawn(async move {
            let run = wish.run;
            // One that was over before, while nobody heard of it, does not run again.
            if let Ok(Some(known)) = parts.store.run(run).await
                && known.result().is_some()
            {
                let known = Arc::new(known);
                view.show(Arc::clone(&known));
                told(&news, &known).await;
                let _ = ends.send(Ended::Over(known)).await;
                return;
            }
            let drive = Drive::new(Arc::clone(&parts), wish.clone(), news.clone(), entry);
            let end = match tokio::spawn(drive.run()).await {
                Ok(end) => end,
                Err(error) => {
                    tracing::error!(%run, %error, "a run's task has ended badly: this is a bug");
                    let record = seen.borrow().as_ref().clone();
                    let why = "the server failed while this ran";
                    let lost = recover::lose(&parts, record, why, Some(wish), marks).await;
                    let lost = Arc::new(lost);
                    view.show(Arc::clone(&lost));
                    told(&news, &lost).await;
                    Ended::Over(lost)
                }
            };
            let _ = ends.send(end).await;
        });
    }

    /// Runs: all that are not over, then the newest that are, at most `ended` of them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self, ended: usize) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut out: Vec<Arc<Record>> = {
            let table = self.table();
            let views = table.known.values().map(|k| Arc::clone(&k.view.borrow()));
            views.filter(|record| record.result().is_none()).collect()
        };
        out.sort_by_key(|record| (record.queued, record.run));
        if ended > 0 {
            let over = self.parts.store.ended_runs(ended).await?;
            out.extend(over.into_iter().map(Arc::new));
        }
        Ok(out)
    }

    /// One run.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn get(&self, id: RunId) -> Result<Option<Arc<Record>>, StoreError> {
        let known = self.table().known.get(&id).map(|k| Arc::clone(&k.view.borrow()));
        match known {
            Some(record) => Ok(Some(record)),
            None => Ok(self.parts.store.run(id).await?.map(Arc::new)),
        }
    }

    /// Follows a run that is under way.
    #[must_use]
    pub fn watch(&self, id: RunId) -> Option<watch::Receiver<Arc<Record>>> {
        self.table().known.get(&id).map(|k| k.view.clone())
    }

    /// Follows every step of every run from now on.
    #[must_use]
    pub fn steps(&self) -> broadcast::Receiver<Arc<Record>> {
        self.steps.subscribe()
    }

    /// Stops a run; says whether there is one that is not over.
    #[must_use]
    pub fn abort(&self, id: RunId) -> bool {
        let table = self.table();
        match table.known.get(&id).filter(|k| k.view.borrow().result().is_none()) {
            Some(known) => {
                known.stop(Order::Abort);
                true
            }
            None => false,
        }
    }

    /// Jobs of which nothing begins.
    #[must_use]
    pub fn pauses(&self) -> Vec<JobPause> {
        self.table().paused.values().cloned().collect()
    }

    /// Changes what is paused, and tells it.
    pub(super) fn change_pauses(&self, change: impl FnOnce(&mut Table) -> Option<Alert>) {
        let mut table = self.table();
        let alert = change(&mut table);
        table.hold_or_go();
        drop(table);
        self.paused.notify_one();
        // Nobody may follow.
        let _ = alert.map(|alert| self.alerts.send(alert));
    }

    pub(super) fn store(&self) -> &Store {
        &self.parts.store
    }

    /// Follows what becomes a trouble, is paused and goes on from now on.
    #[must_use]
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.alerts.subscribe()
    }

    /// Begins nothing more, and returns when what has begun is over. `tell` hears how many that are, whenever it changes.
    /// What only waits for a node or a test environment goes on waiting under the next server.
    pub async fn drain(&self, mut tell: impl FnMut(usize)) {
        let mut told = None;
        loop {
            let settled = self.settled.notified();
            let busy = self.hold();
            if told != Some(busy) {
                tell(busy);
                told = Some(busy);
            }
            if busy == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Holds what has not begun. Says how many have.
    fn hold(&self) -> usize {
        let mut table = self.table();
        table.draining = true;
        table.hold_or_go();
        let busy = |known: &&Known| !known.over && known.view.borrow().state.has_begun();
        table.known.values().filter(busy).count()
    }

    /// A run's console from its start. `None`: it is not at hand (any more).
    #[must_use]
    pub fn console(&self, id: RunId) -> Option<ConsoleReader> {
        let folder = folder_of(&self.parts, id);
        let live = self.table().known.get(&id).map(|k| k.marks.clone());
        let file = std::fs::metadata(folder.join(CONSOLE_FILE));
        match (live, file) {
            (Some(marks), _) if !marks.borrow().over => Some(ConsoleReader::new(&folder, marks)),
            (_, Ok(file)) => {
                let whole = Mark { bytes: file.len(), over: true };
                Some(ConsoleReader::new(&folder, watch::channel(whole).1))
            }
            (_, Err(_)) => None,
        }
    }

    /// Jobs and providers that fail by the infrastructure again and again.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.table().troubles.list()
    }
}

async fn told(news: &News, record: &Record) {
    let input = Input::Run { run: record.run, update: finished(record) };
    if news.send(input).await.is_err() {
        tracing::debug!(run = %record.run, "nobody hears the news of a run any more");
    }
}

struct Follower {
    desk: RunDesk,
    wanted: watch::Receiver<Arc<Wanted>>,
    news: News,
    ends: mpsc::Sender<Ended>,
    /// Runs that are to stop, of which it was said that nothing runs.
    answered: BTreeSet<RunId>,
}

impl Follower {
    async fn run(mut self, mut ended: mpsc::Receiver<Ended>) {
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.follow(&wanted).await;
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                Some(end) = ended.recv() => self.ended(end).await,
                () = self.desk.paused.notified() => {}
                _ = tidy.tick() => self.tidy().await,
            }
        }
    }

    async fn follow(&mut self, wanted: &Wanted) {
        let ids: BTreeSet<RunId> = wanted.runs.iter().map(|wish| wish.run).collect();
        for wish in &wanted.runs {
            let table = self.desk.table();
            let held = table.is_held(&wish.job.name.0);
            let begins = !held && !table.known.contains_key(&wish.run);
            drop(table);
            if begins {
                self.desk.begin(wish.clone(), self.news.clone(), self.ends.clone());
            }
        }
        self.cancel_all_but(&ids, wanted);
        self.answered.retain(|id| wanted.stopping.contains(id));
        for id in &wanted.stopping {
            let known = self.desk.table().known.get(id).map(|k| k.over);
            // One that is known and not over says itself when it is.
            if known != Some(false) && self.answered.insert(*id) {
                let update = RunUpdate::Finished {
                    at: now(),
                    result: RunResult::Canceled,
                    url: String::new(),
                    note: String::new(),
                };
                let _ = self.news.send(Input::Run { run: *id, update }).await;
            }
        }
    }

    fn cancel_all_but(&self, ids: &BTreeSet<RunId>, wanted: &Wanted) {
        let mut table = self.desk.table();
        table.known.retain(|id, known| {
            if ids.contains(id) {
                return true;
            }
            if known.over {
                return wanted.stopping.contains(id);
            }
            known.stop(Order::Cancel);
            true
        });
    }

    async fn ended(&self, end: Ended) {
        let record = match end {
            Ended::Forgotten(run) => {
                self.desk.table().known.remove(&run);
                self.desk.settled.notify_waiters();
                return;
            }
            Ended::Over(record) => record,
        };
        let (fresh, why) = self.count(&record);
        self.desk.settled.notify_waiters();
        for trouble in fresh {
            tracing::warn!(
                of = trouble.of,
                failures = trouble.failures,
                last = trouble.last,
                "the infrastructure fails again and again"
            );
            // Nobody may follow.
            let _ = self.desk.alerts.send(Alert::Trouble(trouble));
        }
        let Some(why) = why else { return };
        let job = record.job.to_string();
        if let Err(error) = self.desk.pause(&job, ITSELF, &why).await {
            tracing::error!(job, error = ?error, "a job that fails again and again could not be paused");
        }
    }

    /// A run is over: what has become a trouble with it, and why its job is to be paused, if it is.
    fn count(&self, record: &Record) -> (Vec<Trouble>, Option<String>) {
        let mut table = self.desk.table();
        let table = &mut *table;
        let known = table.known.get_mut(&record.run);
        let watched = known.and_then(|known| {
            known.over = true;
            known.watched.take()
        });
        let why = watched.and_then(|watched| table.streaks.count(record, &watched));
        (table.troubles.count(record, now()), why)
    }

    async fn tidy(&self) {
        if let Err(error) = self.desk.parts.store.prune_runs(HISTORY_MAX).await {
            tracing::warn!(%error, "old runs could not be forgotten");
        }
        let live: Vec<String> = self.desk.table().known.keys().map(ToString::to_string).collect();
        let config = self.desk.parts.config.clone();
        let work = move || recover::tidy(&config.folder, config.keep, &live);
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(%error, "old folders of runs could not be removed");
        }
    }
}
