//! A Debian machine with nothing of ours on it, in a lab: this machine's own root as the lower layer of an overlay, in
//! namespaces of its own, with a real SSH server. What is installed on it is gone with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{Lab, Process, wait_for};

/// Until its SSH server listens.
const UP_LIMIT: Duration = Duration::from_secs(30);

/// Process 1: makes the root, and becomes the SSH server. The lab's folder is seen in it as it is, for the server's key.
const INIT: &str = r#"
set -e
folder=$0
mount --make-rprivate /
mount -t tmpfs -o size=4g,mode=755 tmpfs "$folder/layer"
mkdir "$folder/layer/upper" "$folder/layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/layer/upper,workdir=$folder/layer/work" "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
for private in run tmp var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$private"; done
mkdir -p run/sshd run/lock run/libvirt run/openvswitch root/.ssh
cp "$folder/authorized_keys" root/.ssh/authorized_keys
chmod 755 run run/sshd; chmod 700 root/.ssh
cp "$folder/host_key" run/host_key
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
hostname "$1"
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
exec /usr/sbin/sshd -D -e -f /dev/null -o Port=22 -o HostKey=/run/host_key -o UsePAM=no -o PidFile=none \
    -o PermitRootLogin=prohibit-password -o StrictModes=no -o AuthorizedKeysFile=/root/.ssh/authorized_keys
"#;

/// Number K: `root@198.19.K.2`, and the lab is 198.19.K.1 there.
#[derive(Debug)]
pub struct Machine {
    number: u8,
    folder: PathBuf,
    /// `unshare`, whose only child is process 1 of the machine.
    process: Process,
}

impl Machine {
    /// Boots it.
    ///
    /// # Errors
    /// It does not come up, with what it said.
    pub fn start(lab: &Lab, number: u8) -> Result<Machine> {
        let folder = lab.folder().join(format!("machine{number}"));
        for part in ["layer", "root"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let key = Machine::key(lab);
        if !key.exists() {
            keygen(&key)?;
        }
        keygen(&folder.join("host_key"))?;
        fs::copy(key.with_extension("pub"), folder.join("authorized_keys"))?;
        let name = format!("machine{number}");
        let path = folder.display().to_string();
        let kinds = ["--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child"];
        let mut command = vec!["unshare"];
        command.extend(kinds);
        command.extend(["sh", "-c", INIT, path.as_str(), name.as_str()]);
        let process = lab.spawn(&name, &command, &[])?;
        let machine = Machine { number, folder, process };
        machine.plug_in(lab)?;
        let address = machine.address();
        wait_for("the machine's SSH server", UP_LIMIT, || {
            let probe = format!("exec 3<>/dev/tcp/{address}/22 && head -c 3 <&3");
            let said = lab.read("bash", &["-c", &probe]);
            let said = said.with_context(|| machine.process.log_tail())?;
            ensure!(said == "SSH", "it says {said}");
            Ok(())
        })?;
        Ok(machine)
    }

    /// A cable between it and the lab.
    fn plug_in(&self, lab: &Lab) -> Result<()> {
        let parent = self.process.pid().to_string();
        let init = wait_for("the machine's process 1", UP_LIMIT, || {
            let said = lab.read("pgrep", &["--parent", &parent]);
            Ok(said.with_context(|| self.process.log_tail())?.trim().to_owned())
        })?;
        let script = r#"set -e
            ip link add "m$1" type veth peer name eth0 netns "$2"
            ip addr add "198.19.$1.1/24" dev "m$1"
            ip link set "m$1" up
            nsenter --target "$2" --net ip addr add "198.19.$1.2/24" dev eth0
            nsenter --target "$2" --net ip link set eth0 up
            nsenter --target "$2" --net ip route add default via "198.19.$1.1"
            ip route add "198.18.$1.0/24" via "198.19.$1.2""#;
        lab.read("sh", &["-c", script, "sh", &self.number.to_string(), &init]).map(drop)
    }

    /// The key that it lets in as root: the lab's.
    #[must_use]
    pub fn key(lab: &Lab) -> PathBuf {
        lab.folder().join("operator_key")
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> String {
        format!("198.19.{}.2", self.number)
    }

    /// Its public host key.
    ///
    /// # Errors
    /// The lab's folder cannot be read.
    pub fn host_key(&self) -> Result<String> {
        let text = fs::read_to_string(self.folder.join("host_key.pub"))?;
        Ok(text.trim().to_owned())
    }

    /// A shell command on it, as root over SSH; its output.
    ///
    /// # Errors
    /// It did not end well.
    pub fn sh(&self, lab: &Lab, script: &str) -> Result<String> {
        let known = self.folder.join("known_hosts");
        fs::write(&known, format!("{} {}\n", self.address(), self.host_key()?))?;
        let key = Machine::key(lab).display().to_string();
        let known = format!("-oUserKnownHostsFile={}", known.display());
        let place = format!("root@{}", self.address());
        let options = ["-F/dev/null", "-oBatchMode=yes", "-oIdentitiesOnly=yes"];
        let mut arguments: Vec<&str> = options.into();
        arguments.extend([known.as_str(), "-i", key.as_str(), place.as_str(), script]);
        lab.read("ssh", &arguments)
    }

    /// Where something of ours might be left: a path a line.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn listing(&self, lab: &Lab) -> Result<String> {
        let script = "{ find /usr/local /etc /run -xdev; ls -d /var/lib/toci* /var/log/toci*; } 2>/dev/null | sort";
        self.sh(lab, script)
    }
}

fn keygen(file: &Path) -> Result<()> {
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-f"];
    let made = Command::new("ssh-keygen").args(arguments).arg(file).status();
    ensure!(made.context("ssh-keygen (package openssh-client)")?.success(), "ssh-keygen failed");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
