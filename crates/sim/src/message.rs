//! What is said between the simulated parts, and what can happen.

use toci_core::id::{Generation, LeaseId, TeId};
use toci_core::lease::{DesiredTe, ReportedTe};

/// A key for one grant of one TE; `nonce` stands for the secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) te: TeId,
    pub(crate) generation: Generation,
    pub(crate) nonce: u64,
}

/// How a lease stands, as a client hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    Waiting,
    Granted,
    Active(Vec<Key>),
    Over,
    /// The server knows no such lease.
    Unknown,
}

/// What a client says.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Request { key: String, count: u32, timeout_s: u64, wait_s: Option<u64>, priority: u8 },
    Heartbeat(LeaseId),
    Extend(LeaseId, u64),
    Hold(LeaseId, u64),
    Release(LeaseId),
}

/// Everything that can happen at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A client's message reaches the server.
    ToServer {
        client: usize,
        ask: Ask,
    },
    /// The server's word on a lease reaches its client.
    ToClient {
        client: usize,
        lease: LeaseId,
        key: Option<String>,
        stands: Stands,
    },
    /// A request was refused.
    Refused {
        client: usize,
        key: String,
    },
    /// A wish reaches a host.
    Wish {
        host: usize,
        wish: Vec<DesiredTe>,
    },
    /// A host opened its stream again.
    Hello {
        host: usize,
    },
    /// A report reaches the server.
    Report {
        host: usize,
        boot: u64,
        sequence: u64,
        tes: Vec<ReportedTe>,
    },
    /// A confirmation reaches the server.
    Serving {
        host: usize,
        key: Key,
    },
    /// The server has it on disk.
    ServingNoted {
        host: usize,
        te: TeId,
        generation: Generation,
    },
    /// A client uses a key on a host's gateway.
    Command {
        client: usize,
        host: usize,
        key: Key,
    },
    /// A reset ends, if the agent that began it still runs.
    ResetEnds {
        host: usize,
        life: u64,
        te: TeId,
        generation: Generation,
        good: bool,
    },
    /// A part's own timer.
    HostTimer {
        host: usize,
        life: u64,
    },
    ClientTimer {
        client: usize,
    },
    ServerTimer {
        life: u64,
    },
    /// Something breaks.
    Fault,
    ServerStarts {
        reboot: bool,
    },
    HostStarts {
        host: usize,
        same_boot: bool,
    },
    HostLinkHeals {
        host: usize,
    },
    ClientLinkHeals {
        client: usize,
    },
}
