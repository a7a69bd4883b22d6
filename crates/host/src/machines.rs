//! The machines of one TE, and of no other: what the gateway and operators may do to them.

use crate::host::Host;
use crate::libvirt::{Libvirt, LibvirtError};
use crate::plan::{BootDevice, TeSpec, with_boot_device};
use crate::te::{CutOff, Gate, Pass, Rule};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

/// The machines of one TE, in the hands of somebody with a right to them. Every method passes the
/// TE's gate, so it is refused once that right has ended.
#[derive(Clone, Debug)]
pub struct TeMachines {
    te: Arc<TeSpec>,
    names: Arc<Vec<String>>,
    libvirt: Libvirt,
    gate: Arc<Gate>,
    rule: Rule,
}

impl TeMachines {
    /// For the holder of a generation.
    #[must_use]
    pub fn holder(
        host: &Host,
        te: &Arc<TeSpec>,
        gate: &Arc<Gate>,
        generation: Generation,
    ) -> TeMachines {
        TeMachines {
            te: Arc::clone(te),
            names: Arc::new(te.machines.iter().map(|m| m.name.clone()).collect()),
            libvirt: host.libvirt.clone(),
            gate: Arc::clone(gate),
            rule: Rule::Holder(generation),
        }
    }

    /// For an operator who has seen the TE at a generation.
    #[must_use]
    pub fn operator(
        host: &Host,
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

    /// What changes a machine runs to its end even if the caller goes away meanwhile: libvirt
    /// would finish it anyway, and the pass must be held until then.
    async fn to_its_end<F>(&self, change: impl FnOnce(TeMachines) -> F) -> Result<(), MachineError>
    where
        F: Future<Output = Result<(), MachineError>> + Send + 'static,
    {
        let (machines, change) = (self.clone(), change(self.clone()));
        let task = tokio::spawn(async move {
            let _pass = machines.pass().await?;
            change.await
        });
        task.await.unwrap_or_else(|e| Err(MachineError::Failed(e.to_string())))
    }

    /// All of them as libvirt has them, seed first.
    pub async fn rows(&self) -> Result<Vec<Row>, MachineError> {
        let _pass = self.pass().await?;
        Ok(self.libvirt.rows(self.names.to_vec()).await?)
    }

    /// Names and power, seed first.
    pub async fn list(&self) -> Result<Vec<MachineState>, MachineError> {
        let rows = self.rows().await?.into_iter();
        Ok(rows.map(|r| MachineState { on: r.state.is_active(), name: r.name }).collect())
    }

    /// Starts a machine.
    pub async fn start(&self, name: &str) -> Result<(), MachineError> {
        let name = self.own(name)?.to_owned();
        self.to_its_end(|m| async move { Ok(m.libvirt.create(&name).await?) }).await
    }

    /// Pulls its plug.
    pub async fn destroy(&self, name: &str) -> Result<(), MachineError> {
        let name = self.own(name)?.to_owned();
        self.to_its_end(|m| async move { Ok(m.libvirt.destroy(&name).await?) }).await
    }

    /// Presses its reset.
    pub async fn reset(&self, name: &str) -> Result<(), MachineError> {
        let name = self.own(name)?.to_owned();
        self.to_its_end(|m| async move { Ok(m.libvirt.reset(&name).await?) }).await
    }

    /// Its XML as `virsh dumpxml` gives it: as it runs, or as it will be at the next start.
    pub async fn dumpxml(&self, name: &str, inactive: bool) -> Result<String, MachineError> {
        let _pass = self.pass().await?;
        Ok(self.libvirt.xml(self.own(name)?, inactive).await?)
    }

    /// Sets what it boots from next.
    pub async fn set_boot_device(&self, name: &str, boot: BootDevice) -> Result<(), MachineError> {
        let name = self.own(name)?.to_owned();
        self.to_its_end(|m| async move {
            let xml = m.libvirt.xml(&name, true).await?;
            let xml = with_boot_device(&xml, boot)
                .ok_or_else(|| MachineError::Failed(format!("{name} has no boot device")))?;
            Ok(m.libvirt.define(&name, xml).await?)
        })
        .await
    }

    /// The disk of the seed. A new one is written to a file in the same folder whose name is
    /// `seed_<N>.` and anything but `qcow2`, and then put in place by `install_seed_image`;
    /// what is left over is removed at the next reset.
    #[must_use]
    pub fn seed_disk(&self) -> PathBuf {
        self.te.seed().disk.clone()
    }

    /// Puts a whole, checked qcow2 file in place of the seed's disk, if the right still holds.
    pub async fn install_seed_image(&self, from: &Path) -> Result<(), MachineError> {
        let _pass = self.pass().await?;
        tokio::fs::rename(from, self.seed_disk())
            .await
            .map_err(|e| MachineError::Failed(format!("put the image in place: {e}")))
    }

    /// Largest virtual size of a seed image, bytes: the shape's disk.
    #[must_use]
    pub fn seed_disk_max_bytes(&self) -> u64 {
        self.te.seed().disk_bytes
    }

    /// What is on its screen, as PNG.
    pub async fn screenshot(&self, name: &str) -> Result<Vec<u8>, MachineError> {
        let _pass = self.pass().await?;
        let (mime, picture) = self.libvirt.screenshot(self.own(name)?).await?;
        match mime.as_str() {
            "image/png" => Ok(picture),
            _ => crate::screenshot::ppm_to_png(&picture).ok_or_else(|| {
                MachineError::Failed(format!("libvirt gave a picture of unknown kind {mime}"))
            }),
        }
    }
}
