//! Domain XML of seeds and nodes (origin.md 3.5, virtualisation.md) and the little that is read
//! back from it: our fingerprint and the boot device.

use crate::config::Arch;
use crate::names;
use std::path::PathBuf;
pub use toci_wire::ssh_command::BootDevice;

/// Namespace of our element in the metadata of a domain.
const METADATA_URI: &str = "urn:toci:machine:1";

/// A NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicSpec {
    /// The tap it is plugged into; the tap is a port of a bridge for good, so nothing happens on
    /// the switch when a machine starts or stops, and flows can count on port numbers.
    pub tap: String,
    /// Its address.
    pub mac: String,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Domain name.
    pub name: String,
    /// Domain UUID.
    pub uuid: String,
    /// Architecture.
    pub arch: Arch,
    /// Domain type `kvm`, otherwise `qemu`.
    pub kvm: bool,
    /// Whether NICs may leave checksums and segmentation to the switch.
    pub offloads: bool,
    /// Virtual CPUs.
    pub cpus: u32,
    /// MiB.
    pub memory_mib: u64,
    /// Virtual size of the disk, bytes.
    pub disk_bytes: u64,
    /// qcow2 file.
    pub disk: PathBuf,
    /// Where its serial console is captured.
    pub console: PathBuf,
    /// What it boots from when blank.
    pub boot: BootDevice,
    /// Its NICs.
    pub nics: Vec<NicSpec>,
}

fn escaped(s: &str) -> String {
    quick_xml::escape::escape(s).into_owned()
}

/// The XML to define, and its fingerprint, which it carries in its metadata: libvirt adds so much
/// to what it is given that comparing texts would be hopeless.
#[must_use]
pub fn domain_xml(m: &MachineSpec) -> (String, String) {
    let body = body_xml(m);
    let fingerprint = names::fingerprint(&body);
    let kind = if m.kvm { "kvm" } else { "qemu" };
    let xml = format!(
        "<domain type='{kind}'>\n  <name>{}</name>\n  <uuid>{}</uuid>\n  <metadata>\n    \
         <toci:machine xmlns:toci='{METADATA_URI}' fingerprint='{fingerprint}'/>\n  \
         </metadata>\n{body}</domain>\n",
        escaped(&m.name),
        m.uuid
    );
    (xml, fingerprint)
}

fn body_xml(m: &MachineSpec) -> String {
    let cpu = if m.kvm { "  <cpu mode='host-passthrough'/>\n" } else { "" };
    let nics: String = m.nics.iter().map(|n| nic_xml(n, m.offloads)).collect();
    format!(
        "  <memory unit='MiB'>{memory}</memory>
  <vcpu>{cpus}</vcpu>
  <os>
    <type arch='{arch}' machine='pc'>hvm</type>
    <boot dev='{boot}'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
{cpu}  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
{nics}    <serial type='pty'>
      <log file='{console}' append='on'/>
      <target type='isa-serial' port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <graphics type='vnc'>
      <listen type='none'/>
    </graphics>
    <video>
      <model type='vga' vram='8192'/>
    </video>
    <memballoon model='none'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
",
        memory = m.memory_mib,
        cpus = m.cpus,
        arch = m.arch.libvirt(),
        boot = m.boot.as_str(),
        disk = escaped(&m.disk.display().to_string()),
        console = escaped(&m.console.display().to_string()),
    )
}

fn nic_xml(n: &NicSpec, offloads: bool) -> String {
    // The userspace datapath forwards virtio's half-made checksums as they are (virtualisation.md).
    let driver = if offloads {
        ""
    } else {
        "      <driver name='qemu'>\n        \
         <host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/>\n        \
         <guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/>\n      </driver>\n"
    };
    format!(
        "    <interface type='ethernet'>\n      <mac address='{}'/>\n      \
         <target dev='{}' managed='no'/>\n      <model type='virtio'/>\n{driver}    </interface>\n",
        escaped(&n.mac),
        escaped(&n.tap)
    )
}

/// Our fingerprint in a domain's XML as libvirt gives it; `None` when the domain is not ours.
#[must_use]
pub fn fingerprint_in(xml: &str) -> Option<String> {
    let element = xml.split_once("<toci:machine")?.1.split_once('>')?.0;
    if !element.contains(METADATA_URI) {
        return None;
    }
    attribute(element, "fingerprint").map(str::to_owned)
}

/// The first boot device in a domain's XML.
#[must_use]
pub fn boot_device(xml: &str) -> Option<BootDevice> {
    let element = xml.split_once("<boot ")?.1.split_once('>')?.0;
    BootDevice::parse(attribute(element, "dev")?)
}

/// The XML with its first boot device replaced; `None` when it has none.
#[must_use]
pub fn with_boot_device(xml: &str, boot: BootDevice) -> Option<String> {
    let start = xml.find("<boot ")?;
    let end = start + xml[start..].find('>')? + 1;
    Some(format!("{}<boot dev='{}'/>{}", &xml[..start], boot.as_str(), &xml[end..]))
}

fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let rest = element.split_once(&format!("{name}="))?.1;
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    rest[1..].split_once(quote).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineSpec {
        MachineSpec {
            name: "seed_1".into(),
            uuid: "00000000-0000-8000-8000-000000000000".into(),
            arch: Arch::Amd64,
            kvm: false,
            offloads: false,
            cpus: 1,
            memory_mib: 384,
            disk_bytes: 2 << 30,
            disk: "/s/images/seed_1.qcow2".into(),
            console: "/s/consoles/te1/a&b.log".into(),
            boot: BootDevice::Hd,
            nics: vec![NicSpec { tap: "te1s0".into(), mac: "00:01:02:03:04:05".into() }],
        }
    }

    #[test]
    fn the_xml_is_this() {
        let expected = "<domain type='qemu'>
  <name>seed_1</name>
  <uuid>00000000-0000-8000-8000-000000000000</uuid>
  <metadata>
    <toci:machine xmlns:toci='urn:toci:machine:1' fingerprint='FINGERPRINT'/>
  </metadata>
  <memory unit='MiB'>384</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>
      <source file='/s/images/seed_1.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <mac address='00:01:02:03:04:05'/>
      <target dev='te1s0' managed='no'/>
      <model type='virtio'/>
      <driver name='qemu'>
        <host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/>
        <guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/>
      </driver>
    </interface>
    <serial type='pty'>
      <log file='/s/consoles/te1/a&amp;b.log' append='on'/>
      <target type='isa-serial' port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <graphics type='vnc'>
      <listen type='none'/>
    </graphics>
    <video>
      <model type='vga' vram='8192'/>
    </video>
    <memballoon model='none'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>
";
        let (xml, fingerprint) = domain_xml(&machine());
        assert_eq!(xml, expected.replace("FINGERPRINT", &fingerprint));
    }

    #[test]
    fn kvm_and_the_kernel_datapath_change_it() {
        let (xml, _) = domain_xml(&MachineSpec { kvm: true, offloads: true, ..machine() });
        assert!(xml.starts_with("<domain type='kvm'>") && xml.contains("host-passthrough"));
        assert!(!xml.contains("csum"));
    }

    #[test]
    fn what_is_read_back() {
        let (xml, fingerprint) = domain_xml(&machine());
        assert_eq!(fingerprint_in(&xml), Some(fingerprint.clone()));
        assert_eq!(boot_device(&xml), Some(BootDevice::Hd));
        let edited = with_boot_device(&xml, BootDevice::Network).unwrap();
        assert_eq!(boot_device(&edited), Some(BootDevice::Network));
        assert_eq!(fingerprint_in(&edited), Some(fingerprint));
        assert_eq!(with_boot_device(&edited, BootDevice::Hd).unwrap(), xml);
        assert_eq!(fingerprint_in("<domain><metadata/></domain>"), None);
        assert_eq!(boot_device("<domain/>"), None);
    }
}
