//! Tells the server all that is: whenever any of it changes, and every so often.

use super::well::Well;
use crate::facts;
use crate::host::Host;
use crate::te::TeTaskHandle;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use toci_client::api::{ApiClient, Backoff, ClientError};
use toci_core::chain::Chain;
use toci_core::lease::fence::Standing;
use toci_wire::api::{
    ErrorKind, HostReport, HostStatus, MachineState, NetworkLeg, TeReport, TeReportState,
};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// Pause after a report, so that a burst of changes becomes one.
const GATHER: Duration = Duration::from_millis(20);
/// Until the server says how often it wants to be told.
const EVERY_AT_FIRST: Duration = Duration::from_secs(5);

/// What the reporter needs to know.
#[derive(Debug)]
pub(super) struct Reporter {
    pub(super) host: Arc<Host>,
    pub(super) tes: Vec<TeTaskHandle>,
    pub(super) client: ApiClient,
    pub(super) problems: watch::Receiver<Vec<String>>,
    /// New for every start of the agent.
    pub(super) boot_id: String,
    /// Of the reports.
    pub(super) sequence: AtomicU64,
    /// How often, in seconds; the server says.
    pub(super) every_s: AtomicU64,
    /// Something has changed, or the server may have forgotten.
    pub(super) news: Notify,
}

impl Reporter {
    /// Rings at every change of a TE or of the problems.
    pub(super) fn watch(self: &Arc<Self>) {
        for te in &self.tes {
            let (mut status, reporter) = (te.status.clone(), Arc::clone(self));
            tokio::spawn(async move {
                while status.changed().await.is_ok() {
                    reporter.news.notify_one();
                }
            });
        }
        let (mut problems, reporter) = (self.problems.clone(), Arc::clone(self));
        tokio::spawn(async move {
            while problems.changed().await.is_ok() {
                reporter.news.notify_one();
            }
        });
    }

    /// Reports for ever. All is well when the server has taken the first report.
    pub(super) async fn run(self: Arc<Self>, well: Arc<Well>) {
        let mut confirmed = BTreeMap::new();
        let mut backoff = Backoff::new();
        loop {
            let told = match self.confirm(&mut confirmed).await {
                Ok(()) => self.client.report(self.name(), &self.report().await).await,
                Err(e) => Err(e),
            };
            match told {
                Ok(()) => {
                    well.tell();
                    backoff.reset();
                    sleep(GATHER).await;
                    let _ = timeout(self.every(), self.news.notified()).await;
                }
                Err(e) => {
                    tracing::warn!(error = %Chain(&e), "cannot report to the server");
                    backoff.wait().await;
                }
            }
        }
    }

    fn name(&self) -> &str {
        self.host.config.name.as_str()
    }

    fn every(&self) -> Duration {
        match self.every_s.load(Ordering::Relaxed) {
            0 => EVERY_AT_FIRST,
            s => Duration::from_secs(s),
        }
    }

    /// Acknowledges grants that are served and were not acknowledged yet.
    async fn confirm(&self, confirmed: &mut BTreeMap<String, u64>) -> Result<(), ClientError> {
        for te in &self.tes {
            let Some(serving) = te.status.borrow().serving.clone() else { continue };
            let id = te.te.id.to_string();
            if confirmed.get(&id) == Some(&serving.generation) {
                continue;
            }
            match self.client.serving(self.name(), &id, &serving).await {
                // The grant was taken back meanwhile: the wish that says so is on its way.
                Err(ClientError::Api { error, .. }) if error.kind == ErrorKind::Refused => {
                    tracing::warn!(te = %id, %error, "the server refused the acknowledgement");
                }
                other => other?,
            }
            confirmed.insert(id, serving.generation);
        }
        Ok(())
    }

    async fn report(&self) -> HostReport {
        let mut problems = self.problems.borrow().clone();
        let mut testenvs = Vec::new();
        for te in &self.tes {
            let names: Vec<String> = te.te.machines.iter().map(|m| m.name.clone()).collect();
            let machines = match self.host.libvirt.rows(names).await {
                Ok(rows) => rows,
                Err(e) => {
                    problems.push(Chain(&e).to_string());
                    Vec::new()
                }
            };
            let machines = machines.into_iter();
            let machines = machines.map(|r| MachineState { on: r.state.is_active(), name: r.name });
            let carved = &te.te.carved;
            testenvs.push(TeReport {
                testenv: te.te.id.to_string(),
                number: te.te.number,
                shape: carved.shape.to_string(),
                labels: carved.labels.iter().map(ToString::to_string).collect(),
                state: state(te),
                machines: machines.collect(),
            });
        }
        problems.dedup();
        let facts = &self.host.facts;
        let accelerator = if facts.kvm { "kvm" } else { "qemu" };
        let datapath = if facts.system_datapath { "system" } else { "netdev" };
        HostReport {
            boot_id: self.boot_id.clone(),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            status: HostStatus {
                version: env!("CARGO_PKG_VERSION").into(),
                accelerator: accelerator.into(),
                datapath: datapath.into(),
                mode: self.host.config.mode.as_str().into(),
                memory_mib: facts::memory_mib(),
                cpus: facts::cpus(),
                disk_free_mib: facts::disk_free_mib(&self.host.state.images()),
                problems,
                legs: legs(&self.host, &self.tes),
            },
            testenvs,
        }
    }
}

/// What of this host is on the network that nodes are on.
fn legs(host: &Host, tes: &[TeTaskHandle]) -> Vec<NetworkLeg> {
    let own = NetworkLeg {
        testenv: None,
        mac: host.facts.host_mac(),
        address: Some(host.config.network.address.address.to_string()),
    };
    let seeds = tes.iter().filter_map(|te| {
        let nic = te.te.seed().nics.first()?;
        Some(NetworkLeg {
            testenv: Some(te.te.number),
            mac: nic.mac.clone(),
            address: Some(te.te.seed_address.to_string()),
        })
    });
    std::iter::once(own).chain(seeds).collect()
}

fn state(te: &TeTaskHandle) -> TeReportState {
    let status = te.status.borrow();
    let generation = status.generation.0;
    match &status.standing {
        Standing::Resetting => TeReportState::Resetting { generation },
        Standing::Clean => TeReportState::Clean { generation },
        Standing::Serving => TeReportState::Serving { generation },
        Standing::Broken(reason) => TeReportState::Broken { generation, reason: reason.clone() },
    }
}
