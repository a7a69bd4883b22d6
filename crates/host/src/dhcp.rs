//! Our DHCP server: one dnsmasq on `tedev`. What it was started with stands in its command line
//! (the name of its configuration file), so it is found again after a crash of the agent, and without
//! any file of the state folder.

use crate::names;
use crate::netdev;
use crate::plan::DhcpWorld;
use crate::run::{CommandError, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for the old server to leave.
const LEAVE_MAX: Duration = Duration::from_secs(5);
const LEAVE_POLL: Duration = Duration::from_millis(10);
/// Starts at once: whatever ends the switch ends `tedev`, and the server must follow soon.
const STARTS_FREE: u32 = 3;
/// Pause after those; it doubles with every further start.
const START_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause.
const START_PAUSE_MAX: Duration = Duration::from_secs(300);
/// A server that ran for so long has proved itself: the count begins anew.
const STABLE: Duration = Duration::from_secs(600);

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
    /// It was started again and again.
    #[error("dnsmasq does not stay up: started {starts} times; tried again in {} s; see {log}", wait.as_secs())]
    TooOften {
        /// Starts since it last ran for long.
        starts: u32,
        /// Until the next one.
        wait: Duration,
        /// What it said.
        log: PathBuf,
    },
    /// The old one did not leave.
    #[error("the old dnsmasq (pid {0}) does not leave")]
    Stuck(i32),
    /// There is no `tedev` to serve on.
    #[error("device {} is missing", names::HOST_DEVICE)]
    NoDevice,
}

/// How often it was started lately.
#[derive(Clone, Copy, Debug, Default)]
struct Starts {
    count: u32,
    last: Option<Instant>,
}

impl Starts {
    /// Counts a start now, or says how long to wait.
    fn begin(&mut self, now: Instant) -> Result<(), Duration> {
        let since = self.last.map(|last| now.saturating_duration_since(last));
        if since.is_none_or(|s| s >= STABLE) {
            self.count = 0;
        }
        if let (Some(since), Some(over)) = (since, self.count.checked_sub(STARTS_FREE)) {
            let pause = START_PAUSE.saturating_mul(1 << over.min(16)).min(START_PAUSE_MAX);
            if since < pause {
                return Err(pause - since);
            }
        }
        *self = Starts { count: self.count + 1, last: Some(now) };
        Ok(())
    }
}

/// The server, with its files in a folder.
#[derive(Debug)]
pub struct Dhcp {
    folder: PathBuf,
    starts: Mutex<Starts>,
}

impl Dhcp {
    /// With its files in this folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Dhcp {
        Dhcp { folder, starts: Mutex::default() }
    }

    /// The server that runs, if any.
    #[must_use]
    pub fn observe(&self) -> Option<DhcpWorld> {
        servers(&self.folder).next()
    }

    /// Starts it anew with this configuration; refuses when it was started too often.
    pub async fn start(&self, conf: &str, fingerprint: &str) -> Result<(), DhcpError> {
        let folder = &self.folder;
        let log = folder.join("dnsmasq.log");
        {
            let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
            starts.begin(Instant::now()).map_err(|wait| DhcpError::TooOften {
                starts: starts.count,
                wait,
                log: log.clone(),
            })?;
        }
        self.stop().await?;
        let index = netdev::index(names::HOST_DEVICE).ok_or(DhcpError::NoDevice)?;
        let path = folder.join(format!("dnsmasq-{fingerprint}-{index}.conf"));
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, conf))
            .map_err(|source| DhcpError::Write { path: path.clone(), source })?;
        let arguments = [
            format!("--conf-file={}", path.display()),
            format!("--pid-file={}", folder.join("dnsmasq.pid").display()),
            format!("--log-facility={}", log.display()),
            "--user=root".to_owned(),
        ];
        run("dnsmasq", &arguments.each_ref().map(String::as_str)).await?;
        Ok(())
    }

    /// Stops it, and any other that serves from the same folder; none running is fine.
    pub async fn stop(&self) -> Result<(), DhcpError> {
        for old in servers(&self.folder) {
            let _ = kill(Pid::from_raw(old.pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + LEAVE_MAX;
        while let Some(old) = self.observe() {
            if Instant::now() > deadline {
                return Err(DhcpError::Stuck(old.pid));
            }
            sleep(LEAVE_POLL).await;
        }
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "conf") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Every dnsmasq whose configuration is in this folder.
fn servers(folder: &Path) -> impl Iterator<Item = DhcpWorld> {
    let prefix = format!("--conf-file={}/dnsmasq-", folder.display());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |p| {
        let pid: i32 = p.file_name().to_str()?.parse().ok()?;
        let line = String::from_utf8(std::fs::read(p.path().join("cmdline")).ok()?).ok()?;
        let conf = line.split('\0').find_map(|a| a.strip_prefix(&prefix))?;
        let (fingerprint, index) = conf.strip_suffix(".conf")?.split_once('-')?;
        let (fingerprint, device_index) = (fingerprint.to_owned(), index.parse().ok()?);
        Some(DhcpWorld { pid, fingerprint, device_index })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_stay_up_is_started_ever_more_seldom() {
        let mut starts = Starts::default();
        let mut now = Instant::now();
        for _ in 0..STARTS_FREE {
            starts.begin(now).unwrap();
        }
        assert_eq!(starts.begin(now), Err(START_PAUSE));
        now += START_PAUSE;
        starts.begin(now).unwrap();
        assert_eq!(starts.begin(now + START_PAUSE), Err(START_PAUSE));
        for _ in 0..40 {
            now += START_PAUSE_MAX;
            starts.begin(now).unwrap();
        }
        assert_eq!(starts.begin(now), Err(START_PAUSE_MAX));
        now += STABLE;
        starts.begin(now).unwrap();
        starts.begin(now).unwrap();
    }

    /// There is no `tedev` where the tests run, so every start fails.
    #[tokio::test]
    async fn starts_that_fail_count_too() {
        let folder = tempfile::tempdir().unwrap();
        let dhcp = Dhcp::new(folder.path().to_owned());
        for _ in 0..STARTS_FREE {
            assert!(matches!(dhcp.start("", "f").await, Err(DhcpError::NoDevice)));
        }
        let said = dhcp.start("", "f").await.unwrap_err().to_string();
        assert!(said.starts_with("dnsmasq does not stay up: started 3 times"), "{said}");
    }
}
