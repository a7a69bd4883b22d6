//! What is collected of the machines of a run: the origin's list (origin.md 5.3) as rules, and a plan made of them.
//!
//! ```text
//! Rules + Scene ──plan──▶ Plan: one View a machine ──edge──▶ <run's folder>/<view's folder>/…
//! ```
//!
//! The server has no way to a TE's machines; the node has. So every view is shell text for the node, which writes a
//! compressed tar archive to its output, and looks at another machine over the node's own ssh, with the job's key.
//! What the origin suffered from is gone: every command, every machine and every file has a limit, names do not collide,
//! keys and passwords are neither sent nor kept, and a machine that cannot be reached is told instead of an empty archive.

use super::path::plain_name;
use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Longest look at one machine.
pub const VIEW_LIMIT: Duration = Duration::from_secs(90);
/// Longest look at all machines of a run; they are looked at side by side, and the TE is held meanwhile.
pub const VIEWS_LIMIT: Duration = Duration::from_secs(180);
/// Machines of one run that are looked at, at most.
pub const VIEWS_MAX: usize = 32;
/// Compressed bytes of one machine at most.
pub const VIEW_MAX_BYTES: u64 = 48 << 20;
/// Largest file that is taken from a machine, in KiB.
const FILE_MAX_KIB: u64 = 64 << 10;
/// Longest time of one command, in seconds.
const FACT_LIMIT_S: u64 = 20;
/// Bytes of one command's output at most.
const FACT_MAX_BYTES: u64 = 4 << 20;
/// How long finding a run's machines may take.
pub const FIND_LIMIT: Duration = Duration::from_secs(60);

/// The node's way to a TE's machines: no questions, no passwords, no memory of host keys, which are new every time.
const SSH: &str = "ssh -q -o BatchMode=yes -o PasswordAuthentication=no -o StrictHostKeyChecking=no \
     -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3";

/// What is collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Commands whose output goes to `host_info.txt`.
    pub facts: Vec<String>,
    /// More of them, for a seed.
    pub seed_facts: Vec<String>,
    /// Folders, without the slash before them.
    pub folders: Vec<String>,
    /// Paths that are left out, as `find -path` has them.
    pub left_out: Vec<String>,
}

impl Default for Rules {
    fn default() -> Rules {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Rules {
            facts: list(&[
                "uptime",
                "free -m",
                "df -h",
                "ps -efZ || ps -ef || ps",
                "ip addr",
                "ip route",
                "ss -lpn || netstat -lpn",
                "iptables-save",
                "ovs-vsctl show",
                "ls -lZ /var/run || ls -l /var/run",
                "dpkg -l || rpm -qa",
                "os-collect-config --print",
                "systemctl --no-pager --failed",
                "dmesg | tail -n 2000",
                "journalctl --no-pager -b -o short-iso -n 50000",
            ]),
            seed_facts: list(&[
                ". /root/stackrc && nova list",
                ". /root/stackrc && heat stack-show overcloud",
                ". /root/stackrc && heat resource-list overcloud",
                ". /root/stackrc && heat event-list overcloud",
            ]),
            folders: list(&["var/log", "etc", "mnt/state/var/log"]),
            left_out: list(&[
                "etc/udev/hwdb.bin",
                "etc/selinux/targeted",
                "etc/services",
                "etc/pki",
                "etc/ssl",
                "etc/ssh/*_key",
                "etc/shadow*",
                "etc/gshadow*",
                "etc/sudoers*",
                "etc/keystone/fernet-keys",
                "var/log/journal",
                "*/.ssh",
                "*.key",
                "*.pem",
                "*passwords",
            ]),
        }
    }
}

/// What is known of a run when it is collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// Whether the node is a machine of its own, whose folders are the run's. A sandbox shows the server's.
    pub is_own_machine: bool,
    /// Its test environments: name, and the seed's address (`seed-ip`).
    pub testenvs: Vec<(String, String)>,
    /// Machines that were found (see [`finding`]).
    pub machines: Vec<Machine>,
}

/// A machine that a run deployed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Who to be there.
    pub user: String,
    /// Where it is.
    pub address: IpAddr,
}

/// Looks at the machines of a run, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One a machine.
    pub views: Vec<View>,
    /// What is not looked at, for people.
    pub notes: Vec<String>,
}

/// A look at one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where it goes, relative to the run's folder; no two are the same.
    pub folder: String,
    /// Shell text for the node: a tar archive, compressed by gzip, to its output; 3: the machine cannot be reached.
    pub script: String,
    /// Longest time.
    pub limit: Duration,
    /// Bytes at most.
    pub max_bytes: u64,
}

/// Shell text for the node that writes the run's machines, one a line: `name user@address`. The job may have told them in
/// the file `machines` of its workspace; those that a seed's nova knows are found by themselves.
#[must_use]
pub fn finding(workspace: &str, testenvs: &[(String, String)]) -> String {
    let mut out = format!("cat {} 2>/dev/null", quoted(&format!("{workspace}/machines")));
    for (_, seed) in testenvs {
        let Ok(seed) = seed.parse::<IpAddr>() else { continue };
        // | id | name | status | … | ctlplane=192.0.2.4 |
        let list = "command -v nova >/dev/null && . /root/stackrc && timeout 40 nova list";
        let _ = write!(
            out,
            "\ntimeout 50 {SSH} root@{seed} {} 2>/dev/null | awk -F'|' '/ACTIVE/ {{ n=$3; a=$0; gsub(/ /,\"\",n); sub(/.*=/,\"\",a); gsub(/[ |].*/,\"\",a); print n \" heat-admin@\" a }}'",
            quoted(list)
        );
    }
    out.push_str("\ntrue");
    out
}

/// The machines that were found; lines that name none are left out.
#[must_use]
pub fn machines(found: &str) -> Vec<Machine> {
    let machine = |line: &str| {
        let (name, login) = line.trim().split_once(' ')?;
        let (user, address) = login.trim().split_once('@')?;
        let is_user = !user.is_empty()
            && user.len() <= 32
            && !user.starts_with('-')
            && user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        let address = address.parse().ok()?;
        is_user.then(|| Machine { name: plain_name(name), user: user.to_owned(), address })
    };
    let mut out: Vec<Machine> = found.lines().take(1000).filter_map(machine).collect();
    out.sort();
    out.dedup();
    out
}

/// What to look at.
#[must_use]
pub fn plan(rules: &Rules, scene: &Scene) -> Plan {
    let mut plan = Plan::default();
    let mut taken = BTreeSet::new();
    let folders = if scene.is_own_machine { &rules.folders[..] } else { &[] };
    let here = collecting(&rules.facts, folders, &rules.left_out);
    plan.add("node".to_owned(), here, &mut taken);
    for (testenv, seed) in &scene.testenvs {
        let folder = format!("te/{}/seed", plain_name(testenv));
        match seed.parse::<IpAddr>() {
            Ok(address) => {
                let facts = [&rules.facts[..], &rules.seed_facts].concat();
                let there = collecting(&facts, &rules.folders, &rules.left_out);
                plan.add(folder, over_ssh("root", address, &there, ""), &mut taken);
            }
            Err(_) => plan.notes.push(format!("{testenv} names no address of its seed")),
        }
    }
    for machine in &scene.machines {
        let there = collecting(&rules.facts, &rules.folders, &rules.left_out);
        let sudo = if machine.user == "root" { "" } else { "sudo -n " };
        let script = over_ssh(&machine.user, machine.address, &there, sudo);
        plan.add(format!("te/{}", machine.name), script, &mut taken);
    }
    plan
}

impl Plan {
    fn add(&mut self, folder: String, script: String, taken: &mut BTreeSet<String>) {
        if self.views.len() == VIEWS_MAX {
            self.notes.push(format!(
                "{folder} is not looked at: there are more than {VIEWS_MAX} machines"
            ));
            return;
        }
        let mut unique = folder.clone();
        for number in 2.. {
            if taken.insert(unique.clone()) {
                break;
            }
            unique = format!("{folder}.{number}");
        }
        self.views.push(View {
            folder: unique,
            script,
            limit: VIEW_LIMIT,
            max_bytes: VIEW_MAX_BYTES,
        });
    }
}

/// The same text on another machine. ssh itself ends with 255 when there is no way.
fn over_ssh(user: &str, address: IpAddr, text: &str, sudo: &str) -> String {
    let command = format!("{sudo}sh -c {}", quoted(text));
    format!(
        "{SSH} {user}@{address} {} </dev/null\nc=$?; [ $c -eq 255 ] && exit 3; exit $c",
        quoted(&command)
    )
}

/// Shell text (any sh, also busybox) that writes what there is to its output.
fn collecting(facts: &[String], folders: &[String], left_out: &[String]) -> String {
    let mut out = String::from(
        "umask 077; d=$(mktemp -d) || exit 9; trap 'rm -rf \"$d\"' EXIT; mkdir -p \"$d/o\"\n{\n",
    );
    for fact in facts {
        let _ = writeln!(
            out,
            "printf '\\n===== %s\\n' {0}; timeout {FACT_LIMIT_S} sh -c {0} 2>&1 | head -c {FACT_MAX_BYTES}",
            quoted(fact)
        );
    }
    out.push_str("} >\"$d/o/host_info.txt\" 2>&1 </dev/null\n");
    if !folders.is_empty() {
        let names: Vec<String> = folders.iter().map(|folder| quoted(folder)).collect();
        let pruned: Vec<String> =
            left_out.iter().map(|path| format!("-path {}", quoted(path))).collect();
        let prune = if pruned.is_empty() {
            String::new()
        } else {
            format!("\\( {} \\) -prune -o ", pruned.join(" -o "))
        };
        let _ = writeln!(
            out,
            "cd / && for f in {}; do [ -d \"$f\" ] && find \"$f\" -xdev {prune}-type f -size -{FILE_MAX_KIB}k -print; done >\"$d/list\" 2>/dev/null",
            names.join(" ")
        );
    }
    out.push_str("touch \"$d/list\"; o=; tar --version 2>/dev/null | grep -q GNU && o='--format=gnu --ignore-failed-read --no-recursion --warning=none'\n");
    let _ = writeln!(
        out,
        "tar -c $o -f - -C \"$d/o\" host_info.txt -C / -T \"$d/list\" 2>/dev/null | gzip -1 | head -c {VIEW_MAX_BYTES}"
    );
    out
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_one_role_do_not_collide_and_hostile_lines_are_no_machines() {
        let found = "overcloud-novacompute0-abc heat-admin@192.0.2.5\n\
                     overcloud-novacompute0-abd heat-admin@192.0.2.6\n\
                     same root@192.0.2.7\nsame root@192.0.2.8\n\
                     evil -oProxyCommand=x@192.0.2.9\nevil root@$(reboot)\nevil\n\nbad u;x@1.2.3.4\n\
                     ../../x root@192.0.2.10\n";
        let machines = machines(found);
        assert_eq!(machines.len(), 5);
        let scene = Scene {
            machines,
            testenvs: vec![("h-1".into(), "198.18.1.101".into())],
            is_own_machine: true,
        };
        let folders: Vec<String> =
            plan(&Rules::default(), &scene).views.into_iter().map(|v| v.folder).collect();
        assert_eq!(
            folders,
            [
                "node",
                "te/h-1/seed",
                "te/.._.._x",
                "te/overcloud-novacompute0-abc",
                "te/overcloud-novacompute0-abd",
                "te/same",
                "te/same.2"
            ]
        );
    }

    #[test]
    fn a_sandbox_gives_facts_only_and_a_seed_without_address_is_told() {
        let scene = Scene { testenvs: vec![("h-1".into(), "not yet".into())], ..Scene::default() };
        let plan = plan(&Rules::default(), &scene);
        assert_eq!(plan.views.len(), 1);
        assert!(!plan.views[0].script.contains("find "), "{}", plan.views[0].script);
        assert_eq!(plan.notes, ["h-1 names no address of its seed"]);
    }

    #[test]
    fn what_is_too_much_is_told() {
        let machine = |n: u8| Machine {
            name: format!("m{n}"),
            user: "root".into(),
            address: [192, 0, 2, n].into(),
        };
        let scene = Scene { machines: (0..40).map(machine).collect(), ..Scene::default() };
        let plan = plan(&Rules::default(), &scene);
        assert_eq!((plan.views.len(), plan.notes.len()), (VIEWS_MAX, 9));
    }
}
