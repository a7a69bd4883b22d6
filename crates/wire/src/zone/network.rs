//! Networks with subnets, routers, security groups, ports.

use super::reader::{Cidr, Entry, Reader};
use crate::layout::fields::{Map, text};
use crate::layout::tree::{Kind as NodeKind, Mark, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use toci_core::cloud::{ANYWHERE, Kind, Thing, ThingId, Value, rule_name};

pub(super) fn read(map: &Map<'_>, reader: &mut Reader<'_>) {
    networks(map, reader);
    routers(map, reader);
    groups(map, reader);
    let keys = ["project"].iter().chain(&PORT_KEYS).copied().collect::<Vec<_>>();
    for entry in reader.entries(map, "ports", &keys) {
        let project = reader.project(&entry.map);
        let thing = Thing::new(ThingId::new(Kind::Port, project, &entry.name));
        let thing = Thing { adopt: entry.adopt, ..thing };
        let thing = port(thing, &entry.map, &["name", "adopt", "project"], reader);
        reader.add(thing, entry.mark);
    }
}

/// Keys of truths, and OpenStack's names.
const NETWORK_TRUTHS: [(&str, &str); 3] = [
    ("shared", "shared"),
    ("external", "router:external"),
    ("port-security", "port_security_enabled"),
];

fn networks(map: &Map<'_>, reader: &mut Reader<'_>) {
    let keys = ["project", "shared", "external", "port-security", "mtu", "provider", "subnets"];
    for entry in reader.entries(map, "networks", &keys) {
        let map = &entry.map;
        let project = reader.project(map);
        let mut thing = Thing::new(ThingId::new(Kind::Network, &project, &entry.name));
        thing.adopt = entry.adopt;
        for (key, field) in NETWORK_TRUTHS {
            if let Some(truth) = map.truth(key, reader.found) {
                thing = thing.with(field, Value::Truth(truth));
            }
        }
        if let Some(mtu) = reader.number(map, "mtu", 68) {
            thing = thing.with("mtu", Value::Number(mtu));
        }
        thing = provider(thing, map, reader);
        reader.add(thing, entry.mark);
        for node in map.list("subnets", reader.found) {
            subnet(node, &entry, &project, reader);
        }
    }
}

fn provider(mut thing: Thing, map: &Map<'_>, reader: &mut Reader<'_>) -> Thing {
    let path = format!("{}.provider", map.path);
    let Some(one) = map.get("provider").and_then(|node| Map::of(node, &path, reader.found)) else {
        return thing;
    };
    one.known(&["type", "physical-network", "segmentation-id"], reader.found);
    let kind = reader.word(&one, "type", &["flat", "vlan", "vxlan", "gre", "geneve", "local"]);
    let needs_physical = matches!(kind.as_deref(), Some("flat" | "vlan"));
    if let Some(kind) = kind {
        thing = thing.with("provider:network_type", Value::Text(kind));
    } else if one.get("type").is_none() {
        reader.wrong(&one, "type", "`type` is missing", "flat, vlan, vxlan, gre, geneve or local");
    }
    match one.text("physical-network", reader.found) {
        Some(name) => thing = thing.with("provider:physical_network", Value::Text(name)),
        None if needs_physical => {
            let expected = "the physical network's name in the cloud's settings";
            reader.wrong(&one, "physical-network", "`physical-network` is missing", expected);
        }
        None => {}
    }
    if let Some(id) = reader.number(&one, "segmentation-id", 1) {
        thing = thing.with("provider:segmentation_id", Value::Number(id));
    }
    thing
}

const SUBNET_KEYS: [&str; 6] = ["cidr", "gateway", "dhcp", "dns", "pools", "routes"];

fn subnet(node: &Node, network: &Entry<'_>, project: &str, reader: &mut Reader<'_>) {
    let section = format!("networks {}.subnets", network.name);
    let Some(entry) = reader.entry(node, &section, &SUBNET_KEYS) else { return };
    let map = &entry.map;
    let Some(node) = map.get("cidr") else {
        return reader.wrong(map, "cidr", "`cidr` is missing", "a network such as 172.16.0.0/22");
    };
    let Some(cidr) = reader.cidr_of(node, &format!("{}.cidr", map.path)) else { return };
    let mut thing = Thing::new(ThingId::new(Kind::Subnet, project, &entry.name))
        .with("network_id", Value::Ref(ThingId::new(Kind::Network, project, &network.name)))
        .with("cidr", Value::text(cidr.to_string()))
        .with("ip_version", Value::Number(cidr.version()))
        .with("enable_dhcp", Value::Truth(map.truth("dhcp", reader.found).unwrap_or(true)));
    thing.adopt = entry.adopt || network.adopt && map.get("adopt").is_none();
    match map.get("gateway").map(|node| &node.kind) {
        None => {}
        Some(NodeKind::Scalar { text, .. }) if text == "none" => {
            thing = thing.with("gateway_ip", Value::None);
        }
        Some(_) => {
            if let Some(address) = reader.address(map, "gateway") {
                inside(cidr, address, map, "gateway", reader);
                thing = thing.with("gateway_ip", Value::text(address.to_string()));
            }
        }
    }
    if map.get("dns").is_some() {
        let path = format!("{}.dns", map.path);
        let nodes = map.several(&["dns"]);
        let servers = nodes.into_iter().filter_map(|node| reader.address_of(node, &path));
        let servers = servers.map(|server| Value::text(server.to_string())).collect();
        thing = thing.with("dns_nameservers", Value::List(servers));
    }
    if map.get("pools").is_some() {
        thing = thing.with("allocation_pools", Value::Set(pools(cidr, map, reader)));
    }
    if map.get("routes").is_some() {
        thing = thing.with("host_routes", Value::Set(routes(map, reader)));
    }
    reader.add(thing, entry.mark);
}

fn inside(cidr: Cidr, address: IpAddr, map: &Map<'_>, key: &str, reader: &mut Reader<'_>) {
    if !cidr.contains(address) {
        reader.wrong(map, key, &format!("{address} is not in {cidr}"), "an address in it");
    }
}

fn pair(first: (&str, String), second: (&str, String)) -> Value {
    let pairs = [first, second].map(|(name, text)| (name.to_owned(), Value::Text(text)));
    Value::Map(BTreeMap::from(pairs))
}

fn pools(cidr: Cidr, map: &Map<'_>, reader: &mut Reader<'_>) -> BTreeSet<Value> {
    let path = format!("{}.pools", map.path);
    let mut out = BTreeSet::new();
    for node in map.several(&["pools"]) {
        let Some(given) = text(node, &path, reader.found) else { continue };
        let ends = given.split_once('-').and_then(|(start, end)| {
            Some((start.trim().parse::<IpAddr>().ok()?, end.trim().parse::<IpAddr>().ok()?))
        });
        match ends {
            Some((start, end)) if start <= end && cidr.contains(start) && cidr.contains(end) => {
                out.insert(pair(("start", start.to_string()), ("end", end.to_string())));
            }
            Some(_) | None => {
                let expected = format!("FIRST-LAST within {cidr}");
                reader.found.error(node.mark, &path, format!("`{given}` is no pool"), expected);
            }
        }
    }
    out
}

fn routes(map: &Map<'_>, reader: &mut Reader<'_>) -> BTreeSet<Value> {
    let path = format!("{}.routes", map.path);
    let mut out = BTreeSet::new();
    for node in map.list("routes", reader.found) {
        let Some(one) = Map::of(node, &path, reader.found) else { continue };
        one.known(&["to", "via"], reader.found);
        let to = one.get("to").and_then(|node| reader.cidr_of(node, &path));
        match (to, reader.address(&one, "via")) {
            (Some(to), Some(via)) => {
                out.insert(pair(("destination", to.to_string()), ("nexthop", via.to_string())));
            }
            (_, _) => {
                let expected = "`to: NETWORK` and `via: ADDRESS`";
                reader.found.error(node.mark, &path, "this is no route", expected);
            }
        }
    }
    out
}

fn routers(map: &Map<'_>, reader: &mut Reader<'_>) {
    let keys = ["project", "external-network", "snat", "subnets"];
    for entry in reader.entries(map, "routers", &keys) {
        let map = &entry.map;
        let project = reader.project(map);
        let id = ThingId::new(Kind::Router, &project, &entry.name);
        let mut thing = Thing { adopt: entry.adopt, ..Thing::new(id.clone()) };
        if let Some(network) = reader.anywhere(map, "external-network", Kind::Network) {
            thing = thing.with("external_gateway_info.network_id", network);
        }
        if let Some(snat) = map.truth("snat", reader.found) {
            thing = thing.with("external_gateway_info.enable_snat", Value::Truth(snat));
        }
        reader.add(thing, entry.mark);
        for subnet in map.texts(&["subnets"], reader.found) {
            let name = format!("{}: {subnet}", entry.name);
            let leg = Thing::new(ThingId::new(Kind::Interface, &project, name))
                .with("router", Value::Ref(id.clone()))
                .with("subnet", Value::Ref(ThingId::new(Kind::Subnet, ANYWHERE, subnet)));
            reader.add(leg, entry.mark);
        }
    }
}

fn groups(map: &Map<'_>, reader: &mut Reader<'_>) {
    for entry in reader.entries(map, "security-groups", &["project", "rules"]) {
        let project = reader.project(&entry.map);
        let id = ThingId::new(Kind::Group, &project, &entry.name);
        // Every project has `default` from the beginning.
        let adopt = entry.adopt || entry.name == "default";
        reader.add(Thing { adopt, ..Thing::new(id.clone()) }, entry.mark);
        for node in entry.map.list("rules", reader.found) {
            let path = format!("{}.rules", entry.map.path);
            if let Some(one) = Map::of(node, &path, reader.found) {
                rule(&one, &id, node.mark, reader);
            }
        }
    }
}

fn rule(map: &Map<'_>, group: &ThingId, mark: Mark, reader: &mut Reader<'_>) {
    let keys = ["direction", "protocol", "port", "from", "to", "from-group", "version"];
    map.known(&keys, reader.found);
    let words = ["ingress", "egress"];
    let direction = reader.word(map, "direction", &words).unwrap_or_else(|| "ingress".to_owned());
    let peer = ["from", "to"].into_iter().find(|key| map.get(key).is_some());
    let prefix = peer.and_then(|key| {
        let given = map.text(key, reader.found)?;
        let node = map.get(key).filter(|_| given != "any")?;
        reader.cidr_of(node, &format!("{}.{key}", map.path))
    });
    let version = match (reader.number(map, "version", 4), prefix) {
        (None, Some(prefix)) => prefix.version(),
        (None, None) | (Some(4), _) => 4,
        (Some(6), _) => 6,
        (Some(other), _) => {
            reader.wrong(map, "version", &format!("`{other}`"), "4 or 6");
            4
        }
    };
    let protocol = map.text("protocol", reader.found).filter(|word| word != "any");
    let ports = ports(map, reader);
    if ports.is_some() && !matches!(protocol.as_deref(), Some("tcp" | "udp" | "sctp")) {
        let expected = "`protocol: tcp`, `udp` or `sctp` with it";
        reader.wrong(map, "port", "a port without a protocol that has ports", expected);
    }
    let mut thing = Thing::new(group.clone());
    thing = thing
        .with("security_group_id", Value::Ref(group.clone()))
        .with("direction", Value::text(&direction))
        .with("ethertype", Value::text(format!("IPv{version}")));
    if let Some(protocol) = protocol {
        thing = thing.with("protocol", Value::Text(protocol.to_ascii_lowercase()));
    }
    if let Some((first, last)) = ports {
        thing = thing
            .with("port_range_min", Value::Number(first))
            .with("port_range_max", Value::Number(last));
    }
    if let Some(prefix) = prefix.filter(|prefix| prefix.prefix > 0) {
        thing = thing.with("remote_ip_prefix", Value::text(prefix.to_string()));
    }
    if let Some(name) = map.text("from-group", reader.found) {
        let remote = ThingId::new(Kind::Group, &group.project, name);
        thing = thing.with("remote_group_id", Value::Ref(remote));
    }
    thing.id = ThingId::new(Kind::Rule, &group.project, rule_name(&group.name, &thing.fields));
    reader.add(thing, mark);
}

/// `22`, or `8000-8080`.
fn ports(map: &Map<'_>, reader: &mut Reader<'_>) -> Option<(i64, i64)> {
    let given = map.text("port", reader.found)?;
    let (first, last) = given.split_once('-').unwrap_or((&given, &given));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Some((first.into(), last.into())),
        (_, _) => {
            reader.wrong(map, "port", &format!("`{given}`"), "a port such as 22, or 8000-8080");
            None
        }
    }
}

const PORT_KEYS: [&str; 6] =
    ["network", "address", "mac", "port-security", "security-groups", "allowed-addresses"];

/// What a port says; `more` are keys that the caller has read.
pub(super) fn port(
    mut thing: Thing,
    map: &Map<'_>,
    more: &[&str],
    reader: &mut Reader<'_>,
) -> Thing {
    let keys: Vec<&str> = PORT_KEYS.iter().chain(more).copied().collect();
    map.known(&keys, reader.found);
    match reader.anywhere(map, "network", Kind::Network) {
        Some(network) => thing = thing.with("network_id", network),
        None => reader.wrong(map, "network", "`network` is missing", "its name"),
    }
    if map.get("address").is_some() {
        let path = format!("{}.address", map.path);
        let nodes = map.several(&["address"]);
        let all = nodes.into_iter().filter_map(|node| reader.address_of(node, &path));
        let all = all.map(|address| Value::text(address.to_string())).collect();
        thing = thing.with("fixed_ips", Value::Set(all));
    }
    if let Some(mac) = map.text("mac", reader.found) {
        match normal_mac(&mac) {
            Some(mac) => thing = thing.with("mac_address", Value::Text(mac)),
            None => reader.wrong(map, "mac", &format!("`{mac}`"), "fa:16:3e:00:00:01"),
        }
    }
    if let Some(truth) = map.truth("port-security", reader.found) {
        thing = thing.with("port_security_enabled", Value::Truth(truth));
    }
    if map.get("security-groups").is_some() {
        let project = thing.id.project.clone();
        let names = map.texts(&["security-groups"], reader.found);
        let group = |name| Value::Ref(ThingId::new(Kind::Group, &project, name));
        let groups = names.into_iter().map(group).collect();
        thing = thing.with("security_groups", Value::Set(groups));
    }
    if map.get("allowed-addresses").is_some() {
        let path = format!("{}.allowed-addresses", map.path);
        let mut pairs = BTreeSet::new();
        for node in map.several(&["allowed-addresses"]) {
            let Some(given) = text(node, &path, reader.found) else { continue };
            if given.parse::<IpAddr>().is_ok() || Cidr::parse(&given).is_some() {
                pairs.insert(Value::Text(given));
            } else {
                let what = format!("`{given}` is no address");
                reader.found.error(node.mark, &path, what, "an address or a network");
            }
        }
        thing = thing.with("allowed_address_pairs", Value::Set(pairs));
    }
    thing
}

/// Six pairs of lower-case hexadecimal digits.
fn normal_mac(text: &str) -> Option<String> {
    let pairs: Vec<&str> = text.split(':').collect();
    let good = |pair: &&str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
    (pairs.len() == 6 && pairs.iter().all(good)).then(|| text.to_ascii_lowercase())
}
