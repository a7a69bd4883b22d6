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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carve::{Resources, carve};
    use crate::config::tests::EXAMPLE;
    use crate::names;
    use crate::plan::{HostFacts, te_specs};
    use std::path::Path;

    #[test]
    fn it_says_what_the_host_has() {
        let config = Config::parse(Path::new("t.toml"), EXAMPLE).unwrap();
        let there_is = Resources { memory_mib: 100_000, cpus: 64, disk_mib: 1_000_000 };
        let carved = carve(&config, there_is).unwrap();
        let facts = HostFacts {
            host_key: "k".into(),
            kvm: false,
            system_datapath: false,
            uplink_mac: None,
        };
        let te = te_specs(&config, &facts, &carved).unwrap().remove(1);
        let key = LeaseKey { generation: 7, private: "PRIVATE".into(), public: "p".into() };
        let json = te_json(&config, &te, LeaseId(5), &key, Time(99), "ssh-ed25519 AAAA");
        assert_eq!((json.env_num.as_str(), json.remote_operations.as_str()), ("2", "1"));
        assert_eq!((json.host_ip.as_str(), json.seed_ip.as_str()), ("198.18.1.2", "198.18.1.102"));
        assert_eq!(json.nodes.len(), 2);
        let node = &json.nodes[1];
        assert_eq!(node.mac, [names::mac("k", "baremetalbrbm2_1/0")]);
        assert_eq!(
            (node.cpu.as_str(), node.memory.as_str(), node.disk.as_str()),
            ("1", "384", "2")
        );
        assert_eq!((node.pm_type.as_str(), node.pm_addr.as_str()), ("pxe_ssh", "198.18.1.2"));
        assert_eq!((&node.pm_password.0, &json.ssh_key.0), (&key.private, &key.private));
        let toci = json.toci.unwrap();
        assert_eq!((toci.lease.as_str(), toci.generation, toci.expires_us), ("L5", 7, 99));
        assert_eq!((toci.testenv.as_str(), toci.seed.as_str()), ("tehost1-2", "seed_2"));
        assert_eq!(toci.nodes, ["baremetalbrbm2_0", "baremetalbrbm2_1"]);
        assert_eq!(toci.seed_mac.len(), 2);
    }
}
