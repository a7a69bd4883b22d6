//! Taking jobs from several brokers, one at a time.

use super::link::{Down, Link};
use super::options::LinkOptions;
use super::state::LinkState;
use super::task::NoStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use toci_core::broker::{GrabStyle, Request, WorkKind};
use tokio::sync::{Mutex, Notify, oneshot, watch};
use tokio::task::JoinHandle;

/// How long a broker may take to answer a grab before it is passed over for this round.
pub const GRAB_LIMIT: Duration = Duration::from_secs(5);
/// How often a sleeping worker looks for a job without being woken: should a broker ever lose a
/// wake-up, the job waits this long at most.
pub const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A job as it came from a broker.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) handle: Vec<u8>,
    pub(super) function: Vec<u8>,
    pub(super) unique: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) lost: watch::Receiver<bool>,
}

/// The broker that gave the job is no longer connected: its client has been told that the worker
/// is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the broker that gave the job is lost")]
pub struct JobLost;

/// A job to do. It must be ended with [`WorkerJob::complete`], [`WorkerJob::fail`] or
/// [`WorkerJob::exception`]; only the loss of the connection ends it otherwise.
#[derive(Debug)]
pub struct WorkerJob {
    assigned: Assigned,
    link: Arc<Link>,
}

impl WorkerJob {
    /// The handle that the broker gave.
    #[must_use]
    pub fn handle(&self) -> &[u8] {
        &self.assigned.handle
    }

    /// Name of the function.
    #[must_use]
    pub fn function(&self) -> &[u8] {
        &self.assigned.function
    }

    /// The client's id of the job.
    #[must_use]
    pub fn unique(&self) -> &[u8] {
        &self.assigned.unique
    }

    /// What the client submitted.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.assigned.payload
    }

    /// The broker that gave the job, as `HOST:PORT`.
    #[must_use]
    pub fn broker(&self) -> String {
        self.link.broker.to_string()
    }

    /// Waits until the connection to that broker is lost. Cancel-safe.
    pub async fn lost(&self) {
        let mut lost = self.assigned.lost.clone();
        // The sender goes only after it has said so, or when the job has been ended.
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn say(&self, request: Request<'_>) -> Result<(), JobLost> {
        if *self.assigned.lost.borrow() {
            return Err(JobLost);
        }
        self.link.say(&request, |_| {}).await.map_err(|Down| JobLost)
    }

    async fn work(&self, kind: WorkKind, data: &[u8]) -> Result<(), JobLost> {
        self.say(Request::Work { kind, handle: &self.assigned.handle, data }).await
    }

    /// Send a part of the result.
    pub async fn data(&self, data: &[u8]) -> Result<(), JobLost> {
        self.work(WorkKind::Data, data).await
    }

    /// Send a warning.
    pub async fn warning(&self, text: &[u8]) -> Result<(), JobLost> {
        self.work(WorkKind::Warning, text).await
    }

    /// Tell how far the job is.
    pub async fn status(&self, numerator: u64, denominator: u64) -> Result<(), JobLost> {
        let (numerator, denominator) = (numerator.to_string(), denominator.to_string());
        self.say(Request::WorkStatus {
            handle: &self.assigned.handle,
            numerator: numerator.as_bytes(),
            denominator: denominator.as_bytes(),
        })
        .await
    }

    /// Waits until the broker has read all that was said of the job.
    pub async fn heard(&self) -> Result<(), JobLost> {
        let answer = self.link.job_status(&self.assigned.handle).await;
        answer.map(drop).map_err(|NoStatus| JobLost)
    }

    async fn end(self, kind: WorkKind, data: &[u8]) -> Result<(), JobLost> {
        self.work(kind, data).await?;
        self.link.state().ended(&self.assigned.handle);
        Ok(())
    }

    /// End the job with its result.
    pub async fn complete(self, result: &[u8]) -> Result<(), JobLost> {
        self.end(WorkKind::Complete, result).await
    }

    /// End the job with an exception.
    pub async fn exception(self, text: &[u8]) -> Result<(), JobLost> {
        self.end(WorkKind::Exception, text).await
    }

    /// End the job as failed.
    pub async fn fail(self) -> Result<(), JobLost> {
        self.end(WorkKind::Fail, b"").await
    }
}

/// Connections to all brokers, kept up, and the functions registered with all of them. It asks for
/// a job only in [`Worker::next_job`]. Dropping it closes the connections; unfinished jobs fail.
#[derive(Debug)]
pub struct Worker {
    links: Vec<Arc<Link>>,
    keepers: Vec<JoinHandle<()>>,
    news: Arc<Notify>,
    /// The broker to ask first: the one after the one that gave the last job.
    turn: AtomicUsize,
    /// One round of grabbing at a time.
    grabbing: Mutex<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.keepers.iter().for_each(JoinHandle::abort);
    }
}

impl Worker {
    /// Start connecting to all brokers; must be called within tokio.
    #[must_use]
    pub fn new(options: &LinkOptions) -> Worker {
        let news = Arc::new(Notify::new());
        let start = |broker: &_| Link::start(Clone::clone(broker), options, Arc::clone(&news));
        let (links, keepers) = options.brokers.iter().map(start).unzip();
        let (turn, grabbing) = (AtomicUsize::new(0), Mutex::new(()));
        Worker { links, keepers, news, turn, grabbing }
    }

    /// Wait until at least one broker is connected. Cancel-safe.
    pub async fn connected(&self) {
        let waits: Vec<_> = self.links.iter().map(|l| Box::pin(l.wait_up())).collect();
        if !waits.is_empty() {
            futures_util::future::select_all(waits).await;
        }
    }

    /// Register a function with all brokers, now and whenever one is connected again. A `timeout`
    /// lets the broker fail a job that takes longer.
    pub async fn register(&self, function: &[u8], timeout: Option<Duration>) {
        let timeout_ms =
            timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1));
        for link in &self.links {
            let remember = |state: &mut LinkState| {
                state.functions.insert(function.to_vec(), timeout_ms);
            };
            link.announce(&Request::CanDo { function, timeout_ms }, remember).await;
        }
        self.news.notify_one();
    }

    /// Take a registration back. A job that runs goes on; one that is on its way still comes: see
    /// [`Worker::last_job`].
    pub async fn unregister(&self, function: &[u8]) {
        for link in &self.links {
            let forget = |state: &mut LinkState| {
                state.functions.remove(function);
            };
            link.announce(&Request::CantDo { function }, forget).await;
        }
    }

    /// Wait for a job of the registered functions, from any broker. Cancel-safe: a job that comes
    /// when nobody waits any more is kept for the next call.
    pub async fn next_job(&self) -> WorkerJob {
        let _one_at_a_time = self.grabbing.lock().await;
        loop {
            let first = self.turn.load(Ordering::Relaxed);
            let mut asked = Vec::new();
            for n in 0..self.links.len() {
                let index = (first + n) % self.links.len();
                let link = &self.links[index];
                if let Some(job) = take(link) {
                    return job;
                }
                if grab(link).await.is_ok() {
                    if let Some(job) = take(link) {
                        self.turn.store(index + 1, Ordering::Relaxed);
                        return job;
                    }
                    asked.push(link);
                }
            }
            for link in asked {
                // A broker that is lost now makes news when it is back.
                let _ = link.say(&Request::PreSleep, |_| {}).await;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, self.news.notified()).await;
        }
    }

    /// A job that was on its way when [`Worker::next_job`] was cancelled. Waits for the answer to
    /// an outstanding grab, [`GRAB_LIMIT`] at most; never asks for a new job.
    pub async fn last_job(&self) -> Option<WorkerJob> {
        let _one_at_a_time = self.grabbing.lock().await;
        for link in &self.links {
            let end = tokio::time::Instant::now() + GRAB_LIMIT;
            let outstanding = || link.state().grabbing.is_some();
            while outstanding() && tokio::time::Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if let Some(job) = take(link) {
                return Some(job);
            }
        }
        None
    }
}

fn take(link: &Arc<Link>) -> Option<WorkerJob> {
    let assigned = link.state().assigned.pop_front()?;
    Some(WorkerJob { assigned, link: Arc::clone(link) })
}

/// Ask for a job and wait for the answer, which is then in the link's state.
async fn grab(link: &Arc<Link>) -> Result<(), Down> {
    if !link.is_up() {
        return Err(Down);
    }
    let (reply, answer) = oneshot::channel();
    // The answer to an earlier grab, whose asker was cancelled, is as good as one to a new grab:
    // only one is asked for at a time.
    let reply = {
        let mut state = link.state();
        match &mut state.grabbing {
            Some(outstanding) => {
                *outstanding = reply;
                None
            }
            None => Some(reply),
        }
    };
    if let Some(reply) = reply {
        let request = Request::Grab(GrabStyle::Unique);
        link.say(&request, |state| state.grabbing = Some(reply)).await?;
    }
    match tokio::time::timeout(GRAB_LIMIT, answer).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Down),
    }
}
