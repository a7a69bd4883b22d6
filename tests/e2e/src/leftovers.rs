//! What a run may not leave behind on the machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::wait_for;

/// Everything that counts as a trace, as it was before a run. Other work on the same machine goes on meanwhile, so
/// processes and mounts only count when they name the `mark` of the run: a path that is its alone.
#[derive(Debug)]
pub struct Leftovers {
    mark: String,
    links: BTreeSet<String>,
    cgroups: BTreeSet<String>,
}

/// Control groups of machines that ended are removed by libvirt, a moment later than the machines.
const CGROUP_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

impl Leftovers {
    /// The machine as it is now.
    #[must_use]
    pub fn before(mark: &Path) -> Leftovers {
        Leftovers { mark: mark.display().to_string(), links: links(), cgroups: cgroups() }
    }

    /// Compares with the machine as it is now.
    ///
    /// # Errors
    /// Names what is left.
    pub fn check(&self) -> Result<()> {
        wait_for("nothing to be left behind", CGROUP_LIMIT, || {
            let found = self.found();
            if found.is_empty() { Ok(()) } else { bail!("{}", found.join("\n")) }
        })
    }

    /// What is there that was not there before, a line each.
    #[must_use]
    pub fn found(&self) -> Vec<String> {
        let mut found = processes(&self.mark);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&self.mark))
                .map(|line| format!("mount: {line}")),
        );
        found.extend(
            links().difference(&self.links).map(|link| format!("network interface: {link}")),
        );
        found.extend(
            cgroups().difference(&self.cgroups).map(|group| format!("control group: {group}")),
        );
        found
    }
}

/// Processes whose environment or arguments name the mark.
fn processes(mark: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter(|entry| entry.file_name().to_string_lossy() != own)
        .filter_map(|entry| {
            let read = |name: &str| {
                let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let (arguments, environment) = (read("cmdline"), read("environ"));
            (arguments.contains(mark) || environment.contains(mark))
                .then(|| format!("process {}: {arguments}", entry.file_name().to_string_lossy()))
        })
        .collect()
}

/// Network interfaces of the machine itself.
fn links() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Control groups that libvirt made for machines.
fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Path::new("/sys/fs/cgroup").to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.contains("qemu") || name.contains("toci") || name.contains("libvirt") {
                    found.insert(path.display().to_string());
                }
                open.push(path);
            }
        }
    }
    found
}
