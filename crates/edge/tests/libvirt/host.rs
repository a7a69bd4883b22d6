//! A libvirt host in namespaces of this thread's own: mounts and network of the thread, processes of the daemons.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for the daemons; the machine may be busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

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

    /// Keeps a process of the host going until it ends; what it says goes to `<name>.log`.
    pub(crate) fn keep(&self, name: &str, command: &mut Command) {
        let log = std::fs::File::create(self.folder.path().join(format!("{name}.log"))).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemons.borrow_mut().push(child);
    }

    /// Waits for something; when it does not come, the daemons' words are told.
    pub(crate) fn until(&self, what: &str, done: impl Fn() -> bool) {
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

    /// An image with this role.
    pub(crate) fn image(&self, role: &str) -> PathBuf {
        let file = self.folder().join(format!("{role}.qcow2"));
        if !file.exists() {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/tests/libvirt/image.sh");
            run(Command::new(script).arg(role).arg(&file));
        }
        file
    }
}

/// What a program says; it must work.
pub(crate) fn run(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let (said, error) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {said}{error}");
    said.into_owned()
}
