//! Images of our own in the real Glance: uploaded, tried by a server that boots, used, built anew, kept, withdrawn, deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cloud_tests::Api;
use cloud_tests::provider::{label, says, with_provider};
use serde_json::Value;
use toci_core::node::ImageState;
use toci_edge::provider::image::{ImageConfig, ImageSource};
use toci_edge::provider::openstack::{
    HostKeySource, ImageChoice, ImageFormat, OpenStack, OpenStackConfig,
};
use toci_edge::provider::{ImageView, Provider};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(300);
/// Whose mark images and servers carry.
const OWNER: &str = "provider-test";
/// A disk that a node boots from, as an operator would have it.
const FILE: &str = "/run/cloud/images/node.qcow2";

/// Nodes boot from an image of ours. Glance keeps it raw, as Ceph wants it, and nodes are given their host keys, as where the
/// cloud shows no consoles.
fn ours(settings: &mut OpenStackConfig) {
    let source = ImageSource::File(FILE.into());
    let image = ImageConfig { source, rebuild: None, keep: 2, build_limit: LIMIT };
    settings.images = BTreeMap::from([("own".into(), image)]);
    settings.image_format = ImageFormat::Raw;
    settings.host_key = HostKeySource::UserData;
    for shape in settings.shapes.values_mut() {
        shape.image = ImageChoice::Ours("own".into());
    }
}

/// What Glance has of ours.
fn ours_in_glance() -> Result<Vec<Value>> {
    let mut answer = Api::ci()?.get("image", &format!("/images?toci_owner={OWNER}"))?;
    let images = answer["images"].as_array_mut().context("a list")?;
    Ok(std::mem::take(images))
}

/// A line for each, the oldest first.
fn in_glance() -> Result<Vec<String>> {
    let line = |image: &Value| {
        let [name, status, format] =
            ["name", "status", "disk_format"].map(|key| image[key].as_str().unwrap_or_default());
        format!("{name} {status} {format}")
    };
    let mut lines: Vec<String> = ours_in_glance()?.iter().map(line).collect();
    // Names end in the second of the build.
    lines.sort();
    Ok(lines)
}

/// A line for each image of the provider: its id, what it is doing, and whether it serves.
fn told(provider: &OpenStack) -> String {
    let line = |view: &ImageView| {
        let serves = if view.serves { " serves" } else { "" };
        format!("{} {:?}{serves} {}", view.image.id, view.image.state, view.told)
    };
    provider.images().iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Waits until the provider's images are as told; which one serves then.
async fn wait(
    provider: &OpenStack,
    what: &str,
    is_so: impl Fn(&[ImageView]) -> bool,
) -> Result<String> {
    let begun = Instant::now();
    loop {
        // Every look wakes whoever looks after the images.
        provider.list().await?;
        let images = provider.images();
        if is_so(&images) {
            println!("{what} after {:.1} s\n{}", begun.elapsed().as_secs_f64(), told(provider));
            let serving = images.iter().find(|view| view.serves);
            return Ok(serving.map(|view| view.image.id.clone()).unwrap_or_default());
        }
        if begun.elapsed() > LIMIT {
            bail!("{what}: not after {LIMIT:?}\n{}", told(provider));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Has the image made anew, and waits until another one serves than did.
async fn rebuilt(provider: &OpenStack, but_not: &str) -> Result<String> {
    ensure!(provider.rebuild("own"), "there is no such image");
    wait(provider, "another one serves", |images| {
        images.iter().any(|view| view.serves && view.image.id != but_not)
    })
    .await
}

async fn lives(provider: &OpenStack) -> Result<()> {
    // The first one is tried with a server of its own.
    let first = wait(provider, "uploaded and tried", |all| all.iter().any(|v| v.serves)).await?;
    ensure!(in_glance()? == [format!("toci-{first} active raw")], "{:?}", in_glance()?);
    ensure!(provider.list().await?.is_empty(), "the try has left a server");

    let machine = provider.create("tiny-stack-1", &label("tiny")?).await?;
    ensure!(says(&machine, "hostname").await? == "tiny-stack-1");

    // One that is taken out of use stays while a node lies on it, and no longer; whatever is to be kept.
    let second = rebuilt(provider, &first).await?;
    ensure!(provider.withdraw(&first) && !provider.withdraw(&first), "{}", told(provider));
    provider.list().await?;
    let stays =
        |view: &ImageView| view.image.id == first && view.image.state == ImageState::Withdrawn;
    ensure!(provider.images().iter().any(stays), "a node lies on it\n{}", told(provider));
    provider.delete("tiny-stack-1", &machine.token).await?;
    let gone = |id: &str| {
        let id = id.to_owned();
        move |images: &[ImageView]| images.iter().all(|view| view.image.id != id)
    };
    ensure!(wait(provider, "the first is gone", gone(&first)).await? == second);
    ensure!(in_glance()? == [format!("toci-{second} active raw")], "{:?}", in_glance()?);

    // Two are kept. When the newest is found to be bad, the one before it serves at once.
    let third = rebuilt(provider, &second).await?;
    let both = [&second, &third].map(|id| format!("toci-{id} active raw"));
    ensure!(in_glance()? == both, "{:?}", in_glance()?);
    ensure!(provider.withdraw(&third), "{}", told(provider));
    ensure!(wait(provider, "the third is gone", gone(&third)).await? == second);
    ensure!(in_glance()? == both[..1], "{:?}", in_glance()?);
    Ok(())
}

#[test]
fn an_image_of_ours_is_uploaded_tried_used_replaced_and_withdrawn() -> Result<()> {
    with_provider(ours, async |provider| {
        let tested = lives(provider).await;
        // The last image of a recipe is never deleted by itself.
        let ci = Api::ci()?;
        for image in ours_in_glance()? {
            ci.delete("image", &format!("/images/{}", image["id"].as_str().context("an id")?))?;
        }
        tested
    })
}
