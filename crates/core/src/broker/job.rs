//! Jobs and the indexes by which they are found.

use super::function::FunctionId;
use super::settings::HANDLE_MAX_BYTES;
use super::vocabulary::{ConnId, Precedence};
use crate::time::Time;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Write;
use std::sync::Arc;

/// The number in a job's handle; never given twice by one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct JobNo(pub(super) u64);

/// Hashes a number to itself, spread: job numbers are ours, so nobody can choose colliding ones.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type ByNumber<V> = HashMap<JobNo, V, BuildHasherDefault<NumberHasher>>;

/// `H:<host>:<number>`, at most [`HANDLE_MAX_BYTES`], kept in place.
#[derive(Clone, Copy)]
pub(super) struct Handle {
    bytes: [u8; HANDLE_MAX_BYTES],
    len: u8,
}

impl Handle {
    /// The number takes at most 20 digits, so the host is cut to what is left.
    pub(super) fn new(host: &str, number: JobNo) -> Handle {
        const HOST_MAX_BYTES: usize = HANDLE_MAX_BYTES - 2 - 1 - 20;
        let mut end = host.len().min(HOST_MAX_BYTES);
        while !host.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; HANDLE_MAX_BYTES];
        let mut rest = &mut bytes[..];
        let written = write!(rest, "H:{}:{}", &host[..end], number.0);
        debug_assert!(written.is_ok(), "a handle fits by construction");
        let len = HANDLE_MAX_BYTES - rest.len();
        Handle { bytes, len: u8::try_from(len).unwrap_or(u8::MAX) }
    }

    /// The number in a handle as a peer sent it.
    pub(super) fn number(handle: &[u8]) -> Option<JobNo> {
        let colon = handle.iter().rposition(|b| *b == b':')?;
        std::str::from_utf8(&handle[colon + 1..]).ok()?.parse().ok().map(JobNo)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Where a job stands.
///
/// ```text
/// Scheduled --time comes--> Queued --grab------------------> Running --complete, fail, exception--> (gone)
///     |                     | ^  \                             ^  |
///     |                     | |   +--grab from within--> Taken +  |
///     |                     | +------- requeued ----------+-------+--- worker lost, expired, clients gone --> (gone)
///     +--- clients gone, ---+-----------------------------+
///          cancelled --> (gone)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobState {
    /// Waits for its calendar time.
    Scheduled {
        /// Calendar time.
        at: Time,
    },
    /// Waits for a worker, at this place in the order of arrival.
    Queued {
        /// Smaller is earlier.
        sequence: u64,
    },
    /// A worker within the process has it and has not begun, as it waits for what the job needs: still a waiting
    /// job to everybody outside, which can be cancelled.
    Taken {
        /// That worker.
        worker: ConnId,
        /// Its place when it was queued, should it be queued again.
        sequence: u64,
    },
    /// A worker works on it.
    Running {
        /// That worker.
        worker: ConnId,
        /// Its place when it was queued, should it be queued again.
        sequence: u64,
        /// Steady time at which it expires.
        expires: Option<Time>,
    },
}

/// What `WORK_STATUS` said last.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) numerator: Box<[u8]>,
    pub(super) denominator: Box<[u8]>,
}

/// A job.
pub(super) struct Job {
    pub(super) handle: Handle,
    pub(super) function: FunctionId,
    pub(super) unique: Arc<[u8]>,
    pub(super) payload: Arc<[u8]>,
    pub(super) reducer: Option<Box<[u8]>>,
    pub(super) precedence: Precedence,
    pub(super) state: JobState,
    /// Somebody submitted it in the background, so it lives without clients.
    pub(super) background: bool,
    /// Found by payload, as its unique id is `-` in the gearmand dialect.
    pub(super) by_payload: bool,
    /// Who waits for it; mostly one.
    pub(super) clients: Vec<ConnId>,
    pub(super) progress: Option<Progress>,
    /// How often its worker was lost.
    pub(super) losses: u32,
}

impl Job {
    pub(super) fn worker(&self) -> Option<ConnId> {
        match self.state {
            JobState::Running { worker, .. } | JobState::Taken { worker, .. } => Some(worker),
            JobState::Scheduled { .. } | JobState::Queued { .. } => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        match self.state {
            JobState::Running { .. } => true,
            JobState::Scheduled { .. } | JobState::Queued { .. } | JobState::Taken { .. } => false,
        }
    }
}

/// Jobs that share a key; mostly one.
enum Sharing {
    One(JobNo),
    Many(BTreeSet<JobNo>),
}

/// All jobs and their indexes. Every job is in `by_number`; those with a unique id also in
/// `by_unique`; those found by payload in `by_payload` instead.
#[derive(Default)]
pub(super) struct Jobs {
    by_number: ByNumber<Job>,
    by_unique: HashMap<Arc<[u8]>, Sharing>,
    by_payload: HashMap<(FunctionId, Arc<[u8]>), JobNo>,
    payload_bytes: usize,
}

impl Jobs {
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    pub(super) fn get(&self, number: JobNo) -> Option<&Job> {
        self.by_number.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: JobNo) -> Option<&mut Job> {
        self.by_number.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (JobNo, &Job)> {
        self.by_number.iter().map(|(n, j)| (*n, j))
    }

    /// The job of a handle: its number is looked up, then the whole handle compared.
    pub(super) fn find(&self, handle: &[u8]) -> Option<JobNo> {
        let number = Handle::number(handle)?;
        (self.get(number)?.handle.as_bytes() == handle).then_some(number)
    }

    pub(super) fn insert(&mut self, number: JobNo, job: Job) {
        self.payload_bytes += job.payload.len();
        if job.by_payload {
            self.by_payload.insert((job.function, Arc::clone(&job.payload)), number);
        } else if !job.unique.is_empty() {
            match self.by_unique.get_mut(&job.unique) {
                None => {
                    self.by_unique.insert(Arc::clone(&job.unique), Sharing::One(number));
                }
                Some(Sharing::Many(set)) => {
                    set.insert(number);
                }
                Some(sharing @ Sharing::One(_)) => {
                    if let Sharing::One(first) = *sharing {
                        *sharing = Sharing::Many(BTreeSet::from([first, number]));
                    }
                }
            }
        }
        let before = self.by_number.insert(number, job);
        debug_assert!(before.is_none(), "job numbers are never given twice");
    }

    pub(super) fn remove(&mut self, number: JobNo) -> Option<Job> {
        let job = self.by_number.remove(&number)?;
        self.payload_bytes -= job.payload.len();
        if job.by_payload {
            self.by_payload.remove(&(job.function, Arc::clone(&job.payload)));
        } else if !job.unique.is_empty() {
            let gone = match self.by_unique.get_mut(&job.unique) {
                None => false,
                Some(Sharing::One(_)) => true,
                Some(Sharing::Many(set)) => {
                    set.remove(&number);
                    set.is_empty()
                }
            };
            if gone {
                self.by_unique.remove(&job.unique);
            }
        }
        if self.by_number.is_empty() {
            self.shrink();
        }
        Some(job)
    }

    /// After a flood of jobs the tables are given back.
    fn shrink(&mut self) {
        const KEPT: usize = 4096;
        if self.by_number.capacity() > 2 * KEPT {
            self.by_number.shrink_to(KEPT);
            self.by_unique.shrink_to(KEPT);
            self.by_payload.shrink_to(KEPT);
        }
    }

    /// A job with this unique id: the oldest.
    pub(super) fn with_unique(&self, unique: &[u8]) -> Option<JobNo> {
        match self.by_unique.get(unique)? {
            Sharing::One(n) => Some(*n),
            Sharing::Many(set) => set.first().copied(),
        }
    }

    /// The job of this function with this unique id.
    pub(super) fn with_function_and_unique(&self, f: FunctionId, unique: &[u8]) -> Option<JobNo> {
        let of_f = |n: &&JobNo| self.get(**n).is_some_and(|j| j.function == f);
        match self.by_unique.get(unique)? {
            Sharing::One(n) => Some(n).filter(of_f).copied(),
            Sharing::Many(set) => set.iter().find(of_f).copied(),
        }
    }

    /// The job of this function that is found by this payload.
    pub(super) fn with_payload(&self, f: FunctionId, payload: &[u8]) -> Option<JobNo> {
        self.by_payload.get(&(f, Arc::from(payload))).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_fit_whatever_the_host() {
        assert_eq!(Handle::new("127.0.0.1", JobNo(7)).as_bytes(), b"H:127.0.0.1:7");
        let long = "ä".repeat(90);
        let handle = Handle::new(&long, JobNo(u64::MAX));
        assert!(handle.as_bytes().len() <= HANDLE_MAX_BYTES);
        assert!(handle.as_bytes().ends_with(b":18446744073709551615"));
    }
}
