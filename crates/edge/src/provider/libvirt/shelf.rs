//! Images as volumes on libvirt's host.

use super::config::{Accelerator, LibvirtConfig, Shape};
use super::machine::{Boot, Machines};
use super::names;
use crate::provider::image::Shelf;
use crate::provider::{ProviderError, Work};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toci_core::node::Image;

/// So long an image's first machine may take under KVM before KVM is thought not to work there. A stock kernel hung for
/// ever under a /dev/kvm that was there; where it works, a Debian is up in a quarter of this.
const KVM_PROOF_LIMIT: Duration = Duration::from_secs(90);
/// What an image is tried with that no label names.
const TEST_SHAPE: (u64, u64, u64) = (1, 1024, 10);

/// The volumes of images.
#[derive(Debug)]
pub(super) struct Volumes {
    pub(super) config: LibvirtConfig,
    pub(super) machines: Arc<Machines>,
}

impl Volumes {
    async fn put_volume(&self, id: &str, file: &Path) -> Result<(), ProviderError> {
        self.remove_volume(id).await?;
        self.machines.volumes.put(&names::image_volume(id), file).await
    }

    async fn remove_volume(&self, id: &str) -> Result<(), ProviderError> {
        let volume = names::image_volume(id);
        if self.machines.volumes.list().await?.contains(&volume) {
            self.machines.volumes.remove(&volume).await?;
        }
        Ok(())
    }

    async fn boots(&self, image: &Image) -> Result<bool, ProviderError> {
        let shape = self.config.shapes.values().find(|shape| shape.image == image.name).cloned();
        let (cpus, memory_mib, disk_gib) = TEST_SHAPE;
        let shape =
            shape.unwrap_or(Shape { image: image.name.clone(), cpus, memory_mib, disk_gib });
        let (id, limit) = (image.id.as_str(), self.config.boot_limit);
        match self.config.accelerator {
            Accelerator::Kvm => self.try_boot(id, &shape, true, limit).await.map(|()| true),
            Accelerator::Tcg => self.try_boot(id, &shape, false, limit).await.map(|()| false),
            Accelerator::Auto => {
                if self.machines.offers_kvm().await {
                    let proof = limit.min(KVM_PROOF_LIMIT);
                    match self.try_boot(id, &shape, true, proof).await {
                        Ok(()) => return Ok(true),
                        Err(error) => {
                            tracing::warn!(image = id, %error, "it does not boot under KVM; TCG is tried");
                        }
                    }
                }
                self.try_boot(id, &shape, false, limit).await.map(|()| false)
            }
        }
    }

    async fn try_boot(
        &self,
        id: &str,
        shape: &Shape,
        kvm: bool,
        limit: Duration,
    ) -> Result<(), ProviderError> {
        let node = names::test_node(&self.config.name, id);
        let _not_a_node = self.machines.roster.is_test(&node);
        // A server that stopped during a test left its machine.
        self.machines.delete(&node).await?;
        let booted = self.machines.boot(&Boot { node: &node, shape, image: id, kvm, limit }).await;
        self.machines.delete(&node).await?;
        booted.map(drop)
    }
}

impl Shelf for Volumes {
    fn used(&self) -> BTreeSet<String> {
        self.machines.roster.used_images()
    }

    fn open(&self) -> Work<'_, Result<(), ProviderError>> {
        Box::pin(async { self.machines.volumes.open().await.map(drop) })
    }

    fn put<'a>(&'a self, id: &'a str, file: &'a Path) -> Work<'a, Result<(), ProviderError>> {
        Box::pin(self.put_volume(id, file))
    }

    fn prove<'a>(&'a self, image: &'a Image) -> Work<'a, Result<bool, ProviderError>> {
        Box::pin(self.boots(image))
    }

    fn remove<'a>(&'a self, id: &'a str) -> Work<'a, Result<(), ProviderError>> {
        Box::pin(self.remove_volume(id))
    }

    fn there(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>> {
        Box::pin(async {
            let volumes = self.machines.volumes.list().await?;
            Ok(volumes
                .iter()
                .filter_map(|v| names::image_of_volume(v))
                .map(str::to_owned)
                .collect())
        })
    }
}
