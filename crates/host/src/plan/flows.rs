//! Flows of the public bridge: a seed speaks with its own MAC and IP address or not at all.
//!
//! Per seed port, from the top: no DHCP server (UDP source port 67); DHCP as a client; ARP that
//! tells the truth; IPv4 from the leased address; nothing else (so no IPv6 either: there is none
//! on this network to speak to; and nothing with a VLAN tag, which would lead out of this network where
//! the uplink is a trunk). Seeds are *protected* ports too, so they do not reach each other.

use super::desired::{TeSpec, seed_ofport};
use crate::names;

/// The table of `br-ctlplane`, in the form of `ovs-ofctl`.
#[must_use]
pub fn public_flows(tes: &[TeSpec]) -> Vec<String> {
    let mut flows = vec![
        format!("priority=10,in_port={},actions=NORMAL", names::UPLINK_OFPORT),
        format!("priority=10,in_port={},actions=NORMAL", names::HOST_DEVICE_OFPORT),
        "priority=10,in_port=LOCAL,actions=NORMAL".to_owned(),
        "priority=0,actions=drop".to_owned(),
    ];
    for te in tes {
        let (Some(port), Some(nic)) = (seed_ofport(te.number), te.seed().nics.first()) else {
            continue;
        };
        let (mac, ip) = (&nic.mac, te.seed_address);
        let from = format!("in_port={port},vlan_tci=0x0000,dl_src={mac}");
        flows.extend([
            format!("priority=300,udp,in_port={port},tp_src=67,actions=drop"),
            format!(
                "priority=200,udp,{from},nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67,actions=NORMAL"
            ),
            format!("priority=200,arp,{from},arp_sha={mac},arp_spa={ip},actions=NORMAL"),
            format!("priority=200,arp,{from},arp_sha={mac},arp_spa=0.0.0.0,actions=NORMAL"),
            format!("priority=200,ip,{from},nw_src={ip},actions=NORMAL"),
            format!("priority=100,in_port={port},actions=drop"),
        ]);
    }
    flows
}
