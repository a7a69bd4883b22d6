//! One TE host: its configuration, what it is carved into, and its adapters; observes the world
//! and executes plans.

use crate::carve::{Carved, DoesNotFit, carve};
use crate::config::{Config, Mode};
use crate::dhcp::{Dhcp, DhcpError};
use crate::disk::{DiskError, Images};
use crate::guests::GuestBook;
use crate::libvirt::{Libvirt, LibvirtError};
use crate::ovs::{Change, Ovs, OvsError, is_interesting};
use crate::plan::{self, Desired, HostFacts, Plan, Step, TeSpec, World};
use crate::run::CommandError;
use crate::state::{self, StateDir, StateError};
use crate::{facts, names, netdev, power, probe};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, RwLockReadGuard};

/// Rounds of observe, plan, execute before we say that it does not converge.
pub const ROUNDS_MAX: usize = 4;

/// Why the host is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The carving of the configuration does not fit the machine.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// The state folder.
    #[error("state")]
    State(#[from] StateError),
    /// Images.
    #[error("images")]
    Disk(#[from] DiskError),
    /// libvirt.
    #[error("libvirt")]
    Libvirt(#[from] LibvirtError),
    /// Open vSwitch.
    #[error("open vswitch")]
    Ovs(#[from] OvsError),
    /// Network devices.
    #[error("network devices")]
    Netdev(#[from] CommandError),
    /// The DHCP server.
    #[error("dhcp")]
    Dhcp(#[from] DhcpError),
    /// Something is in the way.
    #[error("{}", .0.join("; "))]
    Conflicts(Vec<String>),
    /// Executed, and still not as it should be.
    #[error("after {ROUNDS_MAX} rounds there is still something to do:\n{0}")]
    DoesNotConverge(Plan),
}

impl HostError {
    /// The caller's fault: trying again will not help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            HostError::DoesNotFit(_) | HostError::Conflicts(_) => true,
            HostError::State(_)
            | HostError::Disk(_)
            | HostError::Libvirt(_)
            | HostError::Ovs(_)
            | HostError::Netdev(_)
            | HostError::Dhcp(_)
            | HostError::DoesNotConverge(_) => false,
        }
    }
}

/// One TE host.
#[derive(Debug)]
pub struct Host {
    /// As configured.
    pub config: Config,
    /// What was found out.
    pub facts: HostFacts,
    /// The TEs.
    pub tes: Vec<TeSpec>,
    /// Who may speak with which seed. Whoever changes the switch's flows, or compares them, holds it.
    pub(crate) guests: RwLock<GuestBook>,
    /// The state folder.
    pub state: StateDir,
    /// Disks.
    pub images: Images,
    /// Machines.
    pub libvirt: Libvirt,
    /// Switches.
    pub ovs: Ovs,
    /// The DHCP server.
    pub dhcp: Dhcp,
}

#[derive(Serialize, Deserialize)]
struct KeptCarving {
    /// Of what the carving depends on: shapes, entries, reserve and addresses.
    configuration: String,
    carved: Vec<Carved>,
}

impl Host {
    /// Finds out what there is and what it is carved into. Changes nothing but the state folder.
    pub async fn open(config: Config) -> Result<Host, HostError> {
        let state = StateDir::open(&config.state)?;
        let kvm = probe::kvm(&config, &state).await?.kvm;
        let system_datapath = config.mode == Mode::Host && system_datapath().await;
        // With the userspace datapath the kernel sees what comes in by the NIC as well; it must not take it for its own.
        let uplink = config.network.uplink.as_deref().filter(|_| system_datapath);
        let uplink_mac = uplink.and_then(netdev::mac);
        let facts = HostFacts { host_key: state.host_key()?, kvm, system_datapath, uplink_mac };
        let (carving, tes) = carving(&config, &facts, &state)?;
        tracing::debug!(tes = carving.len(), kvm, system_datapath, "carved");
        Host::assemble(config, facts, tes, state, "qemu:///system")
    }

    fn assemble(
        config: Config,
        facts: HostFacts,
        tes: Vec<TeSpec>,
        state: StateDir,
        libvirt: &str,
    ) -> Result<Host, HostError> {
        let images = Images::open(state.images())?;
        let guests = RwLock::new(GuestBook::read(&state, tes.iter().map(|te| te.number))?);
        let libvirt = Libvirt::start(libvirt);
        let ovs = Ovs::new(config.name.to_string());
        let dhcp = Dhcp::new(state.run());
        Ok(Host { config, facts, tes, guests, state, images, libvirt, ovs, dhcp })
    }

    /// One TE on another libvirt, for tests.
    #[cfg(test)]
    pub(crate) fn with_libvirt(uri: &str, state: &std::path::Path) -> Host {
        let (config, facts, tes) = plan::tests::small();
        Host::assemble(config, facts, tes, StateDir::open(state).unwrap(), uri).unwrap()
    }

    /// Waits until libvirt and Open vSwitch answer.
    pub async fn ready(&self) -> Result<(), HostError> {
        self.libvirt.ready().await?;
        Ok(self.ovs.ready().await?)
    }

    /// All that should be there, with these guests.
    fn desired(&self, guests: &GuestBook) -> Desired {
        plan::desired(&self.config, &self.facts, &self.tes, &guests.all())
    }

    /// Everything but machines and disks.
    async fn observe_network(&self, desired: &Desired) -> Result<World, HostError> {
        let mut world = World { bridges: self.ovs.bridges().await?, ..World::default() };
        world.bridges.retain(|name, b| is_interesting(name, b));
        world.devices = netdev::devices(|n| desired.devices.contains_key(n)).await?;
        for (bridge, flows) in &desired.flows {
            if world.bridges.get(bridge).is_some_and(|b| b.ours) {
                let d = self.ovs.flow_differences(bridge, flows).await?;
                world.flow_differences.insert(bridge.clone(), d);
            }
        }
        world.dhcp = self.dhcp.observe();
        Ok(world)
    }

    /// Machines and disks only: what a reset changes.
    pub async fn observe_machines(&self) -> Result<World, HostError> {
        let domains = self.libvirt.domains().await?;
        Ok(World { domains, disks: self.images.list()?, ..World::default() })
    }

    /// What there is to do.
    pub async fn plan(&self) -> Result<Plan, HostError> {
        Ok(self.planned().await?.0)
    }

    /// What there is to do, and the guests that this counts on: nobody comes or goes while they are held.
    async fn planned(&self) -> Result<(Plan, RwLockReadGuard<'_, GuestBook>), HostError> {
        // libvirt may take its time; at the gateway nobody waits for that.
        let World { domains, disks, .. } = self.observe_machines().await?;
        let guests = self.guests.read().await;
        let desired = self.desired(&guests);
        let world = World { domains, disks, ..self.observe_network(&desired).await? };
        Ok((plan::plan(&desired, &world), guests))
    }

    /// What machines and disks should be, and what there is to do but for them.
    pub async fn plan_network(&self) -> Result<(Desired, Plan), HostError> {
        let guests = self.guests.read().await;
        let desired = self.desired(&guests);
        let plan = plan::plan(&desired, &self.observe_network(&desired).await?);
        Ok((desired, plan))
    }

    /// Observes, plans and executes until there is nothing to do. The plans executed.
    pub async fn converge(&self) -> Result<Vec<Plan>, HostError> {
        let mut done = Vec::new();
        loop {
            let (p, guests) = self.planned().await?;
            if p.is_empty() {
                return Ok(done);
            }
            if done.len() == ROUNDS_MAX {
                return Err(HostError::DoesNotConverge(p));
            }
            let sets_flows = p.steps.iter().any(|step| matches!(step, Step::SetFlows { .. }));
            let _as_planned = sets_flows.then_some(guests);
            self.execute(&p).await?;
            done.push(p);
        }
    }

    /// Removes all that is ours, but not the state folder. What was done.
    pub async fn destroy(&self) -> Result<Plan, HostError> {
        let desired = self.desired(&GuestBook::default());
        let World { domains, disks, .. } = self.observe_machines().await?;
        let p = plan::teardown(&World { domains, disks, ..self.observe_network(&desired).await? });
        self.execute(&p).await?;
        for te in &self.tes {
            state::remove(&self.state.guests(te.number))?;
            self.drop_consoles(te.number)?;
        }
        Ok(p)
    }

    /// Executes a plan in its order; neighbouring steps of the same kind go together.
    pub async fn execute(&self, p: &Plan) -> Result<(), HostError> {
        if !p.conflicts.is_empty() {
            return Err(HostError::Conflicts(p.conflicts.clone()));
        }
        for group in p.steps.chunk_by(go_together) {
            let changes: Vec<Change<'_>> = group.iter().filter_map(change).collect();
            self.ovs.change(&changes).await?;
            try_join_all(group.iter().map(|s| self.step(s))).await?;
        }
        Ok(())
    }

    async fn step(&self, step: &Step) -> Result<(), HostError> {
        tracing::debug!(%step, "execute");
        match step {
            Step::PowerOff { domain } => Ok(power::pull_plug(&self.libvirt, domain).await?),
            Step::Undefine { domain } => Ok(self.libvirt.undefine(domain).await?),
            Step::DeleteTap { device } => Ok(netdev::delete_tap(device).await?),
            Step::DeleteDisk { path } => Ok(self.images.delete(path).await?),
            Step::CreateTap { device } => Ok(netdev::create_tap(device).await?),
            Step::SetDevice { device, address, route } => {
                Ok(netdev::set_device(device, address.as_deref(), *route).await?)
            }
            Step::SetFlows { bridge, flows, .. } => Ok(self.ovs.set_flows(bridge, flows).await?),
            Step::BlankDisk { path, bytes } => Ok(self.images.blank(path, *bytes).await?),
            Step::DropConsoles { te } => Ok(self.drop_consoles(*te)?),
            Step::DropConnections { te } => Ok(self.drop_connections(*te).await?),
            Step::Define { domain, spec, .. } => {
                Ok(self.libvirt.define(domain, spec.xml.clone()).await?)
            }
            Step::StartDhcp { conf, fingerprint } => Ok(self.dhcp.start(conf, fingerprint).await?),
            Step::StopDhcp => Ok(self.dhcp.stop().await?),
            // These are gathered by `execute` into one transaction.
            Step::DeleteBridge { .. }
            | Step::DeletePort { .. }
            | Step::CreateBridge { .. }
            | Step::CreatePort { .. } => Ok(()),
        }
    }

    /// Forgets the captured consoles of a TE; the empty folder stays for the next ones.
    fn drop_consoles(&self, te: u32) -> Result<(), StateError> {
        let folder = self.state.consoles_of(te);
        let io = |doing, path: &std::path::Path| {
            let path = path.to_owned();
            move |source| StateError::Io { doing, path, source }
        };
        std::fs::create_dir_all(&folder).map_err(io("make folder", &folder))?;
        for entry in std::fs::read_dir(&folder).map_err(io("list", &folder))?.flatten() {
            std::fs::remove_file(entry.path()).map_err(io("delete", &entry.path()))?;
        }
        Ok(())
    }

    async fn drop_connections(&self, te: u32) -> Result<(), OvsError> {
        let Some(zone) = plan::private_zone(te) else { return Ok(()) };
        self.ovs.forget_connections(names::PUBLIC_BRIDGE, zone).await
    }

    /// Folders that running machines write to.
    pub fn prepare_folders(&self) -> Result<(), HostError> {
        for te in &self.tes {
            let folder = self.state.consoles_of(te.number);
            std::fs::create_dir_all(&folder).map_err(|source| StateError::Io {
                doing: "make folder",
                path: folder,
                source,
            })?;
        }
        Ok(())
    }
}

/// Changes of the switch make one transaction; neighbours of the same kind run at once.
fn go_together(a: &Step, b: &Step) -> bool {
    match (change(a), change(b)) {
        (Some(_), Some(_)) => true,
        (None, None) => std::mem::discriminant(a) == std::mem::discriminant(b),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn change(step: &Step) -> Option<Change<'_>> {
    match step {
        Step::CreateBridge { bridge, datapath, fail_mode } => {
            Some(Change::AddBridge(bridge, datapath, *fail_mode))
        }
        Step::DeleteBridge { bridge } => Some(Change::DeleteBridge(bridge)),
        Step::CreatePort { bridge, port, spec } => Some(Change::AddPort(bridge, port, spec)),
        Step::DeletePort { bridge, port } => Some(Change::DeletePort(bridge, port)),
        Step::PowerOff { .. }
        | Step::Undefine { .. }
        | Step::DeleteTap { .. }
        | Step::DeleteDisk { .. }
        | Step::CreateTap { .. }
        | Step::SetDevice { .. }
        | Step::SetFlows { .. }
        | Step::BlankDisk { .. }
        | Step::DropConsoles { .. }
        | Step::DropConnections { .. }
        | Step::Define { .. }
        | Step::StartDhcp { .. }
        | Step::StopDhcp => None,
    }
}

/// Carves, or takes the carving that was kept for the same configuration: what is leased must
/// not vanish because another program used some disk in the meantime.
fn carving(
    config: &Config,
    facts: &HostFacts,
    state: &StateDir,
) -> Result<(Vec<Carved>, Vec<TeSpec>), HostError> {
    let path = state.root().join("carving.json");
    let configuration = names::fingerprint(&format!(
        "{:?} {:?} {:?} {:?}",
        config.shape, config.testenv, config.reserve, config.network.seed_addresses
    ));
    let kept: Option<KeptCarving> = state::read_json(&path)?;
    if let Some(kept) = kept.filter(|k| k.configuration == configuration)
        && let Some(tes) = plan::te_specs(config, facts, &kept.carved)
    {
        return Ok((kept.carved, tes));
    }
    let carved = carve(config, facts::resources(&state.images()))?;
    let tes = plan::te_specs(config, facts, &carved).unwrap_or_default();
    let text = serde_json::to_vec(&KeptCarving { configuration, carved: carved.clone() })
        .unwrap_or_default();
    state::write_private(&path, &text)?;
    Ok((carved, tes))
}

/// Whether Open vSwitch's kernel module is there or can be loaded.
async fn system_datapath() -> bool {
    let loaded = || std::path::Path::new("/sys/module/openvswitch").exists();
    loaded() || (crate::run::run("modprobe", &["openvswitch"]).await.is_ok() && loaded())
}
