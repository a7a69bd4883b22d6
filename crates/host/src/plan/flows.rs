//! Flows of the public bridge: a seed speaks with its own MAC and IP address or not at all, and with nobody who did not come to
//! the gateway with its lease's key, unless it began; of the host there is the gateway and nothing else; a TE's private
//! network gives answers and asks nothing.
//!
//! ```text
//! table 0: who says it               table 1: to whom                       table 2: answers only
//!   uplink: anything ──────────────▶   the host: ARP, ping, the gateway       what belongs to a connection that was begun
//!   the host ─▶ out, remembered        (and DHCP), else ───────────────────▶  from the other side passes, else dropped
//!   seeds: what is true ───────────▶   a seed: from a guest passes, else ──▶
//!     (remembered, but to a guest)     its private network: from a guest
//!   seeds: for a private network ───────── passes, remembered ─────────────▶ (table 0 asks for what comes back)
//! ```
//!
//! Per seed port, from the top: no DHCP server (UDP source port 67); nothing for a private network, which is not this one's
//! affair; DHCP as a client; ARP that tells the truth (questions may be in the name of its private network); IPv4 from the leased address; answers from its private network to
//! whoever routes through it (`seed-route-dev` of the TE JSON); nothing else (so no IPv6 either: there is none
//! on this network to speak to; and nothing with a VLAN tag, which would lead out of this network where
//! the uplink is a trunk). Seeds are *protected* ports too, so they do not reach each other. What comes for everybody
//! (broadcast, multicast) goes to the host alone, but for ARP and the answers of a DHCP server.
//!
//! Connections are remembered in a zone of their own for the host and for each TE, which a reset empties.

use super::desired::{HostFacts, TeSpec, seed_ofport};
use crate::config::Config;
use crate::names;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use toci_wire::te_json::PRIVATE_NETWORK;

/// Addresses that may speak with the seed of a TE, by the TE's number. A TE that is not in it has none.
pub type Guests = BTreeMap<u32, BTreeSet<Ipv4Addr>>;

/// Connections that the host began.
const HOST_ZONE: u16 = 1;

/// Connections into the private network of a TE, and those that its seed began.
#[must_use]
pub(crate) fn private_zone(te: u32) -> Option<u16> {
    seed_ofport(te)
}

/// The tables of `br-ctlplane`, in the form of `ovs-ofctl`.
#[must_use]
pub fn public_flows(
    config: &Config,
    facts: &HostFacts,
    tes: &[TeSpec],
    guests: &Guests,
) -> Vec<String> {
    let uplink = names::UPLINK_OFPORT;
    let nobody = BTreeSet::new();
    let mut flows = vec![
        format!("priority=10,in_port={uplink},actions=resubmit(,1)"),
        format!("priority=10,in_port={},actions=NORMAL", names::HOST_DEVICE_OFPORT),
        format!(
            "priority=20,ip,in_port={},actions=ct(commit,zone={HOST_ZONE}),NORMAL",
            names::HOST_DEVICE_OFPORT
        ),
        "priority=10,in_port=LOCAL,actions=NORMAL".to_owned(),
        "priority=0,actions=drop".to_owned(),
        format!("table=1,priority=120,udp,in_port={uplink},tp_src=67,tp_dst=68,actions=NORMAL"),
        format!(
            "table=1,priority=110,ip,in_port={uplink},dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=output:{}",
            names::HOST_DEVICE_OFPORT
        ),
        "table=1,priority=0,actions=NORMAL".to_owned(),
        "table=2,priority=100,ip,ct_state=+trk+est,actions=NORMAL".to_owned(),
        "table=2,priority=100,ip,ct_state=+trk+rel,actions=NORMAL".to_owned(),
        "table=2,priority=0,actions=drop".to_owned(),
    ];
    flows.extend(of_the_host(config, facts));
    for te in tes {
        flows.extend(of_a_seed(te, guests.get(&te.number).unwrap_or(&nobody)).unwrap_or_default());
    }
    flows
}

/// What reaches the host itself, by its address or by its MAC.
fn of_the_host(config: &Config, facts: &HostFacts) -> Vec<String> {
    let network = &config.network;
    let (me, door) = (network.address.address, network.gateway_port);
    let mac = facts.host_mac();
    let gateway = format!("priority=30,tcp,in_port={},tp_src={door}", names::HOST_DEVICE_OFPORT);
    let dhcp = "table=1,priority=250,udp,nw_dst";
    let mut flows = vec![
        // The gateway's own connections need no memory.
        format!("{gateway},actions=NORMAL"),
        "table=1,priority=300,arp,actions=NORMAL".to_owned(),
        format!("table=1,priority=250,icmp,nw_dst={me},actions=NORMAL"),
        format!("table=1,priority=250,tcp,nw_dst={me},tp_dst={door},actions=NORMAL"),
        format!("table=1,priority=240,ip,nw_dst={me},actions=ct(table=2,zone={HOST_ZONE})"),
        format!("table=1,priority=230,dl_dst={mac},actions=drop"),
    ];
    if network.dhcp {
        flows.push(format!("{dhcp}={me},tp_src=68,tp_dst=67,actions=NORMAL"));
    }
    flows
}

fn of_a_seed(te: &TeSpec, guests: &BTreeSet<Ipv4Addr>) -> Option<Vec<String>> {
    let (port, nic) = (seed_ofport(te.number)?, te.seed().nics.first()?);
    let (mac, ip, zone) = (&nic.mac, te.seed_address, private_zone(te.number)?);
    let from = format!("in_port={port},vlan_tci=0x0000/0x1fff,dl_src={mac}");
    let next = "actions=resubmit(,1)";
    let mut flows = vec![
        format!("priority=300,udp,in_port={port},tp_src=67,actions=drop"),
        format!("priority=260,ip,in_port={port},nw_dst={PRIVATE_NETWORK},actions=drop"),
        format!(
            "priority=210,udp,{from},nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67,{next}"
        ),
        format!("priority=200,arp,{from},arp_sha={mac},arp_spa={ip},{next}"),
        format!("priority=200,arp,{from},arp_sha={mac},arp_spa=0.0.0.0,{next}"),
        // Linux asks in the name of the address that it answers from.
        format!("priority=200,arp,{from},arp_op=1,arp_sha={mac},arp_spa={PRIVATE_NETWORK},{next}"),
        format!("priority=200,ip,{from},nw_src={ip},actions=ct(commit,zone={zone}),resubmit(,1)"),
        format!("priority=200,ip,{from},nw_src={PRIVATE_NETWORK},actions=ct(table=2,zone={zone})"),
        format!("priority=100,in_port={port},actions=drop"),
        format!("table=1,priority=220,udp,dl_dst={mac},tp_src=67,tp_dst=68,actions=NORMAL"),
        format!("table=1,priority=200,ip,dl_dst={mac},actions=ct(table=2,zone={zone})"),
        format!("table=1,priority=190,dl_dst={mac},actions=drop"),
    ];
    for guest in guests {
        // What goes to and fro between the two needs no memory; what a guest asks of the private network does.
        let to = format!("table=1,ip,dl_dst={mac},nw_src={guest}");
        flows.extend([
            format!("priority=205,ip,{from},nw_src={ip},nw_dst={guest},{next}"),
            format!(
                "{to},priority=215,nw_dst={PRIVATE_NETWORK},actions=ct(commit,zone={zone}),NORMAL"
            ),
            format!("{to},priority=210,actions=NORMAL"),
        ]);
    }
    Some(flows)
}
