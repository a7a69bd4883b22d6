//! The XML of a machine, and the little that is read back from it.

use super::config::Network;
use quick_xml::events::BytesText;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};
use std::io;

/// Namespace of our element in a machine's metadata.
pub(super) const METADATA_URI: &str = "urn:toci:node:1";
/// Namespace of arguments that go to QEMU as they are.
const QEMU_URI: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// All that a machine's XML depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MachineXml<'a> {
    /// The name that libvirt knows.
    pub(super) domain: &'a str,
    /// The node's name.
    pub(super) node: &'a str,
    /// Whose it is: the mark of the provider's folder.
    pub(super) owner: &'a str,
    pub(super) kvm: bool,
    pub(super) cpus: u64,
    pub(super) memory_mib: u64,
    /// Paths on libvirt's host.
    pub(super) disk: &'a str,
    pub(super) seed: &'a str,
    pub(super) console: &'a str,
    pub(super) network: &'a Network,
    /// With user networking: the port of 127.0.0.1 that leads to its SSH server.
    pub(super) port: u16,
}

type Xml = Writer<Vec<u8>>;

/// The XML to create the machine from.
pub(super) fn machine_xml(machine: &MachineXml<'_>) -> io::Result<String> {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    let kind = if machine.kvm { "kvm" } else { "qemu" };
    let mut domain = xml.create_element("domain").with_attribute(("type", kind));
    if *machine.network == Network::User {
        domain = domain.with_attribute(("xmlns:qemu", QEMU_URI));
    }
    domain.write_inner_content(|xml| {
        text(xml, "name", machine.domain)?;
        xml.create_element("metadata").write_inner_content(|xml| {
            xml.create_element("toci:node")
                .with_attributes([
                    ("xmlns:toci", METADATA_URI),
                    ("name", machine.node),
                    ("owner", machine.owner),
                ])
                .write_empty()
                .map(drop)
        })?;
        let memory = machine.memory_mib.to_string();
        xml.create_element("memory")
            .with_attribute(("unit", "MiB"))
            .write_text_content(BytesText::new(&memory))?;
        text(xml, "vcpu", &machine.cpus.to_string())?;
        system(xml, machine.kvm)?;
        devices(xml, machine)?;
        if *machine.network == Network::User {
            user_network(xml, machine.port)?;
        }
        Ok(())
    })?;
    let bytes = xml.into_inner();
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn text(xml: &mut Xml, name: &str, content: &str) -> io::Result<()> {
    xml.create_element(name).write_text_content(BytesText::new(content)).map(drop)
}

fn empty<const N: usize>(
    xml: &mut Xml,
    name: &str,
    attributes: [(&str, &str); N],
) -> io::Result<()> {
    xml.create_element(name).with_attributes(attributes).write_empty().map(drop)
}

fn system(xml: &mut Xml, kvm: bool) -> io::Result<()> {
    xml.create_element("os").write_inner_content(|xml| {
        xml.create_element("type")
            .with_attributes([("arch", "x86_64"), ("machine", "pc")])
            .write_text_content(BytesText::new("hvm"))?;
        empty(xml, "boot", [("dev", "hd")])
    })?;
    xml.create_element("features").write_inner_content(|xml| {
        empty(xml, "acpi", [])?;
        empty(xml, "apic", [])
    })?;
    if kvm {
        empty(xml, "cpu", [("mode", "host-passthrough")])?;
    }
    empty(xml, "clock", [("offset", "utc")])?;
    // A job may restart its node; one that is switched off is gone.
    text(xml, "on_poweroff", "destroy")?;
    text(xml, "on_reboot", "restart")?;
    text(xml, "on_crash", "destroy")
}

fn devices(xml: &mut Xml, machine: &MachineXml<'_>) -> io::Result<()> {
    xml.create_element("devices")
        .write_inner_content(|xml| {
            disk(xml, "qcow2", machine.disk, "vda", false)?;
            disk(xml, "raw", machine.seed, "vdb", true)?;
            match machine.network {
                Network::Libvirt(name) => interface(xml, "network", name)?,
                Network::Bridge(name) => interface(xml, "bridge", name)?,
                Network::User => {}
            }
            xml.create_element("serial").with_attribute(("type", "pty")).write_inner_content(
                |xml| {
                    empty(xml, "log", [("file", machine.console), ("append", "on")])?;
                    empty(xml, "target", [("type", "isa-serial"), ("port", "0")])
                },
            )?;
            // Boot loaders want a VGA BIOS; nobody looks at the picture.
            xml.create_element("video").write_inner_content(|xml| {
                empty(xml, "model", [("type", "vga"), ("vram", "8192")])
            })?;
            empty(xml, "memballoon", [("model", "none")])?;
            xml.create_element("rng").with_attribute(("model", "virtio")).write_inner_content(
                |xml| {
                    xml.create_element("backend")
                        .with_attribute(("model", "random"))
                        .write_text_content(BytesText::new("/dev/urandom"))
                        .map(drop)
                },
            )?;
            Ok(())
        })
        .map(drop)
}

fn disk(xml: &mut Xml, format: &str, file: &str, target: &str, readonly: bool) -> io::Result<()> {
    xml.create_element("disk")
        .with_attributes([("type", "file"), ("device", "disk")])
        .write_inner_content(|xml| {
            // Nothing on it outlives the machine: no write has to reach the platter.
            empty(xml, "driver", [("name", "qemu"), ("type", format), ("cache", "unsafe")])?;
            empty(xml, "source", [("file", file)])?;
            empty(xml, "target", [("dev", target), ("bus", "virtio")])?;
            if readonly { empty(xml, "readonly", []) } else { Ok(()) }
        })
        .map(drop)
}

fn interface(xml: &mut Xml, kind: &str, name: &str) -> io::Result<()> {
    xml.create_element("interface")
        .with_attribute(("type", kind))
        .write_inner_content(|xml| {
            empty(xml, "source", [(kind, name)])?;
            empty(xml, "model", [("type", "virtio")])
        })
        .map(drop)
}

/// libvirt's own user networking has no way in.
fn user_network(xml: &mut Xml, port: u16) -> io::Result<()> {
    let netdev = format!("user,id=toci0,hostfwd=tcp:127.0.0.1:{port}-:22");
    xml.create_element("qemu:commandline")
        .write_inner_content(|xml| {
            // In a slot of its own: libvirt gives away the low ones, and QEMU would take the first.
            let device = "virtio-net-pci,netdev=toci0,bus=pci.0,addr=0x10";
            for argument in ["-netdev", &netdev, "-device", device] {
                empty(xml, "qemu:arg", [("value", argument)])?;
            }
            Ok(())
        })
        .map(drop)
}

/// The owner in a machine's XML as libvirt gives it; none when the machine is no node of any toci.
pub(super) fn owner_in(xml: &str) -> Option<String> {
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event() {
            Ok(Event::Start(element) | Event::Empty(element)) => {
                if let Some(owner) = owner_of(&element) {
                    return Some(owner);
                }
            }
            Ok(Event::Eof) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn owner_of(element: &BytesStart<'_>) -> Option<String> {
    if element.local_name().as_ref() != "node" {
        return None;
    }
    let (mut ours, mut owner) = (false, None);
    for attribute in element.attributes().flatten() {
        let name = attribute.key.as_ref();
        ours |= name.starts_with("xmlns") && attribute.value == METADATA_URI;
        if name == "owner" {
            owner = Some(attribute.value.into_owned());
        }
    }
    if ours { owner } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(network: &Network) -> MachineXml<'_> {
        MachineXml {
            domain: "toci-node-d-vms-1",
            node: "d-vms-1",
            owner: "abc",
            kvm: false,
            cpus: 2,
            memory_mib: 512,
            disk: "/f/a&b.qcow2",
            seed: "/f/a.seed",
            console: "/f/a.console",
            network,
            port: 2222,
        }
    }

    #[test]
    fn a_machine_on_a_network_is_this() {
        let expected = r#"<domain type="qemu">
  <name>toci-node-d-vms-1</name>
  <metadata>
    <toci:node xmlns:toci="urn:toci:node:1" name="d-vms-1" owner="abc"/>
  </metadata>
  <memory unit="MiB">512</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch="x86_64" machine="pc">hvm</type>
    <boot dev="hd"/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <clock offset="utc"/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2" cache="unsafe"/>
      <source file="/f/a&amp;b.qcow2"/>
      <target dev="vda" bus="virtio"/>
    </disk>
    <disk type="file" device="disk">
      <driver name="qemu" type="raw" cache="unsafe"/>
      <source file="/f/a.seed"/>
      <target dev="vdb" bus="virtio"/>
      <readonly/>
    </disk>
    <interface type="network">
      <source network="default"/>
      <model type="virtio"/>
    </interface>
    <serial type="pty">
      <log file="/f/a.console" append="on"/>
      <target type="isa-serial" port="0"/>
    </serial>
    <video>
      <model type="vga" vram="8192"/>
    </video>
    <memballoon model="none"/>
    <rng model="virtio">
      <backend model="random">/dev/urandom</backend>
    </rng>
  </devices>
</domain>"#;
        let xml = machine_xml(&machine(&Network::Libvirt("default".into()))).unwrap();
        assert_eq!(xml, expected);
        assert_eq!(owner_in(&xml), Some("abc".into()));
    }

    #[test]
    fn kvm_bridges_and_user_networking_change_it() {
        let bridge = Network::Bridge("br0".into());
        let xml = machine_xml(&MachineXml { kvm: true, ..machine(&bridge) }).unwrap();
        assert!(xml.starts_with(r#"<domain type="kvm">"#) && xml.contains("host-passthrough"));
        assert!(xml.contains(r#"<source bridge="br0"/>"#), "{xml}");
        let xml = machine_xml(&machine(&Network::User)).unwrap();
        assert!(!xml.contains("<interface"), "{xml}");
        assert!(xml.contains("user,id=toci0,hostfwd=tcp:127.0.0.1:2222-:22"), "{xml}");
    }

    #[test]
    fn only_our_mark_is_ours() {
        let other =
            "<domain><metadata><x:node xmlns:x='urn:other' owner='abc'/></metadata></domain>";
        assert_eq!(owner_in(other), None);
        assert_eq!(owner_in("<domain><name>x</name></domain>"), None);
        assert_eq!(owner_in("<domain"), None);
    }
}
