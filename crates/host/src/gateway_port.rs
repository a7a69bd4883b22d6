//! Joins the gateway to the machines of this host.

use crate::gateway::{MachineError as GatewayMachineError, Machines, PowerVerb, Row, SeedImage};
use crate::host::Host;
use crate::machines::{MachineError, TeMachines};
use crate::plan::{BootDevice, TeSpec};
use crate::te::GatewayPort;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use toci_core::id::Generation;

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It cannot listen.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Machines for TeMachines {
    fn number(&self) -> u32 {
        self.te().number
    }

    fn names(&self) -> &[String] {
        self.all_names()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Row>, GatewayMachineError>> {
        self.rows().map(|r| r.map_err(in_virsh_s_words)).boxed()
    }

    fn power<'a>(
        &'a self,
        machine: &'a str,
        verb: PowerVerb,
    ) -> BoxFuture<'a, Result<(), GatewayMachineError>> {
        async move {
            let done = match verb {
                PowerVerb::Start => self.start(machine).await,
                PowerVerb::Destroy => self.destroy(machine).await,
                PowerVerb::Reset => self.reset(machine).await,
            };
            done.map_err(|e| match (e, verb) {
                (MachineError::WrongState(_), PowerVerb::Start) => {
                    GatewayMachineError::AlreadyActive
                }
                (MachineError::WrongState(_), PowerVerb::Destroy | PowerVerb::Reset) => {
                    GatewayMachineError::NotRunning
                }
                (e, _) => in_virsh_s_words(e),
            })
        }
        .boxed()
    }

    fn xml<'a>(
        &'a self,
        machine: &'a str,
        inactive: bool,
    ) -> BoxFuture<'a, Result<String, GatewayMachineError>> {
        self.dumpxml(machine, inactive).map(|r| r.map_err(in_virsh_s_words)).boxed()
    }

    fn set_boot_device<'a>(
        &'a self,
        machine: &'a str,
        device: BootDevice,
    ) -> BoxFuture<'a, Result<(), GatewayMachineError>> {
        TeMachines::set_boot_device(self, machine, device)
            .map(|r| r.map_err(in_virsh_s_words))
            .boxed()
    }

    fn seed_image(&self) -> SeedImage {
        SeedImage { path: self.seed_disk(), disk_bytes: self.seed_disk_max_bytes() }
    }
}

fn in_virsh_s_words(e: MachineError) -> GatewayMachineError {
    match e {
        MachineError::NotYours(name) => GatewayMachineError::NoDomain(name),
        MachineError::CutOff(_) | MachineError::WrongState(_) | MachineError::Failed(_) => {
            GatewayMachineError::Failed(e.to_string())
        }
    }
}

/// Starts the gateway on the host's address.
pub async fn start_gateway(host: &Arc<Host>) -> Result<Arc<dyn GatewayPort>, GatewayError> {
    tracing::warn!(host = %host.config.name, "the gateway is not built in yet");
    Ok(Arc::new(Absent))
}

#[derive(Debug)]
struct Absent;

impl GatewayPort for Absent {
    fn host_key(&self) -> String {
        String::new()
    }

    fn open(&self, _: Generation, _: &str, _: TeMachines) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn close(&self, _: &TeSpec, _: Generation) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
