//! What runs inside a sandbox.

use std::path::Path;
use std::process::Command;

/// A daemon that is started again when it ends.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub(super) name: &'static str,
    pub(super) arguments: Vec<String>,
}

impl Daemon {
    fn new(name: &'static str, arguments: Vec<String>) -> Daemon {
        Daemon { name, arguments }
    }

    /// To be spawned, with its output going to `<log>/<name>.out`.
    pub(super) fn command(&self, log: &Path) -> std::io::Result<Command> {
        // The state folder may have been wiped; that ends no machine.
        std::fs::create_dir_all(log)?;
        let out = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log.join(format!("{}.out", self.name)))?;
        let mut c = Command::new(self.name);
        c.args(&self.arguments).stdin(std::process::Stdio::null());
        c.stdout(out.try_clone()?).stderr(out);
        Ok(c)
    }
}

/// Open vSwitch and libvirt, in the order of their start.
pub(super) fn daemons(log: &Path) -> Vec<Daemon> {
    let s = |list: &[&str]| list.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let log_file = |n: &str| format!("--log-file={}", log.join(n).display());
    let mut database = s(&[
        "/run/openvswitch/conf.db",
        "--remote=punix:/run/openvswitch/db.sock",
        "--pidfile=/run/openvswitch/ovsdb-server.pid",
        "-vconsole:off",
    ]);
    database.push(log_file("ovsdb-server.log"));
    let mut switch = s(&[
        "unix:/run/openvswitch/db.sock",
        "--pidfile=/run/openvswitch/ovs-vswitchd.pid",
        "-vconsole:off",
    ]);
    switch.push(log_file("ovs-vswitchd.log"));
    vec![
        Daemon::new("ovsdb-server", database),
        Daemon::new("ovs-vswitchd", switch),
        Daemon::new("virtlogd", s(&["-p", "/run/libvirt/virtlogd.pid"])),
        Daemon::new("libvirtd", s(&["-p", "/run/libvirt/libvirtd.pid"])),
    ]
}

/// libvirt's configuration inside: everything is root's and nothing is labelled.
pub(super) const QEMU_CONF: &str = "\
user = \"root\"
group = \"root\"
dynamic_ownership = 0
remember_owner = 0
security_driver = \"none\"
namespaces = []
";

/// The socket is inside the sandbox, where everybody is root.
pub(super) const LIBVIRTD_CONF: &str = "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n";

/// Consoles are captured into files of this size, this many of them besides the current one.
pub(super) const VIRTLOGD_CONF: &str = "max_size = 2097152\nmax_backups = 3\n";

/// Makes the folders and files that the daemons expect; everything is on a private tmpfs.
pub(super) fn lay_out() -> std::io::Result<()> {
    for folder in [
        "/etc/libvirt/qemu",
        "/etc/libvirt/hooks",
        "/etc/libvirt/storage",
        "/etc/libvirt/secrets",
        "/etc/libvirt/nwfilter",
        "/var/lib/libvirt/qemu",
        "/var/lib/libvirt/images",
        "/var/lib/libvirt/boot",
        "/var/lib/libvirt/dnsmasq",
        "/var/log/libvirt/qemu",
    ] {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write("/etc/libvirt/qemu.conf", QEMU_CONF)?;
    std::fs::write("/etc/libvirt/libvirtd.conf", LIBVIRTD_CONF)?;
    std::fs::write("/etc/libvirt/virtlogd.conf", VIRTLOGD_CONF)
}
