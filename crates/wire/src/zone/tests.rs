//! Zone files: what they say, and every error with its place.

use super::*;
use toci_core::cloud::{
    ANYWHERE, Found, Kind, Local, Password, Stale, Thing, ThingId, Value, plan,
};

fn good(text: &str) -> ZoneFile {
    read("zone.yaml", text).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn errors(text: &str) -> Vec<String> {
    let text = format!("owner: lab\nproject: ci\n{text}");
    read("z", &text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn thing<'z>(zone: &'z ZoneFile, kind: Kind, name: &str) -> &'z Thing {
    let all = &zone.zone.things;
    let named = all.iter().find(|thing| thing.id.kind == kind && thing.id.name == name);
    named.unwrap_or_else(|| panic!("no {kind:?} {name} in {all:#?}"))
}

#[test]
fn the_origins_zones_are_read_with_their_values() {
    for (name, text, ram, broker) in [
        ("hp1", include_str!("../../../../examples/zones/hp1.yaml"), 900_000, "m1.medium"),
        ("hp2", include_str!("../../../../examples/zones/hp2.yaml"), 900_000, "m1.medium"),
        ("rh1", include_str!("../../../../examples/zones/rh1.yaml"), 180_000, "m1.medium"),
        ("local", include_str!("../../../../examples/zones/local.yaml"), 32_000, "m1.small"),
    ] {
        let zone = good(text);
        assert!(zone.cloud.as_ref().unwrap().ends_with(name));
        assert_eq!(zone.zone.mark, Mark::of(&format!("tripleo-ci-{name}")));
        let field = |kind, of: &str, field: &str| thing(&zone, kind, of).fields[field].clone();
        let quota = |name| field(Kind::Quota, "limits", name);
        assert_eq!(quota("compute.cores"), Value::Number(-1));
        assert_eq!(quota("compute.ram"), Value::Number(ram));
        assert_eq!(quota("network.port"), Value::Number(300));
        assert_eq!(field(Kind::Flavor, "h1.ci", "ram"), Value::Number(8192));
        let subnet = |name| field(Kind::Subnet, "tripleo-bm-test", name);
        assert_eq!(subnet("gateway_ip"), Value::None);
        assert_eq!(
            subnet("allocation_pools").to_string(),
            "[{end: 172.16.3.234, start: 172.16.0.1}]"
        );
        let port = field(Kind::Port, "te-broker-tripleo-bm-test", "fixed_ips");
        assert_eq!(port.to_string(), "[172.16.3.254]");
        let flavor = Value::Ref(ThingId::global(Kind::Flavor, broker));
        assert_eq!(field(Kind::Server, "te-broker", "flavor"), flavor);
        // Not opened to the outside: 4730.
        let rules = zone.zone.things.iter().filter(|t| t.id.kind == Kind::Rule);
        let rules: Vec<&str> = rules.map(|t| t.id.name.as_str()).collect();
        let expected = [
            "default: ingress IPv4 icmp from any",
            "default: ingress IPv4 tcp 22 from any",
            "nodes: ingress IPv4 icmp from any",
            "nodes: ingress IPv4 tcp 22 from any",
            "nodes: ingress IPv4 any from openstack-nodepool/testenvs",
        ];
        assert_eq!(rules, expected);
        let plan = plan(&zone.zone, &Found::default(), Stale::Tell);
        let refused: Vec<String> = plan.refused.iter().map(|r| r.thing.to_string()).collect();
        // What a fresh cloud has and an empty one has not: the role, the administrator, ext-net.
        let needs = ["assignment", "router", "interface", "floating IP"];
        assert!(refused.iter().all(|r| needs.iter().any(|n| r.starts_with(n))), "{refused:?}");
    }
}

#[test]
fn the_demos_zone_makes_all_that_it_needs_but_the_outer_network() {
    let zone = good(include_str!("../../../../examples/zones/demo.yaml"));
    let plan = plan(&zone.zone, &Found::default(), Stale::Tell);
    let refused: Vec<String> = plan.refused.iter().map(|r| r.thing.to_string()).collect();
    // What a fresh cloud has and an empty one has not: the role, and `public` for the router and with it its leg.
    assert!(refused.iter().all(|r| !r.starts_with("network")), "{refused:?}");
    assert_eq!(refused.len(), 3, "{refused:?}");
}

#[test]
fn passwords_are_only_named() {
    let text = "owner: o\nusers:\n- {name: a, password-file: /p}\n- {name: b, password-env: B}\n- {name: c, adopt: true}\n";
    let zone = good(text);
    let local = |name: &str| thing(&zone, Kind::User, name).local.clone();
    assert_eq!(local("a"), Some(Local::Password(Password::File("/p".into()))));
    assert_eq!(local("b"), Some(Local::Password(Password::Environment("B".into()))));
    assert_eq!(local("c"), None);
}

#[test]
fn a_name_means_the_one_in_the_same_project_before_any_other() {
    let text = "
owner: o
networks:
- {name: n, project: a, subnets: [{name: s, cidr: 10.1.0.0/24}]}
- {name: n, project: b}
routers: [{name: r, project: b, external-network: ext, subnets: [s]}]
servers: [{name: v, project: b, image: i, flavor: f, networks: [n], floating-ip: {network: n, address: 10.1.0.9}}]
";
    let zone = good(text);
    let to = |kind, name: &str, field: &str| thing(&zone, kind, name).fields[field].to_string();
    assert_eq!(to(Kind::Port, "v-n", "network_id"), "b/n");
    assert_eq!(to(Kind::FloatingIp, "v", "floating_network_id"), "b/n");
    assert_eq!(to(Kind::FloatingIp, "v", "port_id"), "b/v-n");
    let subnet = Value::Ref(ThingId::new(Kind::Subnet, ANYWHERE, "s"));
    assert_eq!(thing(&zone, Kind::Interface, "r: s").fields["subnet"], subnet);
}

#[test]
fn what_is_left_out_is_left_to_the_cloud() {
    let zone = good(
        "owner: o\nproject: p\nnetworks: [{name: n, subnets: [{name: s, cidr: 'fd00::/64'}]}]\n",
    );
    assert_eq!(thing(&zone, Kind::Network, "n").fields.len(), 0);
    let fields: Vec<&String> = thing(&zone, Kind::Subnet, "s").fields.keys().collect();
    assert_eq!(fields, ["cidr", "enable_dhcp", "ip_version", "network_id"]);
    assert_eq!(thing(&zone, Kind::Subnet, "s").fields["ip_version"], Value::Number(6));
}

#[test]
fn every_error_says_where_it_is_and_what_was_expected() {
    for (text, expected) in [
        ("netwoks: []", "z:3:1: there is no key `netwoks` (did you mean `networks`?)"),
        (
            "users: [{name: u, password: hush}]",
            "z:3:29: users u.password: passwords do not belong into this file (expected `password-file` or `password-env`)",
        ),
        ("users: [{name: u}]", "no password (expected one of `password-file` and `password-env`)"),
        (
            "quotas: [{compute: {ram: 5}}]",
            "z:3:21: quotas ci.compute: there is no key `ram` (expected one of cores, ram-mib",
        ),
        (
            "quotas: [{compute: {cores: -2}}]",
            "z:3:28: quotas ci.compute.cores: `-2` (expected a whole number from -1 on (-1: no limit))",
        ),
        ("flavors: [{name: f, vcpus: 1, ram-mib: 1}]", "flavors f.disk-gib: it is missing"),
        ("flavors: [{name: f}, {name: f}]", "flavor f is there a second time, after line 3"),
        ("key-pairs: [{name: k, public-key: x}]", "this is no public key"),
        ("images: [{name: i}]", "`file` is missing (expected a file on this machine)"),
        (
            "images: [{name: i, file: 'https://x/y'}]",
            "z:3:26: images i.file: `https://x/y` (expected a file on this machine)",
        ),
        ("images: [{name: i, file: /x, disk-format: qcow}]", "`qcow` (expected one of qcow2, raw"),
        (
            "networks: [{name: n, provider: {type: flat}}]",
            "networks n.provider.physical-network: `physical-network` is missing",
        ),
        (
            "networks: [{name: n, subnets: [{name: s, cidr: 10.0.0.1/8}]}]",
            "z:3:48: networks n.subnets s.cidr: `10.0.0.1/8` is no network",
        ),
        (
            "networks: [{name: n, subnets: [{name: s, cidr: 10.0.0.0/24, gateway: 10.0.1.1}]}]",
            "10.0.1.1 is not in 10.0.0.0/24",
        ),
        (
            "networks: [{name: n, subnets: [{name: s, cidr: 10.0.0.0/24, pools: 10.0.0.9-10.0.0.2}]}]",
            "z:3:68: networks n.subnets s.pools: `10.0.0.9-10.0.0.2` is no pool (expected FIRST-LAST within 10.0.0.0/24)",
        ),
        (
            "security-groups: [{name: g, rules: [{port: 22}]}]",
            "security-groups g.rules.port: a port without a protocol",
        ),
        ("ports: [{name: p, network: n, mac: 00}]", "ports p.mac: `00` (expected fa:16:3e"),
        ("servers: [{name: s, flavor: f, networks: [n]}]", "servers s.image: `image` is missing"),
        ("servers: [{name: s, flavor: f, image: i}]", "servers s.networks: it has no network"),
        ("projects: ['*']", "z:3:12: projects: `*` cannot be a name"),
        ("roles: {a: b}", "z:3:8: roles: this is a map (expected a list)"),
        ("a: [", "z:"),
    ] {
        let told = errors(text);
        assert!(told.iter().any(|line| line.contains(expected)), "{text}: {told:#?}");
    }
    let told = read("z", "networks: [{name: n}]\nowner: o\n").unwrap_err();
    assert!(told[0].to_string().contains("`project` is missing (expected a project's name, here"));
    assert!(read("z", "owner: 'a:b'\n").unwrap_err()[0].to_string().contains("cannot be an owner"));
    assert!(read("z", "").unwrap_err()[0].to_string().contains("`owner` is missing"));
}
