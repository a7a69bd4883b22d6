//! The machines of one TE, and of no other: what the gateway and operators may do to them.

use crate::disk_image;
use crate::guests::AdmitError;
use crate::host::Host;
use crate::libvirt::{LibvirtError, Power};
use crate::plan::{BootDevice, TeSpec, with_boot_device};
use crate::te::{CutOff, Gate, Pass, Rule};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toci_core::chain::Chain;
use toci_core::id::Generation;
use toci_wire::api::MachineState;
use toci_wire::ssh_command::output::Row;

/// Why a machine did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The caller's fault: no machine of this TE has the name.
    #[error("this test environment has no machine {0}")]
    NotYours(String),
    /// The lease is over.
    #[error(transparent)]
    CutOff(#[from] CutOff),
    /// The caller's fault: nobody holds the TE, and what is changed now the next holder would find.
    #[error(
        "{0} is free and stays clean for its next holder; lease it first (toci lease run), or take it \
         out of use (toci te quarantine)"
    )]
    Free(String),
    /// The caller's fault: for example, it runs already.
    #[error("{0}")]
    WrongState(String),
    /// The world's.
    #[error("{0}")]
    Failed(String),
}

impl From<LibvirtError> for MachineError {
    fn from(e: LibvirtError) -> Self {
        match e {
            LibvirtError::NoDomain(name) => MachineError::NotYours(name),
            LibvirtError::WrongState { message, .. } => MachineError::WrongState(message),
            LibvirtError::Call { .. } | LibvirtError::TooSlow(_) | LibvirtError::Busy(_) => {
                MachineError::Failed(e.to_string())
            }
        }
    }
}

/// Why its disk is not exchanged.
pub(crate) fn seed_runs(seed: &str) -> String {
    format!("{seed} is running; its image would change under it: use virsh destroy {seed} first")
}

/// The machines of one TE, in the hands of somebody with a right to them. Every method passes the
/// TE's gate, so it is refused once that right has ended.
#[derive(Clone, Debug)]
pub struct TeMachines {
    te: Arc<TeSpec>,
    names: Arc<Vec<String>>,
    host: Arc<Host>,
    gate: Arc<Gate>,
    rule: Rule,
}

impl TeMachines {
    /// For the holder of a generation.
    #[must_use]
    pub fn holder(
        host: &Arc<Host>,
        te: &Arc<TeSpec>,
        gate: &Arc<Gate>,
        generation: Generation,
    ) -> TeMachines {
        TeMachines {
            te: Arc::clone(te),
            names: Arc::new(te.machines.iter().map(|m| m.name.clone()).collect()),
            host: Arc::clone(host),
            gate: Arc::clone(gate),
            rule: Rule::Holder(generation),
        }
    }

    /// For an operator who has seen the TE at a generation.
    #[must_use]
    pub fn operator(
        host: &Arc<Host>,
        te: &Arc<TeSpec>,
        gate: &Arc<Gate>,
        generation: Generation,
    ) -> TeMachines {
        TeMachines {
            rule: Rule::Operator(generation),
            ..TeMachines::holder(host, te, gate, generation)
        }
    }

    /// The TE.
    #[must_use]
    pub fn te(&self) -> &TeSpec {
        &self.te
    }

    /// Domain names, seed first.
    #[must_use]
    pub fn all_names(&self) -> &[String] {
        &self.names
    }

    /// Whether the right still holds.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.gate.allows(self.rule)
    }

    fn own<'a>(&self, name: &'a str) -> Result<&'a str, MachineError> {
        match self.te.machine(name) {
            Some(_) => Ok(name),
            None => Err(MachineError::NotYours(name.to_owned())),
        }
    }

    async fn pass(&self) -> Result<Pass<'_>, MachineError> {
        Ok(self.gate.pass(self.rule).await?)
    }

    /// Refuses when the right has ended.
    pub async fn check(&self) -> Result<(), MachineError> {
        self.pass().await.map(drop)
    }

    /// Lets this address at the seed, until the lease is over.
    pub async fn admit(&self, address: Ipv4Addr) -> Result<(), MachineError> {
        // While this command runs, the generation is not cut off.
        let _pass = self.pass().await?;
        let (Rule::Holder(generation) | Rule::Operator(generation)) = self.rule;
        let admitted = self.host.admit(self.te.number, generation, address).await;
        admitted.map_err(|e| match e {
            AdmitError::TooMany => MachineError::WrongState(e.to_string()),
            AdmitError::State(_) | AdmitError::Switch(_) => {
                MachineError::Failed(Chain(&e).to_string())
            }
        })
    }

    /// Refuses when the right has ended, or what would be changed belongs to nobody.
    pub async fn check_change(&self) -> Result<(), MachineError> {
        let _pass = self.pass().await?;
        self.changeable()
    }

    fn changeable(&self) -> Result<(), MachineError> {
        if self.gate.may_change() {
            Ok(())
        } else {
            Err(MachineError::Free(self.te.id.to_string()))
        }
    }

    /// What changes a machine runs to its end even if the caller goes away meanwhile: libvirt
    /// would finish it anyway, and the pass must be held until then.
    async fn to_its_end<F>(&self, change: impl FnOnce(TeMachines) -> F) -> Result<(), MachineError>
    where
        F: Future<Output = Result<(), MachineError>> + Send + 'static,
    {
        let (machines, change) = (self.clone(), change(self.clone()));
        let task = tokio::spawn(async move {
            let _pass = machines.pass().await?;
            machines.changeable()?;
            change.await
        });
        task.await.unwrap_or_else(|e| Err(MachineError::Failed(e.to_string())))
    }

    /// All of them as libvirt has them, seed first.
    pub async fn rows(&self) -> Result<Vec<Row>, MachineError> {
        let _pass = self.pass().await?;
        Ok(self.host.libvirt.rows(self.names.to_vec()).await?)
    }

    /// Names and power, seed first.
    pub async fn list(&self) -> Result<Vec<MachineState>, MachineError> {
        let rows = self.rows().await?.into_iter();
        Ok(rows.map(|r| MachineState { on: r.state.is_active(), name: r.name }).collect())
    }

    /// Starts a machine.
    pub async fn start(&self, name: &str) -> Result<(), MachineError> {
        let name = self.own(name)?.to_owned();
        self.to_its_end(|m| async move {
            // The seed does not start while its disk is being exchanged.
            let _turn =
                if name == m.te.seed().name { Some(m.gate.seed_turn().await) } else { None };
            Ok(m.host.libvirt.create(&name).await?)
        })
        .await
    }

    /// Pulls its plug.
    pub async fn destroy(&self, name: &str) -> Result<(), MachineError> {
        let name = self.own(name)?.to_owned();
        self.to_its_end(|m| async move { Ok(m.host.libvirt.destroy(&name).await?) }).await
    }

    /// Presses its reset.
    pub async fn reset(&self, name: &str) -> Result<(), MachineError> {
        let name = self.own(name)?.to_owned();
        self.to_its_end(|m| async move { Ok(m.host.libvirt.reset(&name).await?) }).await
    }

    /// Its XML as `virsh dumpxml` gives it: as it runs, or as it will be at the next start.
    pub async fn dumpxml(&self, name: &str, inactive: bool) -> Result<String, MachineError> {
        let _pass = self.pass().await?;
        Ok(self.host.libvirt.xml(self.own(name)?, inactive).await?)
    }

    /// Sets what it boots from next.
    pub async fn set_boot_device(&self, name: &str, boot: BootDevice) -> Result<(), MachineError> {
        let name = self.own(name)?.to_owned();
        self.to_its_end(|m| async move {
            let xml = m.host.libvirt.xml(&name, true).await?;
            let xml = with_boot_device(&xml, boot)
                .ok_or_else(|| MachineError::Failed(format!("{name} has no boot device")))?;
            Ok(m.host.libvirt.define(&name, xml).await?)
        })
        .await
    }

    /// The disk of the seed. A new one is written to a file in the same folder whose name is
    /// `seed_<N>.` and anything but `qcow2`, and then put in place by `exchange_seed`;
    /// what is left over is removed at the next reset.
    #[must_use]
    pub fn seed_disk(&self) -> PathBuf {
        self.te.seed().disk.clone()
    }

    /// Puts a whole, checked qcow2 file in place of the seed's disk, if the right still holds and the
    /// seed is off.
    pub async fn exchange_seed(&self, ready: &Path) -> Result<(), MachineError> {
        let ready = ready.to_owned();
        self.to_its_end(|m| async move {
            let seed = m.te.seed();
            let _turn = m.gate.seed_turn().await;
            if m.host.libvirt.power(&seed.name).await? == Power::On {
                return Err(MachineError::WrongState(seed_runs(&seed.name)));
            }
            let done = disk_image::install(&ready, &seed.disk).await;
            done.map_err(|e| MachineError::Failed(Chain(&e).to_string()))
        })
        .await
    }

    /// Largest virtual size of a seed image, bytes: the shape's disk.
    #[must_use]
    pub fn seed_disk_max_bytes(&self) -> u64 {
        self.te.seed().disk_bytes
    }

    /// What is on its screen, as PNG.
    pub async fn screenshot(&self, name: &str) -> Result<Vec<u8>, MachineError> {
        let _pass = self.pass().await?;
        let (mime, picture) = self.host.libvirt.screenshot(self.own(name)?).await?;
        match mime.as_str() {
            "image/png" => Ok(picture),
            _ => crate::screenshot::ppm_to_png(&picture).ok_or_else(|| {
                MachineError::Failed(format!("libvirt gave a picture of unknown kind {mime}"))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::one_te;
    use crate::te::boot_now;
    use std::time::Duration;
    use toci_core::id::LeaseId;
    use toci_core::lease::fence::{Fence, FenceEvent, Task};

    /// The domain that libvirt's test driver has; it runs.
    const DOMAIN: &str = "test";

    fn feed(gate: &Gate, event: FenceEvent) {
        gate.with_fence(|f| f.on(event, boot_now())).unwrap();
    }

    /// A clean TE in the hands of an operator.
    fn operators(state: &Path, disk: &Path) -> TeMachines {
        let mut te = one_te().0.remove(0);
        te.machines[0].name = DOMAIN.into();
        te.machines[0].disk = disk.to_owned();
        let gate = Gate::new(Fence::new().0);
        feed(&gate, FenceEvent::ResetDone { generation: Generation(0) });
        TeMachines {
            names: Arc::new(vec![DOMAIN.into()]),
            te: Arc::new(te),
            host: Arc::new(Host::with_libvirt("test:///default", state)),
            gate: Arc::new(gate),
            rule: Rule::Operator(Generation(0)),
        }
    }

    fn served(mut m: TeMachines) -> TeMachines {
        let task = Task::Serve { lease: LeaseId(1), left: Duration::from_secs(60) };
        feed(&m.gate, FenceEvent::Desired { generation: Generation(1), task });
        m.rule = Rule::Operator(Generation(1));
        m
    }

    /// One test, since all connections of a process to this driver see the same domain.
    #[tokio::test]
    async fn a_clean_te_stays_clean_and_a_seed_starts_before_or_after_its_disk_is_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, ready) = (folder.path().join("disk"), folder.path().join("ready"));
        std::fs::write(&ready, "new").unwrap();
        let m = operators(folder.path(), &disk);
        let said = m.destroy(DOMAIN).await.unwrap_err().to_string();
        assert!(said.contains("lease it first"), "{said}");
        let said = m.exchange_seed(&ready).await.unwrap_err().to_string();
        assert!(said.contains("lease it first"), "{said}");
        assert!(m.list().await.unwrap()[0].on, "it may be looked at");

        let m = served(m);
        let running = m.exchange_seed(&ready).await.unwrap_err().to_string();
        assert!(running.contains("is running") && !disk.exists(), "{running}");
        m.destroy(DOMAIN).await.unwrap();
        let exchange = m.gate.seed_turn().await;
        let start = m.start(DOMAIN);
        tokio::pin!(start);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut start).await;
        assert!(early.is_err(), "it started while its disk was being exchanged");
        assert!(!m.list().await.unwrap()[0].on);
        drop(exchange);
        start.await.unwrap();
        m.destroy(DOMAIN).await.unwrap();
        m.exchange_seed(&ready).await.unwrap();
        assert_eq!(std::fs::read(&disk).unwrap(), b"new");
    }
}
