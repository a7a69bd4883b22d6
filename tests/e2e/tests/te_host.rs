//! A sandboxed TE host as a process: it stands up by itself, again after `kill -9`, and leaves nothing when it ends.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Lab, Leftovers, Process, TeHost, wait_for};

/// Setting up a sandbox with libvirt and Open vSwitch and two TEs, on a busy machine.
const SET_UP_LIMIT: Duration = Duration::from_secs(120);
/// A sandbox whose agent is gone ends at once.
const END_LIMIT: Duration = Duration::from_secs(10);

fn wait_for_machines(lab: &Lab, host: &TeHost) -> Result<()> {
    wait_for("the machines of two TEs", SET_UP_LIMIT, || {
        let log = || host.agent.as_ref().map(Process::log_tail).unwrap_or_default();
        let list = host.toci_host(lab, "enter", &["virsh", "list", "--all", "--name"]);
        let list = list.map_err(|error| error.context(log()))?;
        for machine in ["seed_1", "baremetalbrbm1_0", "seed_2", "baremetalbrbm2_0"] {
            ensure!(list.contains(machine), "no {machine} in {list:?}; log: {}", log());
        }
        Ok(())
    })
}

#[test]
fn a_sandboxed_host_stands_up_after_every_end_and_leaves_nothing() {
    let lab = Lab::start().unwrap();
    let leftovers = Leftovers::before(lab.folder());
    let mut host = TeHost::new(&lab, 1, 2, None).unwrap();
    host.start(&lab, &["--standalone"]).unwrap();
    wait_for_machines(&lab, &host).unwrap();

    host.agent.take().unwrap().kill().unwrap();
    wait_for("the sandbox to end", END_LIMIT, || {
        let processes = lab.read("ps", &["-e", "-o", "comm="])?;
        for daemon in ["libvirtd", "ovs-vswitchd", "ovsdb-server", "qemu", "dnsmasq"] {
            ensure!(!processes.contains(daemon), "{daemon} still runs:\n{processes}");
        }
        Ok(())
    })
    .unwrap();

    host.start(&lab, &["--standalone"]).unwrap();
    wait_for_machines(&lab, &host).unwrap();

    drop(lab);
    leftovers.check().unwrap();
}
