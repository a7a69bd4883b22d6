//! Ports of two hosts, as they should be and as they are.

use super::*;
use proptest::prelude::*;

fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

fn policy() -> Policy {
    Policy { owner: "ci".into(), groups: Some(BTreeSet::from(["g".to_owned()])) }
}

fn leg(testenv: Option<u32>, mac: &str, address: &str) -> Leg {
    Leg { testenv, mac: mac.to_owned(), address: Some(address.parse().unwrap()) }
}

fn hosts() -> Hosts {
    let legs = vec![leg(None, "m0", "198.18.0.10"), leg(Some(1), "m1", "198.18.0.11")];
    Hosts::from([(host("a"), Some(legs))])
}

fn port(name: &str, mac: &str, address: &str, of: &str) -> FoundPort {
    FoundPort {
        id: format!("id-{mac}"),
        name: name.to_owned(),
        mac: mac.to_owned(),
        addresses: BTreeSet::from([address.parse().unwrap()]),
        port_security: true,
        allowed: BTreeSet::new(),
        groups: BTreeSet::from(["g".to_owned()]),
        description: if of.is_empty() { String::new() } else { format!("toci-testnet:{of}") },
        device_owner: String::new(),
    }
}

fn good() -> Vec<FoundPort> {
    vec![port("te_a", "m0", "198.18.0.10", "ci:a"), port("te_a_1", "m1", "198.18.0.11", "ci:a")]
}

fn steps(hosts: &Hosts, found: &[FoundPort]) -> Vec<String> {
    let plan = plan(&policy(), hosts, found);
    let refused = plan.refused.iter().map(|r| format!("! {}: {}", r.name, r.why));
    plan.steps.iter().map(ToString::to_string).chain(refused).collect()
}

#[test]
fn a_new_host_gets_a_port_for_itself_and_for_each_seed() {
    let expected = ["+ port te_a: m0, 198.18.0.10", "+ port te_a_1: m1, 198.18.0.11"];
    assert_eq!(steps(&hosts(), &[]), expected);
    assert!(steps(&hosts(), &good()).is_empty());
}

#[test]
fn what_drifted_is_put_right() {
    let mut found = good();
    found[0].name = "x".into();
    found[0].port_security = false;
    found[1].addresses = BTreeSet::from(["198.18.0.99".parse().unwrap()]);
    found[1].allowed = BTreeSet::from(["0.0.0.0/0".to_owned()]);
    found[1].groups = BTreeSet::new();
    let expected = [
        "~ port te_a: name: x -> te_a; port security: off -> on",
        "~ port te_a_1: address: 198.18.0.99 -> 198.18.0.11; allowed addresses: 0.0.0.0/0 -> none; security groups: none -> g",
    ];
    assert_eq!(steps(&hosts(), &found), expected);
    // Which groups they are in is the cloud's affair unless somebody says so.
    found[1] = good().remove(1);
    found[1].groups = BTreeSet::new();
    let plan = plan(&Policy { groups: None, ..policy() }, &hosts(), &found[1..]);
    assert_eq!(plan.steps.len(), 1, "{plan:?}");
    let mut found = good();
    found[1].mac = "m9".into();
    // A NIC got another MAC: nothing is plugged into the old port.
    assert_eq!(steps(&hosts(), &found), ["- port te_a_1", "+ port te_a_1: m1, 198.18.0.11"]);
}

#[test]
fn a_port_with_the_mac_is_adopted_unless_it_is_somebodys() {
    let mut found = good();
    found[1] = port("by-hand", "m1", "198.18.0.11", "");
    assert_eq!(steps(&hosts(), &found), ["~ port te_a_1: adopted; name: by-hand -> te_a_1"]);
    found[1].device_owner = "compute:nova".into();
    let expected = "! te_a_1: port by-hand (id-m1) with the MAC m1 is plugged into compute:nova";
    assert_eq!(steps(&hosts(), &found), [expected]);
    found[1] = port("theirs", "m1", "198.18.0.11", "other:b");
    let expected = "! te_a_1: port theirs (id-m1) with the MAC m1 is `other`'s";
    assert_eq!(steps(&hosts(), &found), [expected]);
}

#[test]
fn the_port_of_a_host_that_is_a_server_is_left_as_it_is() {
    let mut found = good();
    found[0] = FoundPort {
        description: crate::deploy::mark("ci", "a"),
        port_security: false,
        device_owner: "compute:nova".into(),
        ..found[0].clone()
    };
    assert!(steps(&hosts(), &found).is_empty());
    // Also when the host is not known (yet, or any more).
    assert_eq!(steps(&Hosts::new(), &found), ["- port te_a_1"]);
    found[0].description = crate::deploy::mark("other", "a");
    assert!(steps(&hosts(), &found)[0].contains("is plugged into compute:nova"));
}

#[test]
fn only_ours_go_and_none_of_a_host_that_is_silent() {
    let mut found = good();
    found.push(port("te_a_2", "m2", "198.18.0.12", "ci:a"));
    found.push(port("te_b", "m3", "198.18.0.13", "ci:b"));
    found.push(port("te_c", "m4", "198.18.0.14", "ci:c"));
    found.push(port("te_d", "m5", "198.18.0.15", "other:d"));
    found.push(port("te_e", "m6", "198.18.0.16", ""));
    let mut hosts = hosts();
    hosts.insert(host("b"), None);
    assert_eq!(steps(&hosts, &found), ["- port te_a_2", "- port te_c"]);
}

#[test]
fn two_hosts_with_one_mac_are_told() {
    let mut hosts = hosts();
    hosts.insert(host("b"), Some(vec![leg(None, "m1", "198.18.0.20")]));
    let told = steps(&hosts, &good());
    assert_eq!(told, ["! te_b: another TE host has the MAC m1 too"]);
}

#[test]
fn marks_are_read_as_they_are_written() {
    let mark = PortMark { owner: "ci".into(), host: "a.b".into() };
    assert_eq!(PortMark::read(&mark.to_string()), Some(mark));
    for none in ["", "toci-testnet:", "toci-testnet:ci", "toci-testnet::a", "toci-zone:ci:a"] {
        assert_eq!(PortMark::read(none), None);
    }
}

/// What a cloud does with a step.
fn execute(plan: &Plan, found: &mut Vec<FoundPort>) {
    for step in &plan.steps {
        match step {
            Step::Delete { id, .. } => found.retain(|port| port.id != *id),
            Step::Create { name, leg, mark } => {
                assert!(found.iter().all(|port| port.mac != leg.mac), "the MAC is in use");
                let address = leg.address.unwrap().to_string();
                found.push(port(name, &leg.mac, &address, ""));
                found.last_mut().unwrap().description = mark.to_string();
            }
            Step::Repair { id, differences, mark, .. } => {
                let port = found.iter_mut().find(|port| port.id == *id).unwrap();
                for difference in differences {
                    match difference {
                        Difference::Name { new, .. } => port.name.clone_from(new),
                        Difference::Address { new, .. } => port.addresses = BTreeSet::from([*new]),
                        Difference::PortSecurity => port.port_security = true,
                        Difference::Allowed { .. } => port.allowed.clear(),
                        Difference::Groups { new, .. } => port.groups.clone_from(new),
                        Difference::Mark => port.description = mark.to_string(),
                    }
                }
            }
        }
    }
}

fn any_port() -> impl Strategy<Value = FoundPort> {
    (0..4_u32, 0..4_u32, 0..4_usize, any::<bool>(), any::<bool>()).prop_map(
        |(name, mac, of, secure, plugged)| {
            let of = ["ci:a", "ci:b", "other:a", ""][of];
            let mut port =
                port(&format!("te_a_{name}"), &format!("m{mac}"), &format!("198.18.0.{mac}"), of);
            port.port_security = secure;
            if mac % 2 == 0 {
                port.groups.clear();
            }
            port.device_owner = if plugged { "compute:x".into() } else { String::new() };
            port
        },
    )
}

proptest! {
    #[test]
    fn after_its_plan_there_is_nothing_left_to_do(
        legs in prop::collection::btree_map(0..4_u32, 0..4_u32, 0..4),
        ports in prop::collection::vec(any_port(), 0..5),
    ) {
        let mut seen = BTreeSet::new();
        let mut found: Vec<FoundPort> =
            ports.into_iter().filter(|port| seen.insert(port.mac.clone())).collect();
        let legs = legs
            .iter()
            .map(|(te, mac)| leg(Some(*te), &format!("m{mac}"), &format!("198.18.0.{mac}")))
            .collect();
        let hosts = Hosts::from([(host("a"), Some(legs))]);
        let others: Vec<FoundPort> = found
            .iter()
            .filter(|port| !port.description.starts_with("toci-testnet:ci:"))
            .filter(|port| !port.description.is_empty() || !port.device_owner.is_empty())
            .cloned()
            .collect();
        let first = plan(&policy(), &hosts, &found);
        execute(&first, &mut found);
        let second = plan(&policy(), &hosts, &found);
        prop_assert!(second.steps.is_empty(), "{:?} after {:?}", second.steps, first.steps);
        for other in others {
            prop_assert!(found.contains(&other), "{other:?} was touched");
        }
    }
}
