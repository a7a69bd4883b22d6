//! A gateway on loopback with leases, and OpenSSH's client.

use crate::fake::Fake;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use toci_core::id::{Generation, LeaseId, TeId};
use toci_host::gateway::{Gateway, GatewayConfig, PublicKey, TeGrant};
use toci_host::te::LeaseKey;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// No step of a test takes longer.
pub(crate) const STEP_MAX: Duration = Duration::from_secs(60);

/// How long it may take here until a session is cut. The promise is 1 s; a busy machine gets more. A session that is not
/// cut goes on for ever.
pub(crate) const CUT_MAX: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) gateway: Gateway,
}

/// A lease as its holder and the host see it.
pub(crate) struct Leased {
    pub(crate) grant: TeGrant,
    pub(crate) fake: Arc<Fake>,
    pub(crate) key_file: PathBuf,
    pub(crate) image: PathBuf,
}

/// What a client saw.
#[derive(Debug)]
pub(crate) struct Saw {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl From<Output> for Saw {
    fn from(o: Output) -> Saw {
        Saw {
            out: String::from_utf8_lossy(&o.stdout).into_owned(),
            err: String::from_utf8_lossy(&o.stderr).into_owned(),
            code: o.status.code().unwrap_or(-1),
        }
    }
}

impl World {
    pub(crate) async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let gateway = Gateway::start(GatewayConfig::new(address, folder.path())).await.unwrap();
        let port = gateway.address().port();
        let known = format!("[127.0.0.1]:{port} {}\n", gateway.host_key());
        std::fs::write(folder.path().join("known_hosts"), known).unwrap();
        World { folder, gateway }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A TE leased: key made, door open.
    pub(crate) async fn lease(&self, number: u32, generation: u64) -> Leased {
        let images = self.path("images");
        std::fs::create_dir_all(&images).unwrap();
        let image = images.join(format!("seed_{number}.qcow2"));
        let fake = Fake::new(number, image.clone());
        let key = LeaseKey::new(generation).unwrap();
        let key_file = self.path(&format!("key-{number}-{generation}"));
        std::fs::write(&key_file, &key.private).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key_file, mode).unwrap();
        let grant = TeGrant {
            te: TeId::new(format!("host-{number}")).unwrap(),
            generation: Generation(generation),
            lease: LeaseId(u64::from(number)),
            key: PublicKey::from_line(&key.public).unwrap(),
            expires: Instant::now() + Duration::from_secs(3600),
            machines: Arc::<Fake>::clone(&fake),
        };
        self.gateway.open(grant.clone()).await.unwrap();
        Leased { grant, fake, key_file, image }
    }

    /// OpenSSH's client, ready to be given options and a command.
    pub(crate) fn ssh(&self, key: &Path, options: &[&str], command: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "IdentityAgent=none"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()))
            .args(["-o", "LogLevel=ERROR", "-p"])
            .arg(self.gateway.address().port().to_string())
            .arg("-i")
            .arg(key)
            .args(options);
        if !options.contains(&"-l") {
            ssh.args(["-l", "root"]);
        }
        ssh.arg("127.0.0.1").args(command).kill_on_drop(true);
        ssh
    }

    /// Runs one command line.
    pub(crate) async fn run(&self, lease: &Leased, command: &str) -> Saw {
        self.run_with(lease, &["-n"], &[command]).await
    }

    pub(crate) async fn run_with(&self, lease: &Leased, options: &[&str], command: &[&str]) -> Saw {
        let mut ssh = self.ssh(&lease.key_file, options, command);
        let out = tokio::time::timeout(STEP_MAX, ssh.stdin(Stdio::null()).output()).await;
        out.expect("ssh did not end").expect(MISSING_SSH).into()
    }

    /// Starts a command whose standard input we keep.
    pub(crate) fn spawn(&self, lease: &Leased, command: &str) -> Child {
        let mut ssh = self.ssh(&lease.key_file, &[], &[command]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ssh.spawn().expect(MISSING_SSH)
    }

    /// `copyseed` with these bytes.
    pub(crate) async fn copyseed(&self, lease: &Leased, bytes: Vec<u8>) -> Saw {
        let number = toci_host::gateway::Machines::number(&*lease.fake);
        let mut ssh = self.spawn(lease, &format!("copyseed {number}"));
        let mut stdin = ssh.stdin.take().unwrap();
        let feed = tokio::spawn(async move {
            // A refusal closes the pipe under our hands.
            let _ = stdin.write_all(&bytes).await;
        });
        let out = tokio::time::timeout(STEP_MAX, ssh.wait_with_output()).await;
        feed.abort();
        out.expect("copyseed did not end").unwrap().into()
    }
}

const MISSING_SSH: &str = "ssh is missing: install the Debian package openssh-client";

/// A qcow2 image with some data, as bytes.
pub(crate) fn qcow2(folder: &Path, name: &str, data_bytes: usize) -> Vec<u8> {
    let (raw, made) = (folder.join(format!("{name}.raw")), folder.join(name));
    let mut bytes: Vec<u8> = vec![0; data_bytes];
    for (i, b) in bytes.iter_mut().enumerate() {
        *b = u8::try_from((i.wrapping_mul(2_654_435_761) >> 11) & 0xff).unwrap();
    }
    std::fs::write(&raw, bytes).unwrap();
    let done = std::process::Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &made])
        .status()
        .expect("qemu-img is missing: install the Debian package qemu-utils");
    assert!(done.success());
    std::fs::read(made).unwrap()
}

/// Waits for a condition; says what was last when it does not come.
pub(crate) async fn until<T: std::fmt::Debug>(
    mut look: impl FnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + STEP_MAX;
    loop {
        let now = look();
        if good(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "waited {STEP_MAX:?}; last: {now:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
