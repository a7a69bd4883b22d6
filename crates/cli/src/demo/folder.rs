//! The demo's folder.
//!
//! ```text
//! .demo/lock  lab.json            who has it, and the lab that is up
//! .demo/server/ host/             state of the control plane and of the TE host: made anew by every run
//! .demo/cache/                    images of the deployment: kept, they make the next run quick
//! .demo/logs/                     of the last run's parts; demo.log is what a lab that stays up says
//! .demo/archive/                  what the control plane archived of every job of the last run
//! .demo/gerrit/                   the site of the last run's Gerrit
//! .demo/git/ work/                the git host's repositories and the developers' copies, of the last run
//! .demo/toci.sock client.token …  for going on with `--keep`
//! ```

use crate::error::{CliError, Result};
use crate::exit::Exit;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{dup2_stderr, dup2_stdout};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, in bytes (`sun_path` less its NUL).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// What the TE host keeps between runs: whether KVM works here, and what libvirt found out about QEMU.
const KEPT_OF_HOST: [&str; 2] = ["probe.json", "libvirt-cache"];

/// The folder of one demo.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

/// The lab that is up.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lab {
    /// Process 1 of the lab, as the machine sees it.
    pub(super) init: i32,
    /// When it started, in the kernel's ticks: the same number may be given to another process later.
    pub(super) started: u64,
}

fn failed(what: &str, path: &Path, e: &io::Error) -> CliError {
    CliError::new(
        Exit::Failed,
        format!("{what} {}: {e}", path.display()),
        "choose another folder with --state DIR",
    )
}

impl Folder {
    /// Opens the folder, made if need be.
    pub(super) fn open(path: &Path) -> Result<Folder> {
        fs::create_dir_all(path).map_err(|e| failed("make", path, &e))?;
        let root = path.canonicalize().map_err(|e| failed("open", path, &e))?;
        let folder = Folder { root };
        let socket = folder.socket();
        if socket.as_os_str().len() > SOCKET_PATH_MAX_BYTES {
            return Err(CliError::usage(
                format!("{} is too long for a unix socket", socket.display()),
                "choose a folder with a shorter path with --state DIR",
            ));
        }
        Ok(folder)
    }

    /// The lock that a running demo holds.
    pub(super) fn lock(&self) -> Result<Flock<File>> {
        let path = self.root.join("lock");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| failed("open", &path, &e))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            CliError::new(
                Exit::Refused,
                format!("a demo is up already in {}", self.root.display()),
                format!("end it with: toci demo stop --state {}", self.root.display()),
            )
        })
    }

    /// Removes what an earlier run left, except what makes this one quick.
    pub(super) fn clear(&self) -> Result<()> {
        for gone in [
            "server",
            "logs",
            "archive",
            "git",
            "work",
            "gerrit",
            "lab.json",
            "toci.sock",
            "client.token",
            "enrol.token",
        ] {
            remove(&self.root.join(gone), &[])?;
        }
        remove(&self.host(), &KEPT_OF_HOST)?;
        for made in [self.server(), self.host(), self.logs(), self.archive(), self.cache()] {
            fs::create_dir_all(&made).map_err(|e| failed("make", &made, &e))?;
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }
    pub(super) fn server(&self) -> PathBuf {
        self.root.join("server")
    }
    pub(super) fn host(&self) -> PathBuf {
        self.root.join("host")
    }
    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }
    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// What the control plane archives of every run.
    pub(super) fn archive(&self) -> PathBuf {
        self.root.join("archive")
    }
    /// The bare repositories of the git host.
    pub(super) fn git(&self) -> PathBuf {
        self.root.join("git")
    }
    /// The developers' working copies.
    pub(super) fn work(&self) -> PathBuf {
        self.root.join("work")
    }
    /// The site of the demo's Gerrit.
    pub(super) fn gerrit(&self) -> PathBuf {
        self.root.join("gerrit")
    }
    pub(super) fn layout(&self) -> PathBuf {
        self.root.join("layout.yaml")
    }
    pub(super) fn server_config(&self) -> PathBuf {
        self.root.join("toci.toml")
    }
    pub(super) fn socket(&self) -> PathBuf {
        self.root.join("toci.sock")
    }
    pub(super) fn client_token(&self) -> PathBuf {
        self.root.join("client.token")
    }
    pub(super) fn enrol_token(&self) -> PathBuf {
        self.root.join("enrol.token")
    }
    pub(super) fn host_config(&self) -> PathBuf {
        self.root.join("toci-host.toml")
    }
    fn lab_file(&self) -> PathBuf {
        self.root.join("lab.json")
    }

    /// Writes a secret, readable by its owner only.
    pub(super) fn write_secret(path: &Path, secret: &str) -> Result<()> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
        file.and_then(|mut file| writeln!(file, "{secret}")).map_err(|e| failed("write", path, &e))
    }

    /// From now on, both outputs of this process go to `logs/demo.log`: whoever reads them now (`toci demo --keep | tee`)
    /// would otherwise wait for the end of the lab.
    pub(super) fn speak_to_log(&self) -> Result<()> {
        let path = self.logs().join("demo.log");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| failed("open", &path, &e))?;
        dup2_stdout(&file)
            .and_then(|()| dup2_stderr(&file))
            .map_err(|e| CliError::failed("turn to the log", &e))
    }

    /// Remembers the lab, for `stop` and `enter`.
    pub(super) fn write_lab(&self, lab: &Lab) -> Result<()> {
        let path = self.lab_file();
        let text = serde_json::to_string(lab).map_err(|e| CliError::failed("make JSON", &e))?;
        fs::write(&path, text).map_err(|e| failed("write", &path, &e))
    }

    /// Forgets the lab.
    pub(super) fn forget_lab(&self) {
        let _ = fs::remove_file(self.lab_file());
        let _ = fs::remove_file(self.socket());
    }

    /// The lab that is up, if it is.
    pub(super) fn lab(&self) -> Option<Lab> {
        let text = fs::read_to_string(self.lab_file()).ok()?;
        let lab: Lab = serde_json::from_str(&text).ok()?;
        (started(lab.init) == Some(lab.started)).then_some(lab)
    }
}

/// When a process started, in the kernel's ticks; none when it does not run.
pub(super) fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    // Field 22 of the line; `state` is field 3.
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

/// Removes a file or a folder; of a folder the names in `keep` stay.
fn remove(path: &Path, keep: &[&str]) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(meta) if !meta.is_dir() => fs::remove_file(path),
        Ok(_) if keep.is_empty() => fs::remove_dir_all(path),
        Ok(_) => {
            for entry in fs::read_dir(path).map_err(|e| failed("read", path, &e))?.flatten() {
                if !keep.iter().any(|name| entry.file_name() == *name) {
                    remove(&entry.path(), &[])?;
                }
            }
            Ok(())
        }
    };
    result.map_err(|e| failed("remove", path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_starts_clean_but_with_its_images() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(&scratch.path().join("demo")).unwrap();
        folder.clear().unwrap();
        for path in ["server/toci.db", "host/te.json", "host/probe.json", "cache/image", "logs/x"] {
            fs::write(folder.root().join(path), "x").unwrap();
        }
        folder.clear().unwrap();
        for (path, stays) in [
            ("server/toci.db", false),
            ("host/te.json", false),
            ("host/probe.json", true),
            ("cache/image", true),
            ("logs/x", false),
        ] {
            assert_eq!(folder.root().join(path).exists(), stays, "{path}");
        }
    }

    #[test]
    fn a_folder_has_one_demo_and_a_dead_lab_is_none() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(scratch.path()).unwrap();
        let lock = folder.lock().unwrap();
        assert_eq!(folder.lock().unwrap_err().exit, Exit::Refused);
        drop(lock);
        folder.lock().unwrap();

        let me = i32::try_from(std::process::id()).unwrap();
        let now = started(me).unwrap();
        folder.write_lab(&Lab { init: me, started: now }).unwrap();
        assert_eq!(folder.lab().unwrap().init, me);
        folder.write_lab(&Lab { init: me, started: now + 1 }).unwrap();
        assert!(folder.lab().is_none());
    }
}
