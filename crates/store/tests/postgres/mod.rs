//! A PostgreSQL server of the test's own: its files in a temporary directory, its only address a
//! unix socket there. It ends with the value.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Ends with the value.
pub(crate) struct Server {
    process: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// Makes a cluster and starts it. PostgreSQL refuses to run as root; then it runs as `nobody`.
    pub(crate) fn start() -> Server {
        let bin = newest_bin();
        let dir = tempfile::Builder::new().prefix("toci-pg").tempdir().unwrap();
        let run = |program: &str| {
            let mut command = Command::new("setpriv");
            if is_root() {
                command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
            }
            // The server must not outlive a test that was killed.
            command.args(["--pdeathsig", "INT"]).arg(bin.join(program));
            command.current_dir(dir.path());
            command
        };
        if is_root() {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let data = dir.path().join("data");
        let out = run("initdb")
            .args(["--auth=trust", "--username=toci", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .arg("--pgdata")
            .arg(&data)
            .output()
            .expect("setpriv and initdb run (Debian packages util-linux and postgresql)");
        assert!(out.status.success(), "initdb: {}", String::from_utf8_lossy(&out.stderr));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = run("postgres")
            .args(["-c", "listen_addresses=", "-c", "max_connections=20", "-k"])
            .arg(dir.path())
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Server { process, dir };
        server.wait(&bin);
        server
    }

    fn wait(&self, bin: &Path) {
        let started = Instant::now();
        loop {
            let ready = Command::new(bin.join("pg_isready"))
                .args(["--quiet", "--username=toci", "--dbname=postgres", "--host"])
                .arg(self.dir.path())
                .status()
                .unwrap();
            if ready.success() {
                return;
            }
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < START_LIMIT, "postgres does not answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres:///postgres?host={}&user=toci", self.dir.path().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0"))
}

fn newest_bin() -> PathBuf {
    let root = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(root).unwrap_or_else(|e| {
        panic!("{}: {e}: install the Debian package postgresql", root.display())
    });
    let newest = versions
        .filter_map(|d| d.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("a version of PostgreSQL (Debian package postgresql)");
    root.join(newest.to_string()).join("bin")
}
