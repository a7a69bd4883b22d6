//! The TE JSON (`TE_DATAFILE`), key by key as origin.md 3.3, plus the object `toci`.
//!
//! In the origin every value is a string, numbers too; so they are here. Keys that a deployment
//! adds later (`undercloud`, `overcloud`, `seed`, …) are kept as they come.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Largest TE JSON that is read, in bytes.
pub const TE_JSON_MAX_BYTES: usize = 1 << 20;

/// The private network of every TE.
pub const PRIVATE_NETWORK: &str = "192.0.2.0/24";

/// Why a text is not a TE JSON.
#[derive(Debug, thiserror::Error)]
pub enum TeJsonError {
    /// Larger than [`TE_JSON_MAX_BYTES`].
    #[error("TE JSON is larger than {TE_JSON_MAX_BYTES} bytes")]
    TooLarge,
    /// Not JSON, or a key is missing or of another type; says which and where.
    #[error("TE JSON: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// A secret text: never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl core::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("(secret)")
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeJson {
    /// `i386`, `amd64` or `x86_64`.
    pub arch: String,
    /// TE host, for power commands over SSH.
    #[serde(rename = "host-ip")]
    pub host_ip: String,
    /// Python class path of Nova-baremetal's power manager.
    pub power_manager: String,
    /// Public address of the seed; empty: find it by ARP.
    #[serde(rename = "seed-ip", default)]
    pub seed_ip: String,
    /// Interface for the route to the private network.
    #[serde(rename = "seed-route-dev", default = "default_route_dev")]
    pub seed_route_dev: String,
    /// Private key text.
    #[serde(rename = "ssh-key")]
    pub ssh_key: SecretText,
    /// User for power commands over SSH.
    #[serde(rename = "ssh-user")]
    pub ssh_user: String,
    /// Number of the TE on its host.
    #[serde(rename = "env-num", default = "zero")]
    pub env_num: String,
    /// Not empty: work over SSH (`virsh`, `copyseed`) instead of locally.
    #[serde(rename = "remote-operations", default)]
    pub remote_operations: String,
    /// Name of the TE host, for information.
    #[serde(rename = "remote-host", default)]
    pub remote_host: String,
    /// The blank machines.
    pub nodes: Vec<NodeJson>,
    /// The private network; absent in the origin means its defaults.
    #[serde(rename = "baremetal-network", default, skip_serializing_if = "Option::is_none")]
    pub baremetal_network: Option<BaremetalNetwork>,
    /// What is new here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toci: Option<Toci>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A blank machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeJson {
    /// One for each NIC.
    pub mac: Vec<String>,
    /// CPUs.
    pub cpu: String,
    /// MiB.
    pub memory: String,
    /// GB; the real disk is 1 GB larger.
    pub disk: String,
    /// As the TE's.
    pub arch: String,
    /// `pxe_ssh`.
    pub pm_type: String,
    /// SSH user.
    pub pm_user: String,
    /// TE host.
    pub pm_addr: String,
    /// Private key text.
    pub pm_password: SecretText,
}

/// The private network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaremetalNetwork {
    /// `192.0.2.0/24`.
    pub cidr: String,
    /// `192.0.2.1`.
    #[serde(rename = "gateway-ip")]
    pub gateway_ip: String,
    /// Of the seed.
    pub seed: SeedRange,
    /// Of the undercloud.
    pub undercloud: Range,
}

/// Addresses of the seed on the private network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedRange {
    /// Its own.
    pub ip: String,
    /// First that it gives.
    #[serde(rename = "range-start")]
    pub range_start: String,
    /// Last that it gives.
    #[serde(rename = "range-end")]
    pub range_end: String,
    /// The optional rest: nameserver, physical_bridge_route, public_vlan.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Addresses that somebody gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First.
    #[serde(rename = "range-start")]
    pub range_start: String,
    /// Last.
    #[serde(rename = "range-end")]
    pub range_end: String,
    /// The optional rest: public_vlan.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What is new here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toci {
    /// `L<number>`; empty for a TE without a server.
    pub lease: String,
    /// Of the grant.
    pub generation: u64,
    /// When the host ends it by itself, unless extended.
    pub expires_us: i64,
    /// `<host>-<N>`.
    pub testenv: String,
    /// Domain name of the seed.
    pub seed: String,
    /// MACs of the seed: public, private.
    pub seed_mac: Vec<String>,
    /// Domain names of `nodes`, in their order.
    pub nodes: Vec<String>,
    /// Where and how `ssh-key` is good.
    pub gateway: GatewayJson,
}

/// The gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayJson {
    /// Address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Its public key in OpenSSH's form, for `known_hosts`.
    pub host_key: String,
}

impl BaremetalNetwork {
    /// The origin's ranges.
    #[must_use]
    pub fn origin() -> BaremetalNetwork {
        let s = |t: &str| t.to_owned();
        BaremetalNetwork {
            cidr: s(PRIVATE_NETWORK),
            gateway_ip: s("192.0.2.1"),
            seed: SeedRange {
                ip: s("192.0.2.1"),
                range_start: s("192.0.2.2"),
                range_end: s("192.0.2.20"),
                rest: Map::new(),
            },
            undercloud: Range {
                range_start: s("192.0.2.21"),
                range_end: s("192.0.2.40"),
                rest: Map::new(),
            },
        }
    }
}

/// Nova-baremetal's power manager in the origin.
pub const POWER_MANAGER: &str = "nova.virt.baremetal.virtual_power_driver.VirtualPowerManager";

fn default_route_dev() -> String {
    "virbr0".into()
}
fn zero() -> String {
    "0".into()
}

impl TeJson {
    /// Reads a file's text.
    pub fn parse(text: &[u8]) -> Result<TeJson, TeJsonError> {
        if text.len() > TE_JSON_MAX_BYTES {
            return Err(TeJsonError::TooLarge);
        }
        Ok(serde_json::from_slice(text)?)
    }

    /// As a JSON value. Contains the private key.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn example() -> Value {
        json!({
            "arch": "amd64", "host-ip": "198.18.1.2", "power_manager": POWER_MANAGER,
            "seed-ip": "198.18.1.101", "seed-route-dev": "eth1", "ssh-key": "-----KEY-----\n",
            "ssh-user": "root", "env-num": "1", "remote-operations": "1", "remote-host": "tehost1",
            "nodes": [{"mac": ["00:01:02:03:04:05"], "cpu": "1", "memory": "384", "disk": "2",
                       "arch": "amd64", "pm_type": "pxe_ssh", "pm_user": "root",
                       "pm_addr": "198.18.1.2", "pm_password": "-----KEY-----\n"}],
            "baremetal-network": {
                "cidr": "192.0.2.0/24", "gateway-ip": "192.0.2.1",
                "seed": {"ip": "192.0.2.1", "range-start": "192.0.2.2", "range-end": "192.0.2.20"},
                "undercloud": {"range-start": "192.0.2.21", "range-end": "192.0.2.40"}},
            "toci": {"lease": "L7", "generation": 7, "expires_us": 1, "testenv": "tehost1-1",
                     "seed": "seed_1", "seed_mac": ["a", "b"], "nodes": ["baremetalbrbm1_0"],
                     "gateway": {"host": "198.18.1.2", "port": 22, "user": "root", "host_key": "k"}},
            "overcloud": {"password": "x"}
        })
    }

    #[test]
    fn what_is_read_is_written_again() {
        let text = example().to_string();
        let te = TeJson::parse(text.as_bytes()).unwrap();
        assert_eq!(te.to_value(), example());
        assert_eq!(te.baremetal_network, Some(BaremetalNetwork::origin()));
        assert_eq!(te.rest["overcloud"]["password"], "x");
        assert!(!format!("{te:?}").contains("KEY"), "the key must not be printed");
    }

    #[test]
    fn files_of_the_origin_have_fewer_keys() {
        let mut v = example();
        let o = v.as_object_mut().unwrap();
        for k in ["toci", "baremetal-network", "env-num", "seed-route-dev", "remote-operations"] {
            o.remove(k);
        }
        let te = TeJson::parse(v.to_string().as_bytes()).unwrap();
        assert_eq!((te.env_num.as_str(), te.seed_route_dev.as_str()), ("0", "virbr0"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut v = example();
        v["nodes"][0]["cpu"] = json!(1);
        let e = TeJson::parse(v.to_string().as_bytes()).unwrap_err().to_string();
        assert!(e.contains("invalid type: integer") && e.contains("expected a string"), "{e}");
        assert!(TeJson::parse(b"{").is_err());
        assert!(TeJson::parse(&vec![b' '; TE_JSON_MAX_BYTES + 1]).is_err());
    }
}
