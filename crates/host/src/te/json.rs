//! The TE JSON of a grant.

use super::keys::LeaseKey;
use crate::config::Config;
use crate::plan::TeSpec;
use serde_json::Map;
use toci_core::id::LeaseId;
use toci_core::time::Time;
use toci_wire::te_json::{
    BaremetalNetwork, GatewayJson, NodeJson, POWER_MANAGER, SecretText, TeJson, Toci,
};

/// User of the gateway: root, as in the origin.
const GATEWAY_USER: &str = "root";

/// For one TE, one lease.
#[must_use]
pub fn te_json(
    config: &Config,
    te: &TeSpec,
    lease: LeaseId,
    key: &LeaseKey,
    expires: Time,
    host_key: &str,
) -> TeJson {
    let host = config.network.address.address.to_string();
    let arch = te.shape.arch.as_str().to_owned();
    let shape = te.shape.nodes;
    let secret = || SecretText(key.private.clone());
    let nodes = te.nodes().iter().map(|n| NodeJson {
        mac: n.nics.iter().map(|nic| nic.mac.clone()).collect(),
        cpu: shape.cpus.to_string(),
        memory: shape.memory_mib.to_string(),
        disk: shape.disk_gb.to_string(),
        arch: arch.clone(),
        pm_type: "pxe_ssh".into(),
        pm_user: GATEWAY_USER.into(),
        pm_addr: host.clone(),
        pm_password: secret(),
    });
    TeJson {
        arch: arch.clone(),
        host_ip: host.clone(),
        power_manager: POWER_MANAGER.into(),
        seed_ip: te.seed_address.to_string(),
        seed_route_dev: config.network.seed_route_dev.clone(),
        ssh_key: secret(),
        ssh_user: GATEWAY_USER.into(),
        env_num: te.number.to_string(),
        remote_operations: "1".into(),
        remote_host: config.name.to_string(),
        nodes: nodes.collect(),
        baremetal_network: Some(BaremetalNetwork::origin()),
        toci: Some(Toci {
            lease: lease.to_string(),
            generation: key.generation,
            expires_us: expires.0,
            testenv: te.id.to_string(),
            seed: te.seed().name.clone(),
            seed_mac: te.seed().nics.iter().map(|n| n.mac.clone()).collect(),
            nodes: te.nodes().iter().map(|n| n.name.clone()).collect(),
            gateway: GatewayJson {
                host,
                port: config.network.gateway_port,
                user: GATEWAY_USER.into(),
                host_key: host_key.to_owned(),
            },
        }),
        rest: Map::new(),
    }
}
