//! What an operator may choose: limits, and each behaviour in which geard and gearmand contradict
//! each other (reference/gearman.md, section 3). [`Settings::geard`] is the default: geard without
//! its defects.

/// Longest function name, in bytes.
pub const FUNCTION_NAME_MAX_BYTES: usize = 1024;
/// Longest client id, in bytes.
pub const CLIENT_ID_MAX_BYTES: usize = 1024;
/// Longest unique id in the geard dialect, in bytes.
pub const UNIQUE_MAX_BYTES: usize = 4096;
/// Longest unique id in the gearmand dialect, in bytes.
pub const GEARMAND_UNIQUE_MAX_BYTES: usize = 64;
/// Longest job handle, in bytes, as the protocol demands.
pub const HANDLE_MAX_BYTES: usize = 64;
/// Longest numerator or denominator of a `WORK_STATUS`, in bytes.
pub const PROGRESS_MAX_BYTES: usize = 32;
/// Shortest `CAN_DO_TIMEOUT`, in milliseconds, as in gearmand: some workers give seconds instead.
pub const JOB_TIMEOUT_MIN_MS: u64 = 1000;
/// How long a woken worker may take to ask for a job before another one is woken, in microseconds.
pub const WAKE_PATIENCE_US: i64 = 500_000;
/// How long the next job of a worker that has just ended one may take to come before the worker hears that there is none, in
/// microseconds. Its client, or another, often has that job ready: then neither sleep nor wake-up is needed in between.
/// Short beside the work that workers of several servers might do meanwhile.
pub const GRAB_PATIENCE_US: i64 = 10_000;

/// How much the broker holds at most. Reaching a limit refuses the request with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs queued, scheduled and running.
    pub jobs: usize,
    /// Bytes of payload in all jobs.
    pub payload_bytes: usize,
    /// Names of functions; names that nobody uses are forgotten first.
    pub functions: usize,
    /// Functions of one connection.
    pub functions_per_connection: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            jobs: 1_000_000,
            payload_bytes: 2 << 30,
            functions: 200_000,
            functions_per_connection: 20_000,
        }
    }
}

/// Whether jobs with the same function and unique id are one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalescing {
    /// Every submission is a job (geard).
    Never,
    /// One job, and all its clients hear of it; unique id `-` means the payload (gearmand).
    ByUnique,
}

/// What happens to a job whose worker's connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerLoss {
    /// Its clients get `WORK_FAIL` (geard).
    Fail,
    /// It goes back to the head of its queue (gearmand), until it has been lost `attempts` times.
    Requeue {
        /// After so many losses the job fails.
        attempts: u32,
    },
}

/// What happens to a running job when the last client that waits for it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLoss {
    /// It is forgotten; what its worker says later is ignored (geard).
    Forget,
    /// It stays known until its worker ends it (gearmand).
    RunOn,
}

/// Which clients get `WORK_EXCEPTION`. It ends the job in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceptions {
    /// All (geard).
    Always,
    /// Those which set the option; others get `WORK_FAIL` (gearmand).
    WhenAsked,
}

/// What a connection hears when it speaks of a job that it does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignWork {
    /// Nothing; python's gear breaks on an error here (geard).
    Ignore,
    /// `ERROR JOB_NOT_FOUND` (gearmand).
    Error,
}

/// What happens when a job outlives its worker's `CAN_DO_TIMEOUT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Its clients get `WORK_FAIL`, as the protocol says.
    Fail,
    /// It goes back to the head of its queue (gearmand).
    Requeue,
}

/// What `cancel job` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// Only queued jobs, and their clients hear nothing (geard).
    QueuedSilently,
    /// Running ones too, and the clients get `WORK_FAIL` (gearmand).
    AnyWithFail,
}

/// The middle part of a job handle `H:<host>:<number>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandleHost {
    /// The client's address (geard).
    ClientAddress,
    /// This name (gearmand: the server's host name).
    Fixed(String),
}

/// Which function goes first when a worker could do several of the same precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrabOrder {
    /// The job that came first (geard).
    Arrival,
    /// The function registered last (gearmand).
    LastRegistered,
}

/// How lines of `OK` and `ERR` end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// `\n`: suits every client.
    Lf,
    /// `\r\n` (gearmand).
    CrLf,
}

/// Who may end the server with `shutdown`, when there is no ACL. With one, the right `grant` decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownBy {
    /// Nobody.
    Nobody,
    /// Peers on this machine.
    Local,
    /// Everybody (gearmand).
    Anyone,
}

/// Everything an operator may choose about the broker's behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much it holds.
    pub limits: Limits,
    /// Same unique id, same job?
    pub coalescing: Coalescing,
    /// A worker is lost.
    pub worker_loss: WorkerLoss,
    /// The last client is lost.
    pub client_loss: ClientLoss,
    /// Who hears exceptions.
    pub exceptions: Exceptions,
    /// Somebody speaks of another's job.
    pub foreign_work: ForeignWork,
    /// A job outlives its time limit.
    pub expiry: Expiry,
    /// `cancel job`.
    pub cancel: Cancel,
    /// Form of handles.
    pub handle_host: HandleHost,
    /// Several functions on one worker.
    pub grab_order: GrabOrder,
    /// Form of admin answers.
    pub line_end: LineEnd,
    /// Longest unique id, in bytes.
    pub unique_max_bytes: usize,
    /// Who may say `shutdown`.
    pub shutdown_by: ShutdownBy,
    /// Number of the first job. Take one that no earlier run of the server has reached, or a
    /// worker that outlived a restart may mean another job by the same handle.
    pub first_job: u64,
    /// What `version` answers.
    pub version: String,
    /// What `getpid` answers.
    pub pid: u32,
    /// What `verbose` answers, e.g. `NOTICE`.
    pub verbosity: &'static str,
}

impl Settings {
    /// As geard, without its defects.
    #[must_use]
    pub fn geard() -> Self {
        Settings {
            limits: Limits::default(),
            coalescing: Coalescing::Never,
            worker_loss: WorkerLoss::Fail,
            client_loss: ClientLoss::Forget,
            exceptions: Exceptions::Always,
            foreign_work: ForeignWork::Ignore,
            expiry: Expiry::Fail,
            cancel: Cancel::QueuedSilently,
            handle_host: HandleHost::ClientAddress,
            grab_order: GrabOrder::Arrival,
            line_end: LineEnd::Lf,
            unique_max_bytes: UNIQUE_MAX_BYTES,
            shutdown_by: ShutdownBy::Local,
            first_job: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: 0,
            verbosity: "NOTICE",
        }
    }

    /// As gearmand 1.1.20, without its defects; `host` goes into job handles.
    #[must_use]
    pub fn gearmand(host: &str) -> Self {
        Settings {
            coalescing: Coalescing::ByUnique,
            worker_loss: WorkerLoss::Requeue { attempts: u32::MAX },
            client_loss: ClientLoss::RunOn,
            exceptions: Exceptions::WhenAsked,
            foreign_work: ForeignWork::Error,
            expiry: Expiry::Requeue,
            cancel: Cancel::AnyWithFail,
            handle_host: HandleHost::Fixed(host.to_owned()),
            grab_order: GrabOrder::LastRegistered,
            line_end: LineEnd::CrLf,
            unique_max_bytes: GEARMAND_UNIQUE_MAX_BYTES,
            shutdown_by: ShutdownBy::Anyone,
            ..Settings::geard()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::geard()
    }
}
