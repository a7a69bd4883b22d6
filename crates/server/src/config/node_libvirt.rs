//! `[[image]]` and `[[provider]] kind = "libvirt"`: virtual machines, and what they boot from.

use super::node::{PoolFile, ProviderFile, ProviderKind, missing, only, positive, twice};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_edge::provider::image::build::IMAGE_BUILD_LIMIT;
use toci_edge::provider::libvirt::config::BOOT_LIMIT;
use toci_edge::provider::libvirt::{
    Accelerator, ImageConfig, ImageSource, LibvirtConfig, Network, Shape,
};
use toci_wire::settings::Wrong;

/// Root file system of an image that debootstrap makes, MiB, when nothing else is said; it grows to the node's disk.
const IMAGE_SIZE_MIB: u64 = 2048;
/// Disk of a node, GiB, when nothing else is said.
const DISK_GIB: u64 = 20;
/// CPUs of a node when nothing else is said.
pub(super) const CPUS: u64 = 1;
/// Memory of a node, MiB, when nothing else is said.
pub(super) const MEMORY_MIB: u64 = 2048;
/// So many images of a name that work are kept when nothing else is said: the one that serves and the one before it.
const IMAGES_KEPT: usize = 2;
/// Most that can be asked for; each takes room in the cloud.
const IMAGES_KEPT_MAX: usize = 20;
/// Longest name of an image, in bytes: it becomes part of file names.
const IMAGE_NAME_MAX_BYTES: usize = 40;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageFile {
    name: String,
    kind: ImageKind,
    rebuild_days: Option<u64>,
    keep: Option<usize>,
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

pub(super) fn images(files: Vec<ImageFile>) -> Result<ImageConfigs, Wrong> {
    let mut images = BTreeMap::new();
    for (number, file) in files.into_iter().enumerate() {
        let name = file.name.clone();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || !name.bytes().all(plain) || name.len() > IMAGE_NAME_MAX_BYTES {
            let why = format!(
                "a name has 1 to {IMAGE_NAME_MAX_BYTES} of a-z A-Z 0-9 . _ - and begins with a letter or digit"
            );
            return Err(Wrong::at("name", why).entry("image", number));
        }
        let image = image(file).map_err(|wrong| wrong.entry("image", number))?;
        if images.insert(name, image).is_some() {
            return Err(twice("name").entry("image", number));
        }
    }
    Ok(images)
}

fn image(file: ImageFile) -> Result<ImageConfig, Wrong> {
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
            ImageSource::File(file.file.ok_or_else(|| missing("file", "a qcow2 file"))?)
        }
        ImageKind::Debootstrap => {
            only(&of_file)?;
            only(&of_builder)?;
            let suite = file.suite.ok_or_else(|| missing("suite", "for example \"bookworm\""))?;
            let word = |word: &str| {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.:".contains(&b);
                !word.is_empty() && !word.starts_with('-') && word.bytes().all(plain)
            };
            if !word(&suite) {
                return Err(Wrong::at("suite", format!("`{suite}` is no name of a suite")));
            }
            if let Some(number) = file.packages.iter().position(|package| !word(package)) {
                let why = format!("`{}` is no name of a package", file.packages[number]);
                return Err(Wrong::from(why).entry("packages", number));
            }
            if file.mirror.as_ref().is_some_and(|m| !m.contains("://")) {
                return Err(Wrong::at("mirror", "it is no URL"));
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
                return Err(missing("elements", "for example [\"debian-minimal\", \"vm\"]"));
            }
            if let Some(number) = file.elements.iter().position(|e| e.starts_with('-')) {
                let why = format!("`{}` is no name of an element", file.elements[number]);
                return Err(Wrong::from(why).entry("elements", number));
            }
            ImageSource::DiskImageBuilder { elements: file.elements, environment: file.environment }
        }
    };
    let keep = file.keep.unwrap_or(IMAGES_KEPT);
    if !(1..=IMAGES_KEPT_MAX).contains(&keep) {
        let why = format!("1 to {IMAGES_KEPT_MAX} are kept, the one that serves among them");
        return Err(Wrong::at("keep", why));
    }
    Ok(ImageConfig {
        source,
        keep,
        rebuild: file.rebuild_days.map(|days| Duration::from_secs(days.saturating_mul(86_400))),
        build_limit: file.build_limit_s.map_or(IMAGE_BUILD_LIMIT, Duration::from_secs),
    })
}

pub(super) fn libvirt(
    file: &ProviderFile,
    state: &Path,
    images: &ImageConfigs,
) -> Result<(ProviderKind, u64), Wrong> {
    let max = file.max_servers.ok_or_else(|| missing("max_servers", ""))?;
    let uri = file.uri.clone().unwrap_or_else(|| "qemu:///system".to_owned());
    if !uri.starts_with("qemu") || !uri.contains("://") {
        let why = format!(
            "it is `{uri}`: use one of libvirt's QEMU driver, for example qemu:///system or qemu+ssh://root@host/system"
        );
        return Err(Wrong::at("uri", why));
    }
    let what = "where images and disks lie on libvirt's host, for this toci alone";
    let folder = file.folder.clone().ok_or_else(|| missing("folder", what))?;
    if !folder.is_absolute() {
        let why = format!("it is `{}`: use an absolute path", folder.display());
        return Err(Wrong::at("folder", why));
    }
    let network = network(file, &uri)?;
    let user = user(file.ssh_user.as_deref())?;
    let mut shapes = BTreeMap::new();
    for (number, pool) in file.pool.iter().enumerate() {
        let shape = shape(pool, images).map_err(|wrong| wrong.entry("pool", number))?;
        shapes.insert(pool.label.clone(), shape);
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

/// Who commands run as.
pub(super) fn user(given: Option<&str>) -> Result<String, Wrong> {
    let user = given.unwrap_or("root");
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if user.is_empty() || user.starts_with('-') || !user.bytes().all(plain) {
        return Err(Wrong::at("ssh_user", format!("it is `{user}`: that is no name of a user")));
    }
    Ok(user.to_owned())
}

fn shape(pool: &PoolFile, images: &ImageConfigs) -> Result<Shape, Wrong> {
    let image = pool.image.clone().ok_or_else(|| missing("image", "one of [[image]]"))?;
    if !images.contains_key(&image) {
        return Err(Wrong::at("image", format!("{image} is no [[image]]")));
    }
    let given = [("cpus", pool.cpus), ("memory_mib", pool.memory_mib), ("disk_gib", pool.disk_gib)];
    positive(&given)?;
    Ok(Shape {
        image,
        cpus: pool.cpus.unwrap_or(CPUS),
        memory_mib: pool.memory_mib.unwrap_or(MEMORY_MIB),
        disk_gib: pool.disk_gib.unwrap_or(DISK_GIB),
    })
}

fn network(file: &ProviderFile, uri: &str) -> Result<Network, Wrong> {
    match (&file.network, &file.bridge) {
        (Some(_), Some(_)) => Err(Wrong::at("bridge", "network is given too: use one of them")),
        (Some(network), None) => Ok(Network::Libvirt(network.clone())),
        (None, Some(bridge)) => Ok(Network::Bridge(bridge.clone())),
        (None, None) if uri.contains(":///") => Ok(Network::User),
        (None, None) => Err(missing(
            "network",
            "or bridge: user networking leads to this machine only, and libvirt is on another one",
        )),
    }
}
