//! Images of our own in the real Glance: uploaded, tried by a server that boots, used, built anew, deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cloud_tests::{Api, Footprint, forget_key_pairs};
use serde_json::Value;
use toci_core::id::Label;
use toci_core::node::ImageState;
use toci_edge::openstack::{Cloud, config};
use toci_edge::provider::image::{ImageConfig, ImageSource};
use toci_edge::provider::openstack::{
    FlavorChoice, HostKeySource, ImageChoice, ImageFormat, OpenStack, OpenStackConfig, Shape,
};
use toci_edge::provider::{ImageView, Provider};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(300);
/// Whose mark images and servers carry.
const OWNER: &str = "image-test";
/// A disk that a node boots from, as an operator would have it.
const FILE: &str = "/run/cloud/images/node.qcow2";

fn label() -> Result<Label> {
    Label::new("own").map_err(|_| anyhow::anyhow!("no label"))
}

/// A provider whose nodes boot from an image of ours. Glance keeps it raw, as Ceph wants it, and nodes are given their host
/// keys, as where the cloud shows no consoles.
fn settings(cloud: &Arc<Cloud>, state: &Path) -> Result<OpenStackConfig> {
    let shape = Shape {
        image: ImageChoice::Ours("own".into()),
        flavor: FlavorChoice::Named("tiny".into()),
        networks: vec!["private".into()],
        volume_gib: None,
    };
    let image =
        ImageConfig { source: ImageSource::File(FILE.into()), rebuild: None, build_limit: LIMIT };
    Ok(OpenStackConfig {
        name: "stack".into(),
        cloud: Arc::clone(cloud),
        owner: Some(OWNER.into()),
        state: state.join("state"),
        built: state.join("built"),
        user: "root".into(),
        key: None,
        host_key: HostKeySource::UserData,
        floating_network: Some("public".into()),
        security_groups: Vec::new(),
        zones: Vec::new(),
        config_drive: false,
        user_data: None,
        image_format: ImageFormat::Raw,
        launch_limit: LIMIT,
        boot_limit: LIMIT,
        shapes: BTreeMap::from([(label()?, shape)]),
        images: BTreeMap::from([("own".into(), image)]),
    })
}

/// What Glance has of ours: a line for each, and its ids.
fn in_glance() -> Result<(String, BTreeSet<String>)> {
    let answer = Api::ci()?.get("image", &format!("/images?toci_owner={OWNER}"))?;
    let images = answer["images"].as_array().context("a list")?;
    let line = |image: &Value| {
        let [name, status, format] =
            ["name", "status", "disk_format"].map(|key| image[key].as_str().unwrap_or_default());
        format!("{name} {status} {format}")
    };
    let lines: Vec<String> = images.iter().map(line).collect();
    let ids = images.iter().filter_map(|image| image["id"].as_str().map(str::to_owned)).collect();
    Ok((lines.join("\n"), ids))
}

/// Waits until one of the provider's images is ready that is not `but_not`, and until `enough` of all of them; which one.
async fn ready(
    provider: &OpenStack,
    but_not: &str,
    enough: impl Fn(&[ImageView]) -> bool,
) -> Result<String> {
    let end = Instant::now() + LIMIT;
    let mut before = String::new();
    loop {
        // Every look wakes whoever looks after the images.
        provider.list().await?;
        let images = provider.images();
        let told: Vec<String> = images
            .iter()
            .map(|view| format!("{} {:?} {}", view.image.id, view.image.state, view.told))
            .collect();
        let told = told.join("\n");
        if told != before {
            println!("{told}\n");
            before.clone_from(&told);
        }
        let is_new =
            |view: &&ImageView| view.image.state == ImageState::Ready && view.image.id != but_not;
        if let Some(view) = images.iter().find(is_new).filter(|_| enough(&images)) {
            return Ok(view.image.id.clone());
        }
        if Instant::now() > end {
            bail!("after {LIMIT:?}:\n{told}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn lives(provider: &OpenStack) -> Result<()> {
    let begun = Instant::now();
    // The first one is tried with a server of its own.
    let alone = |images: &[ImageView]| images.len() == 1;
    let first = ready(provider, "", alone).await?;
    println!("uploaded and tried after {:.1} s", begun.elapsed().as_secs_f64());
    let (told, ids) = in_glance()?;
    ensure!(told == format!("toci-{first} active raw"), "{told}");
    ensure!(provider.list().await?.is_empty(), "the try has left a server");

    let machine = provider.create("own-stack-1", &label()?).await?;
    println!("a node after {:.1} s", begun.elapsed().as_secs_f64());
    let said = machine.session.run("a test", "hostname", b"", LIMIT).await?;
    ensure!(said.text().trim() == "own-stack-1", "{}", said.text());

    // A new one takes over when it has been tried; one that a node lies on stays until that is gone.
    ensure!(provider.rebuild("own"), "there is no such image");
    let second = ready(provider, &first, |_| true).await?;
    let both = provider.images();
    ensure!(both.iter().any(|view| view.image.id == first), "a node lies on {first}: {both:?}");
    println!("another one after {:.1} s", begun.elapsed().as_secs_f64());
    provider.delete("own-stack-1", &machine.token).await?;
    ensure!(ready(provider, &first, alone).await? == second);
    let (told, left) = in_glance()?;
    ensure!(told == format!("toci-{second} active raw"), "{told}");
    ensure!(left.is_disjoint(&ids), "{first} is still there");
    Ok(())
}

#[test]
fn an_image_of_ours_is_uploaded_tried_used_and_replaced() -> Result<()> {
    let before = Footprint::now()?;
    let folder = tempfile::tempdir()?;
    let cloud = Arc::new(Cloud::open(&config::Place::here(), Some("ci"), None)?);
    let provider = OpenStack::new(self::settings(&cloud, folder.path())?, Arc::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tested = runtime.block_on(async {
        let tested = lives(&provider).await;
        for node in provider.list().await? {
            provider.delete(&node, "").await?;
        }
        // The last image of a recipe is never deleted by itself, nor is the key pair.
        for id in in_glance()?.1 {
            cloud.delete_image(&id).await?;
        }
        forget_key_pairs(OWNER)?;
        tested
    });
    tested.and(before.is_restored(LIMIT))
}
