//! Nova: servers, flavors, key pairs, limits.

use super::error::CloudError;
use super::session::{Cloud, Service};
use crate::http::{Method, Secret, quote};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Version of Nova's interface that is spoken: that of Train (2019), which all clouds in support have.
pub const COMPUTE_MICROVERSION: &str = "2.79";
/// Longest user data, in bytes of base64: Nova's own limit.
pub const USER_DATA_MAX_BYTES: usize = 65_535;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    pub name: String,
    /// `BUILD`, `ACTIVE`, `ERROR`, `DELETED`, ...
    pub status: String,
    /// What is being done with it, when something is.
    #[serde(rename = "OS-EXT-STS:task_state", default)]
    pub task: Option<String>,
    /// Marks.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Its addresses, by network's name.
    #[serde(default)]
    pub addresses: BTreeMap<String, Vec<ServerAddress>>,
    /// Why it is in `ERROR`.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Where it runs.
    #[serde(rename = "OS-EXT-AZ:availability_zone", default)]
    pub zone: Option<String>,
    /// What it takes.
    pub flavor: ServerFlavor,
    /// Volumes it has.
    #[serde(rename = "os-extended-volumes:volumes_attached", default)]
    pub volumes: Vec<Attached>,
}

/// What a server takes, as its flavor was when it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ServerFlavor {
    /// The flavor's name.
    #[serde(default)]
    pub original_name: String,
    /// CPUs.
    pub vcpus: u64,
    /// Memory, MiB.
    pub ram: u64,
}

/// A volume of a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attached {
    /// Its id.
    pub id: String,
}

/// An address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerAddress {
    /// It.
    pub addr: IpAddr,
    /// `fixed` or `floating`.
    #[serde(rename = "OS-EXT-IPS:type", default)]
    pub kind: String,
}

/// Why a server is in `ERROR`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// Nova's words.
    #[serde(default)]
    pub message: String,
}

/// A kind of server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Flavor {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// CPUs.
    pub vcpus: u64,
    /// Memory, MiB.
    pub ram: u64,
    /// Root disk, GiB; 0: as large as the image.
    pub disk: u64,
}

/// A public key that Nova knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyPair {
    /// Its name.
    pub name: String,
    /// The key, as in `authorized_keys`.
    pub public_key: String,
}

/// What a project may have of Nova, and has. None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Servers: used, and at most.
    pub instances: (u64, Option<u64>),
    /// CPUs: used, and at most.
    pub cores: (u64, Option<u64>),
    /// MiB: used, and at most.
    pub ram_mib: (u64, Option<u64>),
}

/// A network card of a new server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nic {
    /// On this network, by id.
    Network(String),
    /// With this port, by id.
    Port(String),
}

/// What a new server boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootDisk {
    /// An image, by id, on a disk of its host.
    Image(String),
    /// A volume that is there, by id; it goes with the server.
    Volume(String),
}

/// A new server.
#[derive(Clone, Debug)]
pub struct NewServer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Flavor, by id.
    pub flavor: &'a str,
    /// What it boots from.
    pub boot: BootDisk,
    /// Its cards, in this order; none: what the cloud chooses.
    pub nics: &'a [Nic],
    /// Security groups, by name or id, for cards on networks.
    pub security_groups: &'a [String],
    /// Where; none: where the cloud likes.
    pub zone: Option<&'a str>,
    /// Key pair, by name.
    pub key: Option<&'a str>,
    /// Whether metadata and user data are on a disk too.
    pub config_drive: bool,
    /// User data; it may hold a secret.
    pub user_data: Option<&'a Secret>,
    /// Marks.
    pub metadata: BTreeMap<String, String>,
}

impl NewServer<'_> {
    fn body(&self) -> Value {
        let nic = |nic: &Nic| match nic {
            Nic::Network(id) => json!({"uuid": id}),
            Nic::Port(id) => json!({"port": id}),
        };
        let networks = match self.nics {
            [] => json!("auto"),
            nics => nics.iter().map(nic).collect(),
        };
        let mut server = json!({
            "name": self.name,
            "flavorRef": self.flavor,
            "networks": networks,
            "metadata": self.metadata,
        });
        match &self.boot {
            BootDisk::Image(id) => server["imageRef"] = json!(id),
            BootDisk::Volume(id) => {
                server["block_device_mapping_v2"] = json!([{
                    "boot_index": 0,
                    "uuid": id,
                    "source_type": "volume",
                    "destination_type": "volume",
                    "delete_on_termination": true,
                }]);
            }
        }
        if !self.security_groups.is_empty() {
            let groups = self.security_groups.iter().map(|name| json!({"name": name}));
            server["security_groups"] = groups.collect();
        }
        if let Some(zone) = self.zone {
            server["availability_zone"] = json!(zone);
        }
        if let Some(key) = self.key {
            server["key_name"] = json!(key);
        }
        if self.config_drive {
            server["config_drive"] = json!(true);
        }
        if let Some(data) = self.user_data {
            server["user_data"] = json!(STANDARD.encode(data.reveal()));
        }
        json!({"server": server})
    }
}

#[derive(Deserialize)]
struct OneServer<T> {
    server: T,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

/// What Nova and Cinder put around the limits of a project.
#[derive(Deserialize)]
pub(super) struct LimitsAnswer<T> {
    limits: AbsoluteLimits<T>,
}

#[derive(Deserialize)]
struct AbsoluteLimits<T> {
    absolute: T,
}

impl<T> LimitsAnswer<T> {
    pub(super) fn absolute(self) -> T {
        self.limits.absolute
    }
}

/// -1: no limit.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLimits {
    max_total_instances: i64,
    total_instances_used: i64,
    max_total_cores: i64,
    total_cores_used: i64,
    #[serde(rename = "maxTotalRAMSize")]
    max_ram: i64,
    #[serde(rename = "totalRAMUsed")]
    ram_used: i64,
}

#[derive(Deserialize)]
struct Output {
    output: Option<String>,
}

#[derive(Deserialize)]
struct KeyPairEntry {
    keypair: KeyPair,
}

impl Cloud {
    /// All servers of the project, or those that fit the query.
    pub async fn servers(&self, query: &[(&str, &str)]) -> Result<Vec<Server>, CloudError> {
        self.list(Service::Compute, "/servers/detail", "servers", query).await
    }

    /// A server; none when it is not there.
    pub async fn server(&self, id: &str) -> Result<Option<Server>, CloudError> {
        let answer =
            self.get::<OneServer<Server>>(Service::Compute, &format!("/servers/{id}")).await;
        there(answer.map(|one| one.server))
    }

    /// Begins to make a server; its id.
    pub async fn create_server(&self, new: &NewServer<'_>) -> Result<String, CloudError> {
        let answer: OneServer<Id> = self.post(Service::Compute, "/servers", new.body()).await?;
        Ok(answer.server.id)
    }

    /// Begins to delete a server; whether it was there.
    pub async fn delete_server(&self, id: &str) -> Result<bool, CloudError> {
        self.delete(Service::Compute, &format!("/servers/{id}")).await
    }

    /// The last lines that a server said on its console.
    pub async fn console(&self, id: &str, lines: u32) -> Result<String, CloudError> {
        let path = format!("/servers/{id}/action");
        let body = json!({"os-getConsoleOutput": {"length": lines}});
        let answer: Output = self.post(Service::Compute, &path, body).await?;
        Ok(answer.output.unwrap_or_default())
    }

    /// All flavors that may be used.
    pub async fn flavors(&self) -> Result<Vec<Flavor>, CloudError> {
        self.list(Service::Compute, "/flavors/detail", "flavors", &[]).await
    }

    /// What the project may have, and has.
    pub async fn limits(&self) -> Result<Limits, CloudError> {
        let answer: LimitsAnswer<RawLimits> = self.get(Service::Compute, "/limits").await?;
        let raw = answer.absolute();
        let pair =
            |used: i64, most: i64| (u64::try_from(used).unwrap_or(0), u64::try_from(most).ok());
        Ok(Limits {
            instances: pair(raw.total_instances_used, raw.max_total_instances),
            cores: pair(raw.total_cores_used, raw.max_total_cores),
            ram_mib: pair(raw.ram_used, raw.max_ram),
        })
    }

    /// The user's key pairs.
    pub async fn key_pairs(&self) -> Result<Vec<KeyPair>, CloudError> {
        let entries = self.list(Service::Compute, "/os-keypairs", "keypairs", &[]).await?;
        Ok(entries.into_iter().map(|entry: KeyPairEntry| entry.keypair).collect())
    }

    /// Makes a public key known.
    pub async fn create_key_pair(&self, name: &str, public_key: &str) -> Result<(), CloudError> {
        let body = json!({"keypair": {"name": name, "public_key": public_key}});
        self.order(Method::POST, Service::Compute, "/os-keypairs", Some(body)).await
    }

    /// Forgets a key pair; whether it was there.
    pub async fn delete_key_pair(&self, name: &str) -> Result<bool, CloudError> {
        self.delete(Service::Compute, &format!("/os-keypairs/{}", quote(name))).await
    }
}

/// None for what is not there.
pub(super) fn there<T>(answer: Result<T, CloudError>) -> Result<Option<T>, CloudError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(CloudError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_server_says_what_it_is() {
        let nics = [Nic::Network("n1".into()), Nic::Port("p1".into())];
        let data = Secret::new("#cloud-config\n");
        let groups = ["ssh".to_owned()];
        let new = NewServer {
            name: "x",
            flavor: "f1",
            boot: BootDisk::Volume("v1".into()),
            nics: &nics,
            security_groups: &groups,
            zone: Some("az"),
            key: Some("k"),
            config_drive: true,
            user_data: Some(&data),
            metadata: [("toci_owner".to_owned(), "o".to_owned())].into(),
        };
        let body = &new.body()["server"];
        assert_eq!(body["networks"], json!([{"uuid": "n1"}, {"port": "p1"}]));
        assert_eq!(body["block_device_mapping_v2"][0]["uuid"], "v1");
        assert_eq!(body["user_data"], "I2Nsb3VkLWNvbmZpZwo=");
        assert_eq!(body["security_groups"], json!([{"name": "ssh"}]));
        assert!(body.get("imageRef").is_none());
        let simple = NewServer {
            boot: BootDisk::Image("i1".into()),
            nics: &[],
            security_groups: &[],
            zone: None,
            config_drive: false,
            user_data: None,
            ..new
        };
        let body = &simple.body()["server"];
        assert_eq!((&body["networks"], &body["imageRef"]), (&json!("auto"), &json!("i1")));
        assert!(body.get("config_drive").is_none() && body.get("availability_zone").is_none());
    }
}
