//! APIs that are short of breath, as operators make them: a real HAProxy before the real service, which refuses calls.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait_for;

/// Longest wait until the proxy listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How a call is refused. Both say after how many seconds to ask again.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// 429 when there were more calls than these within so many seconds.
    TooMany {
        /// So many are let through.
        calls: u32,
        /// In this time.
        seconds: u32,
    },
    /// 503, each time after so many calls.
    Every(u32),
}

/// A proxy before one service. It ends when it is dropped.
#[derive(Debug)]
pub struct Busy {
    haproxy: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Busy {
    /// Before what listens on this port.
    ///
    /// # Errors
    /// It does not start; HAProxy is missing (package `haproxy`).
    pub fn before(service: u16, refusal: Refusal) -> Result<Busy> {
        let folder = tempfile::tempdir()?;
        // HAProxy needs a number; this one was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let rule = match refusal {
            Refusal::TooMany { calls, seconds } => format!(
                "stick-table type ip size 1k expire 60s store http_req_rate({seconds}s)\n  http-request track-sc0 src\n  \
                 http-request return status 429 hdr Retry-After {seconds} if {{ sc_http_req_rate(0) gt {calls} }}"
            ),
            Refusal::Every(calls) => format!(
                "stick-table type ip size 1k expire 60s store gpc0\n  http-request track-sc0 src\n  \
                 http-request sc-inc-gpc0(0)\n  http-request return status 503 hdr Retry-After 1 if {{ sc_get_gpc0(0),mod({calls}) eq 0 }}"
            ),
        };
        let text = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 120s\n  timeout server 120s\n\
             listen busy\n  bind 127.0.0.1:{port}\n  {rule}\n  server real 127.0.0.1:{service}\n"
        );
        let config = folder.path().join("haproxy.cfg");
        std::fs::write(&config, text)?;
        let haproxy = spawn(&config)?;
        let busy = Busy { haproxy, port, _folder: folder };
        wait_for("HAProxy", START_LIMIT, || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port))?)
        })?;
        Ok(busy)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

fn spawn(config: &Path) -> Result<Child> {
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(config).stdin(Stdio::null());
    command.spawn().context("haproxy (package haproxy)")
}
