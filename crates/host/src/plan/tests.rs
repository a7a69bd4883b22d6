//! Plans of whole hosts: what is wanted, what is there, and the steps between.

use super::super::*;
use crate::carve::{Carved, Resources, carve};
use crate::config::Config;
use crate::config::tests::EXAMPLE;
use crate::plan::world::{BridgeWorld, DeviceWorld, PortWorld};
use std::net::Ipv4Addr;
use std::path::Path;

fn config(from: &str, to: &str) -> Config {
    Config::parse(Path::new("t.toml"), &EXAMPLE.replace(from, to)).unwrap()
}

fn facts() -> HostFacts {
    HostFacts { host_key: "k".into(), kvm: false, system_datapath: false, uplink_mac: None }
}

fn carving(c: &Config) -> Vec<Carved> {
    carve(c, Resources { memory_mib: 100_000, cpus: 64, disk_mib: 1_000_000 }).unwrap()
}

/// A host with one TE of a seed and one node.
pub(crate) fn small() -> (Config, HostFacts, Vec<TeSpec>) {
    let c = config("count = 2\n[", "count = 1\n[");
    let c = Config {
        shape: c
            .shape
            .into_iter()
            .map(|(k, mut s)| {
                s.nodes.count = 1;
                (k, s)
            })
            .collect(),
        ..c
    };
    let tes = te_specs(&c, &facts(), &carving(&c)).unwrap();
    (c, facts(), tes)
}

pub(crate) fn one_te() -> (Vec<TeSpec>, Desired) {
    let (c, facts, tes) = small();
    let want = desired(&c, &facts, &tes, &Guests::new());
    (tes, want)
}

/// The world as it is once a plan has been executed.
fn world_of(want: &Desired) -> World {
    let mut w = World::default();
    for (name, b) in &want.bridges {
        let ports = b.ports.iter().map(|(n, p)| {
            let port = PortWorld {
                kind: p.kind.as_str().into(),
                ofport: p.ofport,
                protected: p.protected,
                mac: p.mac.clone(),
                error: None,
            };
            (n.clone(), port)
        });
        w.bridges.insert(
            name.clone(),
            BridgeWorld {
                ours: true,
                datapath: b.datapath.into(),
                fail_mode: b.fail_mode.as_str().into(),
                ports: ports.collect(),
            },
        );
    }
    for (i, (name, d)) in want.devices.iter().enumerate() {
        let index = u32::try_from(i).unwrap() + 1;
        let addresses = d.address.iter().cloned().collect();
        w.devices.insert(name.clone(), DeviceWorld { index, up: true, addresses, route: d.route });
    }
    for bridge in want.flows.keys() {
        w.flow_differences.insert(bridge.clone(), vec![]);
    }
    w.disks = want.disks.keys().cloned().collect();
    for (name, d) in &want.domains {
        let fingerprint = Some(d.fingerprint.clone());
        w.domains.insert(name.clone(), DomainWorld { fingerprint, boot: Some(d.boot), on: false });
    }
    w.dhcp = want.dhcp.as_ref().map(|d| DhcpWorld {
        pid: 1,
        fingerprint: d.fingerprint.clone(),
        device_index: w.devices["tedev"].index,
    });
    w
}

#[test]
fn from_nothing_to_one_te() {
    let (_, want) = one_te();
    let expected = "\
+ tap te1n0x0
+ tap te1s0
+ tap te1s1
+ bridge br-ctlplane (netdev, secure)
+ port te1s0 of br-ctlplane as 1001, protected
+ port tedev of br-ctlplane as 2
+ bridge brbm1 (netdev, standalone)
+ port te1n0x0 of brbm1
+ port te1s1 of brbm1
~ device te1n0x0: up
~ device te1s0: up
~ device te1s1: up
~ device tedev: up, 198.18.1.2/24
~ flows of br-ctlplane: 30 in all
+ disk /work/state/images/baremetalbrbm1_0.qcow2: blank, 3072 MiB
+ disk /work/state/images/seed_1.qcow2: blank, 2048 MiB
+ domain baremetalbrbm1_0 (is missing)
+ domain seed_1 (is missing)
+ dhcp on tedev
";
    assert_eq!(plan(&want, &World::default()).to_string(), expected);
}

#[test]
fn what_is_right_is_left_alone() {
    let (_, want) = one_te();
    let p = plan(&want, &world_of(&want));
    assert!(p.is_empty(), "{p}");
    assert_eq!(p.to_string(), "nothing to do\n");
}

#[test]
fn teardown_removes_what_is_ours_only() {
    let (_, want) = one_te();
    let mut world = world_of(&want);
    world.domains.get_mut("seed_1").unwrap().on = true;
    let stranger = DomainWorld { fingerprint: None, boot: None, on: true };
    world.domains.insert("seed_9".into(), stranger);
    let expected = "\
- domain baremetalbrbm1_0
~ domain seed_1: power off
- domain seed_1
- dhcp on tedev
- bridge br-ctlplane
- bridge brbm1
- tap te1n0x0
- tap te1s0
- tap te1s1
- disk /work/state/images/baremetalbrbm1_0.qcow2
- disk /work/state/images/seed_1.qcow2
";
    assert_eq!(teardown(&world).to_string(), expected);
}

#[test]
fn a_bridge_that_takes_a_nic_over_is_known_by_its_mac() {
    let own = facts();
    let taken = HostFacts { uplink_mac: Some("fa:16:3e:00:00:01".into()), ..facts() };
    assert_eq!(taken.host_mac(), "fa:16:3e:00:00:01");
    let c = config("count = 2\n[", "count = 1\n[");
    let tes = te_specs(&c, &own, &carving(&c)).unwrap();
    let mac = |facts: &HostFacts| {
        let want = desired(&c, facts, &tes, &Guests::new());
        want.bridges["br-ctlplane"].ports["tedev"].mac.clone().unwrap()
    };
    assert_eq!(mac(&taken), "fa:16:3e:00:00:01");
    assert_eq!(mac(&own), own.host_mac());
    assert!(own.host_mac().starts_with("00:"), "made up, and always the same");
}

#[test]
fn a_crashed_switch_is_mended() {
    // After ovs-vswitchd came back: `tedev` is a new device without address, flows are gone.
    let (_, want) = one_te();
    let mut world = world_of(&want);
    world.devices.insert(
        "tedev".into(),
        DeviceWorld { index: 99, up: false, addresses: vec![], route: None },
    );
    world
        .flow_differences
        .insert("br-ctlplane".into(), vec!["+priority=0 actions=drop".to_owned()]);
    let expected = "\
~ device tedev: up, 198.18.1.2/24
~ flows of br-ctlplane: 30 in all
    +priority=0 actions=drop
+ dhcp on tedev
";
    assert_eq!(plan(&want, &world).to_string(), expected);
}

#[test]
fn a_port_that_differs_is_made_anew() {
    let (_, want) = one_te();
    let mut world = world_of(&want);
    let public = world.bridges.get_mut("br-ctlplane").unwrap();
    public.ports.get_mut("te1s0").unwrap().protected = false;
    let stray = public.ports["te1s0"].clone();
    public.ports.insert("eth7".into(), stray);
    let expected = "\
- port eth7 of br-ctlplane
- port te1s0 of br-ctlplane
+ port te1s0 of br-ctlplane as 1001, protected
";
    assert_eq!(plan(&want, &world).to_string(), expected);
}

#[test]
fn strangers_are_conflicts() {
    let (_, want) = one_te();
    let mut world = world_of(&want);
    world.bridges.get_mut("br-ctlplane").unwrap().ours = false;
    world.domains.get_mut("seed_1").unwrap().fingerprint = None;
    let p = plan(&want, &world);
    assert_eq!(p.conflicts.len(), 2, "{p}");
    assert!(!p.steps.iter().any(|s| matches!(s, Step::DeleteBridge { .. } | Step::Define { .. })));
}

#[test]
fn a_reset_blanks_everything_and_redefines_what_was_edited() {
    let (tes, want) = one_te();
    let mut world = world_of(&want);
    let node = world.domains.get_mut("baremetalbrbm1_0").unwrap();
    node.on = true;
    node.boot = Some(BootDevice::Hd);
    let expected = "\
~ domain baremetalbrbm1_0: power off
+ disk /work/state/images/seed_1.qcow2: blank, 2048 MiB
+ disk /work/state/images/baremetalbrbm1_0.qcow2: blank, 3072 MiB
- consoles of TE 1
- connections into TE 1
+ domain baremetalbrbm1_0 (boot order changed)
";
    assert_eq!(reset_plan(&tes[0], &world).to_string(), expected);
    assert_eq!(vacate_plan(&tes[0], &world).steps.len(), 1);
}

#[test]
fn seeds_are_told_apart_on_the_public_bridge() {
    let c = config("", "");
    let tes = te_specs(&c, &facts(), &carving(&c)).unwrap();
    let guest: Ipv4Addr = "198.18.0.7".parse().unwrap();
    let guests = Guests::from([(2, [guest].into())]);
    let flows = public_flows(&c, &facts(), &tes, &guests);
    let mac = &tes[1].seed().nics[0].mac;
    let own = "in_port=1002,vlan_tci=0x0000/0x1fff";
    for expected in [
        "priority=300,udp,in_port=1002,tp_src=67,actions=drop".to_owned(),
        format!(
            "priority=200,ip,{own},dl_src={mac},nw_src=198.18.1.102,actions=ct(commit,zone=1002),resubmit(,1)"
        ),
        format!(
            "priority=205,ip,{own},dl_src={mac},nw_src=198.18.1.102,nw_dst=198.18.0.7,actions=resubmit(,1)"
        ),
        format!(
            "priority=200,ip,{own},dl_src={mac},nw_src=192.0.2.0/24,actions=ct(table=2,zone=1002)"
        ),
        format!(
            "table=1,ip,dl_dst={mac},nw_src=198.18.0.7,priority=215,nw_dst=192.0.2.0/24,actions=ct(commit,zone=1002),NORMAL"
        ),
        format!("table=1,ip,dl_dst={mac},nw_src=198.18.0.7,priority=210,actions=NORMAL"),
        format!("table=1,priority=200,ip,dl_dst={mac},actions=ct(table=2,zone=1002)"),
        format!("table=1,priority=190,dl_dst={mac},actions=drop"),
        "priority=260,ip,in_port=1002,nw_dst=192.0.2.0/24,actions=drop".to_owned(),
        "table=1,priority=250,tcp,nw_dst=198.18.1.2,tp_dst=22,actions=NORMAL".to_owned(),
        "table=1,priority=240,ip,nw_dst=198.18.1.2,actions=ct(table=2,zone=1)".to_owned(),
        "priority=100,in_port=1002,actions=drop".to_owned(),
        "priority=0,actions=drop".to_owned(),
    ] {
        assert!(flows.contains(&expected), "{expected}\n{flows:#?}");
    }
    let of_guests = flows.iter().filter(|flow| flow.contains("198.18.0.7")).count();
    assert_eq!(of_guests, 3, "the other seed has no guest: {flows:#?}");
    let dhcp = desired(&c, &facts(), &tes, &guests).dhcp.unwrap().conf;
    assert!(dhcp.contains(&format!("dhcp-host={mac},198.18.1.102,seed-2,infinite\n")), "{dhcp}");
}
