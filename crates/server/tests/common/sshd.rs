//! Machines that are reached by SSH: real OpenSSH servers, each in a mount namespace of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to listen.
const LIMIT: Duration = Duration::from_secs(60);

/// One machine; it ends with the value.
pub(crate) struct Machine {
    sshd: Child,
    pub(crate) port: u16,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

pub(crate) fn ssh_keygen(file: &Path) {
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-f"];
    let made = Command::new("ssh-keygen").args(arguments).arg(file).status();
    assert!(made.expect("ssh-keygen is missing: apt-get install openssh-client").success());
}

pub(crate) fn public(file: &Path) -> String {
    std::fs::read_to_string(file.with_extension("pub")).unwrap()
}

/// A line of known_hosts: the machine has this host key.
pub(crate) fn known(machine: &Machine, host: &Path) -> String {
    format!("[127.0.0.1]:{} {}", machine.port, public(host))
}

/// Starts a machine whose host key is `host` and which lets `key` in as anybody. `inside` is shell text that runs in its
/// namespace first, in `folder`.
pub(crate) fn machine(folder: &Path, name: &str, host: &Path, key: &Path, inside: &str) -> Machine {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::write(folder.join(format!("{name}.keys")), public(key)).unwrap();
    let text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile /run/sshd/keys\nStrictModes no\nUsePAM no\n\
         PidFile none\nPermitRootLogin yes\n",
        host.display(),
    );
    std::fs::write(folder.join(format!("{name}.conf")), text).unwrap();
    // A new /run/sshd too: sshd insists on it, and whoever logs in must be able to read the keys.
    let script = format!(
        "set -e; mount -t tmpfs tmpfs /var/tmp; mount -t tmpfs tmpfs /run; mkdir /run/sshd\n\
         install -m 644 {name}.keys /run/sshd/keys\n{inside}\n\
         exec setpriv --pdeathsig KILL /usr/sbin/sshd -D -e -f {name}.conf"
    );
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).unwrap();
    let sshd = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let end = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = std::fs::read_to_string(folder.join(format!("{name}.log")));
        assert!(Instant::now() < end, "sshd (openssh-server) does not listen: {log:?}");
        std::thread::yield_now();
    }
    Machine { sshd, port }
}
