//! The broker from within the process: a pseudo-connection that other parts of the server use from
//! tokio as worker and client, without a socket.
//!
//! ```no_run
//! # async fn example(broker: toci_server::broker::BrokerHandle) -> Result<(), Box<dyn std::error::Error>> {
//! let face = broker.face("lockenv").await?;
//! face.register(b"lockenv").await?;
//! loop {
//!     face.queued().await;                     // a job of ours may wait
//!     while let Some(job) = face.grab().await? {
//!         // ... wait for what it needs; it still counts as waiting, and can be cancelled
//!         face.begin(&job.handle).await?;
//!         // ... serve it; `job.abandoned().await` ends when nobody waits for it any more
//!         face.complete(&job.handle, b"").await?;
//!     }
//! }
//! # }
//! ```
//!
//! A face gets no job without [`Face::grab`], so whoever builds on it decides when to take one; the
//! broker wakes outside workers all the same. All its functions are for any number of tasks at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use toci_core::broker::{ConnId, Figures, FunctionView, Precedence, WorkKind};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Commands that may wait for the broker's thread.
pub const COMMANDS_MAX: usize = 1024;
/// Events of one submitted job that may wait for its [`FaceTask`]. Beyond that, data, warnings and
/// progress are dropped; the end of the job never is.
pub const TASK_EVENTS_MAX: usize = 64;

/// The broker has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Gearman broker has stopped")]
pub struct BrokerGone;

/// Why a job was not submitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The broker has stopped.
    #[error(transparent)]
    Gone(#[from] BrokerGone),
    /// It refused, e.g. with `QUEUE_FULL`.
    #[error("the Gearman broker refused the job: {code} {text}")]
    Refused {
        /// A word for programs.
        code: String,
        /// A sentence for people.
        text: String,
    },
}

/// A job to submit, in the foreground.
#[derive(Clone, Debug)]
pub struct FaceSubmit {
    /// Name of the function.
    pub function: Vec<u8>,
    /// Own id of the job; may be empty.
    pub unique: Vec<u8>,
    /// What the worker gets.
    pub payload: Vec<u8>,
    /// Which queue.
    pub precedence: Precedence,
}

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
}

impl TaskEvent {
    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match self {
            TaskEvent::Complete(_) | TaskEvent::Exception(_) | TaskEvent::Fail => true,
            TaskEvent::Data(_) | TaskEvent::Warning(_) | TaskEvent::Status(..) => false,
        }
    }
}

/// A job that this face submitted.
#[derive(Debug)]
pub struct FaceTask {
    /// Its handle.
    pub handle: Vec<u8>,
    events: mpsc::Receiver<TaskEvent>,
}

impl FaceTask {
    /// The next event; `None` after the end, and when the broker has stopped.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        self.events.recv().await
    }

    /// Wait for the end; `None` when the broker has stopped.
    pub async fn end(&mut self) -> Option<TaskEvent> {
        loop {
            let event = self.next().await?;
            if event.is_end() {
                return Some(event);
            }
        }
    }
}

/// A job that this face has taken. It must be ended with [`Face::complete`], [`Face::fail`] or
/// [`Face::exception`]; dropping the face ends it as the loss of a worker does.
#[derive(Debug)]
pub struct FaceJob {
    /// Its handle.
    pub handle: Vec<u8>,
    /// Name of the function.
    pub function: Vec<u8>,
    /// The client's id of the job.
    pub unique: Vec<u8>,
    /// What the client submitted.
    pub payload: Vec<u8>,
    pub(super) abandoned: watch::Receiver<bool>,
}

impl FaceJob {
    /// Waits until nobody waits for this job any more: all its clients' connections are lost, or it
    /// was cancelled or timed out. Never returns once the job has been ended.
    pub async fn abandoned(&self) {
        let mut abandoned = self.abandoned.clone();
        if abandoned.wait_for(|gone| *gone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether [`FaceJob::abandoned`] would return at once.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        *self.abandoned.borrow()
    }
}

pub(super) type Submitted = Result<(Vec<u8>, mpsc::Receiver<TaskEvent>), SubmitError>;

/// What a face or handle asks of the broker's thread.
pub(super) enum Command {
    Connect {
        name: String,
        queued: Arc<Notify>,
        dropped: Arc<AtomicBool>,
        reply: oneshot::Sender<ConnId>,
    },
    Register(ConnId, Vec<u8>),
    Unregister(ConnId, Vec<u8>),
    Grab(ConnId, oneshot::Sender<Option<FaceJob>>),
    Begin(ConnId, Vec<u8>),
    Submit(ConnId, FaceSubmit, oneshot::Sender<Submitted>),
    Status(ConnId, Vec<u8>, u64, u64),
    Work(ConnId, WorkKind, Vec<u8>, Vec<u8>),
    Function(Vec<u8>, oneshot::Sender<FunctionView>),
    Figures(oneshot::Sender<Figures>),
}

/// The way to the broker's thread.
#[derive(Clone)]
pub struct BrokerHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) waker: Arc<mio::Waker>,
    pub(super) stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for BrokerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BrokerHandle")
    }
}

impl BrokerHandle {
    async fn send(&self, command: Command) -> Result<(), BrokerGone> {
        self.commands.send(command).await.map_err(|_| BrokerGone)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // It fails only when the kernel is out of memory; the next command tries again.
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "waking the Gearman broker failed");
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, BrokerGone> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| BrokerGone)
    }

    /// A new face; `name` is for logs.
    pub async fn face(&self, name: &str) -> Result<Face, BrokerGone> {
        let queued = Arc::new(Notify::new());
        // Made first: should this future be dropped, the connection is dropped with it.
        let end = EndOfFace { broker: self.clone(), dropped: Arc::new(AtomicBool::new(false)) };
        let id = self
            .ask(|reply| Command::Connect {
                name: name.to_owned(),
                queued: Arc::clone(&queued),
                dropped: Arc::clone(&end.dropped),
                reply,
            })
            .await?;
        Ok(Face { id, broker: self.clone(), queued, _end: end })
    }

    /// How a function stands: queued and running jobs, workers outside and inside the process.
    pub async fn function(&self, name: &[u8]) -> Result<FunctionView, BrokerGone> {
        self.ask(|reply| Command::Function(name.to_owned(), reply)).await
    }

    /// How the whole broker stands.
    pub async fn figures(&self) -> Result<Figures, BrokerGone> {
        self.ask(Command::Figures).await
    }

    /// Ask the broker to end; its connections are closed. It does not wait for that.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }
}

/// A pseudo-connection: see the module's text. Dropping it is a lost connection.
#[derive(Debug)]
pub struct Face {
    id: ConnId,
    broker: BrokerHandle,
    queued: Arc<Notify>,
    _end: EndOfFace,
}

/// Tells the broker's thread that a face has gone.
#[derive(Debug)]
struct EndOfFace {
    broker: BrokerHandle,
    dropped: Arc<AtomicBool>,
}

impl Drop for EndOfFace {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Release);
        self.broker.wake();
    }
}

impl Face {
    /// Register a function; outside workers may register it too.
    pub async fn register(&self, function: &[u8]) -> Result<(), BrokerGone> {
        self.broker.send(Command::Register(self.id, function.to_owned())).await
    }

    /// Take the registration back; a job that has been taken goes on.
    pub async fn unregister(&self, function: &[u8]) -> Result<(), BrokerGone> {
        self.broker.send(Command::Unregister(self.id, function.to_owned())).await
    }

    /// Waits until a job has been queued for a registered function since the last call. It may be
    /// gone again: somebody else grabbed it, or its client left.
    pub async fn queued(&self) {
        self.queued.notified().await;
    }

    /// Take the next job of the registered functions: high before normal before low, then first
    /// come first served. To everybody outside it waits until [`Face::begin`]. Cancel-safe: a job that comes when nobody waits any more is kept for the
    /// next call.
    pub async fn grab(&self) -> Result<Option<FaceJob>, BrokerGone> {
        self.broker.ask(|reply| Command::Grab(self.id, reply)).await
    }

    /// Begin to work on a job that was taken: it no longer waits but runs.
    pub async fn begin(&self, handle: &[u8]) -> Result<(), BrokerGone> {
        self.broker.send(Command::Begin(self.id, handle.to_owned())).await
    }

    /// Submit a job and follow it.
    pub async fn submit(&self, submit: FaceSubmit) -> Result<FaceTask, SubmitError> {
        let (handle, events) =
            self.broker.ask(|reply| Command::Submit(self.id, submit, reply)).await??;
        Ok(FaceTask { handle, events })
    }

    async fn work(&self, kind: WorkKind, handle: &[u8], data: &[u8]) -> Result<(), BrokerGone> {
        self.broker.send(Command::Work(self.id, kind, handle.to_owned(), data.to_owned())).await
    }

    /// Tell the clients of a taken job how far it is.
    pub async fn status(
        &self,
        handle: &[u8],
        numerator: u64,
        denominator: u64,
    ) -> Result<(), BrokerGone> {
        let command = Command::Status(self.id, handle.to_owned(), numerator, denominator);
        self.broker.send(command).await
    }

    /// Send a part of the result.
    pub async fn data(&self, handle: &[u8], data: &[u8]) -> Result<(), BrokerGone> {
        self.work(WorkKind::Data, handle, data).await
    }

    /// Send a warning.
    pub async fn warning(&self, handle: &[u8], text: &[u8]) -> Result<(), BrokerGone> {
        self.work(WorkKind::Warning, handle, text).await
    }

    /// End a taken job with its result.
    pub async fn complete(&self, handle: &[u8], result: &[u8]) -> Result<(), BrokerGone> {
        self.work(WorkKind::Complete, handle, result).await
    }

    /// End a taken job with an exception.
    pub async fn exception(&self, handle: &[u8], text: &[u8]) -> Result<(), BrokerGone> {
        self.work(WorkKind::Exception, handle, text).await
    }

    /// End a taken job as failed.
    pub async fn fail(&self, handle: &[u8]) -> Result<(), BrokerGone> {
        self.work(WorkKind::Fail, handle, b"").await
    }
}
