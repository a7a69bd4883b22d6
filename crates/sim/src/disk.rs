//! What the server keeps over a crash: the real store on SQLite, or (for speed, in most seeds) a
//! value that takes the same batches.

use std::collections::BTreeMap;
use toci_core::id::{HostId, LeaseId, Project, TeId};
use toci_core::lease::{HoldBudget, Host, Lease, Rows, Te};
use toci_store::{Batch, ClockMark, Credential, Store};

/// Ended leases that are read at a start.
const ENDED: usize = 1_000;

pub(crate) enum Disk {
    Real { store: Store, runtime: tokio::runtime::Runtime },
    Value(Box<Kept>),
}

/// The tables as maps.
#[derive(Default)]
pub(crate) struct Kept {
    hosts: BTreeMap<HostId, Host>,
    tes: BTreeMap<TeId, Te>,
    leases: BTreeMap<LeaseId, Lease>,
    credentials: BTreeMap<(LeaseId, TeId), Credential>,
    budgets: BTreeMap<Project, HoldBudget>,
    mark: ClockMark,
}

impl Disk {
    pub(crate) fn new(real: bool) -> anyhow::Result<Disk> {
        if !real {
            return Ok(Disk::Value(Box::default()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(Store::open("sqlite::memory:"))?;
        Ok(Disk::Real { store, runtime })
    }

    pub(crate) fn commit(&mut self, batch: &Batch) -> anyhow::Result<()> {
        match self {
            Disk::Real { store, runtime } => runtime.block_on(store.commit(batch))?,
            Disk::Value(kept) => kept.commit(batch),
        }
        Ok(())
    }

    /// As a starting server does.
    pub(crate) fn claim(&mut self) -> anyhow::Result<(Rows, ClockMark)> {
        Ok(match self {
            Disk::Real { store, runtime } => runtime.block_on(store.claim_book(ENDED))?,
            Disk::Value(kept) => (kept.rows(), kept.mark.clone()),
        })
    }

    /// As a server whose commit failed does.
    pub(crate) fn read(&mut self) -> anyhow::Result<Rows> {
        Ok(match self {
            Disk::Real { store, runtime } => runtime.block_on(store.read_book(ENDED))?,
            Disk::Value(kept) => kept.rows(),
        })
    }

    pub(crate) fn credentials(&mut self, lease: LeaseId) -> anyhow::Result<Vec<Credential>> {
        Ok(match self {
            Disk::Real { store, runtime } => runtime.block_on(store.credentials(lease))?,
            Disk::Value(kept) => {
                let all = kept.credentials.iter();
                all.filter(|((l, _), _)| *l == lease).map(|(_, c)| c.clone()).collect()
            }
        })
    }

    pub(crate) fn lease(&mut self, id: LeaseId) -> anyhow::Result<Option<Lease>> {
        Ok(match self {
            Disk::Real { store, runtime } => runtime.block_on(store.lease(id))?,
            Disk::Value(kept) => kept.leases.get(&id).cloned(),
        })
    }
}

impl Kept {
    fn commit(&mut self, batch: &Batch) {
        for host in &batch.removed_hosts {
            self.hosts.remove(host);
            self.tes.retain(|_, te| te.host != *host);
        }
        self.hosts.extend(batch.hosts.iter().map(|h| (h.id.clone(), h.clone())));
        self.tes.extend(batch.tes.iter().map(|te| (te.id.clone(), te.clone())));
        self.leases.extend(batch.leases.iter().map(|l| (l.id, l.clone())));
        let credentials = batch.credentials.iter();
        self.credentials.extend(credentials.map(|c| ((c.lease, c.te.clone()), c.clone())));
        for lease in batch.leases.iter().filter(|l| l.state.is_over()) {
            self.credentials.retain(|(l, _), _| *l != lease.id);
        }
        self.budgets.extend(batch.budgets.iter().map(|b| (b.project.clone(), b.clone())));
        self.mark = batch.mark.clone();
    }

    fn rows(&self) -> Rows {
        Rows {
            hosts: self.hosts.values().cloned().collect(),
            tes: self.tes.values().cloned().collect(),
            leases: self.leases.values().cloned().collect(),
            confirmed: self.credentials.keys().cloned().collect(),
            budgets: self.budgets.values().cloned().collect(),
        }
    }
}
