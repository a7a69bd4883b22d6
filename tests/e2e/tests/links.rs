//! Links that vanish without a word: no FIN, no reset, no loss of carrier. Packets just go nowhere.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{Ci, Lab, Process, binary, wait_for};
use toci_wire::api::{Connection, LeaseState, TeState};

/// A command, on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// A dead client is noticed within this (issue A).
const LOST_LIMIT: Duration = Duration::from_secs(15);
/// Then its TE is reset, on a busy machine.
const RESET_LIMIT: Duration = Duration::from_secs(30);
/// A host is cut off when it has not reported for 15 s; the server looks every second.
const CUT_OFF_LIMIT: Duration = Duration::from_secs(20);
/// Both sides notice by themselves that a link is back, after silence and a pause.
const BACK_LIMIT: Duration = Duration::from_secs(60);

/// Lets the lab's end of a veth neither hear nor be heard: it answers no ARP, and its address is not the one that the
/// other end knows. Both ends keep their carrier.
fn cut(lab: &Lab, device: &str) -> Result<()> {
    lab.read("ip", &["link", "set", "dev", device, "arp", "off"])?;
    lab.read("ip", &["link", "set", "dev", device, "address", "02:00:00:00:00:99"]).map(drop)
}

fn mend(lab: &Lab, device: &str) -> Result<()> {
    lab.read("ip", &["link", "set", "dev", device, "arp", "on"]).map(drop)
}

/// A network of its own for a client, 198.18.200.0/24, whose server is at .1.
struct ClientSide {
    /// Holds the namespace.
    holder: Process,
}

const CLIENT_DEVICE: &str = "client0";

impl ClientSide {
    fn new(lab: &Lab) -> Result<ClientSide> {
        let holder = lab.spawn("client-side", &["unshare", "--net", "sleep", "1000"], &[])?;
        let pid = holder.pid().to_string();
        wait_for("a network namespace", COMMAND_LIMIT, || {
            let own = lab.read("readlink", &["/proc/1/ns/net".to_owned()])?;
            let its = lab.read("readlink", &[format!("/proc/{pid}/ns/net")])?;
            ensure!(own != its, "{own}");
            Ok(())
        })?;
        let side = ClientSide { holder };
        let script = "set -e
            ip link add $1 type veth peer name uplink netns $0
            ip addr add 198.18.200.1/24 dev $1; ip link set $1 up
            nsenter --target $0 --net ip addr add 198.18.200.2/24 dev uplink
            nsenter --target $0 --net ip link set uplink up";
        lab.read("sh", &["-c", script, &pid, CLIENT_DEVICE])?;
        Ok(side)
    }

    fn lease_run(&self, ci: &Ci, name: &str, script: &str) -> Result<Process> {
        let (toci, pid) = (binary("toci")?.display().to_string(), self.holder.pid().to_string());
        let server = "TOCI_SERVER=http://198.18.200.1:8080";
        let inside = ["nsenter", "--target", &pid, "--net", "env", server];
        let run = [&toci, "lease", "run", "--", "sh", "-c", script];
        ci.spawn_client(name, &[&inside[..], &run].concat())
    }
}

#[test]
fn a_client_whose_link_vanishes_loses_its_lease_within_15_s() {
    let ci = Ci::start(1).unwrap();
    let far = ClientSide::new(&ci.lab).unwrap();
    let mut client = far.lease_run(&ci, "far", "echo up; sleep 1000").unwrap();
    client.wait_for_line("up").unwrap();
    let mut next = ci.lease_run("next", &[], "$GATE virsh list --all").unwrap();

    cut(&ci.lab, CLIENT_DEVICE).unwrap();
    let begun = Instant::now();
    let lost = wait_for("the lease to be lost", LOST_LIMIT, || {
        let lease = ci.ask(ci.api().lease("L1"))?;
        ensure!(lease.state == LeaseState::Lost, "{lease:#?}");
        Ok(begun.elapsed())
    })
    .unwrap();
    assert!(lost <= LOST_LIMIT, "{lost:?}");
    let status = next.wait(RESET_LIMIT).unwrap();
    assert!(status.success(), "{status}\n{}\n{}", next.log_tail(), ci.logs());
    assert!(next.output().contains("seed_1"), "{}", next.output());
    let again = begun.elapsed().as_secs_f64();
    eprintln!("lost after {:.1} s, granted again after {again:.1} s", lost.as_secs_f64());

    // The client could not know; it is told as soon as it can hear, and ends its command.
    assert!(!client.has_ended().unwrap(), "{}", client.log_tail());
    mend(&ci.lab, CLIENT_DEVICE).unwrap();
    let status = client.wait(BACK_LIMIT).unwrap();
    assert_eq!(status.code(), Some(113), "docs/exit-codes.md\n{}", client.log());
}

/// What the gateway says to the lease's key from within the host, where its network ends.
fn gate_inside(ci: &Ci) -> Result<String> {
    let path = |name: &str| ci.lab.folder().join(name).display().to_string();
    let variable = format!("TE_DATAFILE={}", path("te.json"));
    ci.host.toci_host(
        &ci.lab,
        "enter",
        &["env", &variable, &path("gate"), "virsh", "list", "--all"],
    )
}

#[test]
fn a_host_whose_link_vanishes_is_told_as_cut_off_and_ends_the_lease_by_its_own_clock() {
    let ci = Ci::start(1).unwrap();
    let folder = ci.lab.folder().display().to_string();
    let script = format!("cp $TE_DATAFILE {folder}/te.json; echo up; sleep 1000");
    let mut client = ci.lease_run("client", &["--timeout", "30s"], &script).unwrap();
    client.wait_for_line("up").unwrap();
    let links = ci.lab.read("ip", &["-o", "addr", "show", "to", "198.18.1.1"]).unwrap();
    let device = links.split_whitespace().nth(1).context(links.clone()).unwrap();
    assert!(gate_inside(&ci).unwrap().contains("seed_1"));

    cut(&ci.lab, device).unwrap();
    ci.wait_for_testenvs("cut off", CUT_OFF_LIMIT, |all| {
        all[0].host_connection == Connection::CutOff
    })
    .unwrap();
    let host = ci.ask(ci.api().host("tehost1")).unwrap();
    assert_eq!(host.connection, Connection::CutOff, "{host:?}");
    // Until its time is over, the holder's lease goes on, as far as the link lets it.
    assert_eq!(ci.ask(ci.api().lease("L1")).unwrap().state, LeaseState::Active);
    assert!(gate_inside(&ci).unwrap().contains("seed_1"), "the host serves on by itself");
    let mut next = ci.lease_run("next", &[], "$GATE virsh list --all").unwrap();

    assert_eq!(client.wait(COMMAND_LIMIT).unwrap().code(), Some(112), "{}", client.log());
    wait_for("the host to end the lease by its own clock", COMMAND_LIMIT, || {
        match gate_inside(&ci) {
            Err(refused) => {
                ensure!(format!("{refused:#}").contains("denied"), "{refused:#}");
                Ok(())
            }
            Ok(served) => anyhow::bail!("it still serves: {served}"),
        }
    })
    .unwrap();
    // Nobody gets the TE meanwhile: only its host's word makes it free.
    let waiting = ci.ask(ci.api().lease("L2")).unwrap().waiting.expect("it waits");
    assert!(waiting.reason.contains("out of reach"), "{waiting:?}");
    let te = ci.ask(ci.api().testenvs()).unwrap().remove(0);
    assert_eq!((te.state, te.host_connection), (TeState::Resetting, Connection::CutOff), "{te:?}");

    mend(&ci.lab, device).unwrap();
    let status = next.wait(BACK_LIMIT).unwrap();
    assert!(status.success(), "{status}\n{}\n{}", next.log_tail(), ci.logs());
    assert!(next.output().contains("seed_1"), "{}", next.output());
}
