//! The test network's ports in the provider's cloud: looked at whenever a host tells something new, and every so often.
//!
//! What is done is [`toci_core::testnet::plan`]'s; here it is read, carried out and told. A failure is told and tried again
//! at the next look: leases go on without it.

use crate::clock::wall;
use crate::tasks::lease::{BookError, Change, LeaseBook};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::id::HostId;
use toci_core::testnet::{Difference, FoundPort, Hosts, Leg, Plan, Policy, Step, plan};
use toci_core::time::Time;
use toci_edge::openstack::config::Place;
use toci_edge::openstack::{CallCount, Cloud, CloudError, Network, NotOne, OpenCloud, Port, one};
use toci_wire::api;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until};

/// How often ports are looked at when nothing happens: what somebody changed in the cloud is put right then.
pub const TESTNET_LOOK_PERIOD: Duration = Duration::from_secs(60);
/// How soon it is tried again after a failure.
const RETRY_PERIOD: Duration = Duration::from_secs(10);

/// `[testnet]` of the server's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestnetConfig {
    /// Name in clouds.yaml; none: as the environment says.
    pub cloud: Option<String>,
    /// Region of it.
    pub region: Option<String>,
    /// The test network's name.
    pub network: String,
    /// Whose mark ports carry.
    pub owner: String,
    /// Names of the security groups that ports are in; none: as the cloud likes.
    pub security_groups: Option<Vec<String>>,
    /// How often ports are looked at when nothing happens.
    pub period: Duration,
}

/// Why the test network's ports cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum TestnetError {
    /// The cloud's settings.
    #[error("open the test network's cloud")]
    Open(#[from] OpenCloud),
    /// The cloud.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The book.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The network or a security group is not there, or there are several.
    #[error(transparent)]
    NotOne(#[from] NotOne),
}

/// What is wrong with the ports, for those who ask.
#[derive(Clone, Debug)]
pub(crate) struct TestnetHealth {
    network: String,
    cloud: Arc<Cloud>,
    trouble: watch::Receiver<Option<Trouble>>,
}

#[derive(Clone, Debug)]
struct Trouble {
    since: Time,
    problems: Vec<String>,
}

impl TestnetHealth {
    /// None when all is as it should be.
    pub(crate) fn alert(&self) -> Option<api::TestnetAlert> {
        let Trouble { since, problems } = self.trouble.borrow().clone()?;
        Some(api::TestnetAlert { network: self.network.clone(), since_us: since.0, problems })
    }

    /// How often the cloud was called.
    pub(crate) fn calls(&self) -> Vec<CallCount> {
        self.cloud.counts()
    }
}

/// Starts looking after the ports, if that is wanted; it ends when the server stops.
pub(crate) fn start(
    config: Option<TestnetConfig>,
    book: &LeaseBook,
    stopping: &watch::Receiver<bool>,
) -> Result<Option<TestnetHealth>, TestnetError> {
    let Some(config) = config else { return Ok(None) };
    let cloud = Cloud::open(&Place::here(), config.cloud.as_deref(), config.region.as_deref())?;
    let (told, trouble) = watch::channel(None);
    let cloud = Arc::new(cloud);
    let network = config.network.clone();
    let health = TestnetHealth { network, cloud: Arc::clone(&cloud), trouble };
    let task = Testnet { book: book.clone(), cloud, config, told };
    tokio::spawn(task.run(stopping.clone()));
    Ok(Some(health))
}

#[derive(Debug)]
struct Testnet {
    book: LeaseBook,
    cloud: Arc<Cloud>,
    config: TestnetConfig,
    told: watch::Sender<Option<Trouble>>,
}

impl Testnet {
    async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut events = self.book.subscribe();
        let mut done: Option<Hosts> = None;
        let mut next = Instant::now();
        loop {
            let is_time = tokio::select! {
                _ = stopping.changed() => return,
                () = sleep_until(next) => true,
                event = events.recv() => match event {
                    Ok(Change::Host(_) | Change::Gone(_)) | Err(broadcast::error::RecvError::Lagged(_)) => false,
                    Ok(Change::Lease(_) | Change::TestEnv(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            };
            let hosts = match self.book.hosts().await {
                Ok(rows) => wished(&rows),
                Err(_) => return,
            };
            if !is_time && done.as_ref() == Some(&hosts) {
                continue;
            }
            match self.look(&hosts).await {
                Ok(problems) => {
                    let is_well = problems.is_empty();
                    self.tell(problems);
                    next = Instant::now() + if is_well { self.config.period } else { RETRY_PERIOD };
                    done = is_well.then_some(hosts);
                }
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "the test network's ports are not as they should be");
                    self.tell(vec![Chain(&error).to_string()]);
                    done = None;
                    next = Instant::now() + RETRY_PERIOD;
                }
            }
        }
    }

    fn tell(&self, problems: Vec<String>) {
        self.told.send_modify(|trouble| {
            let since = trouble.as_ref().map_or_else(wall, |before| before.since);
            *trouble = (!problems.is_empty()).then_some(Trouble { since, problems });
        });
    }

    /// One look, and what follows from it; what is in the way, and what the cloud refused.
    async fn look(&self, hosts: &Hosts) -> Result<Vec<String>, TestnetError> {
        let network = self.network().await?;
        let ports = self.cloud.ports(&[("network_id", &network.id)]).await?;
        let found: Vec<FoundPort> = ports.into_iter().map(found_port).collect();
        let groups = self.groups(&network).await?;
        let policy = Policy { owner: self.config.owner.clone(), groups };
        let Plan { steps, refused } = plan(&policy, hosts, &found);
        for refusal in &refused {
            tracing::warn!(port = refusal.name, "{}", refusal.why);
        }
        let refused = refused.into_iter().map(|r| format!("{}: {}", r.name, r.why));
        let mut problems: Vec<String> = refused.collect();
        for step in &steps {
            match self.execute(step, &network, policy.groups.as_ref()).await {
                Ok(()) => tracing::info!(network = self.config.network, "{step}"),
                // One port that the cloud refuses keeps none of the others waiting.
                Err(error) if error.is_refusal() => {
                    tracing::error!(error = %Chain(&error), "{step}");
                    problems.push(format!("{step}: {}", Chain(&error)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(problems)
    }

    async fn network(&self) -> Result<Network, TestnetError> {
        let all = self.cloud.networks(&[]).await?;
        Ok(one(&self.config.network, &all)?.clone())
    }

    /// The security groups of the network's project that ports should be in.
    async fn groups(&self, network: &Network) -> Result<Option<BTreeSet<String>>, TestnetError> {
        let Some(names) = &self.config.security_groups else { return Ok(None) };
        let all = self.cloud.security_groups(&[("project_id", &network.project_id)]).await?;
        let ids = names.iter().map(|name| Ok(one(name, &all)?.id.clone()));
        Ok(Some(ids.collect::<Result<_, TestnetError>>()?))
    }

    async fn execute(
        &self,
        step: &Step,
        network: &Network,
        groups: Option<&BTreeSet<String>>,
    ) -> Result<(), CloudError> {
        match step {
            Step::Delete { id, .. } => self.cloud.delete_port(id).await.map(drop),
            Step::Create { name, leg, mark } => {
                let mut body = json!({
                    "name": name,
                    "network_id": network.id,
                    // As its network's: others may not choose MACs on it.
                    "project_id": network.project_id,
                    "mac_address": leg.mac,
                    "port_security_enabled": true,
                    "description": mark.to_string(),
                });
                if let Some(address) = leg.address {
                    body["fixed_ips"] = addresses(address);
                }
                if let Some(groups) = groups {
                    body["security_groups"] = json!(groups);
                }
                self.cloud.create_port(body).await.map(drop)
            }
            Step::Repair { id, differences, mark, .. } => {
                let mut body = json!({});
                for difference in differences {
                    let (field, value) = match difference {
                        Difference::Name { new, .. } => ("name", json!(new)),
                        Difference::Address { new, .. } => ("fixed_ips", addresses(*new)),
                        Difference::PortSecurity => ("port_security_enabled", json!(true)),
                        Difference::Allowed { .. } => ("allowed_address_pairs", json!([])),
                        Difference::Groups { new, .. } => ("security_groups", json!(new)),
                        Difference::Mark => ("description", json!(mark.to_string())),
                    };
                    body[field] = value;
                }
                self.cloud.update_port(id, body).await.map(drop)
            }
        }
    }
}

fn addresses(address: IpAddr) -> Json {
    json!([{"ip_address": address.to_string()}])
}

/// What the hosts need, as they told. A host that has told nothing since the server started counts as silent.
fn wished(rows: &[api::Host]) -> Hosts {
    let mut hosts = Hosts::new();
    for row in rows {
        let Ok(id) = HostId::new(row.id.as_str()) else { continue };
        let legs = row.status.as_ref().map(|status| status.legs.iter().map(leg).collect());
        hosts.insert(id, legs);
    }
    hosts
}

fn leg(leg: &api::NetworkLeg) -> Leg {
    Leg {
        testenv: leg.testenv,
        mac: leg.mac.to_ascii_lowercase(),
        address: leg.address.as_deref().and_then(|text| text.parse().ok()),
    }
}

fn found_port(port: Port) -> FoundPort {
    FoundPort {
        id: port.id,
        name: port.name,
        mac: port.mac_address.to_ascii_lowercase(),
        addresses: port.fixed_ips.iter().map(|ip| ip.ip_address).collect(),
        port_security: port.port_security_enabled,
        allowed: port.allowed_address_pairs.into_iter().map(|pair| pair.ip_address).collect(),
        groups: port.security_groups.into_iter().collect(),
        description: port.description,
        device_owner: port.device_owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_as_neutron_tells_it() {
        let json = json!({
            "id": "1", "name": "te_a", "network_id": "n", "mac_address": "FA:16:3E:00:00:01", "description": "toci-testnet:ci:a",
            "device_owner": "", "port_security_enabled": false,
            "fixed_ips": [{"subnet_id": "s", "ip_address": "198.18.0.5"}],
            "allowed_address_pairs": [{"ip_address": "10.0.0.0/8", "mac_address": "x"}], "security_groups": ["g"],
        });
        let port = found_port(serde_json::from_value(json).unwrap());
        assert_eq!((port.mac.as_str(), port.port_security), ("fa:16:3e:00:00:01", false));
        assert_eq!(port.addresses.iter().next().unwrap().to_string(), "198.18.0.5");
        assert!(port.allowed.contains("10.0.0.0/8") && port.groups.contains("g"));
    }

    #[test]
    fn a_host_that_has_not_reported_is_silent() {
        let row = |status| api::Host {
            id: "a".into(),
            connection: api::Connection::CutOff,
            draining: false,
            testenvs: vec![],
            status,
            seen_us: None,
            enrolled_us: 0,
        };
        assert_eq!(wished(&[row(None)]).values().next().unwrap(), &None);
        let told = api::NetworkLeg {
            testenv: Some(1),
            mac: "00:AB:00:00:00:01".into(),
            address: Some("198.18.0.9".into()),
        };
        let status = api::HostStatus { legs: vec![told], ..api::HostStatus::default() };
        let hosts = wished(&[row(Some(status))]);
        let legs = hosts.values().next().unwrap().as_ref().unwrap();
        assert_eq!((legs[0].mac.as_str(), legs[0].testenv), ("00:ab:00:00:00:01", Some(1)));
    }
}
