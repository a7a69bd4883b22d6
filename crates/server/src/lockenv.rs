//! `lockenv`: the original protocol (origin.md 2.1 and 2.2) as a face of the leases.
//!
//! ```text
//! testenv-client ──lockenv {callback_name, timeout}──▶ broker ──▶ this task ──request──▶ lease book
//! testenv-client ◀──callback_<n> TE JSON──  broker ◀── when the lease is active ─────────┘
//!                ──COMPLETE─▶ release ──▶ WORK_COMPLETE "" on lockenv
//! ```
//!
//! The holder's sign of life is its connection to the broker: while it stands, this task sends the lease's
//! heartbeats; when it is lost, the lease is released at once. Jobs live in the broker's memory only, so leases of
//! an earlier run are released at the start.
//!
//! Workers outside (an original `testenv-worker`) may serve `lockenv` too. As long as there is one, a job is taken
//! only when a TE is free now; otherwise it stays in the broker's queue for whoever is first.

use crate::broker::{BrokerGone, BrokerHandle, Face, FaceJob, FaceSubmit, FaceTask, TaskEvent};
use crate::metrics::Metrics;
use crate::tasks::lease::{BookError, LeaseBook, LeaseFilter};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use toci_core::broker::Precedence;
use toci_core::id::LeaseId;
use toci_wire::api::{Connection, Lease, LeaseRequest, LeaseState, TeState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};

/// The function.
const FUNCTION: &[u8] = b"lockenv";
/// Project of these leases.
const PROJECT: &str = "lockenv";
/// What the owner of these leases begins with. No token's subject can contain a colon.
const OWNER_PREFIX: &str = "lockenv:";
/// Jobs taken at once, at most; more stay in the broker's queue.
pub const JOBS_MAX: usize = 10_000;
/// How often the queue is looked at without a signal.
const PERIOD: Duration = Duration::from_secs(1);
/// How long to wait before asking again when no TE exists for the moment or the queue is full.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Longest name of a callback, in bytes.
const CALLBACK_MAX_BYTES: usize = 200;

/// What may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockenvOptions {
    /// How long the callback may take before it is looked after (origin.md 2.1: 30 s).
    pub callback_wait: Duration,
    /// How long after that a callback that nobody has taken is waited for (origin.md 2.1: 10 s).
    pub callback_grace: Duration,
}

impl Default for LockenvOptions {
    fn default() -> Self {
        LockenvOptions {
            callback_wait: Duration::from_secs(30),
            callback_grace: Duration::from_secs(10),
        }
    }
}

/// What every job needs.
#[derive(Clone)]
pub(crate) struct Lockenv {
    pub(crate) book: LeaseBook,
    pub(crate) broker: BrokerHandle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) options: LockenvOptions,
    /// Longest lease that may be asked for.
    pub(crate) lease_max: Duration,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Why the task ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockenvError {
    #[error(transparent)]
    Broker(#[from] BrokerGone),
    #[error(transparent)]
    Book(#[from] BookError),
}

impl Lockenv {
    /// Serves until the server stops; then every lease of this task is released.
    pub(crate) async fn run(mut self) {
        let mut jobs = JoinSet::new();
        if let Err(error) = self.serve(&mut jobs).await {
            tracing::error!(%error, "lockenv is no longer served");
        }
        // The jobs see the stop themselves and release their leases.
        while jobs.join_next().await.is_some() {}
    }

    async fn serve(&mut self, jobs: &mut JoinSet<()>) -> Result<(), LockenvError> {
        self.release_leftovers().await?;
        let face = Arc::new(self.broker.face("lockenv").await?);
        face.register(FUNCTION).await?;
        let mut changes = self.book.subscribe();
        let mut stopping = self.stopping.clone();
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let some_left = self.take_jobs(&face, jobs).await?;
            tokio::select! {
                () = face.queued() => {}
                // What changed does not matter, nor how much was missed: everything is looked at anew.
                _ = changes.recv(), if some_left => {
                    changes = self.book.subscribe();
                }
                _ = period.tick() => {}
                Some(_) = jobs.join_next() => {}
                _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
            }
        }
    }

    /// The jobs of an earlier run are gone with its broker, so nobody uses their leases any more.
    async fn release_leftovers(&self) -> Result<(), BookError> {
        for lease in self.book.leases(LeaseFilter { limit: JOBS_MAX, ..Default::default() }).await?
        {
            if lease.owner.starts_with(OWNER_PREFIX)
                && let Ok(id) = lease.id.parse()
            {
                self.book.release(id, "the server was started anew".to_owned()).await?;
            }
        }
        Ok(())
    }

    /// Takes the jobs that may be taken, one after another, so that each sees what the one before left. Says
    /// whether some had to stay.
    async fn take_jobs(
        &self,
        face: &Arc<Face>,
        jobs: &mut JoinSet<()>,
    ) -> Result<bool, LockenvError> {
        while jobs.len() < JOBS_MAX {
            let view = self.broker.function(FUNCTION).await?;
            if view.queued == 0 {
                return Ok(false);
            }
            if !self.may_take(view.outside_workers > 0).await? {
                return Ok(true);
            }
            let Some(job) = face.grab().await? else { return Ok(false) };
            self.metrics.lockenv_total.add(1);
            let Some(wish) = Wish::of(&job) else {
                tracing::warn!(handle = %job.handle.escape_ascii(), "bad arguments of lockenv");
                let text =
                    b"lockenv takes JSON: {\"callback_name\": \"...\", \"timeout\": seconds}";
                face.warning(&job.handle, text).await?;
                face.fail(&job.handle).await?;
                continue;
            };
            // Asked for here, so that the next decision counts it.
            let asked = self.book.request(&wish.owner(), wish.request(self.lease_max)).await;
            let run = Run { lockenv: self.clone(), face: face.clone(), job, wish };
            jobs.spawn(run.serve_it(asked));
        }
        Ok(true)
    }

    /// Whether a job may be taken: a TE exists, and, when others could serve it, one is free for it now.
    async fn may_take(&self, others_serve: bool) -> Result<bool, BookError> {
        let tes = self.book.testenvs().await?;
        if !others_serve {
            return Ok(!tes.is_empty());
        }
        let draining: BTreeSet<String> =
            self.book.hosts().await?.into_iter().filter(|h| h.draining).map(|h| h.id).collect();
        let free = tes.iter().filter(|te| {
            te.state == TeState::Ready
                && !te.draining
                && te.host_connection == Connection::Connected
                && !draining.contains(&te.host)
        });
        let leases =
            self.book.leases(LeaseFilter { limit: JOBS_MAX, ..Default::default() }).await?;
        let waiting = leases.iter().filter(|l| l.state == LeaseState::Waiting);
        let asked_for: usize =
            waiting.map(|l| usize::try_from(l.count).unwrap_or(usize::MAX)).sum();
        Ok(free.count() > asked_for)
    }
}

/// Arguments of `lockenv`, as the original's clients write them.
#[derive(Debug, Deserialize)]
struct Arguments {
    callback_name: String,
    /// A number of seconds, or the same as text.
    timeout: Option<serde_json::Value>,
}

/// What a job asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    callback: String,
    timeout: Option<Duration>,
}

impl Wish {
    fn of(job: &FaceJob) -> Option<Wish> {
        Wish::parse(&job.payload)
    }

    fn parse(payload: &[u8]) -> Option<Wish> {
        let Arguments { callback_name, timeout } = serde_json::from_slice(payload).ok()?;
        if callback_name.is_empty() || callback_name.len() > CALLBACK_MAX_BYTES {
            return None;
        }
        let seconds = match timeout {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(text)) => Some(text.trim().parse().ok()?),
            Some(serde_json::Value::Number(number)) => Some(number.as_u64()?),
            Some(_) => return None,
        };
        let timeout = seconds.map(|s: u64| Duration::from_secs(s.max(1)));
        Some(Wish { callback: callback_name, timeout })
    }

    fn owner(&self) -> String {
        format!("{OWNER_PREFIX}{}", self.callback)
    }

    fn request(&self, lease_max: Duration) -> LeaseRequest {
        LeaseRequest {
            project: Some(PROJECT.to_owned()),
            timeout_s: self.timeout.map(|t| t.min(lease_max).as_secs()),
            purpose: Some(format!("testenv-client {}", self.callback)),
            ..LeaseRequest::default()
        }
    }
}

/// One job, from the request to the end.
struct Run {
    lockenv: Lockenv,
    face: Arc<Face>,
    job: FaceJob,
    wish: Wish,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The lease is over, for whatever reason; the client kills its command.
    Complete,
    /// It never got a TE.
    Fail,
    /// Nobody waits for it any more.
    Nobody,
}

impl Run {
    async fn serve_it(self, asked: Result<Lease, BookError>) {
        let waiting = Gauge::raise(&self.lockenv.metrics, |m| &m.lockenv_waiting);
        let lease = self.until_granted(asked).await;
        drop(waiting);
        let ending = match lease {
            Err(ending) => ending,
            Ok((id, watched)) => {
                let _running = Gauge::raise(&self.lockenv.metrics, |m| &m.lockenv_running);
                // It counted as a waiting job until now; a broker that is gone has no jobs to count.
                let _ = self.face.begin(&self.job.handle).await;
                let ending = self.with_lease(id, watched).await;
                self.release(id, "testenv-client is done").await;
                ending
            }
        };
        tracing::info!(callback = %self.wish.callback, ?ending, "lockenv ended");
        let handle = &self.job.handle;
        let said = match ending {
            Ending::Complete => self.face.complete(handle, b"").await,
            // The broker ends it with the face when nobody waits; saying so frees it at once.
            Ending::Fail | Ending::Nobody => self.face.fail(handle).await,
        };
        if let Err(error) = said {
            tracing::debug!(%error, "the end of a lockenv job could not be told");
        }
    }

    /// Waits for an active lease, asking again when there is none to be had for the moment.
    async fn until_granted(
        &self,
        mut asked: Result<Lease, BookError>,
    ) -> Result<(LeaseId, Watched), Ending> {
        loop {
            match asked {
                Ok(lease) => {
                    let id: LeaseId = lease.id.parse().map_err(|_| Ending::Fail)?;
                    match self.until_active(id).await {
                        Ok(watched) => return Ok((id, watched)),
                        Err(Some(ending)) => {
                            self.release(id, "testenv-client has left").await;
                            return Err(ending);
                        }
                        Err(None) => {}
                    }
                }
                Err(error) => {
                    tracing::info!(callback = %self.wish.callback, %error, "no lease for now");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_AGAIN) => {}
                () = self.abandoned() => return Err(Ending::Nobody),
            }
            let request = self.wish.request(self.lockenv.lease_max);
            asked = self.lockenv.book.request(&self.wish.owner(), request).await;
        }
    }

    /// `Err(None)`: refused for the moment, ask again.
    async fn until_active(&self, id: LeaseId) -> Result<Watched, Option<Ending>> {
        let mut watched =
            self.lockenv.book.watch_lease(id).await.map_err(|_| Some(Ending::Fail))?;
        loop {
            let state = watched.borrow_and_update().state;
            match state {
                LeaseState::Active | LeaseState::Held => return Ok(watched),
                LeaseState::Waiting | LeaseState::Granted => {}
                LeaseState::Refused => return Err(None),
                LeaseState::Revoked
                | LeaseState::Released
                | LeaseState::Expired
                | LeaseState::Lost => return Err(Some(Ending::Fail)),
            }
            tokio::select! {
                changed = watched.changed() => changed.map_err(|_| Some(Ending::Fail))?,
                () = self.abandoned() => return Err(Some(Ending::Nobody)),
            }
        }
    }

    /// Hands the TE over and stays until it comes back.
    async fn with_lease(&self, id: LeaseId, mut watched: Watched) -> Ending {
        let heartbeat_s = watched.borrow().heartbeat_s;
        tokio::select! {
            ending = self.callback(id) => ending,
            ending = self.keep_alive(id, heartbeat_s) => ending,
            // An error means that the book is gone, and with it the lease's future.
            _ = watched.wait_for(|lease| lease.state.is_over()) => Ending::Complete,
            () = self.abandoned() => Ending::Nobody,
        }
    }

    async fn callback(&self, id: LeaseId) -> Ending {
        let task = async {
            let tes = self.lockenv.book.lease_testenvs(id).await.ok()?;
            let payload = serde_json::to_vec(&tes.first()?.te_json).ok()?;
            // A pseudo-connection of its own: when it is dropped, a callback that nobody took is withdrawn.
            let face = self.lockenv.broker.face("lockenv callback").await.ok()?;
            let submit = FaceSubmit {
                function: self.wish.callback.clone().into_bytes(),
                unique: uuid::Uuid::new_v4().simple().to_string().into_bytes(),
                payload,
                precedence: Precedence::Normal,
            };
            let task = face.submit(submit).await;
            Some((task.ok()?, face))
        };
        let Some((mut task, _face)) = task.await else {
            tracing::warn!(callback = %self.wish.callback, "the callback could not be submitted");
            return Ending::Complete;
        };
        match self.callback_end(&mut task).await {
            Some(TaskEvent::Complete(_)) => {}
            Some(end) => {
                tracing::info!(callback = %self.wish.callback, failed = end.is_end(), "the callback failed")
            }
            None => tracing::info!(callback = %self.wish.callback, "nobody took the callback"),
        }
        Ending::Complete
    }

    /// The end of the callback; none when nobody took it in time (origin.md 2.1, steps 2 and 3).
    async fn callback_end(&self, task: &mut FaceTask) -> Option<TaskEvent> {
        let looked_after = Instant::now() + self.lockenv.options.callback_wait;
        for until in [looked_after, looked_after + self.lockenv.options.callback_grace] {
            if let Ok(end) = timeout_at(until, task.end()).await {
                return end;
            }
            let view = self.lockenv.broker.function(self.wish.callback.as_bytes()).await.ok()?;
            if view.running > 0 {
                return task.end().await;
            }
        }
        None
    }

    /// Sends the lease's heartbeats as long as its holder is connected.
    async fn keep_alive(&self, id: LeaseId, heartbeat_s: u64) -> Ending {
        let every = Duration::from_secs(heartbeat_s.max(1)).div_f64(2.0);
        let mut beats = tokio::time::interval(every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            match self.lockenv.book.heartbeat(id).await {
                // A store that fails for a moment is no reason to give up; the next beat may work.
                Ok(_) | Err(BookError::Failed(_)) => {}
                Err(BookError::Refused(_) | BookError::Stopped) => return Ending::Complete,
            }
        }
    }

    /// Returns when nobody waits for the job any more, or the server stops.
    async fn abandoned(&self) {
        let mut stopping = self.lockenv.stopping.clone();
        tokio::select! {
            () = self.job.abandoned() => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    async fn release(&self, id: LeaseId, reason: &str) {
        // A lease that cannot be released now ends by its missing heartbeats.
        let release = self.lockenv.book.release(id, reason.to_owned());
        match timeout(PERIOD * 5, release).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, lease = %id, "could not release"),
            Err(_) => tracing::warn!(lease = %id, "could not release in time"),
        }
    }
}

type Watched = watch::Receiver<Arc<Lease>>;

/// A figure that is one higher while this lives.
struct Gauge<'a> {
    metrics: &'a Metrics,
    which: fn(&Metrics) -> &crate::metrics::Count,
}

impl<'a> Gauge<'a> {
    fn raise(metrics: &'a Metrics, which: fn(&Metrics) -> &crate::metrics::Count) -> Gauge<'a> {
        which(metrics).add(1);
        Gauge { metrics, which }
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        (self.which)(self.metrics).sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_the_original_clients_write_them() {
        let wish = |timeout| Wish { callback: "callback_1".to_owned(), timeout };
        for (text, expected) in [
            (r#"{"callback_name": "callback_1"}"#, Some(wish(None))),
            (
                r#"{"callback_name": "callback_1", "timeout": "60"}"#,
                Some(wish(Some(Duration::from_secs(60)))),
            ),
            (
                r#"{"callback_name": "callback_1", "timeout": 60, "more": []}"#,
                Some(wish(Some(Duration::from_secs(60)))),
            ),
            (r#"{"callback_name": "callback_1", "timeout": null}"#, Some(wish(None))),
            (r#"{"callback_name": "callback_1", "timeout": "soon"}"#, None),
            (r#"{"callback_name": "callback_1", "timeout": -1}"#, None),
            (r#"{"callback_name": ""}"#, None),
            (r#"{"timeout": 5}"#, None),
            ("callback_1", None),
            ("", None),
        ] {
            assert_eq!(Wish::parse(text.as_bytes()), expected, "{text}");
        }
        let long = Wish { callback: "c".to_owned(), timeout: Some(Duration::MAX) };
        assert_eq!(long.request(Duration::from_secs(9)).timeout_s, Some(9));
        assert_eq!(wish(None).owner(), "lockenv:callback_1");
    }
}
