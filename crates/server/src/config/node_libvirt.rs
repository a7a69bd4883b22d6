//! `[[image]]` and `[[provider]] kind = "libvirt"`: virtual machines, and what they boot from.

use super::node::{ProviderFile, ProviderKind, only};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_edge::provider::libvirt::config::BOOT_LIMIT;
use toci_edge::provider::libvirt::image::build::IMAGE_BUILD_LIMIT;
use toci_edge::provider::libvirt::{
    Accelerator, ImageConfig, ImageSource, LibvirtConfig, Network, Shape,
};

/// Root file system of an image that debootstrap makes, MiB, when nothing else is said; it grows to the node's disk.
const IMAGE_SIZE_MIB: u64 = 2048;
/// Disk of a node, GiB, when nothing else is said.
const DISK_GIB: u64 = 20;
/// Memory of a node, MiB, when nothing else is said.
const MEMORY_MIB: u64 = 2048;
/// Longest name of an image, in bytes: it becomes part of file names.
const IMAGE_NAME_MAX_BYTES: usize = 40;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageFile {
    name: String,
    kind: ImageKind,
    rebuild_days: Option<u64>,
    build_limit_s: Option<u64>,
    // file
    file: Option<PathBuf>,
    // debootstrap
    suite: Option<String>,
    mirror: Option<String>,
    #[serde(default)]
    packages: Vec<String>,
    size_mib: Option<u64>,
    customise: Option<String>,
    // diskimage-builder
    #[serde(default)]
    elements: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ImageKind {
    File,
    Debootstrap,
    DiskimageBuilder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AcceleratorFile {
    Auto,
    Kvm,
    Tcg,
}

/// All images by name.
pub(super) type ImageConfigs = BTreeMap<String, ImageConfig>;

pub(super) fn images(files: Vec<ImageFile>) -> Result<ImageConfigs, String> {
    let mut images = BTreeMap::new();
    for file in files {
        let name = file.name.clone();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || !name.bytes().all(plain) || name.len() > IMAGE_NAME_MAX_BYTES {
            return Err(format!(
                "image `{name}`: a name has 1 to {IMAGE_NAME_MAX_BYTES} of a-z A-Z 0-9 . _ - and begins with a letter or digit"
            ));
        }
        let image = image(file).map_err(|e| format!("image {name}: {e}"))?;
        if images.insert(name.clone(), image).is_some() {
            return Err(format!("image {name} is there twice"));
        }
    }
    Ok(images)
}

fn image(file: ImageFile) -> Result<ImageConfig, String> {
    let of_file = [("file", file.file.is_some())];
    let of_debootstrap = [
        ("suite", file.suite.is_some()),
        ("mirror", file.mirror.is_some()),
        ("packages", !file.packages.is_empty()),
        ("size_mib", file.size_mib.is_some()),
        ("customise", file.customise.is_some()),
    ];
    let of_builder =
        [("elements", !file.elements.is_empty()), ("environment", !file.environment.is_empty())];
    let source = match file.kind {
        ImageKind::File => {
            only(&of_debootstrap)?;
            only(&of_builder)?;
            only(&[
                ("rebuild_days", file.rebuild_days.is_some()),
                ("build_limit_s", file.build_limit_s.is_some()),
            ])?;
            ImageSource::File(file.file.ok_or("file is missing: a qcow2 file")?)
        }
        ImageKind::Debootstrap => {
            only(&of_file)?;
            only(&of_builder)?;
            let suite = file.suite.ok_or("suite is missing, for example \"bookworm\"")?;
            let word = |word: &str| {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.:".contains(&b);
                !word.is_empty() && !word.starts_with('-') && word.bytes().all(plain)
            };
            if let Some(bad) = file.packages.iter().chain([&suite]).find(|p| !word(p)) {
                return Err(format!("`{bad}` is no name of a package or suite"));
            }
            if file.mirror.as_ref().is_some_and(|m| !m.contains("://")) {
                return Err("mirror is no URL".to_owned());
            }
            ImageSource::Debootstrap {
                suite,
                mirror: file.mirror,
                packages: file.packages,
                size_mib: file.size_mib.unwrap_or(IMAGE_SIZE_MIB),
                customise: file.customise.unwrap_or_default(),
            }
        }
        ImageKind::DiskimageBuilder => {
            only(&of_file)?;
            only(&of_debootstrap)?;
            if file.elements.is_empty() {
                return Err("elements is missing, for example [\"debian-minimal\", \"vm\"]".into());
            }
            if let Some(bad) = file.elements.iter().find(|e| e.starts_with('-')) {
                return Err(format!("`{bad}` is no name of an element"));
            }
            ImageSource::DiskImageBuilder { elements: file.elements, environment: file.environment }
        }
    };
    Ok(ImageConfig {
        source,
        rebuild: file.rebuild_days.map(|days| Duration::from_secs(days.saturating_mul(86_400))),
        build_limit: file.build_limit_s.map_or(IMAGE_BUILD_LIMIT, Duration::from_secs),
    })
}

pub(super) fn libvirt(
    file: &ProviderFile,
    state: &Path,
    images: &ImageConfigs,
) -> Result<(ProviderKind, u64), String> {
    only(&[
        ("addresses", file.addresses.is_some()),
        ("first_number", file.first_number.is_some()),
        ("known_hosts_file", file.known_hosts_file.is_some()),
        ("cleanup", file.cleanup.is_some()),
        ("cleanup_limit_s", file.cleanup_limit_s.is_some()),
        ("pool.machines", file.pool.iter().any(|pool| !pool.machines.is_empty())),
    ])?;
    let max = file.max_servers.ok_or("max_servers is missing")?;
    let uri = file.uri.clone().unwrap_or_else(|| "qemu:///system".to_owned());
    if !uri.starts_with("qemu") || !uri.contains("://") {
        return Err(format!(
            "uri is `{uri}`: use one of libvirt's QEMU driver, for example qemu:///system or qemu+ssh://root@host/system"
        ));
    }
    let folder = file.folder.clone().ok_or(
        "folder is missing: where images and disks lie on libvirt's host, for this toci alone",
    )?;
    if !folder.is_absolute() {
        return Err(format!("folder is `{}`: use an absolute path", folder.display()));
    }
    let network = network(file, &uri)?;
    let user = file.ssh_user.clone().unwrap_or_else(|| "root".to_owned());
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if user.is_empty() || user.starts_with('-') || !user.bytes().all(plain) {
        return Err(format!("ssh_user is `{user}`: that is no name of a user"));
    }
    let mut shapes = BTreeMap::new();
    for pool in &file.pool {
        let label = &pool.label;
        let image = pool.image.clone().ok_or(format!("label {label}: image is missing"))?;
        if !images.contains_key(&image) {
            return Err(format!("label {label}: its image {image} is no [[image]]"));
        }
        let (cpus, memory_mib) = (pool.cpus.unwrap_or(1), pool.memory_mib.unwrap_or(MEMORY_MIB));
        let disk_gib = pool.disk_gib.unwrap_or(DISK_GIB);
        if cpus == 0 || memory_mib == 0 || disk_gib == 0 {
            return Err(format!("label {label}: cpus, memory_mib and disk_gib are at least 1"));
        }
        shapes.insert(label.clone(), Shape { image, cpus, memory_mib, disk_gib });
    }
    let used: BTreeSet<&String> = shapes.values().map(|shape| &shape.image).collect();
    let images = images.iter().filter(|(name, _)| used.contains(name));
    let config = LibvirtConfig {
        name: file.name.to_string(),
        uri,
        folder,
        state: state.join("providers").join(file.name.as_str()),
        built: state.join("images"),
        network,
        user,
        key: file.ssh_key_file.clone(),
        accelerator: match file.accelerator.unwrap_or(AcceleratorFile::Auto) {
            AcceleratorFile::Auto => Accelerator::Auto,
            AcceleratorFile::Kvm => Accelerator::Kvm,
            AcceleratorFile::Tcg => Accelerator::Tcg,
        },
        boot_limit: file.boot_limit_s.map_or(BOOT_LIMIT, Duration::from_secs),
        images: images.map(|(name, image)| (name.clone(), image.clone())).collect(),
        shapes,
    };
    Ok((ProviderKind::Libvirt(Box::new(config)), u64::from(max)))
}

fn network(file: &ProviderFile, uri: &str) -> Result<Network, String> {
    match (&file.network, &file.bridge) {
        (Some(_), Some(_)) => Err("both network and bridge are given: use one".to_owned()),
        (Some(network), None) => Ok(Network::Libvirt(network.clone())),
        (None, Some(bridge)) => Ok(Network::Bridge(bridge.clone())),
        (None, None) if uri.contains(":///") => Ok(Network::User),
        (None, None) => Err(
            "network or bridge is missing: user networking leads to this machine only, and libvirt is on another one"
                .to_owned(),
        ),
    }
}
