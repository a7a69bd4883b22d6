//! Nodes of the provider `openstack` that boot from volumes, against a real Cinder.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cloud_tests::provider::{label, refused, says, with_provider};
use cloud_tests::{Api, Service, quota, stop, volumes, wait_for};
use serde_json::{Value, json};
use toci_edge::provider::Provider;
use toci_edge::provider::openstack::OpenStackConfig;

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
        *id = made["volume"]["id"].as_str().context("an id")?.to_owned();
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

#[test]
fn a_node_boots_from_a_volume_of_its_own() -> Result<()> {
    let _volumes = volumes()?;
    with_provider(
        |settings| {
            from_volumes(settings);
            // Both have a zone of this name.
            settings.zones = vec!["nova".into()];
        },
        async |provider| {
            let node = "tiny-stack-1";
            let begun = Instant::now();
            let machine = provider.create(node, &label("tiny")?).await?;
            println!("made and reached after {:?}", begun.elapsed());
            let there = all()?;
            let [booted] = there.as_slice() else { anyhow::bail!("not one volume: {there:?}") };
            ensure!(booted["name"] == node && booted["metadata"]["toci_node"] == node, "{booted}");
            ensure!(booted["status"] == "in-use" && booted["size"] == 1, "{booted}");
            let servers = Api::ci()?.get("compute", "/servers/detail")?;
            let server = &servers["servers"][0];
            ensure!(server["image"] == "", "it boots from an image: {server}");
            let attached = &server["os-extended-volumes:volumes_attached"];
            ensure!(attached[0]["id"] == booted["id"], "{attached}: {booted}");
            ensure!(booted["attachments"][0]["device"] == "/dev/vda", "{booted}");
            // Cinder's id is the disk's serial number.
            let serial = says(&machine, "cat /sys/block/vda/serial").await?;
            let id = booted["id"].as_str().context("an id")?;
            ensure!(!serial.is_empty() && id.starts_with(&serial), "{serial}: {booted}");
            // What somebody has put beside it is not ours.
            let [other] = by_hand([json!({})])?;
            let path = format!(
                "/servers/{}/os-volume_attachments",
                server["id"].as_str().unwrap_or_default()
            );
            let body = json!({"volumeAttachment": {"volumeId": other}});
            Api::ci()?.post("compute", &path, &body)?;
            until(&other, "in-use")?;
            let begun = Instant::now();
            provider.delete(node, &machine.token).await?;
            println!("deleted after {:?}", begun.elapsed());
            let left = all()?;
            ensure!(left.len() == 1 && left[0]["id"] == other.as_str(), "{left:?}");
            Api::ci()?.delete("volumev3", &format!("/volumes/{other}"))
        },
    )
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
fn a_volume_that_was_left_behind_is_found_by_its_mark_and_others_stay() -> Result<()> {
    let _volumes = volumes()?;
    with_provider(from_volumes, async |provider| {
        let ci = Api::ci()?;
        let machine = provider.create("tiny-stack-1", &label("tiny")?).await?;
        let kept = all()?[0]["id"].as_str().context("an id")?.to_owned();
        {
            // Nova cannot give a volume back while Cinder is away, and never tries again.
            let _stopped = stop(Service::CinderApi)?;
            let servers = ci.get("compute", "/servers")?;
            let id = servers["servers"][0]["id"].as_str().context("an id")?.to_owned();
            ci.delete("compute", &format!("/servers/{id}"))?;
            wait_for("the server to be gone", LIMIT, || {
                let servers = ci.get("compute", "/servers")?;
                ensure!(servers["servers"].as_array().is_some_and(Vec::is_empty), "{servers}");
                Ok(())
            })?;
        }
        until(&kept, "in-use").context("Nova has learned to give it back: this test is over")?;
        let mark = |owner: &str| json!({"toci_owner": owner, "toci_provider": "stack", "toci_node": "tiny-stack-9"});
        let [left, nobodys, somebodys] =
            by_hand([mark("provider-test"), json!({}), mark("somebody")])?;
        let nodes = provider.list().await?;
        ensure!(nodes.iter().eq(["tiny-stack-9"]), "one is lost, one was never known: {nodes:?}");
        provider.delete("tiny-stack-9", "").await?;
        provider.delete("tiny-stack-1", &machine.token).await?;
        let there: Vec<Value> = all()?.iter().map(|volume| volume["id"].clone()).collect();
        ensure!(!there.contains(&json!(left)) && !there.contains(&json!(kept)), "{there:?}");
        for other in [nobodys, somebodys] {
            ensure!(there.contains(&json!(other)), "somebody else's was deleted");
            ci.delete("volumev3", &format!("/volumes/{other}"))?;
        }
        Ok(())
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
