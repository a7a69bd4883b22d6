//! Providers on a host, and the networks that they can use.

use super::host::{Host, LIMIT, run};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::Label;
use toci_edge::provider::libvirt::{
    Accelerator, ImageConfig, ImageSource, Libvirt, LibvirtConfig, Network, Shape,
};

pub(crate) fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

impl Host {
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
        let image = ImageConfig { source, rebuild: None, keep: 1, build_limit: LIMIT };
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

    /// Lets this thread in as libvirt's users are let in elsewhere: by OpenSSH, with a key and a known host key in root's
    /// own folder, which is another one from here on. Answers with the port.
    pub(crate) fn sshd(&self) -> u16 {
        let folder = self.folder().join("sshd");
        std::fs::create_dir(&folder).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=700", "tmpfs", "/root"]));
        std::fs::create_dir("/root/.ssh").unwrap();
        let (key, host) = (Path::new("/root/.ssh/id_ed25519"), folder.join("host"));
        for file in [key, &host] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file));
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let public = std::fs::read_to_string(folder.join("host.pub")).unwrap();
        let known = format!("[127.0.0.1]:{port} {public}");
        std::fs::write("/root/.ssh/known_hosts", known).unwrap();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}.pub\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n",
            host.display(),
            key.display()
        );
        std::fs::write(folder.join("conf"), settings).unwrap();
        // sshd insists on a folder in /run, so it gets a /run of its own, with libvirt's sockets in it.
        let script = "mkdir run && mount --bind /run/libvirt run && mount -t tmpfs tmpfs /run && mkdir /run/sshd /run/libvirt && \
                      mount --bind run /run/libvirt && exec setpriv --pdeathsig KILL /usr/sbin/sshd -D -e -f \"$PWD/conf\"";
        self.keep(
            "sshd",
            Command::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c", script])
                .current_dir(&folder),
        );
        self.until("sshd (openssh-server) listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        port
    }
}
