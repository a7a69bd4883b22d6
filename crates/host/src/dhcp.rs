//! Our DHCP server: one dnsmasq on `tedev`. What it was started with stands in its command line
//! (the name of its configuration file), so it is found again after a crash of the agent.

use crate::names;
use crate::netdev;
use crate::plan::DhcpWorld;
use crate::run::{CommandError, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for the old server to leave.
const LEAVE_MAX: Duration = Duration::from_secs(5);
const LEAVE_POLL: Duration = Duration::from_millis(10);

/// Why the DHCP server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// Its files could not be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It did not start.
    #[error("start dnsmasq")]
    Start(#[from] CommandError),
    /// The old one did not leave.
    #[error("the old dnsmasq (pid {0}) does not leave")]
    Stuck(i32),
    /// There is no `tedev` to serve on.
    #[error("device {} is missing", names::HOST_DEVICE)]
    NoDevice,
}

fn pid_file(folder: &Path) -> PathBuf {
    folder.join("dnsmasq.pid")
}

/// The server that runs, if any. `folder` is where its files are.
#[must_use]
pub fn observe(folder: &Path) -> Option<DhcpWorld> {
    let pid: i32 = std::fs::read_to_string(pid_file(folder)).ok()?.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let prefix = format!("--conf-file={}/dnsmasq-", folder.display());
    let conf = line.split('\0').find_map(|a| a.strip_prefix(&prefix))?;
    let (fingerprint, index) = conf.strip_suffix(".conf")?.split_once('-')?;
    Some(DhcpWorld { pid, fingerprint: fingerprint.to_owned(), device_index: index.parse().ok()? })
}

/// Starts it anew with this configuration.
pub async fn start(folder: &Path, conf: &str, fingerprint: &str) -> Result<(), DhcpError> {
    stop(folder).await?;
    let index = netdev::index(names::HOST_DEVICE).ok_or(DhcpError::NoDevice)?;
    let path = folder.join(format!("dnsmasq-{fingerprint}-{index}.conf"));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, conf))
        .map_err(|source| DhcpError::Write { path: path.clone(), source })?;
    let arguments = [
        format!("--conf-file={}", path.display()),
        format!("--pid-file={}", pid_file(folder).display()),
        format!("--log-facility={}", folder.join("dnsmasq.log").display()),
        "--user=root".to_owned(),
    ];
    run("dnsmasq", &arguments.each_ref().map(String::as_str)).await?;
    Ok(())
}

/// Stops it; none running is fine.
pub async fn stop(folder: &Path) -> Result<(), DhcpError> {
    if let Some(old) = observe(folder) {
        let _ = kill(Pid::from_raw(old.pid), Signal::SIGTERM);
        let deadline = Instant::now() + LEAVE_MAX;
        while observe(folder).is_some() {
            if Instant::now() > deadline {
                return Err(DhcpError::Stuck(old.pid));
            }
            sleep(LEAVE_POLL).await;
        }
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "conf") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}
