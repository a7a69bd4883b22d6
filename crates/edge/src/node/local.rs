//! The provider `local`: a sandbox of processes on this machine, with mount, network, pid, ipc, uts and user
//! namespaces of its own. The quick default: a node is there in a tenth of a second.
//!
//! Inside, root is an unprivileged user of the machine that exists nowhere else, so nothing of the machine can be
//! changed; `/tmp`, `/opt`, `/home`, `/root` and the like are fresh, all on one file system in memory. The first process
//! reads from a pipe that this process holds: when it goes, by any means, the sandbox ends, and everything in it. What it
//! may take of the machine: [`Bounds`].

use super::bounds::{Bounds, remove_cgroup};
use super::session::Session;
use crate::program::{Call, CallError, Group};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Users 200,000 to 265,535 of the machine belong to sandboxes.
const FIRST_USER: u32 = 200_000;
/// How long a sandbox may take to come up.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Attempts to remove a sandbox's cgroup, and the pause between them.
const CGROUP_TRIES: u32 = 100;
const CGROUP_PAUSE: Duration = Duration::from_millis(20);
/// One `ip` command.
const IP_LIMIT: Duration = Duration::from_secs(10);

/// What the first process does: fresh folders, its own /proc, then it waits for the end. It does not care for its
/// children, so the kernel clears orphans away when they end (that it can be told so is why it is bash: dash cannot).
const INIT: &str = r#"
set -e
mount -t proc proc /proc
mount -t tmpfs -o "$2" tmpfs /tmp
for d in /opt /home /root /var/tmp /run /srv /mnt /dev/shm /tmp; do
    [ -d "$d" ] || continue
    mkdir -p "/tmp/fresh$d"
    mount --bind "/tmp/fresh$d" "$d"
done
chmod 1777 /tmp /var/tmp /dev/shm
mkdir -p /opt/stack/new /home/toci
hostname "$1" 2>/dev/null || true
ip link set lo up
echo ready
trap '' CHLD
exec cat >/dev/null
"#;

/// A sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A command did not run.
    #[error("{what}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// Its cgroup could not be made.
    #[error("make a cgroup for a sandbox")]
    Cgroup(#[source] std::io::Error),
    /// A command refused.
    #[error("{what}: {why}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What it said.
        why: String,
    },
}

/// How a sandbox reaches the world: a veth pair whose outer end is in our network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Our end.
    pub outside: Ipv4Addr,
    /// The sandbox's end; our end is its default route.
    pub inside: Ipv4Addr,
}

/// A running sandbox. It ends when this value goes.
#[derive(Debug)]
pub struct LocalNode {
    group: Group,
    pid: u32,
    veth: Option<String>,
    way_in: Vec<OsString>,
    cgroup: Option<Cgroup>,
}

/// A sandbox's cgroup; it goes with the sandbox.
#[derive(Debug)]
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !remove_cgroup(&self.0) {
            // The next one of this name takes it over.
            tracing::debug!(path = %self.0.display(), "a sandbox's cgroup is still in use");
        }
    }
}

impl LocalNode {
    /// Makes sandbox number `number` (its user and its device are named after it).
    pub async fn start(
        name: &str,
        number: u16,
        link: Option<Link>,
        bounds: &Bounds,
    ) -> Result<LocalNode, LocalError> {
        let cgroup = bounds.make_cgroup(name).map_err(LocalError::Cgroup)?.map(Cgroup);
        let way_in = bounds.way_in(cgroup.as_ref().map(|cgroup| cgroup.0.as_path()));
        let user = (FIRST_USER + u32::from(number)).to_string();
        let what = "start a sandbox";
        let mut words = way_in.clone();
        words.push("prlimit".into());
        let mut group = Call::new(words.remove(0), START_LIMIT)
            .args(words)
            .args([&format!("--nproc={}", bounds.processes), "--core=0", "setpriv"])
            .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all"])
            .args([
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "--net",
                "--pid",
                "--ipc",
                "--uts",
            ])
            .args([
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
                "bash",
                "-c",
                INIT,
                "init",
                name,
                &bounds.mount_options(),
            ])
            .env("HOME", "/root")
            .start()
            .map_err(|source| LocalError::Call { what, source })?;
        let ready = tokio::time::timeout(START_LIMIT, ready(&mut group)).await;
        if !matches!(ready, Ok(true)) {
            let mut why = String::new();
            if let Some(stream) = &mut group.child.stderr {
                let mut stream = stream.take(4096);
                let read = stream.read_to_string(&mut why);
                // What it said so far; the group is killed below.
                let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
            }
            let why = format!("it did not come up: {}", why.trim());
            return Err(LocalError::Refused { what, why });
        }
        let starter = group.child.id().unwrap_or_default();
        let Some(pid) = child_of(starter) else {
            return Err(LocalError::Refused { what, why: "it ended at once".to_owned() });
        };
        let mut node = LocalNode { group, pid, veth: None, way_in, cgroup };
        if let Some(link) = link {
            node.connect(number, link).await?;
        }
        Ok(node)
    }

    /// The way into it.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::Namespaces { pid: self.pid, way_in: self.way_in.clone() }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.group.child.try_wait(), Ok(None))
    }

    /// Ends it and returns when its processes are gone.
    pub async fn end(mut self) {
        drop(self.group.child.stdin.take());
        self.group.signal(nix::sys::signal::Signal::SIGKILL);
        // Killed for certain: this takes as long as the kernel needs.
        let _ = tokio::time::timeout(START_LIMIT, self.group.child.wait()).await;
        if let Some(cgroup) = self.cgroup.take() {
            let mut tries = 0..CGROUP_TRIES;
            while !remove_cgroup(&cgroup.0) && tries.next().is_some() {
                // The kernel clears away what was killed.
                tokio::time::sleep(CGROUP_PAUSE).await;
            }
        }
    }

    async fn connect(&mut self, number: u16, link: Link) -> Result<(), LocalError> {
        let (outer, inner) = (format!("tocin{number}"), format!("tocin{number}i"));
        // Left over from a process that was killed.
        let _ = Call::new("ip", IP_LIMIT).args(["link", "del", &outer]).run(b"").await;
        let pid = self.pid.to_string();
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &pid]).await?;
        self.veth = Some(outer.clone());
        ip(&["addr", "add", &format!("{}/31", link.outside), "dev", &outer]).await?;
        ip(&["link", "set", &outer, "up"]).await?;
        let text = format!(
            "ip addr add {0}/31 dev {inner} && ip link set {inner} up && ip route add default via {1}",
            link.inside, link.outside
        );
        let what = "connect a sandbox";
        match self.session().run(what, &text, b"", IP_LIMIT).await {
            Ok(_) => Ok(()),
            Err(e) => Err(LocalError::Refused { what, why: e.to_string() }),
        }
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        // The group's own end kills the sandbox; its device goes with the network namespace.
        drop(self.group.child.stdin.take());
    }
}

async fn ip(arguments: &[&str]) -> Result<(), LocalError> {
    let what = "connect a sandbox";
    let ended = Call::new("ip", IP_LIMIT)
        .args(arguments)
        .run(b"")
        .await
        .map_err(|source| LocalError::Call { what, source })?;
    if ended.is_well() { Ok(()) } else { Err(LocalError::Refused { what, why: ended.complaint }) }
}

/// Reads the first word that the sandbox says.
async fn ready(group: &mut Group) -> bool {
    let Some(output) = &mut group.child.stdout else { return false };
    let mut word = [0; 6];
    output.read_exact(&mut word).await.is_ok() && word == *b"ready\n"
}

/// The child of a process that has one.
fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
