//! Nodes on a real libvirtd with real QEMU (TCG), in namespaces of their own: nothing of the machine is touched.
//! Needs root.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "libvirt/host.rs"]
mod host;
#[path = "libvirt/provider.rs"]
mod provider;

use host::{Host, on_a_host};
use provider::label;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use toci_core::node::ImageState;
use toci_edge::node::{Session, SessionError};
use toci_edge::provider::Provider;
use toci_edge::provider::libvirt::{Libvirt, Network};

const LIMIT: Duration = Duration::from_secs(120);

async fn said(session: &Session, text: &str) -> String {
    session.run("look", text, b"", LIMIT).await.unwrap().text().trim().to_owned()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Lists until only these are there.
async fn until_there_are(provider: &Libvirt, expected: &[&str]) {
    let end = Instant::now() + LIMIT;
    loop {
        let found = provider.list().await.unwrap();
        if found == names(expected) {
            return;
        }
        assert!(Instant::now() < end, "{expected:?} expected, there are {found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_node_is_made_used_found_again_and_deleted() {
    on_a_host(async |host: &Host| {
        let provider = host.provider("node", Network::User);
        assert_eq!(provider.list().await.unwrap(), names(&[]));
        let machine = provider.create("a-vms-1", &label("node")).await.unwrap();
        let image = provider.images().remove(0);
        assert_eq!((image.image.state, image.image.kvm), (ImageState::Ready, false));
        assert_eq!(said(&machine.session, "hostname; id -u").await, "a-vms-1\n0");
        // Its disk is its own, and as large as the label says: the image is smaller.
        assert_eq!(said(&machine.session, "cat /sys/block/vda/size").await, (2 << 21).to_string());
        assert_eq!(provider.list().await.unwrap(), names(&["a-vms-1"]));
        let taken = provider.create("a-vms-1", &label("node")).await.unwrap_err().to_string();
        assert!(taken.contains("remains of one of this name"), "{taken}");

        // Another one has another host key: the way to the first does not lead there.
        let other = provider.create("a-vms-2", &label("node")).await.unwrap();
        let (Session::Ssh { known_hosts, .. }, Session::Ssh { target, port, key, .. }) =
            (&machine.session, &other.session)
        else {
            panic!("{machine:?}")
        };
        let text = std::fs::read_to_string(known_hosts).unwrap();
        let crossed = host.folder().join("crossed");
        let (_, first_key) = text.split_once(' ').unwrap();
        std::fs::write(&crossed, format!("[127.0.0.1]:{port} {first_key}")).unwrap();
        let (target, key, port) = (target.clone(), key.clone(), *port);
        let wrong = Session::Ssh { target, port, key, known_hosts: crossed };
        let error = wrong.run("look", "true", b"", LIMIT).await.unwrap_err();
        assert!(matches!(error, SessionError::Unreachable { .. }), "{error:?}");

        // After a restart the server knows one of them; the other one, and what a crash left, is found.
        drop(provider);
        host.virsh(&["vol-create-as", &host.pool(), "toci-node-a-vms-3.qcow2", "1MiB"]);
        let again = host.provider("node", Network::User);
        again.remember("a-vms-1", &machine.token);
        until_there_are(&again, &["a-vms-1", "a-vms-2", "a-vms-3"]).await;
        let found = again.find("a-vms-1", &machine.token).await.unwrap().unwrap();
        assert_eq!(found, machine);
        assert_eq!(said(&found.session, "hostname").await, "a-vms-1");
        for alien in ["a-vms-2", "a-vms-3", "a-vms-2"] {
            again.delete(alien, "").await.unwrap();
        }
        until_there_are(&again, &["a-vms-1"]).await;

        // One that stops by itself is not there any more.
        host.virsh(&["destroy", "toci-node-a-vms-1"]);
        until_there_are(&again, &[]).await;
        assert_eq!(again.find("a-vms-1", &machine.token).await.unwrap(), None);
        again.delete("a-vms-1", "").await.unwrap();
        let left = host.virsh(&["vol-list", &host.pool()]);
        assert!(!left.contains("toci-node-") && left.contains("toci-image-"), "{left}");
        assert_eq!(host.virsh(&["list", "--all", "--name"]).trim(), "");
    });
}

#[test]
fn nodes_that_lie_are_strangers_or_die_are_never_ready() {
    on_a_host(async |host: &Host| {
        // Their images are tried first, and that is where it shows.
        let told = async |role: &str| {
            let provider = host.provider(role, Network::User);
            let error = provider.create("b-vms-1", &label(role)).await.unwrap_err().to_string();
            let image = provider.images().remove(0);
            assert_eq!(image.image.state, ImageState::Failed, "{image:?}");
            let left = host.virsh(&["list", "--all", "--name"]);
            assert!(!left.contains(role), "{left}");
            // Nothing is tried at once again.
            let again = provider.create("b-vms-2", &label(role)).await.unwrap_err().to_string();
            assert!(again.contains("it is tried again in"), "{again}");
            error
        };
        let (liar, stranger, dead) = tokio::join!(told("liar"), told("stranger"), told("dead"));
        assert!(liar.contains("it lies"), "{liar}");
        assert!(stranger.contains("another host key"), "{stranger}");
        assert!(dead.contains("the disk of this node is broken"), "{dead}");
    });
}

#[test]
fn the_folder_of_another_toci_and_machines_of_others_are_left_alone() {
    on_a_host(async |host: &Host| {
        let provider = host.provider("node", Network::User);
        provider.list().await.unwrap();
        // The same folder with the state of another server.
        let mut config = host.config("node", Network::User);
        config.state = host.folder().join("another-state");
        let thief = Libvirt::new(config, std::sync::Arc::default());
        let error = thief.list().await.unwrap_err().to_string();
        assert!(error.contains("belongs to another toci"), "{error}");
        // A machine of the same name that is not ours.
        let xml = "<domain type='qemu'><name>toci-node-c-vms-1</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>";
        let file = host.folder().join("other.xml");
        std::fs::write(&file, xml).unwrap();
        host.virsh(&["create", &file.display().to_string()]);
        assert_eq!(provider.list().await.unwrap(), names(&[]));
        let error = provider.delete("c-vms-1", "").await.unwrap_err().to_string();
        assert!(error.contains("it is not ours"), "{error}");
        assert!(host.virsh(&["list", "--name"]).contains("toci-node-c-vms-1"));
    });
}

#[test]
fn on_a_bridge_a_node_tells_its_address_and_on_a_network_libvirt_does() {
    on_a_host(async |host: &Host| {
        let bridge = host.bridge_with_dhcp();
        let network = host.network();
        let there = async |name: &str, network: Network| {
            let provider = host.provider_named(name, "node", network);
            let node = format!("d-{name}-1");
            let machine = provider.create(&node, &label("node")).await.unwrap();
            assert_eq!(said(&machine.session, "hostname").await, node);
            provider.delete(&node, &machine.token).await.unwrap();
            machine.address.unwrap().to_string()
        };
        let (bridged, leased) = tokio::join!(
            there("bridged", Network::Bridge(bridge)),
            there("leased", Network::Libvirt(network))
        );
        assert!(bridged.starts_with("198.18.21."), "{bridged}");
        assert!(leased.starts_with("198.18.22."), "{leased}");
    });
}

#[test]
fn a_libvirt_elsewhere_is_reached_through_ssh_and_by_its_known_key_only() {
    on_a_host(async |host: &Host| {
        let network = Network::Libvirt(host.network());
        let mut config = host.config("node", network);
        config.uri = format!("qemu+ssh://root@127.0.0.1:{}/system?no_tty=1", host.sshd());
        let provider = Libvirt::new(config, std::sync::Arc::default());
        // Images and seeds go there, consoles come from there.
        let machine = provider.create("e-vms-1", &label("node")).await.unwrap();
        assert_eq!(said(&machine.session, "hostname").await, "e-vms-1");
        assert_eq!(provider.list().await.unwrap(), names(&["e-vms-1"]));
        assert!(host.virsh(&["list", "--name"]).contains("toci-node-e-vms-1"));
        provider.delete("e-vms-1", &machine.token).await.unwrap();
        until_there_are(&provider, &[]).await;

        std::fs::remove_file("/root/.ssh/known_hosts").unwrap();
        let error = provider.list().await.unwrap_err().to_string();
        assert!(error.contains("Host key verification failed"), "{error}");
    });
}
