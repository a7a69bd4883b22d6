//! TE hosts that are servers of the cloud: `toci host deploy --cloud` makes two at once, `toci host remove` leaves nothing.
//!
//! Debian with libvirt needs a quarter of an hour here without KVM, so the servers are small guests, and what an image of
//! `toci host image build` does at its first boot is done for them beside the cloud: with the user data that each server
//! was given, by the same program, on the same network.

use std::fs;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cloud_tests::{
    Api, Footprint, KeyPair, Process, SITE_OWNER, Server, Site, host_config, wait_for,
};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
/// The hosts. Their numbers give the addresses of their seeds.
const HOSTS: [&str; 2] = ["tehost5", "tehost6"];
/// Where the small guest finds its config drive.
const USER_DATA: &str = "mkdir -p /tmp/drive && mount -r /dev/sr0 /tmp/drive && cat /tmp/drive/openstack/latest/user_data";

#[test]
fn servers_become_te_hosts_and_go_without_a_trace() -> Result<()> {
    let before = Footprint::now()?;
    {
        let site = Site::start("")?;
        let key = KeyPair::new("te-hosts")?;
        let inventory = site.path("hosts.toml").display().to_string();
        let config = site.path("te.toml").display().to_string();
        // What an operator writes for both.
        let text = host_config("@NAME@", &site.path("@NAME@"), "@ADDRESS@", &"@NUMBER@", 1);
        fs::write(&config, text)?;
        let mut deploy = vec!["deploy"];
        deploy.extend(HOSTS);
        deploy.extend(["--cloud", "ci", "--owner", SITE_OWNER, "--image", "tiny"]);
        deploy.extend(["--flavor", "tiny", "--network", "test", "--access-network", "private"]);
        deploy.extend(["--floating-network", "public", "--key-pair", &key.name]);
        deploy.extend(["--config", &config, "--boot-within", "10m"]);

        // A plan makes nothing.
        let asked = [&deploy[..], &["--plan"]].concat();
        let mut plan = vec!["toci", "host"];
        plan.extend(&asked);
        plan.extend(["--inventory", &inventory]);
        let with_key = Footprint::now()?;
        site.spawn("plan", &plan)?.ends(LIMIT)?;
        let told = fs::read_to_string(site.path("plan.log"))?;
        println!("{told}");
        ensure!(HOSTS.iter().all(|host| told.contains(host)), "{told}");
        ensure!(Footprint::now()? == with_key, "a plan made something");

        let all = [&["toci", "host"], &deploy[..], &["--inventory", &inventory]].concat();
        let begun = Instant::now();
        let deployed = deployed(&site, &key, &all);
        println!("deployed: {:.1} s", begun.elapsed().as_secs_f64());
        // Also those that did not come up.
        for name in HOSTS {
            site.toci(&["host", "remove", name, "--now", "--inventory", &inventory])?;
        }
        println!("removed: {:.1} s", begun.elapsed().as_secs_f64());
        deployed?;
        ensure!(site.toci(&["host", "list"])? == serde_json::json!([]), "a host is still known");
        HOSTS.iter().try_for_each(|host| site.has_no_ports(host))?;
    }
    before.is_restored(LIMIT)
}

/// The servers serve as TE hosts; their agents end with this.
fn deployed(site: &Site, key: &KeyPair, deploy: &[&str]) -> Result<()> {
    let mut deploying = site.spawn("deploy", deploy)?;
    let mut machines = Vec::new();
    for name in HOSTS {
        let machine = boot(site, name, key, &mut deploying);
        machines.push(machine.with_context(|| deploying.tail())?);
    }
    deploying.ends(LIMIT).with_context(|| site.logs())?;
    println!("{}", deploying.tail());
    site.ready(HOSTS.len())?;
    known_by_their_ports()
}

/// Does what the image does when the server boots.
fn boot(site: &Site, name: &str, key: &KeyPair, deploying: &mut Process) -> Result<Process> {
    let ci = Api::ci()?;
    let id = wait_for("the server to be there", LIMIT, || {
        if let Err(ended) = deploying.runs() {
            return Ok(Err(ended));
        }
        Ok(Ok(ci.id_of("compute", "/servers", "servers", name)?))
    })??;
    // It is for toci to delete.
    let server = ManuallyDrop::new(Server { id });
    let seen = server.until("ACTIVE")?;
    ensure!(seen["metadata"]["toci_te_host"] == name, "{}", seen["metadata"]);
    let host_keys = server.host_keys()?;
    let addresses = seen["addresses"]["private"].as_array().into_iter().flatten();
    let mut addresses = addresses.filter(|address| address["OS-EXT-IPS:type"] == "floating");
    let floating = addresses.next().and_then(|address| address["addr"].as_str());
    let floating = floating.with_context(|| format!("no floating IP: {}", seen["addresses"]))?;
    let data = wait_for("the user data", LIMIT, || key.ssh(floating, &host_keys, USER_DATA))?;
    // From here on the second card is our bridge's, as on a machine that is a TE host.
    key.ssh(floating, &host_keys, "ip link set eth1 down")?;
    site.first_boot(name, &data)
}

/// A host's port is the server's own; that of its seed is made for it. (The bridge beside the cloud has not the server's MAC,
/// so the cloud is asked for another port of the host's address too, and refuses: that keeps no seed from its port.)
fn known_by_their_ports() -> Result<()> {
    let ci = Api::ci()?;
    for name in HOSTS {
        let (own, seed) = (format!("te_{name}"), format!("te_{name}_1"));
        for (port, is_plugged) in [(&own, true), (&seed, false)] {
            let found = wait_for(&format!("the port {port}"), LIMIT, || {
                let all = ci.get("network", &format!("/ports?name={port}"))?;
                all["ports"].get(0).cloned().with_context(|| all.to_string())
            })?;
            println!("{port}: {} {}", found["mac_address"], found["fixed_ips"][0]["ip_address"]);
            let device = found["device_id"].as_str().context("a device or none")?;
            ensure!(device.is_empty() != is_plugged, "{port} is plugged into {device:?}");
        }
    }
    Ok(())
}
