//! Joins the gateway to the machines of this host.

use crate::gateway::{
    Gateway, GatewayConfig, GatewayError, MachineError as GatewayMachineError, Machines, PowerVerb,
    PublicKey, Row, SeedImage, TeGrant,
};
use crate::host::Host;
use crate::machines::{MachineError, TeMachines};
use crate::plan::{BootDevice, TeSpec};
use crate::te::GatewayPort;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::id::{Generation, LeaseId};
use tokio::time::Instant;

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

    fn exchange_seed<'a>(
        &'a self,
        ready: &'a Path,
    ) -> BoxFuture<'a, Result<(), GatewayMachineError>> {
        async move {
            TeMachines::exchange_seed(self, ready).await.map_err(|e| match e {
                MachineError::WrongState(_) => {
                    GatewayMachineError::SeedRuns(self.te().seed().name.clone())
                }
                e => in_virsh_s_words(e),
            })
        }
        .boxed()
    }

    fn admit(&self, address: Ipv4Addr) -> BoxFuture<'_, Result<(), GatewayMachineError>> {
        TeMachines::admit(self, address).map(|r| r.map_err(in_virsh_s_words)).boxed()
    }

    fn seed_image(&self) -> SeedImage {
        SeedImage { path: self.seed_disk(), disk_bytes: self.seed_disk_max_bytes() }
    }
}

fn in_virsh_s_words(e: MachineError) -> GatewayMachineError {
    match e {
        MachineError::NotYours(name) => GatewayMachineError::NoDomain(name),
        MachineError::CutOff(_)
        | MachineError::Free(_)
        | MachineError::WrongState(_)
        | MachineError::Failed(_) => GatewayMachineError::Failed(e.to_string()),
    }
}

/// The fence of a TE keeps the time and closes the door; every command passes its gate besides.
/// So the door's own clock is only set to some day that will not come.
const DOOR_OPEN_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Starts the gateway on the host's address.
pub async fn start_gateway(host: &Arc<Host>) -> Result<Arc<dyn GatewayPort>, GatewayError> {
    let network = &host.config.network;
    let address = SocketAddr::new(network.address.address.into(), network.gateway_port);
    let gateway = Gateway::start(GatewayConfig::new(address, host.state.root())).await?;
    Ok(Arc::new(gateway))
}

impl GatewayPort for Gateway {
    fn host_key(&self) -> String {
        Gateway::host_key(self).to_owned()
    }

    fn open(
        &self,
        lease: LeaseId,
        generation: Generation,
        public_key: &str,
        machines: TeMachines,
    ) -> BoxFuture<'_, ()> {
        let te = machines.te().id.clone();
        let key = PublicKey::from_line(public_key);
        async move {
            let key = match key {
                Ok(key) => key,
                Err(e) => {
                    tracing::error!(%te, error = %Chain(&e), "no door can be opened with this key");
                    return;
                }
            };
            let expires = Instant::now() + DOOR_OPEN_MAX;
            let machines = Arc::new(machines);
            let grant = TeGrant { te, generation, lease, key, expires, machines };
            if let Err(refused) = Gateway::open(self, grant).await {
                tracing::error!(%refused, "the gateway stays shut");
            }
        }
        .boxed()
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Gateway::quiet(self).boxed()
    }

    fn close(&self, te: &TeSpec, generation: Generation) -> BoxFuture<'_, ()> {
        let te = te.id.clone();
        async move { Gateway::close(self, &te, generation).await }.boxed()
    }
}
