//! Images: what they are made of, how they are made ([`build`]), kept and tried ([`keeper`]). What is done when is
//! [`toci_core::node::Images`]'s decision. Where they are kept and how a machine is booted from one is each provider's
//! own: a [`Shelf`].

pub mod build;
pub(super) mod keeper;

use super::{ProviderError, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::node::Image;

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// How it is made.
    pub source: ImageSource,
    /// How old it may get.
    pub rebuild: Option<Duration>,
    /// So many that work are kept, the one that serves among them.
    pub keep: usize,
    /// How long its build may take.
    pub build_limit: Duration,
}

/// How an image is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// It is there.
    File(PathBuf),
    /// By debootstrap and our script around it.
    Debootstrap {
        /// `bookworm`.
        suite: String,
        /// Where packages come from; none: debootstrap's own default.
        mirror: Option<String>,
        /// Packages besides those that a node needs.
        packages: Vec<String>,
        /// Size of its root file system, MiB; it grows to the machine's disk.
        size_mib: u64,
        /// Shell text that is run in it at the end.
        customise: String,
    },
    /// By diskimage-builder.
    DiskImageBuilder {
        /// Its elements, in their order.
        elements: Vec<String>,
        /// Its variables.
        environment: BTreeMap<String, String>,
    },
}

/// Where a provider keeps its images.
pub(super) trait Shelf: Send + Sync + core::fmt::Debug {
    /// Images that machines lie on.
    fn used(&self) -> BTreeSet<String>;

    /// Makes sure that it can be reached, before a long build is begun.
    fn open(&self) -> Work<'_, Result<(), ProviderError>>;

    /// Puts an image there; what is there of the same id is replaced.
    fn put<'a>(&'a self, id: &'a str, file: &'a Path) -> Work<'a, Result<(), ProviderError>>;

    /// Boots a machine from it. Says whether that was under KVM, where that is known.
    fn prove<'a>(&'a self, image: &'a Image) -> Work<'a, Result<bool, ProviderError>>;

    /// Removes an image; one that is not there is no error.
    fn remove<'a>(&'a self, id: &'a str) -> Work<'a, Result<(), ProviderError>>;

    /// The ids of all images of ours that are there.
    fn there(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>>;
}
