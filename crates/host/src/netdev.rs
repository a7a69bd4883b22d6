//! Network devices: `ip` and `/proc/sys`.

use crate::names;
use crate::plan::{DeviceWorld, SANDBOX_UPLINK};
use crate::run::{CommandError, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Devices of this network namespace that we want (`wanted`) or whose name is one of ours.
pub async fn devices(
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, DeviceWorld>, CommandError> {
    let text = run("ip", &["-json", "address", "show"]).await?;
    let list: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let routes = default_routes().await?;
    let mut found = BTreeMap::new();
    for d in list.as_array().into_iter().flatten() {
        let Some(name) = d["ifname"].as_str().filter(|n| wanted(n) || names::is_tap(n)) else {
            continue;
        };
        let flags = d["flags"].as_array().cloned().unwrap_or_default();
        let addresses = d["addr_info"].as_array().into_iter().flatten().filter_map(|a| {
            (a["family"] == "inet").then_some(())?;
            Some(format!("{}/{}", a["local"].as_str()?, a["prefixlen"].as_u64()?))
        });
        found.insert(
            name.to_owned(),
            DeviceWorld {
                index: d["ifindex"].as_u64().and_then(|i| u32::try_from(i).ok()).unwrap_or(0),
                up: flags.iter().any(|f| f == "UP"),
                addresses: addresses.collect(),
                route: routes.get(name).copied(),
            },
        );
    }
    Ok(found)
}

/// The MAC of a device; none when it is not there.
#[must_use]
pub fn mac(device: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/address")).ok()?;
    Some(text.trim().to_owned()).filter(|mac| !mac.is_empty())
}

/// Where default routes go, by their device.
async fn default_routes() -> Result<BTreeMap<String, Ipv4Addr>, CommandError> {
    let text = run("ip", &["-json", "-4", "route", "show", "default"]).await?;
    let list: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let route =
        |r: &Value| Some((r["dev"].as_str()?.to_owned(), r["gateway"].as_str()?.parse().ok()?));
    Ok(list.as_array().into_iter().flatten().filter_map(route).collect())
}

/// Makes a persistent tap that only the switch listens to.
pub async fn create_tap(device: &str) -> Result<(), CommandError> {
    run("ip", &["tuntap", "add", "dev", device, "mode", "tap"]).await?;
    run("ip", &["link", "set", "dev", device, "addrgenmode", "none"]).await?;
    deafen(device);
    // Before the switch opens it: what that has set up itself it takes back when it opens a device anew, which its userspace
    // datapath does now and then when another port comes or goes. The machine then has a dead card.
    run("ip", &["link", "set", "dev", device, "up"]).await.map(drop)
}

/// Only the switch may listen to this device: with Open vSwitch's userspace datapath the kernel sees the frames of its
/// ports too. It must not answer them, nor take or pass on what the flows would drop: with no address on the device and
/// strict filtering of sources there is nothing that it takes.
pub(crate) fn deafen(device: &str) {
    // Without IPv6 in the kernel there is nothing to switch off.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1");
    for (setting, value) in [("arp_ignore", "8"), ("rp_filter", "1")] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/{setting}"), value);
    }
}

/// Removes a tap; one that is not there is fine.
pub async fn delete_tap(device: &str) -> Result<(), CommandError> {
    if !exists(device) {
        return Ok(());
    }
    run("ip", &["link", "delete", "dev", device]).await.map(drop)
}

/// Sets a device up, its address, and the default route.
pub async fn set_device(
    device: &str,
    address: Option<&str>,
    route: Option<Ipv4Addr>,
) -> Result<(), CommandError> {
    if device == SANDBOX_UPLINK {
        deafen(device);
    }
    run("ip", &["link", "set", "dev", device, "up"]).await?;
    if let Some(address) = address {
        run("ip", &["address", "replace", address, "dev", device]).await?;
    }
    if let Some(route) = route {
        let route = route.to_string();
        run("ip", &["route", "replace", "default", "via", &route, "dev", device]).await?;
    }
    Ok(())
}

/// Whether a device is there.
#[must_use]
pub fn exists(device: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(device).exists()
}

/// The kernel's number of a device.
#[must_use]
pub fn index(device: &str) -> Option<u32> {
    let path = std::path::Path::new("/sys/class/net").join(device).join("ifindex");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
