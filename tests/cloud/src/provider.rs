//! A provider `openstack` for a test, whose nodes are small servers of the cloud.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use toci_core::id::Label;
use toci_edge::openstack::{Cloud, config};
use toci_edge::provider::openstack::{
    FlavorChoice, HostKeySource, ImageChoice, ImageFormat, OpenStack, OpenStackConfig, Shape,
};
use toci_edge::provider::{Machine, Provider, ProviderError};

use crate::{Footprint, forget_key_pairs};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);

/// The tenant as toci finds it: by clouds.yaml, which the sandbox names in the environment.
fn cloud() -> Result<Arc<Cloud>> {
    Ok(Arc::new(Cloud::open(&config::Place::here(), Some("ci"), None)?))
}

/// A label of this name.
///
/// # Errors
/// It is no name of a label.
pub fn label(name: &str) -> Result<Label> {
    Label::new(name).map_err(|_| anyhow::anyhow!("{name} is no label"))
}

/// Settings of a provider with a label for each kind of server: `tiny`, `legs` on two networks, `dead`, and `huge`, which
/// no host has room for.
fn settings(state: &Path) -> Result<OpenStackConfig> {
    let shape = |image: &str, flavor: FlavorChoice, networks: &[&str]| Shape {
        image: ImageChoice::Clouds(image.to_owned()),
        flavor,
        networks: networks.iter().map(|name| (*name).to_owned()).collect(),
        volume_gib: None,
    };
    let small = || FlavorChoice::AtLeast { cpus: 1, memory_mib: 100, disk_gib: 0, filter: None };
    let named = |name: &str| FlavorChoice::Named(name.to_owned());
    Ok(OpenStackConfig {
        name: "stack".into(),
        cloud: cloud()?,
        owner: Some("provider-test".into()),
        state: state.join("state"),
        built: state.join("built"),
        user: "root".into(),
        key: None,
        host_key: HostKeySource::Console,
        floating_network: Some("public".into()),
        security_groups: Vec::new(),
        zones: Vec::new(),
        config_drive: false,
        user_data: None,
        image_format: ImageFormat::Qcow2,
        launch_limit: LIMIT,
        boot_limit: LIMIT,
        shapes: BTreeMap::from([
            (label("tiny")?, shape("tiny", small(), &["private"])),
            (label("legs")?, shape("tiny", small(), &["private", "test"])),
            (label("dead")?, shape("dead", small(), &["private"])),
            (label("huge")?, shape("tiny", named("huge"), &["private"])),
        ]),
        images: BTreeMap::new(),
    })
}

/// Runs a test with a provider whose settings were changed; afterwards the tenant has what it had before.
///
/// # Errors
/// Those of the test, or what it left behind.
pub fn with_provider<T: AsyncFnOnce(&OpenStack) -> Result<()>>(
    change: impl FnOnce(&mut OpenStackConfig),
    test: T,
) -> Result<()> {
    let before = Footprint::now()?;
    let folder = tempfile::tempdir()?;
    let mut settings = settings(folder.path())?;
    change(&mut settings);
    let cloud = Arc::clone(&settings.cloud);
    let provider = OpenStack::new(settings, Arc::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tested = runtime.block_on(async {
        let tested = test(&provider).await;
        if tested.is_err() {
            for node in provider.list().await? {
                provider.delete(&node, "").await?;
            }
        }
        forget_key_pairs("provider-test")?;
        tested
    });
    let calls: u64 = cloud.counts().iter().map(|count| count.count).sum();
    println!("{calls} calls of the cloud");
    tested.and(before.is_restored(LIMIT))
}

/// What a command says on a node.
///
/// # Errors
/// It cannot be run there.
pub async fn says(machine: &Machine, text: &str) -> Result<String> {
    let ended = machine.session.run("a test", text, b"", Duration::from_secs(60)).await?;
    Ok(ended.text().trim().to_owned())
}

/// Why a node was not made.
///
/// # Errors
/// It was made.
pub fn refused(made: Result<Machine, ProviderError>) -> Result<ProviderError> {
    made.err().context("a machine was made")
}
