//! `copyseed` through our gateway beside `dd` through OpenSSH's sshd: the same image, the same client, the
//! same folder, in turns. The gateway checks the image, computes its SHA-256 and has it on disk when it
//! answers; plain `dd` does none of that, so a `dd` with `conv=fsync` is measured too.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Report;
use super::report::{Figure, Goal};
use crate::{cargo, shell};

/// Size of the image, MiB.
const IMAGE_MIB: u64 = 512;
const IMAGE_SMOKE_MIB: u64 = 32;
/// Turns; the median counts.
const TURNS: usize = 7;
const TURNS_SMOKE: usize = 1;
/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// What to reach, of OpenSSH's throughput.
const GOAL: f64 = 0.9;

/// A running server; ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who receives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Toci,
    Dd,
    DdFsync,
}

impl Way {
    const ALL: [Way; 3] = [Way::Toci, Way::Dd, Way::DdFsync];

    fn name(self) -> &'static str {
        match self {
            Way::Toci => "toci",
            Way::Dd => "dd",
            Way::DdFsync => "dd, fsync",
        }
    }
}

struct Bench {
    folder: PathBuf,
    image: PathBuf,
    image_bytes: u64,
    gateway_port: String,
    sshd_port: String,
}

/// Measure everything.
pub(super) fn run(smoke: bool) -> Result<Report> {
    let gateway = cargo::build_quick()?.join("examples/gateway_alone");
    let folder = cargo::target_dir().join("bench/copyseed");
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).with_context(|| folder.display().to_string());
        }
        Ok(()) | Err(_) => fs::create_dir_all(&folder)?,
    }
    // sshd wants that nobody else can write where its keys are.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    let mib = if smoke { IMAGE_SMOKE_MIB } else { IMAGE_MIB };
    let image = make_image(&folder, mib)?;
    let image_bytes = fs::metadata(&image)?.len();
    let (_gateway, gateway_port) = start_gateway(&gateway, &folder)?;
    let (_sshd, sshd_port) = start_sshd(&folder)?;
    let bench = Bench { folder, image, image_bytes, gateway_port, sshd_port };
    let turns = if smoke { TURNS_SMOKE } else { TURNS };
    let mut times: Vec<(Way, Vec<f64>)> = Way::ALL.map(|w| (w, Vec::new())).into();
    for turn in 0..=turns {
        for (way, seconds) in &mut times {
            let took = bench.send(*way)?;
            // The first turn only warms caches.
            if turn > 0 {
                seconds.push(took);
            }
        }
    }
    let report = bench.report(times);
    fs::remove_dir_all(&bench.folder)?;
    report
}

impl Bench {
    /// Sends the image; seconds until the client has the answer.
    fn send(&self, way: Way) -> Result<f64> {
        let target = self.folder.join("copied.qcow2");
        let dd = format!("dd of={} bs=1M", target.display());
        let (port, command) = match way {
            Way::Toci => (&self.gateway_port, "copyseed 1".to_owned()),
            Way::Dd => (&self.sshd_port, dd),
            Way::DdFsync => (&self.sshd_port, format!("{dd} conv=fsync")),
        };
        let known = format!("UserKnownHostsFile={}", self.folder.join("known_hosts").display());
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-o", &known])
            .args(["-l", "root", "-p", port.as_str(), "-i"])
            .arg(self.folder.join("key"))
            .args(["127.0.0.1", &command])
            .stdin(File::open(&self.image)?)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let began = Instant::now();
        let out = ssh.output().context("start ssh (Debian package openssh-client)")?;
        let took = began.elapsed().as_secs_f64();
        if !out.status.success() {
            bail!("{}: {}", way.name(), String::from_utf8_lossy(&out.stderr));
        }
        let arrived = match way {
            Way::Toci => self.folder.join("seed_1.qcow2"),
            Way::Dd | Way::DdFsync => target,
        };
        let bytes = fs::metadata(&arrived)?.len();
        if bytes != self.image_bytes {
            bail!("{}: {bytes} of {} bytes arrived", way.name(), self.image_bytes);
        }
        fs::remove_file(arrived)?;
        Ok(took)
    }

    fn report(&self, times: Vec<(Way, Vec<f64>)>) -> Result<Report> {
        #[expect(clippy::cast_precision_loss, reason = "a size in MB")]
        let megabytes = self.image_bytes as f64 / 1e6;
        let mut report = Report {
            name: "copyseed",
            setting: vec![
                ("image".into(), format!("{megabytes:.0} MB of random data in a qcow2 file")),
                (
                    "turns".into(),
                    format!("{} each, median, after one to warm up", times[0].1.len()),
                ),
                ("client".into(), version_of_ssh()?),
            ],
            figures: Vec::new(),
        };
        let mut medians = Vec::new();
        for (way, mut seconds) in times {
            seconds.sort_by(f64::total_cmp);
            let median = megabytes / seconds[seconds.len() / 2];
            medians.push(median);
            report.figures.push(figure("throughput", way.name(), median, "MB/s", None));
            let best = megabytes / seconds[0];
            report.figures.push(figure("best turn", way.name(), best, "MB/s", None));
        }
        let goal = Some(Goal::AtLeast(GOAL));
        report.figures.push(figure("of dd", "toci", medians[0] / medians[1], "x", goal));
        report.figures.push(figure("of dd with fsync", "toci", medians[0] / medians[2], "x", None));
        Ok(report)
    }
}

fn figure(what: &str, who: &str, value: f64, unit: &'static str, goal: Option<Goal>) -> Figure {
    Figure { what: what.into(), who: who.into(), value, unit, goal }
}

fn version_of_ssh() -> Result<String> {
    let out = Command::new("ssh").arg("-V").output()?;
    Ok(String::from_utf8_lossy(&out.stderr).trim().to_owned())
}

/// Random data do not compress and leave no holes.
fn make_image(folder: &Path, mib: u64) -> Result<PathBuf> {
    let (raw, image) = (folder.join("raw"), folder.join("image.qcow2"));
    let mut random = File::open("/dev/urandom")?.take(mib << 20);
    io::copy(&mut random, &mut File::create(&raw)?)?;
    shell::run(
        Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &image]),
    )?;
    fs::remove_file(raw)?;
    Ok(image)
}

fn start_gateway(program: &Path, folder: &Path) -> Result<(Running, String)> {
    let mut command = Command::new(program);
    command.arg(folder).stdin(Stdio::piped());
    let child = command.spawn().with_context(|| program.display().to_string())?;
    let running = Running(child);
    let port = until("the gateway listens", || fs::read_to_string(folder.join("port")).ok())?;
    Ok((running, port))
}

/// An sshd of our own, for the key of the lease.
fn start_sshd(folder: &Path) -> Result<(Running, String)> {
    let host_key = folder.join("sshd_key");
    shell::run(
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key),
    )?;
    let public =
        shell::read(Command::new("ssh-keygen").arg("-y").arg("-f").arg(folder.join("key")))?;
    fs::write(folder.join("authorized"), public)?;
    // The port is free now, and nobody else here wants it in the next moment.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let f = folder.display();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {f}/sshd_key\nAuthorizedKeysFile {f}/authorized\n\
         PidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nStrictModes no\n\
         LogLevel FATAL\n"
    );
    fs::write(folder.join("sshd_config"), config)?;
    // Debian's sshd wants this folder, which the service unit makes.
    fs::create_dir_all("/run/sshd").context("make /run/sshd")?;
    // It ends with us, however we end.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "/usr/sbin/sshd", "-D", "-e", "-f"])
        .arg(folder.join("sshd_config"));
    let child = command.spawn().context("start sshd (Debian package openssh-server)")?;
    let running = Running(child);
    let address = format!("127.0.0.1:{port}");
    until("sshd listens", || std::net::TcpStream::connect(&address).ok())?;
    Ok((running, port))
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(there) = look() {
            return Ok(there);
        }
        if began.elapsed() > START_LIMIT {
            bail!("waited {} s until {what}", START_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
