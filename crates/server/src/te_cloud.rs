//! Servers of a cloud that are TE hosts: looked for, made and deleted for `toci host deploy --cloud` and `toci host remove`.
//!
//! What is made is [`toci_core::deploy::plan_server`]'s decision. Everything carries the host's mark from the call on that
//! makes it; what does not carry it is never changed or deleted.

use serde_json::{Value as Json, json};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use toci_core::deploy::{FoundServer, HostPort, OnCloud, ServerStep, is_marked, mark, metadata};
use toci_edge::http::Secret;
use toci_edge::openstack::config::Place;
use toci_edge::openstack::{
    BootDisk, Cloud, CloudError, Network, NewServer, Nic, NotOne, OpenCloud, Port, Server, Service,
    one,
};
use toci_edge::provider::console_told;
use toci_edge::provider::openstack::{DELETE_AGAIN, DELETE_WAIT, told_host_key};
pub use toci_edge::provider::{KeyPair, ProviderError, new_key_pair};

/// How often a server that goes is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// So many of a console's last lines are looked at.
const CONSOLE_LINES: u32 = 1_000;

/// Why the cloud did not do what a TE host needs.
#[derive(Debug, thiserror::Error)]
pub enum TeCloudError {
    /// The cloud's settings.
    #[error(transparent)]
    Open(#[from] OpenCloud),
    /// The cloud's answer.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// There is not exactly one of this name.
    #[error(transparent)]
    NotOne(#[from] NotOne),
    /// It cannot carry a TE host.
    #[error("use the network {network}: {why}")]
    Unfit {
        /// Its name.
        network: String,
        /// Why not.
        why: &'static str,
    },
    /// It does not go.
    #[error("delete the server {id}: after {} s it is still {status}", DELETE_WAIT.as_secs())]
    Stays {
        /// Which.
        id: String,
        /// Its state.
        status: String,
    },
}

/// What servers are made of, by the names (or ids) that the cloud has for it.
#[derive(Clone, Debug, Default)]
pub struct ServerShape {
    /// What it boots from.
    pub image: String,
    /// How large it is.
    pub flavor: String,
    /// The test network.
    pub network: String,
    /// The network that it is reached by, and that it reaches the server by.
    pub access_network: String,
    /// Where its floating IP comes from; `None`: it has none.
    pub floating_network: Option<String>,
    /// Of the port that it is reached by; none: the project's default.
    pub security_groups: Vec<String>,
    /// Whose owners may log in.
    pub key_pair: Option<String>,
    /// Where; `None`: where the cloud likes.
    pub zone: Option<String>,
}

/// A [`ServerShape`] as the cloud knows it.
#[derive(Clone, Debug)]
pub struct KnownShape {
    image: String,
    flavor: String,
    network: Network,
    access_network: Network,
    floating_network: Option<String>,
    security_groups: Vec<String>,
    key_pair: Option<String>,
    zone: Option<String>,
    /// Length of the test network's prefix.
    pub prefix: u8,
}

/// A server as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Nova's word, e.g. `ACTIVE`.
    pub status: String,
    /// Why it is in `ERROR`.
    pub fault: String,
}

/// A cloud, and whose TE hosts are looked after in it.
#[derive(Debug)]
pub struct TeCloud {
    cloud: Cloud,
    owner: String,
}

impl TeCloud {
    /// The cloud of this name in clouds.yaml; nothing is asked yet.
    pub fn open(cloud: &str, region: Option<&str>, owner: &str) -> Result<TeCloud, TeCloudError> {
        let cloud = Cloud::open(&Place::here(), Some(cloud), region)?;
        Ok(TeCloud { cloud, owner: owner.to_owned() })
    }

    /// Looks everything up that a server needs.
    pub async fn know(&self, shape: &ServerShape) -> Result<KnownShape, TeCloudError> {
        let image = self.cloud.image_named(&shape.image).await??.id;
        let (flavors, networks, groups) = tokio::try_join!(
            self.cloud.flavors(),
            self.cloud.networks(&[]),
            self.cloud.security_groups(&[]),
        )?;
        let group = |name: &String| Ok(one(name, &groups)?.id.clone());
        let security_groups = shape.security_groups.iter().map(group);
        let floating = shape.floating_network.as_ref().map(|name| one(name, &networks));
        let network = one(&shape.network, &networks)?.clone();
        Ok(KnownShape {
            image,
            flavor: one(&shape.flavor, &flavors)?.id.clone(),
            prefix: self.prefix(&network).await?,
            network,
            access_network: one(&shape.access_network, &networks)?.clone(),
            floating_network: floating.transpose()?.map(|network| network.id.clone()),
            security_groups: security_groups.collect::<Result<_, TeCloudError>>()?,
            key_pair: shape.key_pair.clone(),
            zone: shape.zone.clone(),
        })
    }

    async fn prefix(&self, network: &Network) -> Result<u8, TeCloudError> {
        let query = [("network_id", network.id.as_str()), ("ip_version", "4")];
        let subnets: Vec<Json> =
            self.cloud.list(Service::Network, "/subnets", "subnets", &query).await?;
        let cidrs = subnets.iter().filter_map(|subnet| subnet["cidr"].as_str());
        let mut prefixes = cidrs.filter_map(|cidr| cidr.split_once('/')?.1.parse().ok());
        prefixes.next().ok_or_else(|| TeCloudError::Unfit {
            network: network.name.clone(),
            why: "it has no subnet of IPv4 that we can see",
        })
    }

    /// What there is of a host.
    pub async fn look(&self, host: &str, shape: &KnownShape) -> Result<OnCloud, TeCloudError> {
        let (servers, strangers): (Vec<Server>, Vec<Server>) = self
            .cloud
            .servers(&[])
            .await?
            .into_iter()
            .filter(|s| s.name == host || is_marked(&s.metadata, &self.owner, host))
            .partition(|s| is_marked(&s.metadata, &self.owner, host));
        let mut found = Vec::new();
        for server in servers {
            // A list does not tell faults.
            let fault = match server.status.as_str() {
                "ERROR" => self.seen(&server.id).await?.map(|seen| seen.fault),
                _ => None,
            };
            let (id, status) = (server.id, server.status);
            found.push(FoundServer { id, status, fault: fault.unwrap_or_default() });
        }
        let ports = self.ports(host).await?;
        let on = |network: &Network| {
            let port = ports.iter().find(|port| port.network_id == network.id)?;
            Some(host_port(port))
        };
        let mark = mark(&self.owner, host);
        let addresses = self.cloud.floating_ips(&[("description", &mark)]).await?;
        let floating_ip = addresses.into_iter().find(|ip| ip.description == mark);
        Ok(OnCloud {
            servers: found,
            strangers: strangers.into_iter().map(|server| server.id).collect(),
            own_port: on(&shape.access_network),
            test_port: on(&shape.network),
            floating_ip: floating_ip.map(|ip| ip.floating_ip_address),
        })
    }

    async fn ports(&self, host: &str) -> Result<Vec<Port>, CloudError> {
        let mark = mark(&self.owner, host);
        let mut ports = self.cloud.ports(&[("description", &mark)]).await?;
        ports.retain(|port| port.description == mark);
        Ok(ports)
    }

    /// Makes what a step says, and enters it into what there is. `user_data` is for the server.
    pub async fn make(
        &self,
        host: &str,
        step: &ServerStep,
        shape: &KnownShape,
        found: &mut OnCloud,
        user_data: Option<String>,
    ) -> Result<(), TeCloudError> {
        let mark = mark(&self.owner, host);
        match step {
            ServerStep::OwnPort => {
                let mut port = json!({
                    "network_id": shape.access_network.id, "name": host, "description": mark,
                });
                if !shape.security_groups.is_empty() {
                    port["security_groups"] = json!(shape.security_groups);
                }
                found.own_port = Some(host_port(&self.cloud.create_port(port).await?));
            }
            ServerStep::TestPort { address } => {
                let port = test_port(host, &mark, &shape.network, *address);
                found.test_port = Some(host_port(&self.cloud.create_port(port).await?));
            }
            ServerStep::FloatingIp => {
                if let (Some(network), Some(port)) = (&shape.floating_network, &found.own_port) {
                    let made = self.cloud.create_floating_ip(network, &port.id, &mark).await?;
                    found.floating_ip = Some(made.floating_ip_address);
                }
            }
            ServerStep::Server => {
                let ports = [&found.own_port, &found.test_port].into_iter().flatten();
                let nics: Vec<Nic> = ports.map(|port| Nic::Port(port.id.clone())).collect();
                let data = user_data.map(Secret::new);
                let new = NewServer {
                    name: host,
                    flavor: &shape.flavor,
                    boot: BootDisk::Image(shape.image.clone()),
                    nics: &nics,
                    security_groups: &[],
                    zone: shape.zone.as_deref(),
                    key: shape.key_pair.as_deref(),
                    config_drive: true,
                    user_data: data.as_ref(),
                    metadata: metadata(&self.owner, host),
                };
                let id = self.cloud.create_server(&new).await?;
                let (status, fault) = ("BUILD".to_owned(), String::new());
                found.servers.push(FoundServer { id, status, fault });
            }
        }
        Ok(())
    }

    /// A server as it is now; none when it is gone.
    pub async fn seen(&self, id: &str) -> Result<Option<Seen>, CloudError> {
        let server = self.cloud.server(id).await?;
        Ok(server.map(|server| Seen {
            status: server.status,
            fault: server.fault.map(|fault| fault.message).unwrap_or_default(),
        }))
    }

    /// The host key that a server told on its console; none when it did not (yet), or has no console that we may read.
    pub async fn host_key(&self, id: &str) -> Option<String> {
        told_host_key(&self.cloud.console(id, CONSOLE_LINES).await.ok()?)
    }

    /// The end of what a server said on its console, for people.
    pub async fn console_end(&self, id: &str) -> String {
        match self.cloud.console(id, CONSOLE_LINES).await {
            Ok(console) => console_told(&console),
            Err(error) => format!("its console cannot be read: {error}"),
        }
    }

    /// Deletes all that is a host's; what was deleted, for people.
    pub async fn delete(&self, host: &str) -> Result<Vec<String>, TeCloudError> {
        let mark = mark(&self.owner, host);
        let mut gone = Vec::new();
        for ip in self.cloud.floating_ips(&[("description", &mark)]).await? {
            if ip.description == mark && self.cloud.delete_floating_ip(&ip.id).await? {
                gone.push(format!("floating IP {}", ip.floating_ip_address));
            }
        }
        for server in self.cloud.servers(&[]).await? {
            if is_marked(&server.metadata, &self.owner, host) {
                self.delete_server(&server.id).await?;
                gone.push(format!("server {} ({})", server.name, server.id));
            }
        }
        for port in self.ports(host).await? {
            if self.cloud.delete_port(&port.id).await? {
                gone.push(format!("port {} ({})", port.name, port.mac_address));
            }
        }
        Ok(gone)
    }

    async fn delete_server(&self, id: &str) -> Result<(), TeCloudError> {
        let begun = Instant::now();
        let mut ordered: Option<Instant> = None;
        loop {
            if ordered.is_none_or(|at| at.elapsed() >= DELETE_AGAIN) {
                match self.cloud.delete_server(id).await {
                    // Something is being done with it; the next order may be taken.
                    Ok(_) | Err(CloudError::Conflict { .. }) => ordered = Some(Instant::now()),
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(server) = self.seen(id).await? else { return Ok(()) };
            if server.status.ends_with("DELETED") {
                return Ok(());
            }
            if begun.elapsed() >= DELETE_WAIT {
                return Err(TeCloudError::Stays { id: id.to_owned(), status: server.status });
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }
}

/// The port that the host's bridge takes over: seeds speak through it with their own MACs.
fn test_port(host: &str, mark: &str, network: &Network, address: Option<IpAddr>) -> Json {
    let name = format!("te_{host}");
    let mut port = json!({
        "network_id": network.id,
        "name": name,
        "description": mark,
        "port_security_enabled": false,
        "security_groups": [],
    });
    if let Some(address) = address {
        port["fixed_ips"] = json!([{"ip_address": address.to_string()}]);
    }
    port
}

fn host_port(port: &Port) -> HostPort {
    let address = port.fixed_ips.iter().map(|ip| ip.ip_address).find(IpAddr::is_ipv4);
    HostPort { id: port.id.clone(), address }
}
