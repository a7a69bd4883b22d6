//! TE hosts from bare machines: `toci host deploy`, `upgrade`, `rollback` and `remove`, over a real SSH server.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Ci, Leftovers, Machine, binary, wait_for};
use toci_wire::api::{LeaseState, TeState};

/// A command of a lease, or a reset, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// What all hosts share; K is the number of the machine.
const CONFIG: &str = r#"name = "@NAME@"
[server]
url = "http://198.19.@K@.1:8080"
[network]
address = "198.18.@K@.2/24"
seed_addresses = "198.18.@K@.101-198.18.@K@.109"
[sandbox]
outside_address = "198.18.@K@.1/24"
default_route = true
[reserve]
memory_mib = 512
disk_mib = 256
[accelerator]
never_kvm = true
[[testenv]]
shape = "small"
labels = ["e2e"]
count = 1
[shape.small]
cpu_overcommit = 16.0
disk_overcommit = 8.0
seed = { cpus = 1, memory_mib = 128, disk_gb = 1 }
nodes = { count = 1, cpus = 1, memory_mib = 128, disk_gb = 1 }
"#;

/// Changes power before and after a file is there.
const CLIENT: &str = r#"set -e
$GATE virsh start seed_1
echo on
while [ ! -e "$FLAG" ]; do sleep 0.2; done
$GATE virsh list
$GATE virsh start baremetalbrbm1_0
$GATE virsh destroy seed_1
echo off
"#;

struct Site {
    ci: Ci,
    machines: [Machine; 2],
}

impl Site {
    fn new() -> Result<Site> {
        let ci = Ci::start_without_host()?;
        let machines = [Machine::start(&ci.lab, 2)?, Machine::start(&ci.lab, 3)?];
        fs::write(ci.lab.folder().join("te.toml"), CONFIG)?;
        Ok(Site { ci, machines })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.ci.lab.folder().join(name)
    }

    /// `toci host …` as an operator.
    fn toci(&self, arguments: &str) -> Result<Output> {
        let mut shell = self.ci.operator_shell()?;
        shell.env("TOCI_INVENTORY", self.path("inventory.toml"));
        Ok(shell.args(["-c", &format!("toci host {arguments}")]).output()?)
    }

    fn good(&self, arguments: &str) -> Result<String> {
        let out = self.toci(arguments)?;
        let errors = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "{arguments}: {}\n{errors}{}", out.status, self.why());
        eprintln!("{arguments}:\n{errors}");
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    fn bad(&self, arguments: &str, code: i32) -> Result<String> {
        let out = self.toci(arguments)?;
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(
            out.status.code() == Some(code),
            "{arguments}: {}\n{errors}{}",
            out.status,
            self.why()
        );
        eprintln!("{arguments}:\n{errors}");
        Ok(errors)
    }

    /// Ends of the hosts' logs.
    fn why(&self) -> String {
        let log = "tail -n 25 /var/log/toci-host.log 2>/dev/null || true";
        let logs = self.machines.iter().map(|m| m.sh(&self.ci.lab, log).unwrap_or_default());
        logs.collect::<Vec<_>>().join("\n---\n")
    }

    fn deploy(&self, machine: usize, more: &str) -> Result<String> {
        let number = machine + 2;
        let (address, key) = (self.machines[machine].address(), self.machines[machine].host_key()?);
        let own = Machine::key(&self.ci.lab);
        Ok(format!(
            "deploy tehost{number} --ssh root@{address} --ssh-key {} --host-key '{key}' --config te.toml --set K={number} {more}",
            own.display()
        ))
    }

    /// The version that serves, as the host itself says.
    fn version(&self, machine: usize) -> Result<String> {
        let said = self.machines[machine].sh(&self.ci.lab, "cat /var/lib/toci-host/agent.json")?;
        let (_, rest) = said.split_once("/usr/local/lib/toci/").context(said.clone())?;
        Ok(rest.split('/').next().unwrap_or_default().to_owned())
    }

    fn all_ready(&self, count: usize) -> Result<()> {
        let ready = |all: &[toci_wire::api::TestEnv]| {
            all.len() == count && all.iter().all(|te| te.state == TeState::Ready)
        };
        self.ci.wait_for_testenvs("ready", LIMIT, ready).map(drop)
    }
}

/// A program of another version: the same one and a byte, which nothing reads.
fn another(name: &str, site: &Site) -> Result<PathBuf> {
    let mut bytes = fs::read(binary("toci-host")?)?;
    bytes.push(b'\n');
    write(site, name, &bytes)
}

/// A version whose agent ends in the middle of its start: it writes where there is no folder.
fn broken(site: &Site) -> Result<PathBuf> {
    let mut bytes = fs::read(binary("toci-host")?)?;
    let (place, elsewhere) = (b"/run/libvirt/toci-host-inc", b"/run/nowhere/toci-host-inc");
    let at = bytes.windows(place.len()).position(|w| w == place).context("the path to break")?;
    bytes[at..at + place.len()].copy_from_slice(elsewhere);
    write(site, "broken", &bytes)
}

fn write(site: &Site, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = site.path(name);
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn bare_machines_become_te_hosts_are_upgraded_under_a_lease_and_are_bare_again() {
    let site = Site::new().unwrap();
    let leftovers = Leftovers::before(site.ci.lab.folder());
    let lab = &site.ci.lab;
    let bare = site.machines.each_ref().map(|m| m.listing(lab).unwrap());
    deployed(&site);
    upgraded_under_a_lease(&site);
    removed(&site);
    for (machine, bare) in site.machines.iter().zip(bare) {
        assert_eq!(machine.listing(lab).unwrap(), bare);
        assert_eq!(machine.sh(lab, "pgrep -f toci-host || true").unwrap().lines().count(), 1);
    }
    drop(site);
    leftovers.check().unwrap();
}

fn deployed(site: &Site) {
    // Whom it meets must be known.
    let line = site.deploy(0, "--plan").unwrap();
    let stranger =
        line.replace(&site.machines[0].host_key().unwrap(), &site.machines[1].host_key().unwrap());
    assert!(site.bad(&stranger, 115).unwrap().contains("its host key is not known"));

    let plan = site.good(&line).unwrap();
    for step in
        ["+ program    toci-host", "+ configure", "+ enrol      it is new", "+ service", "> start"]
    {
        assert!(plan.contains(step), "{step}: {plan}");
    }
    assert!(site.ci.ask(site.ci.api().hosts()).unwrap().is_empty());
    for machine in [0, 1] {
        let done = site.good(&site.deploy(machine, "").unwrap()).unwrap();
        assert!(done.contains("done, 1 test environments"), "{done}");
    }
    site.all_ready(2).unwrap();

    // A second time there is nothing to do, and the one that runs runs on.
    let processes = |m: &Machine| m.sh(&site.ci.lab, "pgrep -x toci-host").unwrap();
    let before = processes(&site.machines[0]);
    assert!(site.good(&line).unwrap().contains("nothing to do"));
    let json: Vec<u8> = site.toci(&format!("{line} --json")).unwrap().stdout;
    let json = String::from_utf8(json).unwrap();
    assert!(
        json.contains("\"steps\": []") && json.contains("\"distribution\": \"debian\""),
        "{json}"
    );
    let again = site.good(&site.deploy(0, "").unwrap()).unwrap();
    assert!(again.contains("as it should be"), "{again}");
    assert_eq!(processes(&site.machines[0]), before);

    // A damaged program is sent again, and the one that runs runs on.
    let damage = "cd /usr/local/lib/toci/current && head -c 1000 toci-host >cut && chmod 755 cut && mv cut toci-host";
    site.machines[0].sh(&site.ci.lab, damage).unwrap();
    let plan = site.good(&line).unwrap();
    assert!(plan.contains("+ program    toci-host") && !plan.contains("> "), "{plan}");
    let done = site.good(&site.deploy(0, "").unwrap()).unwrap();
    assert!(done.contains("done, 1 test environments"), "{done}");
    assert!(site.good(&line).unwrap().contains("nothing to do"));
    assert_eq!(processes(&site.machines[0]), before);
    // The one-time token was never in a file, and the configuration is for root alone.
    let secrets = "ls -l /etc/toci | tail -n +2 | cut -d' ' -f1; grep -rl enrol /etc/toci || true";
    assert_eq!(site.machines[0].sh(&site.ci.lab, secrets).unwrap(), "-rw-------\n");
}

fn upgraded_under_a_lease(site: &Site) {
    let flag = site.path("flag");
    let script = format!("FLAG={}\n{CLIENT}", flag.display());
    let mut client = site.ci.lease_run("client", &[], &script).unwrap();
    client.wait_for_line("on").unwrap();
    let lease = site.ci.ask(site.ci.api().leases(false)).unwrap().remove(0);
    let te =
        site.ci.ask(site.ci.api().testenvs()).unwrap().into_iter().find(|te| te.lease.is_some());
    let te = te.unwrap();
    let machine = usize::from(te.host == "tehost3");
    let seed = || {
        let inside = "toci-host enter -c /etc/toci/toci-host.toml pgrep -f guest=seed_1";
        site.machines[machine].sh(&site.ci.lab, inside).unwrap()
    };
    let (first, qemu) = (site.version(machine).unwrap(), seed());

    let newer = another("newer", site).unwrap();
    site.good(&format!("upgrade tehost2 tehost3 --binary {}", newer.display())).unwrap();
    let second = site.version(machine).unwrap();
    assert_ne!(second, first);
    assert_eq!(seed(), qemu, "the seed did not run on");

    let told = site
        .bad(
            &format!(
                "upgrade {} --well-within 10s --binary {}",
                te.host,
                broken(site).unwrap().display()
            ),
            1,
        )
        .unwrap();
    for words in
        ["did not serve well within 10 s", "/run/nowhere", "the one before it serves again"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(site.version(machine).unwrap(), second);
    // One that refuses its configuration, or is no toci-host, changes nothing at all.
    let told = site.bad(&format!("upgrade {} --binary /bin/true", te.host), 1).unwrap();
    assert!(told.contains("the program says that it is \"true (GNU coreutils)"), "{told}");

    site.good(&format!("rollback {}", te.host)).unwrap();
    assert_eq!(site.version(machine).unwrap(), first);
    assert_eq!(seed(), qemu, "the seed did not run on");
    // What would end the lease is not done by the way.
    let config = CONFIG
        .replace("count = 1\n", "count = 1 # same\n")
        .replace("disk_mib = 256", "disk_mib = 300");
    fs::write(site.path("te.toml"), config).unwrap();
    let told = site.bad(&site.deploy(machine, "").unwrap(), 110).unwrap();
    assert!(told.contains("reserve.disk_mib cannot change while"), "{told}");
    fs::write(site.path("te.toml"), CONFIG).unwrap();

    let now = site.ci.ask(site.ci.api().lease(&lease.id)).unwrap();
    assert_eq!(now.state, LeaseState::Active);
    fs::write(&flag, "").unwrap();
    client.wait_for_line("off").unwrap();
    assert!(client.wait(LIMIT).unwrap().success(), "{}", client.log_tail());
    assert!(client.output().contains("seed_1"), "{}", client.output());
    let after = site.ci.ask(site.ci.api().testenv(&te.id)).unwrap();
    assert_eq!(after.generation, te.generation);
    site.all_ready(2).unwrap();
}

fn removed(site: &Site) {
    // One that is in use is waited for, unless it is said otherwise.
    let client = site.ci.lease_run("last", &["--count", "2"], "echo up; sleep 1000").unwrap();
    client.wait_for_line("up").unwrap();
    for host in ["tehost2", "tehost3"] {
        let said = site.good(&format!("remove {host} --now")).unwrap();
        assert!(said.contains("is removed"), "{said}");
    }
    wait_for("the hosts to be forgotten", LIMIT, || {
        let hosts = site.ci.ask(site.ci.api().hosts())?;
        ensure!(hosts.is_empty(), "{hosts:?}");
        Ok(())
    })
    .unwrap();
    assert!(site.bad("upgrade tehost2", 2).unwrap().contains("does not know where tehost2 is"));
}
