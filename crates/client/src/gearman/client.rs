//! Submitting jobs to one of several brokers.

use super::link::{Down, Link};
use super::options::LinkOptions;
use super::task::Task;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use toci_core::broker::{Precedence, Request, Submit, When};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// How long a broker may take to answer a submission before the next one is tried.
pub const SUBMIT_LIMIT: Duration = Duration::from_secs(30);

/// Why a job was not submitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// No broker is connected.
    #[error("no Gearman broker is connected (of {0})")]
    NotConnected(String),
    /// Every connected broker refused or did not answer; this is the last one's word.
    #[error("no connected Gearman broker took the job: {0}")]
    Refused(String),
}

/// A job to submit.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Name of the function.
    pub function: Vec<u8>,
    /// Own id of the job; may be empty.
    pub unique: Vec<u8>,
    /// What the worker gets.
    pub payload: Vec<u8>,
    /// Which queue.
    pub precedence: Precedence,
    /// Whether the job goes on without us. A background task has no events.
    pub background: bool,
}

impl Submission {
    /// In the foreground, at normal precedence.
    pub fn new(function: impl Into<Vec<u8>>, payload: impl Into<Vec<u8>>) -> Submission {
        Submission {
            function: function.into(),
            unique: Vec::new(),
            payload: payload.into(),
            precedence: Precedence::Normal,
            background: false,
        }
    }
}

/// Connections to all brokers, kept up. Dropping it closes them, which ends its foreground jobs.
#[derive(Debug)]
pub struct Client {
    links: Vec<Arc<Link>>,
    keepers: Vec<JoinHandle<()>>,
    turn: AtomicUsize,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.keepers.iter().for_each(JoinHandle::abort);
    }
}

impl Client {
    /// Start connecting to all brokers; must be called within tokio.
    #[must_use]
    pub fn new(options: &LinkOptions) -> Client {
        let news = Arc::new(Notify::new());
        let start = |broker: &_| Link::start(Clone::clone(broker), options, Arc::clone(&news));
        let (links, keepers) = options.brokers.iter().map(start).unzip();
        Client { links, keepers, turn: AtomicUsize::new(0) }
    }

    /// Wait until at least one broker is connected. Cancel-safe.
    pub async fn connected(&self) {
        let waits: Vec<_> = self.links.iter().map(|l| Box::pin(l.wait_up())).collect();
        if !waits.is_empty() {
            futures_util::future::select_all(waits).await;
        }
    }

    /// Submit to the next connected broker, or to the next one that takes it.
    pub async fn submit(&self, submission: &Submission) -> Result<Task, SubmitError> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = None;
        for n in 0..self.links.len() {
            let link = &self.links[(first + n) % self.links.len()];
            if link.is_up() {
                match submit_to(link, submission).await {
                    Ok(task) => return Ok(task),
                    Err(why) => last = Some(format!("{}: {why}", link.broker)),
                }
            }
        }
        Err(last.map_or_else(
            || {
                let all: Vec<_> = self.links.iter().map(|l| l.broker.to_string()).collect();
                SubmitError::NotConnected(all.join(", "))
            },
            SubmitError::Refused,
        ))
    }
}

async fn submit_to(link: &Arc<Link>, submission: &Submission) -> Result<Task, String> {
    let (reply, answer) = oneshot::channel();
    let request = Request::Submit(Submit {
        function: &submission.function,
        unique: &submission.unique,
        payload: &submission.payload,
        precedence: submission.precedence,
        background: submission.background,
        reducer: None,
        when: When::Now,
    });
    let said = link.say(&request, |state| state.creating.push_back(reply)).await;
    said.map_err(|Down| "connection lost".to_owned())?;
    match tokio::time::timeout(SUBMIT_LIMIT, answer).await {
        Err(_) => Err("no answer".to_owned()),
        Ok(Err(_)) => Err("connection lost".to_owned()),
        Ok(Ok(Err((code, text)))) => Err(format!("{code} {text}")),
        Ok(Ok(Ok((handle, events)))) => Ok(Task { handle, events, link: Arc::clone(link) }),
    }
}
