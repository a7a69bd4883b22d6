//! What things are called on a TE host: the origin's names (origin.md 3.15) and what derives from them.

use sha2::{Digest, Sha256};
use toci_core::hex::hex;

/// Public bridge that the seeds' first NICs, the gateway's device and the uplink share.
pub const PUBLIC_BRIDGE: &str = "br-ctlplane";
/// The TE host's own device on the public bridge.
pub const HOST_DEVICE: &str = "tedev";
/// Highest TE number, so that interface names stay within the kernel's 15 bytes.
pub const TE_NUMBER_MAX: u32 = 999;
/// Highest number of nodes in a TE.
pub const NODES_MAX: u32 = 64;
/// Highest number of NICs of a node.
pub const NODE_NICS_MAX: u32 = 4;
/// Requested OpenFlow port of the uplink on the public bridge.
pub const UPLINK_OFPORT: u16 = 1;
/// Requested OpenFlow port of `tedev`.
pub const HOST_DEVICE_OFPORT: u16 = 2;
/// The seed of TE N asks for OpenFlow port `SEED_OFPORT_BASE + N`.
pub const SEED_OFPORT_BASE: u32 = 1000;

/// Domain name of the seed of TE `te`.
#[must_use]
pub fn seed(te: u32) -> String {
    format!("seed_{te}")
}

/// Domain name of node `index` (from 0) of TE `te`.
#[must_use]
pub fn node(te: u32, index: u32) -> String {
    format!("baremetal{}_{index}", private_bridge(te))
}

/// Private bridge of TE `te`.
#[must_use]
pub fn private_bridge(te: u32) -> String {
    format!("brbm{te}")
}

/// Tap of NIC `nic` of the seed: 0 is public, 1 is private.
#[must_use]
pub fn seed_tap(te: u32, nic: u32) -> String {
    format!("te{te}s{nic}")
}

/// Tap of NIC `nic` of node `index`.
#[must_use]
pub fn node_tap(te: u32, index: u32, nic: u32) -> String {
    format!("te{te}n{index}x{nic}")
}

/// File name of the disk of a machine; the seed's is the origin's `seed_<N>.qcow2`.
#[must_use]
pub fn disk(domain: &str) -> String {
    format!("{domain}.qcow2")
}

/// Whether `name` is what a domain of a TE is called.
#[must_use]
pub fn is_machine(name: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if let Some(n) = name.strip_prefix("seed_") {
        return digits(n);
    }
    name.strip_prefix("baremetalbrbm")
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(te, index)| digits(te) && digits(index))
}

/// Whether `name` is what a tap of a TE machine is called.
#[must_use]
pub fn is_tap(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("te") else { return false };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let tail_ok = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit() || b == b'x');
    name.as_bytes().get(2).is_some_and(u8::is_ascii_digit)
        && (rest.strip_prefix('s').is_some_and(tail_ok)
            || rest.strip_prefix('n').is_some_and(tail_ok))
}

fn digest(host_key: &str, what: &str) -> [u8; 32] {
    let mut h = Sha256::new();
    h.update(host_key.as_bytes());
    h.update([0]);
    h.update(what.as_bytes());
    h.finalize().into()
}

/// A MAC address that is always the same for the same host key and thing. As in the origin
/// (3.5) the first byte is 00 and five bytes differ; here they are a hash, so that nothing has
/// to be kept and two hosts (host keys are random) do not meet.
#[must_use]
pub fn mac(host_key: &str, what: &str) -> String {
    let d = digest(host_key, &format!("mac {what}"));
    format!("00:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", d[0], d[1], d[2], d[3], d[4])
}

/// A UUID (version 8: own scheme) that is always the same for the same host key and domain.
#[must_use]
pub fn uuid(host_key: &str, domain: &str) -> String {
    let mut d = digest(host_key, &format!("uuid {domain}"));
    d[6] = (d[6] & 0x0f) | 0x80;
    d[8] = (d[8] & 0x3f) | 0x80;
    let hex = hex(&d[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Hex SHA-256 of a text, shortened: tells whether a definition is the one we want.
#[must_use]
pub fn fingerprint(text: &str) -> String {
    let d: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    hex(&d[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_origins() {
        assert_eq!(seed(3), "seed_3");
        assert_eq!(node(3, 2), "baremetalbrbm3_2");
        assert_eq!(private_bridge(3), "brbm3");
        assert!(node_tap(TE_NUMBER_MAX, NODES_MAX - 1, NODE_NICS_MAX - 1).len() <= 15);
    }

    #[test]
    fn only_our_names_are_ours() {
        assert!(is_machine("seed_12") && is_machine("baremetalbrbm1_0"));
        assert!(!is_machine("seed") && !is_machine("seed_1a") && !is_machine("baremetal_1"));
        assert!(is_tap("te1s0") && is_tap("te12n3x0"));
        assert!(!is_tap("tedev") && !is_tap("te") && !is_tap("tes0") && !is_tap("te1s"));
    }

    #[test]
    fn addresses_are_stable_and_differ() {
        assert_eq!(mac("k", "seed_1/0"), mac("k", "seed_1/0"));
        assert_ne!(mac("k", "seed_1/0"), mac("l", "seed_1/0"));
        assert_ne!(mac("k", "seed_1/0"), mac("k", "seed_1/1"));
        assert!(mac("k", "x").starts_with("00:") && mac("k", "x").len() == 17);
        assert_eq!(uuid("k", "seed_1").len(), 36);
    }
}
