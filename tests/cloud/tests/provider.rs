//! The provider `openstack` against the real cloud: nodes made, reached, lost and deleted; faults told; nothing leaked.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cloud_tests::provider::{label, refused, says, with_provider};
use cloud_tests::{Api, Busy, Refusal, Service, quota, stop};
use serde_json::{Value, json};
use toci_edge::openstack::{CallCount, Cloud, Service as Kind, config};
use toci_edge::provider::Provider;

/// A group of the tenant that lets SSH in and nothing else; its id.
fn only_ssh(ci: &Api) -> Result<String> {
    let group = json!({"security_group": {"name": "only-ssh"}});
    let made = ci.post("network", "/security-groups", &group)?;
    let id = made["security_group"]["id"].as_str().context("an id")?.to_owned();
    let rule = json!({
        "security_group_id": id, "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22,
    });
    ci.post("network", "/security-group-rules", &json!({"security_group_rule": rule}))?;
    Ok(id)
}

#[test]
fn a_node_is_made_reached_found_again_and_deleted() -> Result<()> {
    let ci = Api::ci()?;
    let group = only_ssh(&ci)?;
    let lived = with_provider(
        |settings| {
            settings.security_groups = vec!["only-ssh".into()];
            settings.zones = vec!["nova".into()];
            settings.config_drive = true;
        },
        async |provider| {
            let node = "legs-stack-1";
            ensure!(provider.list().await?.is_empty());
            let begun = Instant::now();
            let machine = provider.create(node, &label("legs")?).await?;
            println!("made and reached after {:?}", begun.elapsed());
            ensure!(says(&machine, "hostname").await? == node);
            let addresses = says(&machine, "ip -4 -o address show").await?;
            ensure!(addresses.contains(" 198.18.0."), "no leg on the test network: {addresses}");
            let address = machine.address.context("an address")?;
            ensure!(address.to_string().starts_with("203.0.113."), "{address} is no floating IP");
            is_as_wished(&ci, &group, node)?;
            ensure!(provider.list().await?.contains(node));
            let again = provider.find(node, &machine.token).await?.context("it is there")?;
            ensure!(again == machine);
            ensure!(provider.find("legs-stack-2", &machine.token).await?.is_none());
            let begun = Instant::now();
            provider.delete(node, &machine.token).await?;
            println!("deleted after {:?}", begun.elapsed());
            ensure!(provider.list().await?.is_empty());
            ensure!(provider.find(node, &machine.token).await?.is_none());
            // Once more is no error.
            Ok(provider.delete(node, "").await?)
        },
    );
    let gone = ci.delete("network", &format!("/security-groups/{group}"));
    lived.and(gone)
}

/// The zone, the config drive and the groups of a server are those of the settings.
fn is_as_wished(ci: &Api, group: &str, node: &str) -> Result<()> {
    let servers = ci.get("compute", &format!("/servers/detail?name={node}"))?;
    let server = &servers["servers"][0];
    ensure!(server["OS-EXT-AZ:availability_zone"] == "nova", "{server}");
    ensure!(server["config_drive"] == "True", "{server}");
    let id = server["id"].as_str().context("an id")?;
    let ports = ci.get("network", &format!("/ports?device_id={id}"))?;
    let groups: Vec<&Value> = ports["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| &port["security_groups"])
        .collect();
    ensure!(groups == [&json!([group]), &json!([group])], "{groups:?}");
    Ok(())
}

#[test]
fn what_is_left_behind_is_found_by_its_mark_and_nothing_else_is_touched() -> Result<()> {
    with_provider(
        |_| {},
        async |provider| {
            let ci = Api::ci()?;
            let network = ci.id_of("network", "/networks", "networks", "private")?;
            let port = |description: &str| {
                let port = json!({"network_id": network, "description": description});
                ci.post("network", "/ports", &json!({"port": port}))
            };
            let left = port("toci:provider-test:stack:tiny-stack-9")?;
            let others = [port("")?, port("toci:somebody:stack:tiny-stack-9")?];
            let nodes = provider.list().await?;
            ensure!(nodes.iter().eq(["tiny-stack-9"]), "{nodes:?}");
            provider.delete("tiny-stack-9", "").await?;
            let path = |port: &serde_json::Value| {
                format!("/ports/{}", port["port"]["id"].as_str().unwrap_or_default())
            };
            ensure!(ci.get("network", &path(&left)).is_err(), "it is still there");
            for other in &others {
                ci.get("network", &path(other)).context("somebody else's was deleted")?;
                ci.delete("network", &path(other))?;
            }
            Ok(())
        },
    )
}

#[test]
fn a_server_without_a_host_or_an_answer_is_told_with_its_reason() -> Result<()> {
    let _cores = quota("compute", "cores", 1000)?;
    let _ram = quota("compute", "ram", 9_999_999)?;
    with_provider(
        |settings| settings.boot_limit = Duration::from_secs(60),
        async |provider| {
            let error = refused(provider.create("huge-stack-1", &label("huge")?).await)?;
            ensure!(error.to_string().contains("No valid host was found"), "{error}");
            ensure!(!error.no_room, "a host is short, not a quota: {error}");
            provider.delete("huge-stack-1", "").await?;
            let error = refused(provider.create("dead-stack-1", &label("dead")?).await)?;
            let told = error.to_string();
            ensure!(told.contains("after 60 s: its console has not told its host key"), "{told}");
            ensure!(told.contains("its console's last lines:"), "{told}");
            Ok(provider.delete("dead-stack-1", "").await?)
        },
    )
}

#[test]
fn quotas_are_known_before_and_a_refusal_is_no_failure() -> Result<()> {
    with_provider(
        |_| {},
        async |provider| {
            provider.list().await?;
            let room = provider.room().context("room after the first list")?;
            println!("room: {room:?}");
            ensure!(room.capacity.servers == 20 && room.capacity.cpus == 20, "{room:?}");
            ensure!(room.quota.servers == 20 && room.quota.cpus == 20, "{room:?}");
            let cost = room.costs.get(&label("tiny")?).context("a cost")?;
            ensure!((cost.cpus, cost.memory_mib) == (1, 192), "{cost:?}");
            for (service, resource) in
                [("compute", "instances"), ("network", "floatingip"), ("network", "port")]
            {
                let _none = quota(service, resource, 0)?;
                let error = refused(provider.create("tiny-stack-1", &label("tiny")?).await)?;
                println!("{error}");
                ensure!(error.no_room, "{resource}: {error}");
                provider.delete("tiny-stack-1", "").await?;
            }
            Ok(())
        },
    )
}

#[test]
fn a_cloud_that_hangs_is_told_and_leaves_nothing() -> Result<()> {
    with_provider(
        |settings| settings.launch_limit = Duration::from_secs(15),
        async |provider| {
            {
                let _stopped = stop(Service::NovaCompute)?;
                let error = refused(provider.create("tiny-stack-1", &label("tiny")?).await)?;
                let told = error.to_string();
                ensure!(told.contains("it is BUILD") || told.contains("No valid host"), "{told}");
            }
            provider.delete("tiny-stack-1", "").await?;
            let _gone = stop(Service::NovaApi)?;
            let error = provider.list().await.err().context("a list of no service")?;
            ensure!(error.to_string().contains("no answer: connect to"), "{error}");
            Ok(())
        },
    )
}

/// The tenant, with Nova and Neutron behind proxies that refuse calls.
fn busy_cloud(folder: &Path, nova: &Busy, neutron: &Busy) -> Result<Arc<Cloud>> {
    let clouds = folder.join("clouds.yaml");
    let text = format!(
        "clouds:\n  ci:\n    auth: {{auth_url: 'http://127.0.0.1:5000/v3', username: ci, password: ci, project_name: ci, \
         user_domain_name: Default, project_domain_name: Default}}\n    region_name: RegionOne\n    \
         compute_endpoint_override: 'http://127.0.0.1:{}/v2.1'\n    network_endpoint_override: 'http://127.0.0.1:{}'\n",
        nova.port(),
        neutron.port()
    );
    std::fs::write(&clouds, text)?;
    let mut place = config::Place::here();
    place.variables.insert("OS_CLIENT_CONFIG_FILE".to_owned(), clouds.display().to_string());
    Ok(Arc::new(Cloud::open(&place, Some("ci"), None)?))
}

#[test]
fn an_api_that_refuses_calls_is_asked_again_when_it_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let nova = Busy::before(8774, Refusal::TooMany { calls: 2, seconds: 2 })?;
    let neutron = Busy::before(9696, Refusal::Every(3))?;
    let cloud = busy_cloud(folder.path(), &nova, &neutron)?;
    let counted = Arc::clone(&cloud);
    with_provider(
        |settings| settings.cloud = cloud,
        async |provider| {
            let node = "tiny-stack-1";
            let machine = provider.create(node, &label("tiny")?).await?;
            ensure!(says(&machine, "hostname").await? == node);
            provider.delete(node, &machine.token).await?;
            ensure!(provider.list().await?.is_empty());
            let counts = counted.counts();
            let calls = |service: Kind, status: u16| -> u64 {
                let it = |c: &&CallCount| c.service == service && c.status == Some(status);
                counts.iter().filter(it).map(|count| count.count).sum()
            };
            let (too_many, busy) = (calls(Kind::Compute, 429), calls(Kind::Network, 503));
            println!("refused: {too_many} calls of Nova, {busy} calls of Neutron");
            ensure!(too_many > 0 && busy > 0, "nothing was refused: {counts:?}");
            ensure!(calls(Kind::Compute, 202) == 1, "one server was wanted: {counts:?}");
            Ok(())
        },
    )
}
