//! Networks, subnets, routers, security groups, ports, floating IPs.

use super::compute::texts;
use super::{Reading, described, each, fields, maps, plain, text, thing};
use crate::cloud::api::{Api, ApiError, Service};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use toci_core::cloud::{FoundThing, Kind, Mark, Owner, ThingId, Value, Zone, rule_name};

pub(super) async fn read(api: &Api, zone: &Zone, reading: &mut Reading) -> Result<(), ApiError> {
    networks(api, reading).await?;
    routers(api, reading).await?;
    groups(api, zone, reading).await?;
    ports(api, reading).await
}

/// A thing with a name, a project and a description; unnamed ones are called by their key.
fn named(kind: Kind, json: &Json, reading: &Reading) -> FoundThing {
    let key = text(json, "id");
    let name = if text(json, "name").is_empty() { key } else { text(json, "name") };
    let project = reading.project(text(json, "project_id"));
    thing(ThingId::new(kind, project, name), key, described(json))
}

async fn networks(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    for json in api.list(Service::Network, "networks", "networks").await? {
        let mut found = named(Kind::Network, &json, reading);
        let names = [
            "shared",
            "router:external",
            "port_security_enabled",
            "mtu",
            "provider:network_type",
            "provider:physical_network",
            "provider:segmentation_id",
        ];
        found.fields = fields(&json, &names);
        reading.add(found);
    }
    for json in api.list(Service::Network, "subnets", "subnets").await? {
        let mut found = named(Kind::Subnet, &json, reading);
        found.fields = fields(&json, &["cidr", "ip_version", "gateway_ip", "enable_dhcp"]);
        let mut put = |name: &str, value| found.fields.insert(name.to_owned(), value);
        put("network_id", reading.reference(Kind::Network, json["network_id"].as_str()));
        put("dns_nameservers", Value::List(texts(&json, "dns_nameservers")));
        put("allocation_pools", maps(&json, "allocation_pools", ["start", "end"]));
        put("host_routes", maps(&json, "host_routes", ["destination", "nexthop"]));
        reading.add(found);
    }
    Ok(())
}

async fn routers(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    for json in api.list(Service::Network, "routers", "routers").await? {
        let mut found = named(Kind::Router, &json, reading);
        let gateway = &json["external_gateway_info"];
        let network = reading.reference(Kind::Network, gateway["network_id"].as_str());
        let mut put = |name: &str, value| found.fields.insert(name.to_owned(), value);
        put("external_gateway_info.network_id", network);
        put("external_gateway_info.enable_snat", plain(&gateway["enable_snat"]));
        reading.add(found);
    }
    Ok(())
}

/// Asked for a project, Neutron makes its group `default` first, if need be.
async fn groups(api: &Api, zone: &Zone, reading: &mut Reading) -> Result<(), ApiError> {
    let wished = zone.things.iter().filter(|thing| thing.id.kind == Kind::Group);
    let projects: BTreeSet<&str> = wished.map(|thing| thing.id.project.as_str()).collect();
    for project in projects {
        let id = ThingId::global(Kind::Project, project);
        if let Some(found) = reading.found.all(&id).next() {
            let path = format!("security-groups?tenant_id={}", found.key);
            api.list(Service::Network, &path, "security_groups").await?;
        }
    }
    let all = api.list(Service::Network, "security-groups", "security_groups").await?;
    for json in &all {
        let found = named(Kind::Group, json, reading);
        reading.add(found);
    }
    for json in all.iter().flat_map(|group| each(group, "security_group_rules")) {
        let found = rule(json, reading);
        reading.add(found);
    }
    Ok(())
}

fn rule(json: &Json, reading: &Reading) -> FoundThing {
    let group = reading.name(Kind::Group, text(json, "security_group_id"));
    let names = ["direction", "ethertype", "protocol", "port_range_min", "port_range_max"];
    let mut known = fields(json, &names);
    known.insert("security_group_id".to_owned(), Value::Ref(group.clone()));
    // "From anywhere" is told in two ways.
    let prefix = match text(json, "remote_ip_prefix") {
        "" | "0.0.0.0/0" | "::/0" => Value::None,
        prefix => Value::text(prefix),
    };
    known.insert("remote_ip_prefix".to_owned(), prefix);
    let remote = reading.reference(Kind::Group, json["remote_group_id"].as_str());
    known.insert("remote_group_id".to_owned(), remote);
    let id = ThingId::new(Kind::Rule, &group.project, rule_name(&group.name, &known));
    let mut found = thing(id, text(json, "id"), described(json));
    found.fields = known;
    found
}

/// Ports of servers, and those that are plugged in nowhere. A router's legs are interfaces; the cloud's own ports (DHCP,
/// gateways, floating IPs) come and go with what they serve.
async fn ports(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    for json in api.list(Service::Network, "ports", "ports").await? {
        let owner = text(&json, "device_owner");
        if owner.starts_with("network:router_interface") {
            interface(&json, reading);
        } else if !owner.starts_with("network:") {
            let found = port(&json, reading);
            reading.add(found);
        }
    }
    Ok(())
}

fn interface(json: &Json, reading: &mut Reading) {
    let router = reading.name(Kind::Router, text(json, "device_id"));
    let owner = reading.owner(&router);
    for subnet in each(json, "fixed_ips").map(|address| text(address, "subnet_id")) {
        let subnet = reading.name(Kind::Subnet, subnet);
        let name = format!("{}: {}", router.name, subnet.name);
        let id = ThingId::new(Kind::Interface, &router.project, name);
        let mut found = thing(id, text(json, "id"), owner.clone());
        found.fields.insert("router".to_owned(), Value::Ref(router.clone()));
        found.fields.insert("subnet".to_owned(), Value::Ref(subnet));
        reading.add(found);
    }
}

fn port(json: &Json, reading: &Reading) -> FoundThing {
    let mut found = named(Kind::Port, json, reading);
    found.fields = fields(json, &["mac_address", "port_security_enabled", "device_id"]);
    let mut put = |name: &str, value| found.fields.insert(name.to_owned(), value);
    put("network_id", reading.reference(Kind::Network, json["network_id"].as_str()));
    let addresses = each(json, "fixed_ips").map(|address| Value::text(text(address, "ip_address")));
    put("fixed_ips", Value::Set(addresses.collect()));
    let groups = each(json, "security_groups").filter_map(Json::as_str);
    let groups = groups.map(|key| Value::Ref(reading.name(Kind::Group, key)));
    put("security_groups", Value::Set(groups.collect()));
    let own = text(json, "mac_address");
    let pairs = each(json, "allowed_address_pairs").map(|pair| {
        match (text(pair, "ip_address"), text(pair, "mac_address")) {
            (address, mac) if mac == own => Value::text(address),
            (address, mac) => Value::text(format!("{address} {mac}")),
        }
    });
    put("allowed_address_pairs", Value::Set(pairs.collect()));
    found
}

/// A floating IP is called as its mark says; without one as the port that it belongs to.
pub(super) async fn floating_ips(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    for json in api.list(Service::Network, "floatingips", "floatingips").await? {
        let port = reading.reference(Kind::Port, json["port_id"].as_str());
        let (owner, name) = match (Mark::read(text(&json, "description")), &port) {
            (Some((mark, Some(name))), _) => (Owner::Marked(mark), name.to_owned()),
            (_, Value::Ref(port)) => (described(&json), port.name.clone()),
            (_, _) => (described(&json), text(&json, "floating_ip_address").to_owned()),
        };
        let project = reading.project(text(&json, "project_id"));
        let id = ThingId::new(Kind::FloatingIp, project, name);
        let mut found = thing(id, text(&json, "id"), owner);
        let network = reading.reference(Kind::Network, json["floating_network_id"].as_str());
        found.fields = fields(&json, &["floating_ip_address"]);
        found.fields.insert("floating_network_id".to_owned(), network);
        found.fields.insert("port_id".to_owned(), port);
        reading.add(found);
    }
    Ok(())
}
