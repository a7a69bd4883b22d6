//! A submitted job as its submitter sees it.

use super::link::Link;
use super::state::JobStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events of one job that may wait to be read. Beyond that, data, warnings and progress are
/// dropped; the end of the job never is.
pub const TASK_EVENTS_MAX: usize = 256;
/// How long a broker may take to answer a status request.
pub const STATUS_LIMIT: Duration = Duration::from_secs(30);

/// What is heard of a submitted job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// Partial result.
    Data(Vec<u8>),
    /// A warning.
    Warning(Vec<u8>),
    /// Progress: numerator and denominator as the worker wrote them.
    Status(Vec<u8>, Vec<u8>),
    /// The end, with the result.
    Complete(Vec<u8>),
    /// The end, with an exception.
    Exception(Vec<u8>),
    /// The end: the worker failed or was lost.
    Fail,
    /// The connection to the broker is lost: nothing more will be heard of the job.
    Lost,
}

impl TaskEvent {
    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match self {
            TaskEvent::Complete(_)
            | TaskEvent::Exception(_)
            | TaskEvent::Fail
            | TaskEvent::Lost => true,
            TaskEvent::Data(_) | TaskEvent::Warning(_) | TaskEvent::Status(..) => false,
        }
    }
}

/// Why a job's status is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker that has the job did not answer")]
pub struct NoStatus;

/// A submitted job. Dropping it stops listening; the job itself lives as long as the client's
/// connection.
#[derive(Debug)]
pub struct Task {
    pub(super) handle: Vec<u8>,
    pub(super) events: mpsc::Receiver<TaskEvent>,
    pub(super) link: Arc<Link>,
}

impl Task {
    /// The handle that the broker gave.
    #[must_use]
    pub fn handle(&self) -> &[u8] {
        &self.handle
    }

    /// The broker that has the job, as `HOST:PORT`.
    #[must_use]
    pub fn broker(&self) -> String {
        self.link.broker.to_string()
    }

    /// The next event; `None` after the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        self.events.recv().await
    }

    /// Wait for the end. Cancel-safe: what came before the end is thrown away.
    pub async fn end(&mut self) -> TaskEvent {
        while let Some(event) = self.next().await {
            if event.is_end() {
                return event;
            }
        }
        TaskEvent::Lost
    }

    /// Ask the broker how the job stands.
    pub async fn status(&self) -> Result<JobStatus, NoStatus> {
        self.link.job_status(&self.handle).await
    }
}
