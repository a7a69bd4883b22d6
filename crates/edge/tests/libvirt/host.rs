//! A libvirt host in namespaces of this thread's own: mounts and network of the thread, processes of the daemons.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use toci_core::id::Label;
use toci_edge::provider::libvirt::{
    Accelerator, ImageConfig, ImageSource, Libvirt, LibvirtConfig, Network, Shape,
};

/// Longest wait for the daemons; the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

/// Private mounts: libvirt's folders are empty, /sys is this network namespace's and has no cgroups.
const MOUNTS: &str = r#"
set -e
mount --make-rprivate /
grep -o '^[^ ]* /sys[^ ]*' /proc/self/mounts | cut -d' ' -f2 | tac | while read -r point; do umount -l "$point" || true; done
mount -t sysfs sysfs /sys
for folder in /run/libvirt /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p $folder
    mount -t tmpfs -o mode=755 tmpfs $folder
done
mkdir -p /etc/libvirt/qemu/networks /etc/libvirt/hooks /etc/libvirt/storage /etc/libvirt/secrets /etc/libvirt/nwfilter \
    /var/lib/libvirt/qemu /var/lib/libvirt/images /var/lib/libvirt/boot /var/lib/libvirt/dnsmasq /var/log/libvirt/qemu
cat >/etc/libvirt/qemu.conf <<CONF
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
CONF
printf 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n' >/etc/libvirt/libvirtd.conf
printf 'max_size = 2097152\nmax_backups = 3\n' >/etc/libvirt/virtlogd.conf
ip link set lo up
"#;

/// Process 1 of the daemons: all of them end with it.
const DAEMONS: &str = r#"
virtlogd -p /run/libvirt/virtlogd.pid &
libvirtd -p /run/libvirt/libvirtd.pid
"#;

/// A host; its daemons end with it.
pub(crate) struct Host {
    folder: tempfile::TempDir,
    daemons: RefCell<Vec<Child>>,
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.daemons.borrow_mut().iter_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

/// Runs a test in a thread that has a host of its own.
pub(crate) fn on_a_host<T: AsyncFnOnce(&Host) + Send + 'static>(test: T) {
    for (program, package) in [
        ("libvirtd", "libvirt-daemon-system"),
        ("virsh", "libvirt-clients"),
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-img", "qemu-utils"),
        ("mformat", "mtools"),
        ("dnsmasq", "dnsmasq-base"),
        ("iptables", "iptables"),
    ] {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        let found = folders.iter().any(|f| Path::new(f).join(program).exists());
        assert!(found, "{program} is missing: apt-get install {package}");
    }
    let work = move || {
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .expect("this test makes namespaces: run it as root");
        let host = Host::start();
        // One thread: whatever it starts is in its namespaces.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&host));
    };
    if let Err(panic) = std::thread::spawn(work).join() {
        std::panic::resume_unwind(panic);
    }
}

impl Host {
    fn start() -> Host {
        run(Command::new("sh").args(["-c", MOUNTS]));
        let host = Host { folder: tempfile::tempdir().unwrap(), daemons: RefCell::new(Vec::new()) };
        let contained = ["--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c"];
        host.keep(
            "daemons",
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--", "unshare"])
                .args(contained)
                .arg(DAEMONS),
        );
        host.until("libvirtd answers", || {
            let asked = Command::new("virsh").args(["-c", "qemu:///system", "list"]).output();
            asked.unwrap().status.success()
        });
        host
    }

    fn keep(&self, name: &str, command: &mut Command) {
        let log = std::fs::File::create(self.folder.path().join(format!("{name}.log"))).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemons.borrow_mut().push(child);
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + LIMIT;
        while !done() {
            let log = std::fs::read_to_string(self.folder.path().join("daemons.log"));
            assert!(Instant::now() < end, "not within {LIMIT:?}: {what}\n{log:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What virsh says; it must work.
    pub(crate) fn virsh(&self, arguments: &[&str]) -> String {
        run(Command::new("virsh").args(["-q", "-c", "qemu:///system"]).args(arguments))
    }

    /// The only pool there is.
    pub(crate) fn pool(&self) -> String {
        self.virsh(&["pool-list", "--name"]).trim().to_owned()
    }

    /// A provider whose only image does this.
    pub(crate) fn provider(&self, role: &str, network: Network) -> Libvirt {
        Libvirt::new(self.config(role, network), Arc::default())
    }

    pub(crate) fn provider_named(&self, name: &str, role: &str, network: Network) -> Libvirt {
        Libvirt::new(self.config_named(name, role, network), Arc::default())
    }

    pub(crate) fn config(&self, role: &str, network: Network) -> LibvirtConfig {
        self.config_named(role, role, network)
    }

    fn config_named(&self, name: &str, role: &str, network: Network) -> LibvirtConfig {
        let file = self.image(role);
        // What never answers need not be waited for so long.
        let boot_limit = Duration::from_secs(if role == "dead" { 20 } else { 120 });
        let source = ImageSource::File(file);
        let image = ImageConfig { source, rebuild: None, build_limit: LIMIT };
        let shape = Shape { image: "small".into(), cpus: 1, memory_mib: 160, disk_gib: 1 };
        let shape = Shape { disk_gib: 2, ..shape };
        LibvirtConfig {
            name: name.into(),
            uri: "qemu:///system".into(),
            folder: self.folder().join(format!("{name}-pool")),
            state: self.folder().join(format!("{name}-state")),
            built: self.folder().join("built"),
            network,
            user: "root".into(),
            key: None,
            accelerator: Accelerator::Tcg,
            boot_limit,
            shapes: BTreeMap::from([(label(role), shape)]),
            images: BTreeMap::from([("small".into(), image)]),
        }
    }

    fn image(&self, role: &str) -> PathBuf {
        let file = self.folder().join(format!("{role}.qcow2"));
        if !file.exists() {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libvirt/image.sh");
            run(Command::new(script).arg(role).arg(&file));
        }
        file
    }

    /// A bridge with a DHCP server that libvirt knows nothing of.
    pub(crate) fn bridge_with_dhcp(&self) -> String {
        run(Command::new("sh").args([
            "-c",
            "ip link add name br21 type bridge && ip address add 198.18.21.1/24 dev br21 && ip link set br21 up",
        ]));
        let leases = self.folder().join("leases");
        self.keep(
            "dnsmasq",
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--", "dnsmasq", "--keep-in-foreground", "--port=0"])
                .args(["--conf-file=/dev/null", "--interface=br21", "--bind-interfaces"])
                .args(["--user=root", "--dhcp-range=198.18.21.10,198.18.21.99"])
                .arg(format!("--dhcp-leasefile={}", leases.display())),
        );
        "br21".into()
    }

    /// A network of libvirt's own.
    pub(crate) fn network(&self) -> String {
        let xml = "<network><name>n22</name><bridge name='br22'/><ip address='198.18.22.1' netmask='255.255.255.0'>\
                   <dhcp><range start='198.18.22.10' end='198.18.22.99'/></dhcp></ip></network>";
        let file = self.folder().join("n22.xml");
        std::fs::write(&file, xml).unwrap();
        self.virsh(&["net-create", &file.display().to_string()]);
        "n22".into()
    }
}

fn run(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let (said, error) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {said}{error}");
    said.into_owned()
}
