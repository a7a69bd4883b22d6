//! The values that go into the broker and come out of it. `toci-wire` turns bytes into these and
//! back; nothing here knows about bytes on a socket.

use crate::time::Time;
use std::sync::Arc;

/// One connection of the broker. The generation makes an id of a connection that has gone
/// different from the id of the one that got its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ConnId {
    /// The place in a table of connections; places are reused, so compare whole ids.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// Two clocks at one moment: the one that never jumps (for time limits) and the calendar (for
/// jobs scheduled at an epoch time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Never goes backwards; its zero means nothing.
    pub steady: Time,
    /// Calendar time, which may jump.
    pub calendar: Time,
}

/// How a connection reaches the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Through a socket, from this machine (loopback or unix socket).
    Local,
    /// Through a socket, from another machine.
    Remote,
    /// From within this process. It is told of queued jobs but never counts as a sleeping
    /// worker, and it hears when nobody waits any more for a job that it runs.
    InProcess,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address as text, e.g. `127.0.0.1`; part of job handles.
    pub address: Arc<str>,
    /// What `workers` shows in its first column: the file descriptor.
    pub descriptor: i32,
    /// Common name of the client certificate, when TLS with client certificates is on.
    pub subject: Option<Arc<str>>,
    /// How it reaches the broker.
    pub kind: PeerKind,
}

/// The three queues of every function, strictly first in, first out in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precedence {
    /// Taken first.
    High,
    /// Taken when there is no high job.
    Normal,
    /// Taken when there is no other job.
    Low,
}

impl Precedence {
    /// In the order in which queues are looked at.
    pub const ORDER: [Precedence; 3] = [Precedence::High, Precedence::Normal, Precedence::Low];

    pub(super) fn index(self) -> usize {
        match self {
            Precedence::High => 0,
            Precedence::Normal => 1,
            Precedence::Low => 2,
        }
    }
}

/// When a submitted job may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When<'a> {
    /// At once.
    Now,
    /// At an epoch time in seconds (`SUBMIT_JOB_EPOCH`), as text.
    Epoch(&'a [u8]),
    /// At the next minute that fits minute, hour, day of month, month and day of week
    /// (0 = Monday), all UTC; an empty field fits always (`SUBMIT_JOB_SCHED`).
    Calendar([&'a [u8]; 5]),
}

/// A job as a client submits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submit<'a> {
    /// Name of the function.
    pub function: &'a [u8],
    /// The client's own id of the job; may be empty.
    pub unique: &'a [u8],
    /// What the worker gets.
    pub payload: &'a [u8],
    /// Which queue.
    pub precedence: Precedence,
    /// Whether the client wants to hear of the job after `JOB_CREATED`.
    pub background: bool,
    /// Name of the reducer (`SUBMIT_REDUCE_JOB`).
    pub reducer: Option<&'a [u8]>,
    /// When it may start.
    pub when: When<'a>,
}

/// Which answer a worker wants when it asks for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrabStyle {
    /// `GRAB_JOB`: handle, function, payload.
    Plain,
    /// `GRAB_JOB_UNIQ`: also the unique id.
    Unique,
    /// `GRAB_JOB_ALL`: also the reducer, when the job has one.
    All,
}

/// What a worker says of a job, apart from its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// Partial result.
    Data,
    /// A warning.
    Warning,
    /// The end, with the result.
    Complete,
    /// The end, with an exception.
    Exception,
    /// The end, without a result.
    Fail,
}

/// What a client or worker asks of the broker: every packet with `REQ` magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The worker can do this function; `timeout_ms` > 0 limits how long a job of it may run.
    CanDo {
        /// Name of the function.
        function: &'a [u8],
        /// Milliseconds; 0 is no limit, and less than a second is a second.
        timeout_ms: u64,
    },
    /// The worker no longer does this function.
    CantDo {
        /// Name of the function.
        function: &'a [u8],
    },
    /// The worker does no function any more.
    ResetAbilities,
    /// The worker sleeps until it gets a `NOOP`.
    PreSleep,
    /// The worker wants a job.
    Grab(GrabStyle),
    /// The worker is connected to no other broker.
    AllYours,
    /// A new job.
    Submit(Submit<'a>),
    /// Progress of a job.
    WorkStatus {
        /// The job.
        handle: &'a [u8],
        /// Progress, as text.
        numerator: &'a [u8],
        /// Of how much, as text.
        denominator: &'a [u8],
    },
    /// Anything else about a job.
    Work {
        /// What is said.
        kind: WorkKind,
        /// The job.
        handle: &'a [u8],
        /// Result, data, warning or exception.
        data: &'a [u8],
    },
    /// How does this job stand?
    GetStatus {
        /// The job.
        handle: &'a [u8],
    },
    /// How does the job with this unique id stand?
    GetStatusUnique {
        /// Its unique id.
        unique: &'a [u8],
    },
    /// Say it back.
    Echo {
        /// What to say.
        data: &'a [u8],
    },
    /// Switch an option of the connection on.
    Option {
        /// Its name; `exceptions` is the only one.
        name: &'a [u8],
    },
    /// The name that `workers` shows.
    SetClientId {
        /// The name.
        id: &'a [u8],
    },
}

/// What the broker says to a connection: every packet with `RES` magic, and admin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Wake up: there is a job.
    Noop,
    /// There is no job.
    NoJob,
    /// The job exists now.
    JobCreated {
        /// Its handle.
        handle: &'a [u8],
    },
    /// Here is a job.
    JobAssign(Assignment<'a>),
    /// Progress of a job.
    WorkStatus {
        /// The job.
        handle: &'a [u8],
        /// Progress, as text.
        numerator: &'a [u8],
        /// Of how much, as text.
        denominator: &'a [u8],
    },
    /// Anything else about a job.
    Work {
        /// What is said.
        kind: WorkKind,
        /// The job.
        handle: &'a [u8],
        /// Result, data, warning or exception; empty for a failure.
        data: &'a [u8],
    },
    /// How a job stands.
    Status(StatusAnswer<'a>),
    /// An echo.
    Echo {
        /// What was said.
        data: &'a [u8],
    },
    /// The option is on.
    Option {
        /// Its name.
        name: &'a [u8],
    },
    /// Something was wrong with the last request.
    Error {
        /// A word for programs.
        code: &'a str,
        /// A sentence for people.
        text: &'a str,
    },
    /// The answer to an admin command, with its line ends.
    Text(&'a [u8]),
    /// Only to connections of [`PeerKind::InProcess`]: nobody waits any more for this job.
    JobAbandoned {
        /// The job.
        handle: &'a [u8],
    },
}

/// A job on its way to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// Which answer the worker asked for.
    pub style: GrabStyle,
    /// The job.
    pub handle: &'a [u8],
    /// Name of the function.
    pub function: &'a [u8],
    /// The client's id of the job.
    pub unique: &'a [u8],
    /// Name of the reducer, for [`GrabStyle::All`].
    pub reducer: Option<&'a [u8]>,
    /// What the client submitted.
    pub payload: &'a [u8],
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusAnswer<'a> {
    /// What was asked for: a handle or a unique id.
    pub name: &'a [u8],
    /// Whether the broker knows the job.
    pub known: bool,
    /// Whether a worker has it.
    pub running: bool,
    /// Progress as text; "0" when the worker has said nothing.
    pub numerator: &'a [u8],
    /// Of how much, as text; "0" when the worker has said nothing.
    pub denominator: &'a [u8],
    /// How many clients wait for it: only in the answer to `GET_STATUS_UNIQUE`.
    pub clients: Option<usize>,
}

/// Which rights an `acl` command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclVerb {
    /// Register functions.
    Register,
    /// Submit jobs.
    Invoke,
    /// Change rights.
    Grant,
    /// All of them.
    All,
}

/// A line of the admin protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCommand<'a> {
    /// `status`
    Status,
    /// `prioritystatus`
    PriorityStatus,
    /// `workers`
    Workers,
    /// `cancel job HANDLE`
    CancelJob(&'a [u8]),
    /// `show jobs`
    ShowJobs,
    /// `show unique jobs`
    ShowUniqueJobs,
    /// `create function NAME`
    CreateFunction(&'a [u8]),
    /// `drop function NAME`
    DropFunction(&'a [u8]),
    /// `maxqueue NAME [N | HIGH NORMAL LOW]`: how many jobs of any kind the function may have when
    /// one of that precedence is submitted; `None` is no limit.
    MaxQueue {
        /// Name of the function.
        function: &'a [u8],
        /// For high, normal and low.
        limits: [Option<u32>; 3],
    },
    /// `getpid`
    GetPid,
    /// `verbose`
    Verbose,
    /// `version`
    Version,
    /// `shutdown` or `shutdown graceful`
    Shutdown {
        /// Whether jobs may end first.
        graceful: bool,
    },
    /// `acl list`
    AclList,
    /// `acl grant VERB SUBJECT [PATTERN]`; not [`AclVerb::All`].
    AclGrant {
        /// What is granted.
        verb: AclVerb,
        /// To whom.
        subject: &'a str,
        /// For which functions; empty for [`AclVerb::Grant`].
        pattern: &'a str,
    },
    /// `acl revoke VERB SUBJECT`
    AclRevoke {
        /// What is taken away.
        verb: AclVerb,
        /// From whom.
        subject: &'a str,
    },
    /// `acl self-revoke VERB`
    AclSelfRevoke {
        /// What is given up.
        verb: AclVerb,
    },
    /// A command whose words are not understood; the answer is this line without its end.
    Wrong(String),
}

/// What [`super::Broker::admin`] asks of its owner besides the text it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminEffect {
    /// Nothing more.
    None,
    /// End the process; `graceful` lets running jobs end first.
    Shutdown {
        /// Whether running jobs may end first.
        graceful: bool,
    },
}

/// Where the broker's answers go. The implementation must not call back into the broker.
pub trait Outbox {
    /// Say `message` to `to`; messages to one connection keep their order.
    fn send(&mut self, to: ConnId, message: Message<'_>);
}
