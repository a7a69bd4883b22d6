//! What the demo's project has in the cloud, as an operator sees it who asks the cloud and not toci.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use cloud_tests::Api;
use serde_json::Value;

/// The project that the zone file makes, and its user.
pub(crate) const PROJECT: &str = "toci-demo";

/// The project, seen by its own user.
#[derive(Debug)]
pub(crate) struct Project(Api);

/// A port of a TE host or a seed on the test network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TePort {
    /// `te_<host>`, `te_<host>_<N>`.
    pub(crate) name: String,
    /// By which Neutron's DHCP knows it.
    pub(crate) mac: String,
    /// What it gives.
    pub(crate) address: String,
}

impl Project {
    /// Logs in.
    pub(crate) fn open(password: &str) -> Result<Project> {
        Ok(Project(Api::login(PROJECT, password, PROJECT)?))
    }

    fn list(&self, service: &str, path: &str, kind: &str) -> Result<Vec<Value>> {
        let mut answer = self.0.get(service, path)?;
        let list = answer[kind].as_array_mut().with_context(|| format!("{path}: no {kind}"))?;
        Ok(std::mem::take(list))
    }

    /// Addresses of each server, by its name: `nodes 198.51.100.7 and 203.0.113.105, test 198.18.1.120`.
    pub(crate) fn servers(&self) -> Result<BTreeMap<String, String>> {
        let servers = self.list("compute", "/servers/detail", "servers")?;
        Ok(servers.iter().map(|server| (text(&server["name"]), addresses(server))).collect())
    }

    /// Ports of TE hosts and seeds, by name.
    pub(crate) fn te_ports(&self) -> Result<Vec<TePort>> {
        let ports = self.list("network", "/ports", "ports")?;
        let ours = ports.iter().filter(|port| text(&port["name"]).starts_with("te_"));
        let told = ours.map(|port| TePort {
            name: text(&port["name"]),
            mac: text(&port["mac_address"]),
            address: text(&port["fixed_ips"][0]["ip_address"]),
        });
        let mut told: Vec<TePort> = told.collect();
        told.sort();
        Ok(told)
    }

    /// Servers, floating addresses and ports that are there, a line each. What routers and DHCP have for themselves does
    /// not count: the zone has these.
    pub(crate) fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for server in self.list("compute", "/servers/detail", "servers")? {
            left.push(format!("server {} ({})", text(&server["name"]), text(&server["status"])));
        }
        for address in self.list("network", "/floatingips", "floatingips")? {
            left.push(format!("floating IP {}", text(&address["floating_ip_address"])));
        }
        for port in self.list("network", "/ports", "ports")? {
            if !text(&port["device_owner"]).starts_with("network:") {
                left.push(format!(
                    "port {:?} of {}",
                    text(&port["name"]),
                    text(&port["mac_address"])
                ));
            }
        }
        Ok(left)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn addresses(server: &Value) -> String {
    let networks = server["addresses"].as_object().into_iter().flatten();
    let told = networks.map(|(network, cards)| {
        let all = cards.as_array().into_iter().flatten().map(|card| text(&card["addr"]));
        format!("{network} {}", all.collect::<Vec<_>>().join(" and "))
    });
    told.collect::<Vec<_>>().join(", ")
}
