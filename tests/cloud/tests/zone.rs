//! `toci cloud` at a real cloud: from nothing, drift, somebody else's things, a kill in the middle, what is no longer wished.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cloud_tests::{Api, Footprint, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where the cloud is and who may use it, within its sandbox.
const CLOUDS_YAML: &str = "/run/cloud/etc/clouds.yaml";
/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);
/// Exit codes of `toci` (docs/exit-codes.md).
const OK: i32 = 0;
const REFUSED: i32 = 110;
const DIFFERS: i32 = 117;

/// A zone of a project of its own, on a provider network that nothing else is on.
const ZONE: &str = "
cloud: admin
owner: zone-test
project: zone-test
projects: [zone-test]
users:
  - {name: zone-user, project: zone-test, password-env: ZONE_PASSWORD, roles: [member]}
assignments:
  - {user: admin, role: member, project: zone-test}
quotas:
  - project: zone-test
    compute: {cores: 7, ram-mib: 4096, instances: 5}
    network: {ports: 33, floating-ips: 3}
flavors:
  - {name: zone-flavor, vcpus: 1, ram-mib: 192, disk-gib: 1, extra-specs: {'toci:x': 'y'}}
key-pairs:
  - {name: zone-key, public-key-file: key.pub}
images:
  - {name: zone-image, file: image.raw, disk-format: raw, properties: {os_distro: toci}}
networks:
  - name: zone-lab
    provider: {type: flat, physical-network: physnet-lab}
    subnets:
      - {name: zone-lab, cidr: 192.0.2.0/24, gateway: none, dns: 192.0.2.53, pools: 192.0.2.100-192.0.2.150}
  - name: zone-net
    subnets: [{name: zone-net, cidr: 10.77.0.0/24, dns: [192.0.2.53, 192.0.2.54]}]
routers:
  - {name: zone-router, external-network: public, subnets: [zone-net]}
security-groups:
  - {name: default, rules: [{protocol: icmp}, {protocol: tcp, port: 22}]}
  - {name: zone-web, rules: [{protocol: tcp, port: 80-81, from: 10.77.0.0/24}]}
";

/// The broker: boots an image of the cloud.
const SERVER: &str = "
servers:
  - name: zone-broker
    image: tiny
    flavor: zone-flavor
    key-pair: zone-key
    networks:
      - zone-net
      - {network: zone-lab, address: 192.0.2.9, port-security: true}
    floating-ip: public
";

struct Zone {
    folder: TempDir,
}

impl Zone {
    /// The zone's files.
    fn new(text: &str) -> Result<Zone> {
        let folder = tempfile::tempdir()?;
        let key = folder.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status()
            .context("ssh-keygen (package openssh-client)")?;
        ensure!(made.success(), "ssh-keygen failed");
        fs::write(folder.path().join("image.raw"), vec![7; 3 << 20])?;
        let zone = Zone { folder };
        zone.write(text)?;
        Ok(zone)
    }

    fn write(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.folder.path().join("zone.yaml"), text)?)
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(e2e::binary("toci")?);
        command.arg("cloud").args(words).arg(self.folder.path().join("zone.yaml"));
        command.env("OS_CLIENT_CONFIG_FILE", CLOUDS_YAML).env("ZONE_PASSWORD", "zone-hush");
        command.env_remove("OS_CLOUD").current_dir(self.folder.path());
        Ok(command)
    }

    /// What it says on standard output, if it ends with this code.
    fn toci(&self, words: &[&str], code: i32) -> Result<String> {
        let Output { status, stdout, stderr } = self.command(words)?.output()?;
        let (out, err) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
        ensure!(
            status.code() == Some(code),
            "toci cloud {words:?} ended with {status}, not {code}\n{out}\n{err}"
        );
        ensure!(!out.contains("zone-hush") && !err.contains("zone-hush"), "it told the password");
        Ok(out)
    }

    fn is_as_wished(&self) -> Result<()> {
        self.toci(&["plan"], OK).map(drop)
    }
}

impl Drop for Zone {
    /// Leaves nothing, also when a test fails.
    fn drop(&mut self) {
        let none = "cloud: admin\nowner: zone-test\n";
        let swept = self.write(none).and_then(|()| self.toci(&["apply", "--prune"], OK));
        if let Err(error) = swept {
            println!("sweeping: {error}");
        }
        let key = Api::admin().and_then(|admin| admin.delete("compute", "/os-keypairs/zone-key"));
        if let Err(error) = key {
            println!("sweeping the key pair: {error}");
        }
    }
}

fn named(api: &Api, service: &str, path: &str, kind: &str, name: &str) -> Result<Value> {
    let answer = api.get(service, path)?;
    let all = answer[kind].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|item| item["name"] == name).with_context(|| format!("no {kind} {name}"))
}

fn id(thing: &Value) -> String {
    thing["id"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_zone_is_made_from_nothing_and_then_there_is_nothing_to_do() -> Result<()> {
    let before = Footprint::now()?;
    let admin = Api::admin()?;
    let groups = || -> Result<Value> { admin.get("network", "/security-groups?fields=id") };
    let groups_before = groups()?;
    {
        let zone = Zone::new(&format!("{ZONE}{SERVER}"))?;
        let plan = zone.toci(&["plan"], DIFFERS)?;
        ensure!(plan.contains("+ project zone-test") && !plan.contains("\n! "), "{plan}");
        zone.toci(&["apply"], OK)?;
        zone.is_as_wished()?;
        let again = zone.toci(&["apply"], OK)?;
        ensure!(again.starts_with("0 steps done"), "{again}");
        let json: Value = serde_json::from_str(&zone.toci(&["plan", "--json"], OK)?)?;
        ensure!(json == json!({"steps": [], "refused": [], "stale": []}), "{json}");

        // The user has its password, and its own eyes see what is there.
        let user = Api::login("zone-user", "zone-hush", "zone-test")?;
        let server = named(&user, "compute", "/servers/detail", "servers", "zone-broker")?;
        ensure!(server["status"] == "ACTIVE", "{server}");
        let addresses = server["addresses"].to_string();
        ensure!(addresses.contains("192.0.2.9") && addresses.contains("203.0.113."), "{addresses}");
        // Nothing is deleted without being asked for, and then in an order that works.
        zone.write(ZONE)?;
        let told = zone.toci(&["plan"], DIFFERS)?;
        ensure!(told.contains("? server zone-test/zone-broker: it is ours"), "{told}");
        zone.toci(&["apply"], OK)?;
        named(&user, "compute", "/servers/detail", "servers", "zone-broker")?;
        let pruned = zone.toci(&["apply", "--prune"], OK)?;
        ensure!(pruned.contains("- server zone-test/zone-broker"), "{pruned}");
        zone.is_as_wished()?;
    }
    ensure!(
        named(&admin, "identity", "/projects", "projects", "zone-test").is_err(),
        "left behind"
    );
    // Neutron's group `default` of the project too, of which Neutron never hears that it is gone.
    ensure!(groups()? == groups_before, "a security group is left behind");
    before.is_restored(LIMIT)
}

#[test]
fn what_somebody_changed_by_hand_is_put_right() -> Result<()> {
    let zone = Zone::new(ZONE)?;
    zone.toci(&["apply"], OK)?;
    let admin = Api::admin()?;
    let project = id(&named(&admin, "identity", "/projects", "projects", "zone-test")?);
    let quota = json!({"quota_set": {"cores": 3}});
    admin.put("compute", &format!("/os-quota-sets/{project}"), &quota)?;
    let ports = json!({"quota": {"port": 5}});
    admin.put("network", &format!("/quotas/{project}"), &ports)?;
    let subnet = id(&named(&admin, "network", "/subnets", "subnets", "zone-net")?);
    let dns = json!({"subnet": {"dns_nameservers": ["192.0.2.99"]}});
    admin.put("network", &format!("/subnets/{subnet}"), &dns)?;
    let rules = admin.get("network", &format!("/security-group-rules?project_id={project}"))?;
    let rules = rules["security_group_rules"].as_array().cloned().unwrap_or_default();
    let ssh = rules.iter().find(|rule| rule["port_range_min"] == 22).context("the rule for SSH")?;
    admin.delete("network", &format!("/security-group-rules/{}", id(ssh)))?;
    let flavor = id(&named(&admin, "compute", "/flavors", "flavors", "zone-flavor")?);
    admin.delete("compute", &format!("/flavors/{flavor}/os-extra_specs/toci:x"))?;
    let group = id(&named(&admin, "network", "/security-groups", "security_groups", "zone-web")?);
    let hole = json!({"security_group_rule": {
        "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "udp",
    }});
    let hole = admin.post("network", "/security-group-rules", &hole)?;

    let plan = zone.toci(&["plan"], DIFFERS)?;
    for expected in [
        "~ quota zone-test/limits\n      compute.cores: 3 -> 7\n      network.port: 5 -> 33\n",
        "~ subnet zone-test/zone-net\n      dns_nameservers: [192.0.2.99] -> [192.0.2.53, 192.0.2.54]\n",
        "+ rule zone-test/default: ingress IPv4 tcp 22 from any\n",
        "~ flavor zone-flavor\n      extra_specs.toci:x: none -> y\n",
        "! rule zone-test/zone-web: ingress IPv4 udp from any: somebody else has put it into our group",
        "\n1 to make, 3 to change, 1 left as they are",
    ] {
        ensure!(plan.contains(expected), "{expected}\nis not in\n{plan}");
    }
    zone.toci(&["apply"], REFUSED)?;
    let hole = id(&hole["security_group_rule"]);
    admin.delete("network", &format!("/security-group-rules/{hole}"))?;
    zone.is_as_wished()
}

#[test]
fn a_port_that_drifted_is_put_right_and_its_server_stays() -> Result<()> {
    let zone = Zone::new(&format!("{ZONE}{SERVER}"))?;
    zone.toci(&["apply"], OK)?;
    let admin = Api::admin()?;
    let port = named(&admin, "network", "/ports", "ports", "zone-broker-zone-lab")?;
    let body = json!({"port": {
        "security_groups": [], "port_security_enabled": false, "fixed_ips": [{"ip_address": "192.0.2.77"}],
    }});
    admin.put("network", &format!("/ports/{}", id(&port)), &body)?;
    let plan = zone.toci(&["plan"], DIFFERS)?;
    let expected = "~ port zone-test/zone-broker-zone-lab\n      fixed_ips: [192.0.2.77] -> [192.0.2.9]\n      port_security_enabled: false -> true\n";
    ensure!(plan.contains(expected), "{plan}");
    zone.toci(&["apply"], OK)?;
    zone.is_as_wished()?;
    let after = named(&admin, "network", "/ports", "ports", "zone-broker-zone-lab")?;
    ensure!(after["device_id"] == port["device_id"], "another server has the port: {after}");
    Ok(())
}

/// Something of the tenant's that is deleted in the end.
struct Foreign {
    api: Api,
    path: String,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Err(error) = self.api.delete("network", &self.path) {
            println!("deleting {}: {error}", self.path);
        }
    }
}

#[test]
fn somebody_elses_things_are_left_alone() -> Result<()> {
    let before = Footprint::now()?;
    {
        let ci = Api::ci()?;
        let made = ci.post("network", "/networks", &json!({"network": {"name": "zone-net"}}))?;
        let foreign = Foreign { path: format!("/networks/{}", id(&made["network"])), api: ci };
        let own = "cloud: ci\nowner: zone-tenant\nproject: ci\nnetworks:\n- name: zone-net\n  port-security: false\n  subnets: [{name: zone-sub, cidr: 10.78.0.0/24}]\n";
        let zone = Zone::new(own)?;
        let plan = zone.toci(&["plan"], DIFFERS)?;
        ensure!(
            plan.contains(
                "! network ci/zone-net: one of this name is there and was not made by this zone"
            ),
            "{plan}"
        );
        ensure!(plan.contains("! subnet ci/zone-sub: it waits for network ci/zone-net"), "{plan}");
        zone.toci(&["apply", "--prune"], REFUSED)?;
        let path = &foreign.path;
        let seen = foreign.api.get("network", path)?["network"].clone();
        ensure!(seen["port_security_enabled"] == true, "it was changed: {seen}");
        // A tenant's zone may adopt it: it is put right, and stays when the zone no longer names it.
        zone.write(&own.replace("- name: zone-net\n", "- name: zone-net\n  adopt: true\n"))?;
        let applied = zone.toci(&["apply"], OK)?;
        ensure!(
            applied.contains(
                "~ network ci/zone-net (adopted)\n      port_security_enabled: true -> false"
            ),
            "{applied}"
        );
        zone.is_as_wished()?;
        zone.write("cloud: ci\nowner: zone-tenant\n")?;
        let pruned = zone.toci(&["apply", "--prune"], OK)?;
        ensure!(
            pruned.contains("- subnet ci/zone-sub") && !pruned.contains("- network"),
            "{pruned}"
        );
        ensure!(foreign.api.get("network", path).is_ok(), "it was deleted");
    }
    before.is_restored(LIMIT)
}

#[test]
fn an_apply_that_is_killed_is_completed_by_the_next() -> Result<()> {
    let zone = Zone::new(ZONE)?;
    let mut steps = 0;
    // Killed at each of a few places: whatever it had begun, nothing is made twice.
    for seen in [2, 5, 9] {
        let mut child = zone.command(&["apply"])?.stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("standard output was piped")?;
        let lines = std::io::BufRead::lines(std::io::BufReader::new(out));
        let begun = lines.map_while(Result::ok).filter(|line| line.starts_with('[')).take(seen);
        steps += begun.count();
        child.kill()?;
        child.wait()?;
    }
    ensure!(steps > 5, "only {steps} steps were seen");
    wait_for("the last call of the killed one to end", LIMIT, || zone.toci(&["apply"], OK))?;
    zone.is_as_wished()?;
    let admin = Api::admin()?;
    for (service, path, kind, name) in [
        ("identity", "/projects", "projects", "zone-test"),
        ("network", "/networks", "networks", "zone-lab"),
        ("network", "/subnets", "subnets", "zone-net"),
        ("network", "/routers", "routers", "zone-router"),
        ("image", "/images?limit=500", "images", "zone-image"),
    ] {
        // An error when there are two.
        admin.id_of(service, path, kind, name)?;
    }
    Ok(())
}

#[test]
fn an_image_is_sent_once_and_one_that_changed_is_told() -> Result<()> {
    let zone = Zone::new(ZONE)?;
    zone.toci(&["apply"], OK)?;
    let admin = Api::admin()?;
    let image = named(&admin, "image", "/images?limit=500", "images", "zone-image")?;
    ensure!(image["size"] == 3 << 20 && image["os_distro"] == "toci", "{image}");
    let file = zone.folder.path().join("image.raw");
    fs::write(&file, vec![8; 1 << 20])?;
    let plan = zone.toci(&["plan"], DIFFERS)?;
    ensure!(
        plan.contains("! image zone-image: content: sha512:")
            && plan.contains("this cannot be changed"),
        "{plan}"
    );
    zone.toci(&["apply"], REFUSED)?;
    fs::write(&file, vec![7; 3 << 20])?;
    zone.is_as_wished()?;
    let after = named(&admin, "image", "/images?limit=500", "images", "zone-image")?;
    ensure!(after["id"] == image["id"] && after["updated_at"] == image["updated_at"], "{after}");
    Ok(())
}

#[test]
fn a_step_that_fails_says_what_is_done_and_how_to_go_on() -> Result<()> {
    let zone = Zone::new(&ZONE.replace(
        "{type: flat, physical-network: physnet-lab}",
        "{type: vlan, physical-network: physnet-none, segmentation-id: 150}",
    ))?;
    let Output { status, stderr, .. } = zone.command(&["apply"])?.output()?;
    let told = String::from_utf8(stderr)?;
    ensure!(status.code() == Some(1), "{status}: {told}");
    ensure!(
        told.contains("create network zone-test/zone-lab (step ") && told.contains("physnet-none"),
        "{told}"
    );
    ensure!(told.contains("are done and stay; mend the cause and apply again"), "{told}");
    zone.write(ZONE)?;
    zone.toci(&["apply"], OK)?;
    zone.is_as_wished()
}
