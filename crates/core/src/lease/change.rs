//! What a batch of events changed: the effects, as a value.

use crate::id::{HostId, LeaseId, Project, TeId};
use std::collections::BTreeSet;

/// What changed since the last [`super::Book::take_changes`]. Rows are written first, in one
/// transaction; then the news is let out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Leases to write and to tell about.
    pub leases: BTreeSet<LeaseId>,
    /// TEs to tell about.
    pub tes: BTreeSet<TeId>,
    /// TEs whose row must be written.
    pub te_rows: BTreeSet<TeId>,
    /// Hosts to tell about.
    pub hosts: BTreeSet<HostId>,
    /// Hosts whose row must be written.
    pub host_rows: BTreeSet<HostId>,
    /// Hosts to forget, with all their TEs.
    pub removed_hosts: BTreeSet<HostId>,
    /// Hosts that must be told a new wish.
    pub wishes: BTreeSet<HostId>,
    /// Projects whose hold budget must be written.
    pub budgets: BTreeSet<Project>,
    /// Something must be on disk before anything is told. When false, the rows (a TE that became
    /// ready: its host would say so again) may wait for the next transaction.
    pub durable: bool,
}

impl Changes {
    /// Nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}
