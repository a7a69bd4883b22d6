//! What the project's quotas leave to us: all of them, less what others have.

use super::config::OpenStackConfig;
use super::delete::Found;
use super::marks::Marks;
use super::server::{Servers, failed};
use super::things::Things;
use crate::openstack::{CloudError, Limits, QuotaUse, Server, VolumeLimits};
use crate::provider::ProviderError;
use std::collections::BTreeMap;
use toci_core::node::{Amount, Room};

/// What is known of quotas.
#[derive(Clone, Debug, Default)]
struct Quotas {
    nova: Limits,
    ports: QuotaUse,
    floating_ips: QuotaUse,
    volumes: VolumeLimits,
}

impl Servers {
    /// What there is for us, and what a node of each label takes.
    pub(super) async fn room(&self, found: &Found) -> Result<Room, ProviderError> {
        let told = |error| failed("read the quotas", error);
        // Used up is asked for before what is ours: a server that comes to be between is then taken for room that is
        // there, and refused; the other way round it would be taken for somebody else's.
        let nova = self.cloud.limits().await.map_err(told)?;
        let project = self.cloud.whoami().await.map_err(told)?.project_id;
        let neutron = match project {
            None => None,
            Some(project) => match self.cloud.network_quotas(&project).await {
                // Some clouds tell them to administrators only; what is refused is then seen when it is.
                Err(CloudError::Refused { status: 403, .. }) => None,
                other => other.map_err(told)?,
            },
        };
        let neutron = neutron.unwrap_or_default();
        let of = |kind: &str| neutron.get(kind).copied().unwrap_or_default();
        let volumes = match self.use_volumes() {
            true => self.cloud.volume_limits().await.map_err(told)?,
            false => VolumeLimits::default(),
        };
        let (ports, floating_ips) = (of("port"), of("floatingip"));
        let quotas = Quotas { nova, ports, floating_ips, volumes };
        let all = self.all(super::server::LOOK_AGAIN).await.map_err(told)?;
        let things = self.finder.things().await.map_err(told)?;
        let marks = self.marks()?;
        let tests = self.roster.tests();
        let is_node = |server: &&Server| {
            marks.node_of_server(server).is_some_and(|node| !tests.contains(node))
        };
        let ours: Vec<&Server> = all.iter().filter(is_node).collect();
        Ok(Room {
            quota: quota(&self.config, &quotas),
            capacity: capacity(&self.config, &quotas, &ours, found, &marks),
            costs: costs(&self.config, &things),
        })
    }
}

/// What a node of each label takes; of a label whose flavor is not there nothing is known.
fn costs(config: &OpenStackConfig, things: &Things) -> BTreeMap<toci_core::id::Label, Amount> {
    let cost = |(label, shape): (&toci_core::id::Label, &super::config::Shape)| {
        let flavor = things.flavor(&shape.flavor).ok()?;
        let amount = Amount { servers: 1, cpus: flavor.vcpus, memory_mib: flavor.ram };
        Some((label.clone(), amount))
    };
    config.shapes.iter().filter_map(cost).collect()
}

/// All of the quotas, whoever uses them. Ports, floating IPs and volumes bound servers.
fn quota(config: &OpenStackConfig, quotas: &Quotas) -> Amount {
    let most = |most: Option<u64>| most.unwrap_or(u64::MAX);
    let ports = most(quotas.ports.most) / ports_each(config);
    let of_volumes = most(quotas.volumes.volumes.most);
    let volumes = with_volumes(&sizes(config), of_volumes, most(quotas.volumes.gib.most));
    let ips = match &config.floating_network {
        Some(_) => most(quotas.floating_ips.most),
        None => u64::MAX,
    };
    Amount {
        servers: most(quotas.nova.instances.1).min(ports).min(ips).min(volumes),
        cpus: most(quotas.nova.cores.1),
        memory_mib: most(quotas.nova.ram_mib.1),
    }
}

/// Ports of one node, at most.
fn ports_each(config: &OpenStackConfig) -> u64 {
    let networks = config.shapes.values().map(|shape| shape.networks.len().max(1)).max();
    u64::try_from(networks.unwrap_or(1)).unwrap_or(u64::MAX)
}

/// So many servers can have their volumes. Where some boot from an image, volumes bound nothing: who is refused one is told
/// then.
fn with_volumes(sizes: &[Option<u64>], volumes: u64, gib: u64) -> u64 {
    let sizes: Option<Vec<u64>> = sizes.iter().copied().collect();
    let each = sizes.and_then(|sizes| sizes.into_iter().max());
    each.map_or(u64::MAX, |each| volumes.min(gib / each.max(1)))
}

/// The volumes of all labels.
fn sizes(config: &OpenStackConfig) -> Vec<Option<u64>> {
    config.shapes.values().map(|shape| shape.volume_gib).collect()
}

/// All that our nodes together may take.
fn capacity(
    config: &OpenStackConfig,
    quotas: &Quotas,
    ours: &[&Server],
    found: &Found,
    marks: &Marks,
) -> Amount {
    let sum = |of: fn(&Server) -> u64| ours.iter().map(|server| of(server)).sum::<u64>();
    let left = |(used, most): (u64, Option<u64>), ours: u64| match most {
        Some(most) => most.saturating_sub(used.saturating_sub(ours)),
        None => u64::MAX,
    };
    let mut servers = left(quotas.nova.instances, sum(|_| 1));
    let is_ours = |description: &str| marks.node_of(description).is_some();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let ports = count(found.ports.iter().filter(|port| is_ours(&port.description)).count());
    let ports = left((quotas.ports.used, quotas.ports.most), ports);
    servers = servers.min(ports / ports_each(config));
    if config.floating_network.is_some() {
        let ips = found.floating_ips.iter().filter(|ip| is_ours(&ip.description)).count();
        let quota = (quotas.floating_ips.used, quotas.floating_ips.most);
        servers = servers.min(left(quota, count(ips)));
    }
    let ours_of_volumes = || found.volumes.iter().filter(|v| marks.node_of_volume(v).is_some());
    let pair = |quota: QuotaUse| (quota.used, quota.most);
    let volumes = left(pair(quotas.volumes.volumes), count(ours_of_volumes().count()));
    let gib = left(pair(quotas.volumes.gib), ours_of_volumes().map(|volume| volume.gib).sum());
    servers = servers.min(with_volumes(&sizes(config), volumes, gib));
    Amount {
        servers,
        cpus: left(quotas.nova.cores, sum(|server| server.flavor.vcpus)),
        memory_mib: left(quotas.nova.ram_mib, sum(|server| server.flavor.ram)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_bound_servers_where_every_label_has_one() {
        assert_eq!(with_volumes(&[Some(40), Some(20)], 10, 100), 2, "GiB are short");
        assert_eq!(with_volumes(&[Some(40), Some(20)], 1, 100), 1, "volumes are short");
        assert_eq!(with_volumes(&[Some(40), None], 0, 0), u64::MAX);
        assert_eq!(with_volumes(&[], 0, 0), u64::MAX);
    }
}
