//! Nova on Ironic: a TE host of `toci host deploy --cloud`, and a node of the provider, are machines, with an image that Ironic's
//! agent has written onto their disks.
//!
//! As with other TE hosts here, the machine runs a small guest, and what a Debian would do at its first boot is done beside it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cloud_tests::provider::{label, says, with_provider};
use cloud_tests::{
    Api, BareMetal, Footprint, KeyPair, METAL_FLAVOR, METAL_NETWORK, Process, SITE_OWNER, Site,
    host_config, wait_for,
};
use toci_edge::openstack::{Cloud, CloudError, config};
use toci_edge::provider::openstack::{
    FlavorChoice, HostKeySource, OpenStack, OpenStackConfig, Shape,
};
use toci_edge::provider::{Machine, Provider};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(400);
/// The TE host. Its number gives the addresses of its seeds.
const HOST: &str = "tehost7";
/// The node.
const NODE: &str = "metal-stack-1";

#[test]
fn a_te_host_is_a_machine_of_ironic_and_given_back_clean() -> Result<()> {
    with_machine(a_te_host)
}

#[test]
fn a_node_is_a_machine_of_ironic_and_given_back_clean() -> Result<()> {
    with_machine(a_node)
}

/// Ironic's agent starts to serve and to fork at once; some never served, before `metal/start.py`.
#[test]
fn the_agent_of_machines_logs_while_it_forks() -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("metal/forks.py");
    let output = Command::new("/usr/bin/python3").arg("-B").arg(script).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// Runs a test while there is a machine; afterwards it is nobody's, and the tenant has what it had before.
fn with_machine(test: fn() -> Result<()>) -> Result<()> {
    let before = Footprint::now()?;
    {
        let metal = BareMetal::start(1)?;
        test()?;
        metal.is_free()?;
    }
    before.is_restored(LIMIT)
}

/// Deployed by the program itself, reached by the host key that it was given, serving, removed.
fn a_te_host() -> Result<()> {
    let site = Site::start("")?;
    let key = KeyPair::new("metal-te-host")?;
    let inventory = site.path("hosts.toml").display().to_string();
    let config = site.path("te.toml").display().to_string();
    fs::write(&config, host_config("@NAME@", &site.path("@NAME@"), "@ADDRESS@", &"@NUMBER@", 1))?;
    let mut deploy = vec!["toci", "host", "deploy", HOST, "--cloud", "ci", "--owner", SITE_OWNER];
    deploy.extend(["--image", "tiny", "--flavor", METAL_FLAVOR, "--network", "test"]);
    deploy.extend(["--access-network", METAL_NETWORK, "--key-pair", &key.name, "--give-host-key"]);
    deploy.extend(["--config", &config, "--boot-within", "10m", "--inventory", &inventory]);
    let begun = Instant::now();
    let deployed = deployed(&site, &key, &deploy);
    println!("TE host deployed: {:.1} s", begun.elapsed().as_secs_f64());
    site.toci(&["host", "remove", HOST, "--now", "--inventory", &inventory])?;
    println!("TE host removed: {:.1} s", begun.elapsed().as_secs_f64());
    deployed?;
    ensure!(site.toci(&["host", "list"])? == serde_json::json!([]), "the host is still known");
    site.has_no_ports(HOST)
}

fn deployed(site: &Site, key: &KeyPair, deploy: &[&str]) -> Result<()> {
    let mut deploying = site.spawn("deploy", deploy)?;
    let machine = booted(site, key, &mut deploying).with_context(|| deploying.tail())?;
    deploying.ends(LIMIT).with_context(|| site.logs())?;
    println!("{}", deploying.tail());
    site.ready(1)?;
    site.has_ports(HOST)?;
    drop(machine);
    // The cards are the machine's: the cloud's port has the MAC of the second one.
    let port = Api::ci()?.get("network", &format!("/ports?name=te_{HOST}"))?["ports"][0].clone();
    let mac = port["mac_address"].as_str().context("a MAC")?;
    ensure!(mac.starts_with("52:54:00:00:0") && mac.ends_with(":02"), "{port}");
    Ok(())
}

fn booted(site: &Site, key: &KeyPair, deploying: &mut Process) -> Result<Process> {
    // There is no console to learn a host key from: it is in the inventory before the server is asked for.
    let (address, host_key) = wait_for("the inventory", LIMIT, || {
        if let Err(ended) = deploying.runs() {
            return Ok(Err(ended));
        }
        let text = fs::read_to_string(site.path("hosts.toml"))?;
        let value = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).context(text.clone())?;
            Ok::<_, anyhow::Error>(line.split('"').nth(1).unwrap_or_default().to_owned())
        };
        Ok(Ok((value("ssh = \"root@")?.replace("root@", ""), value("host_key")?)))
    })??;
    let data = wait_for("the machine to boot its image", LIMIT, || {
        deploying.runs().map_or_else(
            |ended| Ok(Err(ended)),
            |()| {
                let command = "cat /run/config/openstack/latest/user_data && ip link set eth1 down";
                key.ssh(&address, std::slice::from_ref(&host_key), command).map(Ok)
            },
        )
    })??;
    site.first_boot(HOST, &data)
}

/// Made by the provider, used over SSH, deleted.
fn a_node() -> Result<()> {
    let change = |settings: &mut OpenStackConfig| {
        let tiny = label("tiny").ok().and_then(|tiny| settings.shapes.remove(&tiny));
        let shape = tiny.map(|shape| Shape {
            flavor: FlavorChoice::Named(METAL_FLAVOR.into()),
            networks: vec![METAL_NETWORK.into(), "test".into()],
            ..shape
        });
        settings.shapes = label("metal").ok().zip(shape).into_iter().collect();
        settings.host_key = HostKeySource::UserData;
        settings.config_drive = true;
        settings.floating_network = None;
        settings.launch_limit = LIMIT;
    };
    with_provider(change, async |provider| {
        let begun = Instant::now();
        let machine = provider.create(NODE, &label("metal")?).await?;
        println!("made and reached: {:.1} s", begun.elapsed().as_secs_f64());
        is_a_machine(provider, &machine).await?;
        provider.delete(NODE, &machine.token).await?;
        println!("deleted: {:.1} s", begun.elapsed().as_secs_f64());
        ensure!(provider.list().await?.is_empty(), "it is still there");
        Ok(())
    })
}

async fn is_a_machine(provider: &OpenStack, machine: &Machine) -> Result<()> {
    let told = "hostname; cat /sys/class/net/eth?/address; ip -4 -o address show";
    let said = says(machine, told).await?;
    println!("{said}");
    ensure!(said.starts_with(NODE), "the name is from the config drive: {said}");
    // The cards are the machine's, in their order.
    let cards: Vec<&str> = said.lines().filter(|line| line.starts_with("52:54:00:00:0")).collect();
    let in_order = matches!(cards[..], [a, b] if a.ends_with(":01") && b.ends_with(":02"));
    ensure!(in_order, "{said}");
    let address = machine.address.context("an address")?.to_string();
    ensure!(address.starts_with("198.19.0.") && said.contains(&format!(" {address}/")), "{said}");
    ensure!(said.contains(" 198.18.0."), "no leg on the test network: {said}");
    let again = provider.find(NODE, &machine.token).await?.context("it is there")?;
    ensure!(again == *machine, "{again:?}");
    // Which is why its host key is in its user data.
    let cloud = Cloud::open(&config::Place::here(), Some("ci"), None)?;
    let servers = cloud.servers(&[("name", NODE)]).await?;
    let server = servers.first().context("no server")?;
    match cloud.console(&server.id, 10).await {
        Err(CloudError::Refused { status: 501, .. }) => Ok(()),
        other => bail!("a machine has a console: {other:?}"),
    }
}
