//! Stand-ins for guests. Nova's fake driver says that a server is ACTIVE and runs nothing; here each gets an OpenSSH server
//! on its floating address, that has the host key, the authorized key and the marker of its user data, as cloud-init would
//! have done. Files that a guest has for itself are in its own mount namespace.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use cloud_tests::Api;
use serde_json::Value;

/// Between two looks at which servers there are.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// All servers, with their user data: for administrators.
const SERVERS: &str = "/servers/detail?all_tenants=1&status=ACTIVE";

/// All of them; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Guests {
    over: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

/// One of them.
struct Guest {
    address: String,
    sshd: Child,
}

impl Guests {
    /// From now on servers with user data answer.
    pub(crate) fn start(folder: &Path) -> Result<Guests> {
        let folder = folder.join("guests");
        fs::create_dir_all(&folder)?;
        let admin = Api::admin()?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let keeper = std::thread::spawn(move || {
            let mut guests = BTreeMap::new();
            while !told.load(Ordering::Relaxed) {
                if let Err(why) = keep(&admin, &folder, &mut guests) {
                    eprintln!("guests: {why:#}");
                }
                std::thread::sleep(LOOK_AGAIN);
            }
        });
        Ok(Guests { over, keeper: Some(keeper) })
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            // It has said itself what went wrong.
            let _ = keeper.join();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        let _ = ip("delete", &self.address);
    }
}

/// Those that came begin, those that went end.
fn keep(admin: &Api, folder: &Path, guests: &mut BTreeMap<String, Guest>) -> Result<()> {
    let found = admin.get("compute", SERVERS)?;
    let found = found["servers"].as_array().context("no list of servers")?;
    guests.retain(|id, _| found.iter().any(|server| server["id"] == id.as_str()));
    for server in found {
        let id = server["id"].as_str().context("a server without an id")?;
        let user_data = server["OS-EXT-SRV-ATTR:user_data"].as_str();
        if let (Some(user_data), Some(address), false) =
            (user_data, floating(server), guests.contains_key(id))
        {
            let guest = guest(&folder.join(id), address, user_data);
            guests.insert(id.to_owned(), guest.with_context(|| format!("server {id}"))?);
        }
    }
    Ok(())
}

/// Its floating address, as Nova knows it.
fn floating(server: &Value) -> Option<&str> {
    let networks = server["addresses"].as_object()?.values();
    let mut addresses = networks.filter_map(Value::as_array).flatten();
    addresses.find(|address| address["OS-EXT-IPS:type"] == "floating")?["addr"].as_str()
}

/// Does what the user data says.
fn guest(folder: &Path, address: &str, user_data: &str) -> Result<Guest> {
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(user_data)?)?;
    let config = text.strip_prefix("#cloud-config\n").context("no cloud-config")?;
    let config: Value = serde_json::from_str(config)?;
    let said = |pointer: &str| {
        let value = config.pointer(pointer).and_then(Value::as_str);
        value.with_context(|| format!("the user data has no {pointer}"))
    };
    fs::create_dir_all(folder)?;
    let host_key = folder.join("host_key");
    fs::write(&host_key, said("/ssh_keys/ed25519_private")?)?;
    fs::set_permissions(&host_key, Permissions::from_mode(0o600))?;
    fs::write(folder.join("authorized_keys"), said("/users/0/ssh_authorized_keys/0")?)?;
    // The address that it tells its console is nobody's business here.
    let first = said("/runcmd/0/2")?.replace("/dev/console", "/dev/null");
    fs::write(folder.join("first"), first)?;
    fs::write(folder.join("sshd.conf"), settings(folder, address))?;
    ip("add", address)?;
    Ok(Guest { address: address.to_owned(), sshd: sshd(folder)? })
}

fn settings(folder: &Path, address: &str) -> String {
    format!(
        "Port 22\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n\
         UseDNS no\nPermitRootLogin prohibit-password\n",
        folder.join("host_key").display(),
        folder.join("authorized_keys").display(),
    )
}

fn sshd(folder: &Path) -> Result<Child> {
    let script = "set -e; mkdir -p /run/toci; mount -t tmpfs tmpfs /run/toci; mount -t tmpfs tmpfs /var/tmp; sh ./first
        exec setpriv --pdeathsig KILL /usr/sbin/sshd -D -e -f \"$PWD/sshd.conf\"";
    let log: PathBuf = folder.join("log");
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log)?)
        .spawn()
        .context("starting sshd: apt-get install openssh-server")
}

/// The address is on this machine, so that nothing has to be behind the cloud's router.
fn ip(verb: &str, address: &str) -> Result<()> {
    let status = Command::new("ip")
        .args(["address", verb, &format!("{address}/32"), "dev", "lo"])
        .status()?;
    ensure!(status.success(), "ip address {verb} {address}: {status}");
    Ok(())
}
