//! The test network's ports in the real Neutron: made for what TE hosts report, kept right, and removed again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cloud_tests::{Api, Footprint, Service, Site, stop, wait_for};
use serde_json::{Value, json};

/// Longest wait for what server and cloud do in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// Ports of the test network, but for the cloud's own, by name.
fn ports() -> Result<BTreeMap<String, Value>> {
    let ci = Api::ci()?;
    let network = ci.id_of("network", "/networks", "networks", "test")?;
    let answer = ci.get("network", &format!("/ports?network_id={network}"))?;
    let all = answer["ports"].as_array().cloned().unwrap_or_default();
    let own = |port: &Value| port["device_owner"].as_str().unwrap_or("").starts_with("network:");
    let named = |port: Value| (port["name"].as_str().unwrap_or_default().to_owned(), port);
    Ok(all.into_iter().filter(|port| !own(port)).map(named).collect())
}

/// What is to be kept right of a port, in one line.
fn line(port: &Value) -> String {
    format!(
        "{} {} security {} {} allowed {} {}",
        port["mac_address"].as_str().unwrap_or_default(),
        port["fixed_ips"][0]["ip_address"].as_str().unwrap_or_default(),
        port["port_security_enabled"],
        port["security_groups"],
        port["allowed_address_pairs"],
        port["description"].as_str().unwrap_or_default(),
    )
}

/// What a port of a leg should be, in the words of [`line`].
fn wished(
    site: &Site,
    group: &str,
    host: u8,
    domain: Option<&str>,
    address: &str,
) -> Result<String> {
    let host = site.host(host)?;
    let mac = match domain {
        None => host.enter(&["cat", "/sys/class/net/tedev/address"])?,
        Some(domain) => {
            let xml = host.enter(&["virsh", "dumpxml", domain])?;
            let (_, rest) = xml.split_once("<mac address='").context("a MAC")?;
            rest.split('\'').next().unwrap_or_default().to_owned()
        }
    };
    let (mac, name) = (mac.trim(), &host.name);
    Ok(format!("{mac} {address} security true [\"{group}\"] allowed [] toci-testnet:site:{name}"))
}

/// Waits until the ports are these and no more; prints how long it took.
fn become_these(what: &str, site: &Site, all: &BTreeMap<String, String>) -> Result<()> {
    let begun = Instant::now();
    wait_for(what, LIMIT, || {
        let now = ports()?;
        let lines: BTreeMap<String, String> =
            now.iter().map(|(name, port)| (name.clone(), line(port))).collect();
        ensure!(lines == *all, "{lines:#?}, not {all:#?}\n{}", site.logs());
        Ok(())
    })?;
    println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn patch(port: &Value, change: Value) -> Result<()> {
    let path = format!("/ports/{}", port["id"].as_str().unwrap_or_default());
    Api::ci()?.put("network", &path, &json!({"port": change})).map(drop)
}

/// A port that is not the site's; deleted when this is dropped.
struct Stranger(String);

impl Stranger {
    fn new(name: &str, more: &Value) -> Result<Stranger> {
        let ci = Api::ci()?;
        let network = ci.id_of("network", "/networks", "networks", "test")?;
        let mut port = json!({"name": name, "network_id": network});
        for (key, value) in more.as_object().into_iter().flatten() {
            port[key] = value.clone();
        }
        let made = ci.post("network", "/ports", &json!({"port": port}))?;
        Ok(Stranger(made["port"]["id"].as_str().context("an id")?.to_owned()))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Footprint tells when this did not work.
        let _ = Api::ci().map(|ci| ci.delete("network", &format!("/ports/{}", self.0)));
    }
}

/// A security group for the ports, by its id; deleted when this is dropped.
struct Group(String);

/// Its name.
const GROUP: &str = "testenvs";

impl Group {
    fn new() -> Result<Group> {
        let group = json!({"security_group": {"name": GROUP}});
        let made = Api::ci()?.post("network", "/security-groups", &group)?;
        Ok(Group(made["security_group"]["id"].as_str().context("an id")?.to_owned()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Footprint tells when this did not work.
        let _ = Api::ci().map(|ci| ci.delete("network", &format!("/security-groups/{}", self.0)));
    }
}

#[test]
fn ports_follow_te_hosts_and_are_kept_right() -> Result<()> {
    let before = Footprint::now()?;
    {
        let others = json!({"description": "toci-testnet:other:tehost1"});
        let _strangers =
            [Stranger::new("te_tehost1_9", &json!({}))?, Stranger::new("te_other", &others)?];
        let mut all: BTreeMap<String, String> =
            ports()?.iter().map(|(name, port)| (name.clone(), line(port))).collect();
        let squats = json!({"fixed_ips": [{"ip_address": "198.18.0.11"}]});
        let squatter = Stranger::new("squatter", &squats)?;
        let group = Group::new()?;
        let mut site = Site::start(&format!("security_groups = [{GROUP:?}]"))?;
        site.add_host(1, 2)?;
        site.add_host(2, 1)?;
        site.ready(3)?;
        let strangers = all.clone();
        for (host, domain, address) in [
            (1, None, "198.18.0.10"),
            (1, Some("seed_1"), "198.18.0.11"),
            (1, Some("seed_2"), "198.18.0.12"),
            (2, None, "198.18.0.20"),
            (2, Some("seed_1"), "198.18.0.21"),
        ] {
            let number = domain.and_then(|domain| domain.strip_prefix("seed_"));
            let name =
                number.map_or(format!("te_tehost{host}"), |n| format!("te_tehost{host}_{n}"));
            all.insert(name, wished(&site, &group.0, host, domain, address)?);
        }
        let mut without = all.clone();
        without.remove("te_tehost1_1");
        without.insert("squatter".into(), line(ports()?.get("squatter").context("a port")?));
        become_these("made, but for one whose address is somebody's", &site, &without)?;
        let told = told(&site)?;
        println!("{told}");
        ensure!(told.contains("te_tehost1_1") && told.contains("198.18.0.11"), "{told}");
        drop(squatter);
        become_these("made", &site, &all)?;
        well(&site)?;
        drifted(&site, &all)?;
        without_neutron(&site, &all)?;

        site.change_host(1, 1)?;
        all.remove("te_tehost1_2");
        become_these("a TE gone", &site, &all)?;
        // A host that says nothing keeps its ports; one that is forgotten does not.
        site.end_host(1);
        site.end_host(2);
        site.forget_host("tehost2")?;
        all.retain(|name, _| !name.starts_with("te_tehost2"));
        become_these("a host forgotten", &site, &all)?;
        site.forget_host("tehost1")?;
        become_these("all forgotten", &site, &strangers)?;
    }
    before.is_restored(LIMIT)
}

/// Ports that somebody changes are put right, and adopted when they lost their mark.
fn drifted(site: &Site, all: &BTreeMap<String, String>) -> Result<()> {
    let now = ports()?;
    let port = |name: &str| now.get(name).with_context(|| format!("no port {name}"));
    patch(port("te_tehost1")?, json!({"name": "by-hand", "description": ""}))?;
    let wide = json!([{"ip_address": "0.0.0.0/0"}]);
    patch(port("te_tehost1_1")?, json!({"allowed_address_pairs": wide}))?;
    patch(port("te_tehost1_2")?, json!({"fixed_ips": [{"ip_address": "198.18.0.66"}]}))?;
    let open = json!({"security_groups": [], "port_security_enabled": false});
    patch(port("te_tehost2")?, open)?;
    let id = port("te_tehost2_1")?["id"].as_str().unwrap_or_default().to_owned();
    Api::ci()?.delete("network", &format!("/ports/{id}"))?;
    become_these("drift put right", site, all)?;
    let adopted = ports()?.get("te_tehost1").map(|port| port["id"].clone());
    ensure!(adopted == Some(port("te_tehost1")?["id"].clone()), "it was made anew: {adopted:?}");
    Ok(())
}

/// What is wrong with the test network, by `toci alerts`.
fn alert(site: &Site) -> Result<Option<String>> {
    let testnet = site.toci(&["alerts"])?["testnet"].clone();
    Ok((!testnet.is_null()).then(|| testnet["problems"].to_string()))
}

/// What is told when something is wrong.
fn told(site: &Site) -> Result<String> {
    wait_for("an alert", LIMIT, || {
        alert(site)?.with_context(|| format!("no alert\n{}", site.logs()))
    })
}

/// Waits until nothing is wrong.
fn well(site: &Site) -> Result<()> {
    wait_for("no alert", LIMIT, || match alert(site)? {
        None => Ok(()),
        Some(told) => bail!("{told}\n{}", site.logs()),
    })
}

/// A Neutron that is gone is told, and what changed meanwhile is put right when it is back.
fn without_neutron(site: &Site, all: &BTreeMap<String, String>) -> Result<()> {
    ensure!(alert(site)?.is_none(), "{:?}", alert(site)?);
    patch(ports()?.get("te_tehost1_1").context("a port")?, json!({"name": "x"}))?;
    let (begun, stopped) = (Instant::now(), stop(Service::NeutronServer)?);
    let told = told(site)?;
    println!("Neutron gone, told after {:.1} s: {told}", begun.elapsed().as_secs_f64());
    ensure!(told.contains("no answer: connect to"), "{told}");
    drop(stopped);
    let begun = Instant::now();
    well(site)?;
    println!("Neutron back, told after {:.1} s", begun.elapsed().as_secs_f64());
    become_these("what changed before", site, all)
}
