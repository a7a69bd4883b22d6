//! What a sandbox may take of the machine.
//!
//! | what | with a cgroup | without |
//! |---|---|---|
//! | processes | `pids.max` | RLIMIT_NPROC of its user namespace |
//! | memory | `memory.max`: all of it, its files too, without swap | RLIMIT_DATA: each process by itself |
//! | CPUs | `cpu.max` | nothing |
//! | files | the size of its one file system, which is in memory | the same |
//!
//! Who is root in a sandbox may mount another file system in memory, which has no limit but a cgroup's.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Processes of one sandbox at most: a job that forks for ever harms itself alone.
pub const PROCESSES_MAX: u32 = 4096;
/// Files that a MiB of a sandbox's file system has room for; each takes memory beside its bytes.
const FILES_A_MIB: u64 = 64;
/// Microseconds in which a sandbox has its share of the CPUs.
const CPU_PERIOD_US: u64 = 100_000;
/// Controllers that are needed.
const CONTROLLERS: &str = "+memory +pids +cpu";

/// What one sandbox may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Processes and threads.
    pub processes: u32,
    /// Memory, MiB; none: as much as there is.
    pub memory_mib: Option<u64>,
    /// Bytes of files, MiB; none: half of the machine's memory.
    pub disk_mib: Option<u64>,
    /// CPUs; none: all.
    pub cpus: Option<u64>,
    /// A folder of cgroup v2 in which this process may make others.
    pub cgroup: Option<PathBuf>,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            processes: PROCESSES_MAX,
            memory_mib: None,
            disk_mib: None,
            cpus: None,
            cgroup: None,
        }
    }
}

impl Bounds {
    /// Options of the sandbox's file system.
    pub(super) fn mount_options(&self) -> String {
        match self.disk_mib {
            Some(mib) => format!("size={mib}m,nr_inodes={},mode=755", mib.max(1) * FILES_A_MIB),
            None => "size=50%,mode=755".to_owned(),
        }
    }

    /// The program, with its arguments, by which everything comes into the sandbox; `cgroup` is the sandbox's own.
    pub(super) fn way_in(&self, cgroup: Option<&Path>) -> Vec<OsString> {
        if let Some(cgroup) = cgroup {
            let enter = "echo $$ >\"$0\" && exec \"$@\"";
            let words = ["bash", "-c", enter].map(OsString::from);
            return words.into_iter().chain([cgroup.join("cgroup.procs").into()]).collect();
        }
        match self.memory_mib {
            Some(mib) => {
                let bytes = mib.saturating_mul(1 << 20);
                ["prlimit".into(), format!("--data={bytes}").into()].into()
            }
            None => Vec::new(),
        }
    }

    /// Makes the cgroup of the sandbox of this name, if there is to be one.
    pub(super) fn make_cgroup(&self, name: &str) -> io::Result<Option<PathBuf>> {
        let Some(above) = &self.cgroup else { return Ok(None) };
        let told = |what: PathBuf| {
            move |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", what.display()))
        };
        let write = |path: PathBuf, text: String| std::fs::write(&path, text).map_err(told(path));
        write(above.join("cgroup.subtree_control"), CONTROLLERS.to_owned())?;
        let own = above.join(name);
        match std::fs::create_dir(&own) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(told(own)(e)),
            Ok(()) | Err(_) => {}
        }
        write(own.join("pids.max"), self.processes.to_string())?;
        if let Some(mib) = self.memory_mib {
            write(own.join("memory.max"), mib.saturating_mul(1 << 20).to_string())?;
            // A kernel without swap has no such file.
            let _ = std::fs::write(own.join("memory.swap.max"), "0");
        }
        if let Some(cpus) = self.cpus {
            let share = cpus.max(1).saturating_mul(CPU_PERIOD_US);
            write(own.join("cpu.max"), format!("{share} {CPU_PERIOD_US}"))?;
        }
        Ok(Some(own))
    }
}

/// Ends what is in a cgroup and removes it; false while something of it is still there.
pub(super) fn remove_cgroup(own: &Path) -> bool {
    // Before Linux 5.14 there is no such file; then what is in it was killed one by one.
    let _ = std::fs::write(own.join("cgroup.kill"), "1");
    match std::fs::remove_dir(own) {
        Ok(()) => true,
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bounds: &Bounds, cgroup: Option<&Path>) -> Vec<String> {
        bounds.way_in(cgroup).iter().map(|w| w.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn without_a_cgroup_each_process_is_bounded() {
        let bounds = Bounds { memory_mib: Some(2), disk_mib: Some(10), ..Bounds::default() };
        assert_eq!(bounds.make_cgroup("n").unwrap(), None);
        assert_eq!(words(&bounds, None), ["prlimit", "--data=2097152"]);
        assert_eq!(bounds.mount_options(), "size=10m,nr_inodes=640,mode=755");
        assert!(words(&Bounds::default(), None).is_empty());
    }

    /// The kernel's side is played: what is written where is what cgroup v2 wants.
    #[test]
    fn with_a_cgroup_all_of_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            processes: 7,
            memory_mib: Some(2),
            disk_mib: None,
            cpus: Some(3),
            cgroup: Some(folder.path().to_owned()),
        };
        let own = bounds.make_cgroup("node1").unwrap().unwrap();
        assert_eq!(own, folder.path().join("node1"));
        let read = |name: &str| std::fs::read_to_string(own.join(name)).unwrap();
        assert_eq!(read("pids.max"), "7");
        assert_eq!(read("memory.max"), "2097152");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("cpu.max"), "300000 100000");
        assert_eq!(read("../cgroup.subtree_control"), "+memory +pids +cpu");
        let way = words(&bounds, Some(&own));
        let mut command = std::process::Command::new(&way[0]);
        let output = command.args(&way[1..]).args(["bash", "-c", "echo $$ in"]).output().unwrap();
        let pid = read("cgroup.procs");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{} in\n", pid.trim()));
        // One that is left over is used again.
        assert_eq!(bounds.make_cgroup("node1").unwrap(), Some(own));
        let none = Bounds { cgroup: Some(folder.path().join("none")), ..bounds };
        let error = none.make_cgroup("node1").unwrap_err();
        assert!(error.to_string().contains("none/cgroup.subtree_control"), "{error}");
    }
}
