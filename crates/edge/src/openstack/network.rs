//! Neutron: networks, ports, floating IPs, security groups, quotas.

use super::compute::there;
use super::error::CloudError;
use super::session::{Cloud, Service};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    pub name: String,
    /// Whose it is.
    #[serde(default)]
    pub project_id: String,
    /// Whether floating IPs come from it.
    #[serde(rename = "router:external", default)]
    pub external: bool,
    /// Whether security groups mean something on it.
    #[serde(default = "yes")]
    pub port_security_enabled: bool,
}

fn yes() -> bool {
    true
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// A mark.
    #[serde(default)]
    pub description: String,
    /// Its network.
    pub network_id: String,
    /// What kind of thing it belongs to; empty: nothing.
    #[serde(default)]
    pub device_owner: String,
    /// Its MAC address.
    pub mac_address: String,
    /// `ACTIVE`, `DOWN`, ...
    #[serde(default)]
    pub status: String,
    /// Its addresses.
    #[serde(default)]
    pub fixed_ips: Vec<FixedIp>,
    /// Whether only its own MAC and addresses may be used on it.
    #[serde(default = "yes")]
    pub port_security_enabled: bool,
    /// Further addresses that may.
    #[serde(default)]
    pub allowed_address_pairs: Vec<AllowedAddress>,
    /// Ids of its security groups.
    #[serde(default)]
    pub security_groups: Vec<String>,
}

/// An address, or a network, that may be used on a port beside its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AllowedAddress {
    /// It.
    pub ip_address: String,
}

/// An address of a port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FixedIp {
    /// It.
    pub ip_address: IpAddr,
}

/// A floating IP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FloatingIp {
    /// Its id.
    pub id: String,
    /// The address outside.
    pub floating_ip_address: IpAddr,
    /// A mark.
    #[serde(default)]
    pub description: String,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SecurityGroup {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    pub name: String,
}

/// What a project may have of something of Neutron's, and has. None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaUse {
    /// So many are there or asked for.
    pub used: u64,
    /// So many at most.
    pub most: Option<u64>,
}

impl QuotaUse {
    /// So many more may be made.
    #[must_use]
    pub fn left(self) -> u64 {
        self.most.map_or(u64::MAX, |most| most.saturating_sub(self.used))
    }
}

#[derive(Deserialize)]
struct OnePort {
    port: Port,
}

#[derive(Deserialize)]
struct OneFloatingIp {
    floatingip: FloatingIp,
}

#[derive(Deserialize)]
struct Quotas {
    quota: BTreeMap<String, RawQuota>,
}

#[derive(Deserialize)]
struct RawQuota {
    limit: i64,
    #[serde(default)]
    used: i64,
    #[serde(default)]
    reserved: i64,
}

impl Cloud {
    /// Networks that may be seen.
    pub async fn networks(&self, query: &[(&str, &str)]) -> Result<Vec<Network>, CloudError> {
        self.list(Service::Network, "/networks", "networks", query).await
    }

    /// Ports.
    pub async fn ports(&self, query: &[(&str, &str)]) -> Result<Vec<Port>, CloudError> {
        self.list(Service::Network, "/ports", "ports", query).await
    }

    /// Makes a port of these values.
    pub async fn create_port(&self, port: Value) -> Result<Port, CloudError> {
        let answer: OnePort = self.post(Service::Network, "/ports", json!({"port": port})).await?;
        Ok(answer.port)
    }

    /// Changes these values of a port.
    pub async fn update_port(&self, id: &str, values: Value) -> Result<Port, CloudError> {
        let path = format!("/ports/{id}");
        let answer: OnePort = self.put(Service::Network, &path, json!({"port": values})).await?;
        Ok(answer.port)
    }

    /// Deletes a port; whether it was there.
    pub async fn delete_port(&self, id: &str) -> Result<bool, CloudError> {
        self.delete(Service::Network, &format!("/ports/{id}")).await
    }

    /// Floating IPs.
    pub async fn floating_ips(
        &self,
        query: &[(&str, &str)],
    ) -> Result<Vec<FloatingIp>, CloudError> {
        self.list(Service::Network, "/floatingips", "floatingips", query).await
    }

    /// Makes a floating IP on an external network that leads to a port, with a mark.
    pub async fn create_floating_ip(
        &self,
        network: &str,
        port: &str,
        mark: &str,
    ) -> Result<FloatingIp, CloudError> {
        let one = json!({"floating_network_id": network, "port_id": port, "description": mark});
        let body = json!({"floatingip": one});
        let answer: OneFloatingIp = self.post(Service::Network, "/floatingips", body).await?;
        Ok(answer.floatingip)
    }

    /// Gives a floating IP back; whether it was there.
    pub async fn delete_floating_ip(&self, id: &str) -> Result<bool, CloudError> {
        self.delete(Service::Network, &format!("/floatingips/{id}")).await
    }

    /// Security groups.
    pub async fn security_groups(
        &self,
        query: &[(&str, &str)],
    ) -> Result<Vec<SecurityGroup>, CloudError> {
        self.list(Service::Network, "/security-groups", "security_groups", query).await
    }

    /// What a project may have of Neutron and has, by kind (`port`, `floatingip`). None where the cloud does not tell.
    pub async fn network_quotas(
        &self,
        project: &str,
    ) -> Result<Option<BTreeMap<String, QuotaUse>>, CloudError> {
        let path = format!("/quotas/{project}/details.json");
        let answer = there(self.get::<Quotas>(Service::Network, &path).await)?;
        let use_of = |raw: RawQuota| QuotaUse {
            used: u64::try_from(raw.used.saturating_add(raw.reserved)).unwrap_or(0),
            most: u64::try_from(raw.limit).ok(),
        };
        Ok(answer.map(|a| a.quota.into_iter().map(|(kind, raw)| (kind, use_of(raw))).collect()))
    }
}
