//! Nodes of the provider `openstack` that boot from volumes, against a real Cinder.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cloud_tests::provider::{label, refused, says, with_provider};
use cloud_tests::{Api, Service, quota, stop, volumes, wait_for};
use serde_json::{Value, json};
use toci_edge::provider::openstack::OpenStackConfig;
use toci_edge::provider::{Machine, Provider};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// Every node boots from a volume.
fn from_volumes(settings: &mut OpenStackConfig) {
    for shape in settings.shapes.values_mut() {
        shape.volume_gib = Some(1);
    }
}

/// The tenant's volumes.
fn all() -> Result<Vec<Value>> {
    let answer = Api::ci()?.get("volumev3", "/volumes/detail")?;
    Ok(answer["volumes"].as_array().context("a list of volumes")?.clone())
}

/// Volumes of the tenant that no provider made, with these metadata; they are there.
fn by_hand<const N: usize>(metadata: [Value; N]) -> Result<[String; N]> {
    let ci = Api::ci()?;
    let mut ids = [const { String::new() }; N];
    for (id, metadata) in ids.iter_mut().zip(metadata) {
        let body = json!({"volume": {"size": 1, "name": "by hand", "metadata": metadata}});
        let made = ci.post("volumev3", "/volumes", &body)?;
        *id = text(&made["volume"]["id"])?.to_owned();
    }
    for id in &ids {
        until(id, "available")?;
    }
    Ok(ids)
}

/// Waits until a volume has this status.
fn until(id: &str, status: &str) -> Result<()> {
    wait_for(&format!("a volume to be {status}"), LIMIT, || {
        let volume = Api::ci()?.get("volumev3", &format!("/volumes/{id}"))?;
        ensure!(volume["volume"]["status"] == status, "{volume}");
        Ok(())
    })
}

/// A node's server and its volume, which it really lies on.
async fn of_node(node: &str, machine: &Machine) -> Result<(Value, Value)> {
    let servers = Api::ci()?.get("compute", &format!("/servers/detail?name=^{node}$"))?;
    let server = servers["servers"][0].clone();
    ensure!(server["image"] == "", "it boots from an image: {server}");
    let of_it = |volume: &&Value| volume["metadata"]["toci_node"] == node;
    let there = all()?;
    let volume = there.iter().find(of_it).with_context(|| format!("{there:?}"))?.clone();
    ensure!(volume["name"] == node && volume["size"] == 1, "{volume}");
    ensure!(volume["status"] == "in-use", "{volume}");
    ensure!(volume["attachments"][0]["device"] == "/dev/vda", "{volume}");
    let attached = &server["os-extended-volumes:volumes_attached"];
    ensure!(attached[0]["id"] == volume["id"], "{attached}: {volume}");
    // Cinder's id is the disk's serial number.
    let serial = says(machine, "cat /sys/block/vda/serial").await?;
    ensure!(!serial.is_empty() && text(&volume["id"])?.starts_with(&serial), "{serial}: {volume}");
    Ok((server, volume))
}

/// Deletes a server while Cinder is away: Nova cannot give its volume back, and never tries again.
fn lose(server: &Value) -> Result<()> {
    let ci = Api::ci()?;
    let path = format!("/servers/{}", text(&server["id"])?);
    let _stopped = stop(Service::CinderApi)?;
    ci.delete("compute", &path)?;
    wait_for("the server to be gone", LIMIT, || match ci.get("compute", &path) {
        Err(error) if error.to_string().contains("404") => Ok(()),
        other => bail!("{other:?}"),
    })
}

/// An id, or another text of an answer.
fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

#[test]
fn a_node_boots_from_a_volume_that_goes_with_it_or_by_its_mark_and_others_stay() -> Result<()> {
    let _volumes = volumes()?;
    let change = |settings: &mut OpenStackConfig| {
        from_volumes(settings);
        // Both have a zone of this name.
        settings.zones = vec!["nova".into()];
    };
    with_provider(change, async |provider| {
        let (ci, tiny, begun) = (Api::ci()?, label("tiny")?, Instant::now());
        let [first, second] = ["tiny-stack-1", "tiny-stack-2"];
        let (one, two) =
            tokio::join!(provider.create(first, &tiny), provider.create(second, &tiny));
        let (one, two) = (one?, two?);
        println!("two were made and reached after {:?}", begun.elapsed());
        let (server, goes) = of_node(first, &one).await?;
        let (lost, kept) = of_node(second, &two).await?;
        let mark = |owner: &str| json!({"toci_owner": owner, "toci_provider": "stack", "toci_node": "tiny-stack-9"});
        let [left, nobodys, somebodys] =
            by_hand([mark("provider-test"), json!({}), mark("somebody")])?;
        // What somebody has put beside a node's own is not ours.
        let path = format!("/servers/{}/os-volume_attachments", text(&server["id"])?);
        ci.post("compute", &path, &json!({"volumeAttachment": {"volumeId": nobodys}}))?;
        until(&nobodys, "in-use")?;
        let begun = Instant::now();
        provider.delete(first, &one.token).await?;
        println!("one was deleted after {:?}", begun.elapsed());
        lose(&lost)?;
        let kept = text(&kept["id"])?;
        until(kept, "in-use").context("Nova has learned to give it back: nothing is shown")?;
        let nodes = provider.list().await?;
        ensure!(nodes.iter().eq(["tiny-stack-9"]), "one is lost, one was never known: {nodes:?}");
        provider.delete("tiny-stack-9", "").await?;
        provider.delete(second, &two.token).await?;
        let there: Vec<Value> = all()?.iter().map(|volume| volume["id"].clone()).collect();
        for gone in [text(&goes["id"])?, kept, &left] {
            ensure!(!there.contains(&json!(gone)), "{gone} is left: {there:?}");
        }
        for other in [nobodys, somebodys] {
            ensure!(there.contains(&json!(other)), "{other} was somebody else's");
            ci.delete("volumev3", &format!("/volumes/{other}"))?;
        }
        Ok(())
    })
}

#[test]
fn want_of_room_for_volumes_is_told_before_anything_else_is_made() -> Result<()> {
    let _volumes = volumes()?;
    let _cores = quota("compute", "cores", 1000)?;
    let _ram = quota("compute", "ram", 9_999_999)?;
    with_provider(from_volumes, async |provider| {
        let ci = Api::ci()?;
        {
            // What others have is not ours, and each of ours takes one.
            let _seven = quota("volumev3", "volumes", 7)?;
            let _five = quota("volumev3", "gigabytes", 5)?;
            let [other] = by_hand([json!({})])?;
            provider.list().await?;
            let room = provider.room().context("room after the first list")?;
            ensure!((room.quota.servers, room.capacity.servers) == (5, 4), "{room:?}");
            ci.delete("volumev3", &format!("/volumes/{other}"))?;
        }
        for (resource, words) in [
            ("volumes", "Maximum number of volumes allowed (0) exceeded"),
            ("gigabytes", "exceeds allowed gigabytes quota"),
        ] {
            let _none = quota("volumev3", resource, 0)?;
            let error = refused(provider.create("tiny-stack-1", &label("tiny")?).await)?;
            println!("{error}");
            ensure!(error.no_room && error.to_string().contains(words), "{error:?}");
            let ports = ci.get("network", "/ports?name=tiny-stack-1")?;
            ensure!(ports["ports"].as_array().is_some_and(Vec::is_empty), "{ports}");
            provider.delete("tiny-stack-1", "").await?;
        }
        // The volume of a server that no host has room for goes with it.
        let error = refused(provider.create("huge-stack-1", &label("huge")?).await)?;
        ensure!(error.to_string().contains("No valid host was found"), "{error}");
        Ok(provider.delete("huge-stack-1", "").await?)
    })
}

#[test]
fn a_volume_service_that_dies_is_told_and_leaves_nothing() -> Result<()> {
    let _volumes = volumes()?;
    with_provider(
        |settings| {
            from_volumes(settings);
            settings.launch_limit = Duration::from_secs(5);
        },
        async |provider| {
            let stopped = stop(Service::CinderVolume)?;
            let error = refused(provider.create("tiny-stack-1", &label("tiny")?).await)?;
            let told = error.to_string();
            ensure!(told.contains("after 5 s it is creating: see whether cinder"), "{told}");
            ensure!(!error.no_room, "{told}");
            // It cannot be deleted while it is being made, and then is.
            let back = tokio::task::spawn_blocking(move || drop(stopped));
            let (deleted, back) = tokio::join!(provider.delete("tiny-stack-1", ""), back);
            back?;
            deleted?;
            ensure!(all()?.is_empty(), "{:?}", all()?);
            let _stopped = stop(Service::CinderApi)?;
            let error = provider.list().await.err().context("what is not seen is not gone")?;
            ensure!(error.to_string().contains("list volumes"), "{error}");
            Ok(())
        },
    )
}
