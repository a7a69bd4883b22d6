//! A TE in memory.

use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use toci_host::gateway::{DomainState, MachineError, Machines, PowerVerb, Row, SeedImage};
use toci_wire::ssh_command::BootDevice;

#[derive(Debug)]
struct Machine {
    name: String,
    id: Option<u32>,
    boot: BootDevice,
}

/// A TE with a seed and two nodes.
#[derive(Debug)]
pub(crate) struct Fake {
    number: u32,
    names: Vec<String>,
    machines: Mutex<Vec<Machine>>,
    image: SeedImage,
    next_id: AtomicU32,
    /// Who was let in at the seed.
    pub(crate) guests: Mutex<BTreeSet<Ipv4Addr>>,
}

impl Fake {
    pub(crate) fn new(number: u32, image: PathBuf) -> Arc<Fake> {
        let names = vec![
            format!("seed_{number}"),
            format!("baremetalbrbm{number}_0"),
            format!("baremetalbrbm{number}_1"),
        ];
        let machine =
            |name: &String| Machine { name: name.clone(), id: None, boot: BootDevice::Network };
        Arc::new(Fake {
            number,
            machines: Mutex::new(names.iter().map(machine).collect()),
            names,
            image: SeedImage { path: image, disk_bytes: 1 << 30 },
            next_id: AtomicU32::new(1),
            guests: Mutex::default(),
        })
    }

    fn machines(&self) -> MutexGuard<'_, Vec<Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        name: &str,
        f: impl FnOnce(&mut Machine) -> Result<T, MachineError>,
    ) -> Result<T, MachineError> {
        let mut machines = self.machines();
        let machine = machines.iter_mut().find(|m| m.name == name);
        f(machine.unwrap_or_else(|| panic!("the gateway asked for {name}, which is not ours")))
    }
}

impl Machines for Fake {
    fn number(&self) -> u32 {
        self.number
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Row>, MachineError>> {
        let state = |on| if on { DomainState::Running } else { DomainState::ShutOff };
        let machines = self.machines();
        let row =
            |m: &Machine| Row { id: m.id, name: m.name.clone(), state: state(m.id.is_some()) };
        let rows = machines.iter().map(row).collect();
        Box::pin(async { Ok(rows) })
    }

    fn power<'a>(
        &'a self,
        machine: &'a str,
        verb: PowerVerb,
    ) -> BoxFuture<'a, Result<(), MachineError>> {
        let done = self.with(machine, |m| match (verb, m.id) {
            (PowerVerb::Start, Some(_)) => Err(MachineError::AlreadyActive),
            (PowerVerb::Destroy | PowerVerb::Reset, None) => Err(MachineError::NotRunning),
            (PowerVerb::Start, None) => {
                m.id = Some(self.next_id.fetch_add(1, Ordering::Relaxed));
                Ok(())
            }
            (PowerVerb::Destroy, Some(_)) => {
                m.id = None;
                Ok(())
            }
            (PowerVerb::Reset, Some(_)) => Ok(()),
        });
        Box::pin(async { done })
    }

    fn admit(&self, address: Ipv4Addr) -> BoxFuture<'_, Result<(), MachineError>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
        Box::pin(async { Ok(()) })
    }

    fn xml<'a>(
        &'a self,
        machine: &'a str,
        _inactive: bool,
    ) -> BoxFuture<'a, Result<String, MachineError>> {
        assert_ne!(machine, "baremetalbrbm9_1", "this machine makes the gateway panic");
        let xml = self.with(machine, |m| {
            Ok(format!(
                "<domain type='qemu'>\n  <name>{}</name>\n  <os>\n    <boot dev='{}'/>\n  </os>\n  \
                 <devices>\n    <interface type='ethernet'>\n      \
                 <mac address='00:1a:2b:3c:4d:5e'/>\n    </interface>\n    \
                 <interface type='ethernet'>\n      <mac address='00:1a:2b:3c:4d:5f'/>\n    \
                 </interface>\n  </devices>\n</domain>\n",
                m.name,
                m.boot.as_str()
            ))
        });
        Box::pin(async { xml })
    }

    fn set_boot_device<'a>(
        &'a self,
        machine: &'a str,
        device: BootDevice,
    ) -> BoxFuture<'a, Result<(), MachineError>> {
        let done = self.with(machine, |m| {
            m.boot = device;
            Ok(())
        });
        Box::pin(async { done })
    }

    fn exchange_seed<'a>(&'a self, ready: &'a Path) -> BoxFuture<'a, Result<(), MachineError>> {
        let machines = self.machines();
        let done = match machines.first() {
            Some(seed) if seed.id.is_some() => Err(MachineError::SeedRuns(seed.name.clone())),
            _ => std::fs::rename(ready, &self.image.path)
                .map_err(|e| MachineError::Failed(e.to_string())),
        };
        drop(machines);
        Box::pin(async { done })
    }

    fn seed_image(&self) -> SeedImage {
        self.image.clone()
    }
}
