//! Our client of OpenStack (`edge/openstack`) against the real services, also while these are disturbed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cloud_tests::{
    Api, Footprint, Service, host_keys, pause, quota, revoke_tokens, stop, token_lifetime,
};
use serde_json::json;
use toci_edge::openstack::{BootDisk, Cloud, CloudError, NewImage, NewServer, Nic, Server, config};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The tenant as toci finds it: by clouds.yaml, which the sandbox names in the environment.
fn ci() -> Result<Cloud> {
    Ok(Cloud::open(&config::Place::here(), Some("ci"), None)?)
}

/// Runs a test; afterwards the tenant has what it had before.
fn with_the_tenant<T: AsyncFnOnce(&Cloud) -> Result<()>>(test: T) -> Result<()> {
    let before = Footprint::now()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tested = runtime.block_on(async { test(&ci()?).await });
    tested.and(before.is_restored(LIMIT))
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Asks for a server of this flavor on the tenant's network.
async fn server(cloud: &Cloud, flavor: &str, drive: bool) -> Result<Result<String, CloudError>> {
    let flavors = cloud.flavors().await?;
    let flavor = flavors.iter().find(|f| f.name == flavor).context("the flavor")?;
    let images = cloud.images(&[("name", "tiny")]).await?;
    let networks = cloud.networks(&[("name", "private")]).await?;
    let new = NewServer {
        name: "client-test",
        flavor: &flavor.id,
        boot: BootDisk::Image(images[0].id.clone()),
        nics: &[Nic::Network(networks[0].id.clone())],
        security_groups: &[],
        zone: None,
        key: None,
        config_drive: drive,
        user_data: None,
        metadata: BTreeMap::from([("toci_owner".to_owned(), "test".to_owned())]),
    };
    Ok(cloud.create_server(&new).await)
}

async fn until_status(cloud: &Cloud, id: &str, status: &str) -> Result<Server> {
    until(&format!("server {status}"), async || {
        let server = cloud.server(id).await?.context("the server is gone")?;
        let is_other_end = server.status == "ERROR" && status != "ERROR";
        ensure!(!is_other_end, "{:?}", server.fault);
        Ok((server.status == status).then_some(server))
    })
    .await
}

async fn delete(cloud: &Cloud, id: &str) -> Result<()> {
    cloud.delete_server(id).await?;
    until("the server is gone", async || Ok(cloud.server(id).await?.is_none().then_some(()))).await
}

#[test]
fn a_servers_life_with_port_floating_address_key_pair_and_console() -> Result<()> {
    with_the_tenant(async |cloud| {
        let me = cloud.whoami().await?;
        ensure!(me.user_name == "ci" && me.roles.contains(&"member".to_owned()), "{me:?}");
        let limits = cloud.limits().await?;
        ensure!(limits.instances == (0, Some(20)), "{limits:?}");
        cloud.create_key_pair("client-test", include_str!("openstack_client.pub").trim()).await?;
        ensure!(cloud.key_pairs().await?.iter().any(|k| k.name == "client-test"), "no key pair");
        let id = server(cloud, "tiny", true).await??;
        let active = until_status(cloud, &id, "ACTIVE").await?;
        ensure!(active.metadata["toci_owner"] == "test", "{active:?}");
        ensure!(active.flavor.original_name == "tiny" && active.addresses.contains_key("private"));
        ensure!(cloud.limits().await?.instances == (1, Some(20)));
        let ports = cloud.ports(&[("device_id", &id)]).await?;
        let public = cloud.networks(&[("name", "public")]).await?;
        ensure!(ports.len() == 1 && public[0].external, "{ports:?} {public:?}");
        let floating = cloud.create_floating_ip(&public[0].id, &ports[0].id, "toci:test").await?;
        ensure!(floating.description == "toci:test", "{floating:?}");
        let project = me.project_id.context("a project")?;
        let quotas = cloud.network_quotas(&project).await?.context("quotas of Neutron")?;
        let left = quotas["floatingip"].left();
        let keys = until("host keys on the console", async || {
            let keys = host_keys(&cloud.console(&id, 50).await?);
            Ok((!keys.is_empty()).then_some(keys))
        })
        .await;
        ensure!(cloud.delete_floating_ip(&floating.id).await?, "it was not there");
        ensure!(!cloud.delete_floating_ip(&floating.id).await?, "it was there twice");
        delete(cloud, &id).await?;
        ensure!(!cloud.delete_server(&id).await?, "the server was there twice");
        ensure!(cloud.delete_key_pair("client-test").await?, "no key pair to delete");
        let keys = keys?;
        ensure!(keys[0].starts_with("ssh-ed25519 "), "{keys:?}");
        ensure!(left == 29, "{quotas:?}");
        Ok(())
    })
}

#[test]
fn an_image_goes_there_whole() -> Result<()> {
    with_the_tenant(async |cloud| {
        let properties = BTreeMap::from([("toci_image".to_owned(), "7".to_owned())]);
        let new = NewImage { name: "client-test", disk_format: "qcow2", properties };
        let id = cloud.create_image(&new).await?.id;
        let file = std::path::Path::new("/run/cloud/images/node.qcow2");
        cloud.upload_image(&id, file).await?;
        let image = cloud.image(&id).await?.context("the image")?;
        let size = image.other.get("size").and_then(|size| size.as_u64());
        let deleted = cloud.delete_image(&id).await?;
        ensure!(image.status == "active" && image.property("toci_image") == Some("7"), "{image:?}");
        ensure!(size == Some(file.metadata()?.len()), "{image:?}");
        ensure!(deleted && cloud.image(&id).await?.is_none());
        Ok(())
    })
}

#[test]
fn each_quota_that_is_used_up_is_told_as_such() -> Result<()> {
    with_the_tenant(async |cloud| {
        for (service, resource) in [
            ("compute", "instances"),
            ("compute", "cores"),
            ("compute", "ram"),
            ("network", "port"),
        ] {
            let used = i64::from(resource == "port");
            let _full = quota(service, resource, used)?;
            match server(cloud, "tiny", false).await? {
                Err(CloudError::OverQuota { said, .. }) => println!("{resource}: {said}"),
                other => bail!("{resource}: {other:?}"),
            }
        }
        let _full = quota("network", "floatingip", 0)?;
        let public = cloud.networks(&[("name", "public")]).await?;
        let private = cloud.networks(&[("name", "private")]).await?;
        let port = cloud.create_port(json!({"network_id": private[0].id})).await?;
        let refused = cloud.create_floating_ip(&public[0].id, &port.id, "toci:test").await;
        ensure!(cloud.delete_port(&port.id).await?, "the port was not there");
        match refused {
            Err(CloudError::OverQuota { said, .. }) => println!("floatingip: {said}"),
            other => bail!("floatingip: {other:?}"),
        }
        Ok(())
    })
}

#[test]
fn a_server_without_room_says_so_and_one_without_a_compute_node_stays_in_build() -> Result<()> {
    with_the_tenant(async |cloud| {
        {
            let (_cores, _ram) = (quota("compute", "cores", -1)?, quota("compute", "ram", -1)?);
            let id = server(cloud, "huge", false).await??;
            let failed = until_status(cloud, &id, "ERROR").await;
            delete(cloud, &id).await?;
            let fault = failed?.fault.context("no fault is told")?;
            ensure!(fault.message.contains("No valid host"), "{fault:?}");
        }
        let stopped = stop(Service::NovaCompute)?;
        let id = server(cloud, "tiny", false).await??;
        let scheduled = until("the server is with its compute node", async || {
            let server = cloud.server(&id).await?.context("the server is gone")?;
            println!("{} {:?}", server.status, server.task);
            Ok((server.status == "BUILD").then_some(()))
        })
        .await;
        cloud.delete_server(&id).await?;
        drop(stopped);
        scheduled?;
        until("the server is gone", async || Ok(cloud.server(&id).await?.is_none().then_some(())))
            .await
    })
}

#[test]
fn tokens_that_end_early_are_replaced() -> Result<()> {
    with_the_tenant(async |cloud| {
        cloud.whoami().await?;
        revoke_tokens()?;
        // No service has seen this token yet, so none can go on believing it.
        ensure!(!cloud.networks(&[]).await?.is_empty(), "no networks");
        let _short = token_lifetime(3)?;
        let short = ci()?;
        for _ in 0..4 {
            ensure!(!short.networks(&[]).await?.is_empty(), "no networks");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    })
}

#[test]
fn services_that_are_away_are_named_and_used_again_when_they_are_back() -> Result<()> {
    with_the_tenant(async |cloud| {
        cloud.whoami().await?;
        {
            let _nova = stop(Service::NovaApi)?;
            let error = cloud.servers(&[]).await.unwrap_err();
            ensure!(matches!(error, CloudError::Unreachable { .. }) && error.may_pass(), "{error}");
            ensure!(error.to_string().contains(":8774/"), "{error}");
            // Others go on.
            cloud.networks(&[]).await?;
        }
        cloud.servers(&[]).await?;
        {
            let _neutron = stop(Service::NeutronServer)?;
            let error = cloud.networks(&[]).await.unwrap_err();
            ensure!(error.may_pass() && error.to_string().contains(":9696/"), "{error}");
        }
        cloud.networks(&[]).await?;
        {
            let _keystone = stop(Service::Keystone)?;
            let error = ci()?.whoami().await.unwrap_err();
            ensure!(error.may_pass() && error.to_string().contains(":5000/"), "{error}");
        }
        ci()?.whoami().await?;
        let deaf = pause(Service::Glance)?;
        let asked = Instant::now();
        let waiting = async { cloud.images(&[]).await };
        let mending = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(deaf);
        };
        let (images, ()) = tokio::join!(waiting, mending);
        ensure!(!images?.is_empty() && asked.elapsed() >= Duration::from_secs(3));
        Ok(())
    })
}

#[test]
fn wrong_credentials_are_told_and_what_others_made_is_seen() -> Result<()> {
    with_the_tenant(async |cloud| {
        let mut place = config::Place::here();
        place.variables.insert("OS_CLIENT_CONFIG_FILE".to_owned(), "/nowhere".to_owned());
        for (name, value) in [
            ("OS_AUTH_URL", "http://127.0.0.1:5000"),
            ("OS_USERNAME", "ci"),
            ("OS_PASSWORD", "not-it"),
            ("OS_PROJECT_NAME", "ci"),
            ("OS_USER_DOMAIN_NAME", "Default"),
            ("OS_PROJECT_DOMAIN_NAME", "Default"),
            ("OS_REGION_NAME", "RegionOne"),
        ] {
            place.variables.insert(name.to_owned(), value.to_owned());
        }
        let refused = Cloud::open(&place, None, None)?.whoami().await.unwrap_err();
        ensure!(matches!(refused, CloudError::Unauthorised { .. }), "{refused}");
        ensure!(!refused.to_string().contains("not-it"), "the password is told: {refused}");
        place.variables.insert("OS_PASSWORD".to_owned(), "ci".to_owned());
        let other = Cloud::open(&place, None, None)?;
        ensure!(other.whoami().await?.user_id == Api::ci()?.user, "somebody else");
        ensure!(other.networks(&[]).await?.len() == cloud.networks(&[]).await?.len());
        Ok(())
    })
}
