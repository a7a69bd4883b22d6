//! Connections: what each has registered, submitted and taken.

use super::function::FunctionId;
use super::job::JobNo;
use super::vocabulary::{ConnId, GrabStyle, Peer};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Whether a worker listens for `NOOP`, or for a job.
///
/// ```text
/// Awake --PRE_SLEEP--> Asleep --NOOP--> Woken --grab--> Awake
///   ^                    |                |
///   +------- grab -------+   no grab in time, PRE_SLEEP --> Asleep
///
/// Awake --grab after a job's end--> Waiting --a job, NO_JOB--> Awake
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It works, or is no worker.
    Awake,
    /// It waits for a `NOOP`.
    Asleep,
    /// It asked for a job right after it had ended one, and is not answered yet.
    Waiting {
        /// How it asked.
        style: GrabStyle,
        /// Steady time at which it hears that there is none.
        until: Time,
    },
    /// It got a `NOOP` for this function and is expected to ask for a job until then.
    Woken {
        /// For which function.
        function: FunctionId,
        /// Steady time after which another worker is woken.
        until: Time,
    },
    /// It got a `NOOP`, but did not ask for a job in time: nobody counts on it.
    Overdue,
}

/// A function that a connection registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ability {
    /// Time limit of its jobs.
    pub(super) timeout: Option<Duration>,
    /// Order of registration.
    pub(super) registered: u64,
    /// Place in the function's list of sleepers, while asleep or waiting.
    pub(super) sleeper: u32,
}

/// A connection.
pub(super) struct Conn {
    pub(super) peer: Peer,
    pub(super) client_id: Option<Box<[u8]>>,
    pub(super) abilities: BTreeMap<FunctionId, Ability>,
    pub(super) rest: Rest,
    /// Jobs it waits for.
    pub(super) submitted: BTreeSet<JobNo>,
    /// Jobs it has as a worker.
    pub(super) assigned: BTreeSet<JobNo>,
    /// The job that it ended last with an exception: some workers send a `WORK_FAIL` after it.
    pub(super) excepted: Option<JobNo>,
    /// It asked for `WORK_EXCEPTION`.
    pub(super) wants_exceptions: bool,
    /// It has ended a job, and not asked for another one since.
    pub(super) has_ended: bool,
}

impl Conn {
    pub(super) fn subject(&self) -> Option<&str> {
        self.peer.subject.as_deref()
    }
}

struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// All connections.
#[derive(Default)]
pub(super) struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Conns {
    pub(super) fn add(&mut self, peer: Peer) -> ConnId {
        let conn = Some(Box::new(Conn {
            peer,
            client_id: None,
            abilities: BTreeMap::new(),
            rest: Rest::Awake,
            submitted: BTreeSet::new(),
            assigned: BTreeSet::new(),
            excepted: None,
            wants_exceptions: false,
            has_ended: false,
        }));
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.conn = conn;
            return ConnId { index, generation: slot.generation };
        }
        // The caller limits connections far below four milliards.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { generation: 0, conn });
        ConnId { index, generation: 0 }
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.slots
            .get(id.index as usize)
            .filter(|s| s.generation == id.generation)
            .and_then(|s| s.conn.as_deref())
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slots
            .get_mut(id.index as usize)
            .filter(|s| s.generation == id.generation)
            .and_then(|s| s.conn.as_deref_mut())
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Box<Conn>> {
        let slot =
            self.slots.get_mut(id.index as usize).filter(|s| s.generation == id.generation)?;
        let conn = slot.conn.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(conn)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let index = u32::try_from(index).ok()?;
            Some((ConnId { index, generation: slot.generation }, slot.conn.as_deref()?))
        })
    }
}
