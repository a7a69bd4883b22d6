//! `[[provider]] kind = "openstack"`: servers of a cloud.

use super::node::{PoolFile, ProviderFile, ProviderKind, missing, positive};
use super::node_libvirt::{CPUS, ImageConfigs, MEMORY_MIB, user};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_edge::openstack::{Cloud, USER_DATA_MAX_BYTES, config};
use toci_edge::provider::libvirt::config::BOOT_LIMIT;
use toci_edge::provider::openstack::config::LAUNCH_LIMIT;
use toci_edge::provider::openstack::{
    FlavorChoice, HostKeySource, ImageChoice, ImageFormat, OpenStackConfig, Shape,
};
use toci_wire::settings::Wrong;

/// Longest mark of an owner, in bytes: Nova takes 255 for a name, and more stands in it.
const OWNER_MAX_BYTES: usize = 40;

/// As [`HostKeySource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HostKeyFile {
    Console,
    UserData,
}

/// As [`ImageFormat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ImageFormatFile {
    Qcow2,
    Raw,
}

pub(super) fn openstack(
    file: &ProviderFile,
    state: &Path,
    images: &ImageConfigs,
) -> Result<(ProviderKind, u64), Wrong> {
    positive(&[("launch_limit_s", file.launch_limit_s), ("boot_limit_s", file.boot_limit_s)])?;
    let cloud = cloud(file)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if let Some(owner) = &file.owner
        && (owner.is_empty() || owner.len() > OWNER_MAX_BYTES || !owner.bytes().all(plain))
    {
        let why = format!("a mark has 1 to {OWNER_MAX_BYTES} of a-z A-Z 0-9 _ -");
        return Err(Wrong::at("owner", why));
    }
    let host_key = match file.host_key.unwrap_or(HostKeyFile::Console) {
        HostKeyFile::Console => HostKeySource::Console,
        HostKeyFile::UserData => HostKeySource::UserData,
    };
    let user_data = user_data(file, host_key)?;
    let mut shapes = BTreeMap::new();
    for (number, pool) in file.pool.iter().enumerate() {
        let shape = shape(file, pool, images).map_err(|wrong| wrong.entry("pool", number))?;
        shapes.insert(pool.label.clone(), shape);
    }
    let ours = |shape: &Shape| match &shape.image {
        ImageChoice::Ours(name) => Some(name.clone()),
        ImageChoice::Clouds(_) => None,
    };
    let used: BTreeSet<String> = shapes.values().filter_map(ours).collect();
    let images = images.iter().filter(|(name, _)| used.contains(*name));
    let config = OpenStackConfig {
        name: file.name.to_string(),
        cloud,
        owner: file.owner.clone(),
        state: state.join("providers").join(file.name.as_str()),
        built: state.join("images"),
        user: user(file.ssh_user.as_deref())?,
        key: file.ssh_key_file.clone(),
        host_key,
        floating_network: file.floating_network.clone(),
        security_groups: file.security_groups.clone(),
        zones: file.zones.clone(),
        config_drive: file.config_drive.unwrap_or(false),
        user_data,
        image_format: match file.image_format.unwrap_or(ImageFormatFile::Qcow2) {
            ImageFormatFile::Qcow2 => ImageFormat::Qcow2,
            ImageFormatFile::Raw => ImageFormat::Raw,
        },
        launch_limit: file.launch_limit_s.map_or(LAUNCH_LIMIT, Duration::from_secs),
        boot_limit: file.boot_limit_s.map_or(BOOT_LIMIT, Duration::from_secs),
        images: images.map(|(name, image)| (name.clone(), image.clone())).collect(),
        shapes,
    };
    // Without a limit of its own the cloud's quotas are the limit.
    let most = file.max_servers.map_or(u64::MAX, u64::from);
    Ok((ProviderKind::OpenStack(Box::new(config)), most))
}

/// The cloud, as clouds.yaml and its companions say. It is looked at now, so that what is wrong is told at the start.
fn cloud(file: &ProviderFile) -> Result<Arc<Cloud>, Wrong> {
    let mut place = config::Place::here();
    if let Some(clouds) = &file.clouds_file {
        let beside = |name: &str| clouds.with_file_name(name).display().to_string();
        for (variable, path) in [
            ("OS_CLIENT_CONFIG_FILE", clouds.display().to_string()),
            ("OS_CLIENT_SECURE_FILE", beside("secure.yaml")),
            ("OS_CLIENT_VENDOR_FILE", beside("clouds-public.yaml")),
        ] {
            place.variables.insert(variable.to_owned(), path);
        }
        if !clouds.exists() {
            return Err(Wrong::at("clouds_file", format!("{} is not there", clouds.display())));
        }
    }
    let cloud = Cloud::open(&place, file.cloud.as_deref(), file.region.as_deref());
    Ok(Arc::new(cloud.map_err(|e| Wrong::at("cloud", Chain(&e).to_string()))?))
}

fn user_data(file: &ProviderFile, host_key: HostKeySource) -> Result<Option<String>, Wrong> {
    let Some(path) = &file.user_data_file else { return Ok(None) };
    if host_key == HostKeySource::UserData {
        let why = "host_key = \"user-data\" needs the user data for itself";
        return Err(Wrong::at("user_data_file", why));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| Wrong::at("user_data_file", format!("read {}: {e}", path.display())))?;
    // Nova's limit is that of its base64.
    let most = USER_DATA_MAX_BYTES / 4 * 3;
    if text.len() > most {
        return Err(Wrong::at("user_data_file", format!("it is longer than {most} bytes")));
    }
    Ok(Some(text))
}

fn shape(file: &ProviderFile, pool: &PoolFile, images: &ImageConfigs) -> Result<Shape, Wrong> {
    let image = match (&pool.image, &pool.cloud_image) {
        (Some(_), Some(_)) => {
            return Err(Wrong::at("cloud_image", "image is given too: use one of them"));
        }
        (Some(name), None) if images.contains_key(name) => ImageChoice::Ours(name.clone()),
        (Some(name), None) => {
            let why = format!("{name} is no [[image]]; one that the cloud has is a `cloud_image`");
            return Err(Wrong::at("image", why));
        }
        (None, Some(name)) => ImageChoice::Clouds(name.clone()),
        (None, None) => return Err(missing("image", "one of [[image]]; or cloud_image")),
    };
    positive(&[
        ("cpus", pool.cpus),
        ("memory_mib", pool.memory_mib),
        ("disk_gib", pool.disk_gib),
        ("volume_gib", pool.volume_gib),
    ])?;
    let flavor = match &pool.flavor {
        Some(name) => {
            for (key, given) in [
                ("cpus", pool.cpus.is_some()),
                ("memory_mib", pool.memory_mib.is_some()),
                ("disk_gib", pool.disk_gib.is_some()),
                ("flavor_filter", pool.flavor_filter.is_some()),
            ] {
                if given {
                    return Err(Wrong::at(key, "flavor is given too, which says it"));
                }
            }
            FlavorChoice::Named(name.clone())
        }
        None => FlavorChoice::AtLeast {
            cpus: pool.cpus.unwrap_or(CPUS),
            memory_mib: pool.memory_mib.unwrap_or(MEMORY_MIB),
            disk_gib: pool.disk_gib.unwrap_or(0),
            filter: pool.flavor_filter.clone(),
        },
    };
    let own = !pool.networks.is_empty();
    let networks = if own { &pool.networks } else { &file.networks };
    Ok(Shape { image, flavor, networks: networks.clone(), volume_gib: pool.volume_gib })
}
