//! How a node goes: all that carries its mark, and only that.

use super::server::{LOOK_AGAIN, Servers, failed, is_there};
use crate::openstack::{CloudError, FloatingIp, Port, Server, Volume};
use crate::provider::ProviderError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So long a server may take to be gone after it was to be deleted. The next attempt goes on from there.
pub const DELETE_WAIT: Duration = Duration::from_secs(300);
/// The order to delete is given again after so long: one that came while a server was being made may be lost.
pub const DELETE_AGAIN: Duration = Duration::from_secs(30);

/// What was found in the cloud.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) ports: Vec<Port>,
    pub(super) floating_ips: Vec<FloatingIp>,
    pub(super) volumes: Arc<Vec<Volume>>,
}

impl Servers {
    /// Removes a node and all that belongs to it; what is not there any more is no error.
    pub(super) async fn delete(&self, node: &str) -> Result<(), ProviderError> {
        let what = || format!("delete {node}");
        let told = |error| failed(what(), error);
        let marks = self.marks()?;
        let mark = marks.description(node);
        // The address first: it is what is short, and nobody shall come in any more.
        for ip in self.cloud.floating_ips(&[("description", &mark)]).await.map_err(told)? {
            if ip.description == mark {
                self.cloud.delete_floating_ip(&ip.id).await.map_err(told)?;
            }
        }
        let named = format!("^{node}$");
        let mut servers = self.cloud.servers(&[("name", &named)]).await.map_err(told)?;
        servers.retain(|server| marks.node_of_server(server) == Some(node));
        self.delete_servers(node, &servers).await?;
        if self.use_volumes() || servers.iter().any(|server| !server.volumes.is_empty()) {
            // Nova deletes them with the server; sometimes it does not.
            self.delete_volumes(node).await?;
        }
        for port in self.cloud.ports(&[("description", &mark)]).await.map_err(told)? {
            if port.description == mark {
                self.cloud.delete_port(&port.id).await.map_err(told)?;
            }
        }
        self.roster.forget(node)
    }

    /// Deletes servers and waits until they are gone.
    async fn delete_servers(&self, node: &str, servers: &[Server]) -> Result<(), ProviderError> {
        let told = |error| failed(format!("delete {node}"), error);
        let begun = Instant::now();
        let mut ordered: Option<Instant> = None;
        let mut left: BTreeSet<&str> = servers.iter().map(|server| server.id.as_str()).collect();
        while !left.is_empty() {
            if ordered.is_none_or(|at| at.elapsed() >= DELETE_AGAIN) {
                for id in &left {
                    match self.cloud.delete_server(id).await {
                        // Something is being done with it; the next order may be taken.
                        Ok(_) | Err(CloudError::Conflict { .. }) => {}
                        Err(error) => return Err(told(error)),
                    }
                }
                ordered = Some(Instant::now());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            let all = self.all(LOOK_AGAIN / 2).await.map_err(told)?;
            let there = |id: &&str| {
                all.iter().any(|server| server.id == **id && !server.status.ends_with("DELETED"))
            };
            left.retain(there);
            if begun.elapsed() >= DELETE_WAIT
                && let Some(server) = all.iter().find(|server| left.contains(server.id.as_str()))
            {
                let (s, task) =
                    (DELETE_WAIT.as_secs(), server.task.as_deref().unwrap_or("nothing"));
                let why = format!(
                    "after {s} s the server {} is still {} (being done: {task}): see whether nova-compute works on its host; an administrator can reset its state",
                    server.id, server.status
                );
                return Err(ProviderError::said(format!("delete {node}"), why));
            }
        }
        Ok(())
    }

    /// All nodes that are there. One that somebody remembers is there when its server is; of one that nobody does,
    /// whatever is left counts, so that it is removed.
    pub(super) async fn list(
        &self,
        found: Option<&Found>,
    ) -> Result<BTreeSet<String>, ProviderError> {
        let marks = self.marks()?;
        let all = self.all(Duration::ZERO).await.map_err(|e| failed("list the servers", e))?;
        let known = self.roster.known();
        let tests = self.roster.tests();
        let mut nodes = BTreeSet::new();
        for server in all.iter() {
            if let Some(node) = marks.node_of_server(server)
                && (is_there(server) || !known.contains(node))
            {
                nodes.insert(node.to_owned());
            }
        }
        if let Some(found) = found {
            let descriptions = found.ports.iter().map(|port| port.description.as_str());
            let of_ips = found.floating_ips.iter().map(|ip| ip.description.as_str());
            let left = descriptions.chain(of_ips).filter_map(|text| marks.node_of(text));
            let of_volumes = found.volumes.iter().filter_map(|volume| marks.node_of_volume(volume));
            let left = left.chain(of_volumes);
            nodes.extend(left.filter(|node| !known.contains(*node)).map(str::to_owned));
        }
        nodes.retain(|node| !tests.contains(node));
        Ok(nodes)
    }

    /// Ports and floating IPs of the project; volumes too where nodes have some.
    pub(super) async fn look_around(&self) -> Result<Found, ProviderError> {
        let (ports, floating_ips) =
            tokio::try_join!(self.cloud.ports(&[]), self.cloud.floating_ips(&[]))
                .map_err(|e| failed("list ports and floating IPs", e))?;
        let volumes = match self.use_volumes() {
            true => {
                self.all_volumes(Duration::ZERO).await.map_err(|e| failed("list volumes", e))?
            }
            false => Arc::default(),
        };
        Ok(Found { ports, floating_ips, volumes })
    }
}
