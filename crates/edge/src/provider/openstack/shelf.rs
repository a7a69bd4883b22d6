//! Our images, in Glance.

use super::config::{FlavorChoice, ImageChoice, ImageFormat, Shape};
use super::server::{Boot, Servers, failed};
use crate::openstack::{Image as CloudImage, NewImage};
use crate::program::Call;
use crate::provider::image::Shelf;
use crate::provider::{ProviderError, Work};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use toci_core::node::Image;

/// Longest conversion of an image.
const CONVERT_LIMIT: Duration = Duration::from_secs(1800);
/// How long Glance may take after an upload until an image can be used.
const ACTIVE_LIMIT: Duration = Duration::from_secs(600);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The images.
#[derive(Debug)]
pub(super) struct Glance(pub(super) Arc<Servers>);

impl Servers {
    /// The images of ours that are in the cloud.
    async fn our_images(&self) -> Result<Vec<CloudImage>, ProviderError> {
        let marks = self.marks()?;
        let mut images = self
            .cloud
            .images(&marks.image_query())
            .await
            .map_err(|e| failed("list our images", e))?;
        images.retain(|image| marks.image_id(image).is_some());
        Ok(images)
    }

    /// Glance's id of an image of ours.
    pub(super) async fn our_image(&self, id: &str) -> Result<String, ProviderError> {
        let marks = self.marks()?;
        let images = self.our_images().await?;
        let image = images.into_iter().find(|image| marks.image_id(image) == Some(id));
        image.map(|image| image.id).ok_or_else(|| {
            let hint = "the cloud has it no more: `toci node rebuild` makes it anew";
            ProviderError::said(format!("find our image {id}"), hint)
        })
    }

    async fn put_image(&self, id: &str, file: &Path) -> Result<(), ProviderError> {
        self.remove_image(id).await?;
        let what = || format!("upload the image {id}");
        let raw = self.config.state.join(format!("{id}.raw"));
        let file = match self.config.image_format {
            ImageFormat::Qcow2 => file,
            ImageFormat::Raw => {
                convert(file, &raw).await?;
                &raw
            }
        };
        let name = format!("toci-{id}");
        let properties = self.marks()?.image(id);
        let disk_format = self.config.image_format.word();
        let new = NewImage { name: &name, disk_format, properties };
        let uploaded = async {
            let image = self.cloud.create_image(&new).await?;
            self.cloud.upload_image(&image.id, file).await?;
            Ok(image.id)
        };
        let uploaded = uploaded.await.map_err(|e| failed(what(), e));
        // Mostly there is none.
        let _ = std::fs::remove_file(&raw);
        let image = uploaded?;
        let end = Instant::now() + ACTIVE_LIMIT;
        loop {
            let now = self.cloud.image(&image).await.map_err(|e| failed(what(), e))?;
            match now.map(|image| image.status) {
                Some(status) if status == "active" => return Ok(()),
                Some(status) if status != "killed" && Instant::now() < end => {}
                status => {
                    let status = status.unwrap_or_else(|| "gone".to_owned());
                    let why = format!("the cloud says it is {status}; Glance's log says why");
                    return Err(ProviderError::said(what(), why));
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn remove_image(&self, id: &str) -> Result<(), ProviderError> {
        let marks = self.marks()?;
        for image in self.our_images().await? {
            if marks.image_id(&image) == Some(id) {
                let deleted = self.cloud.delete_image(&image.id).await;
                deleted.map_err(|e| failed(format!("delete the image {id}"), e))?;
            }
        }
        Ok(())
    }

    /// Boots a server from it, beside all nodes.
    async fn boots(&self, image: &Image) -> Result<(), ProviderError> {
        let uses = |shape: &&Shape| shape.image == ImageChoice::Ours(image.name.clone());
        let shape = self.config.shapes.values().find(uses).cloned().unwrap_or(Shape {
            image: ImageChoice::Ours(image.name.clone()),
            flavor: FlavorChoice::AtLeast { cpus: 1, memory_mib: 1024, disk_gib: 0, filter: None },
            networks: Vec::new(),
            volume_gib: None,
        });
        let node = format!("image.{}.{}", self.config.name, image.id);
        let _not_a_node = self.roster.is_test(&node);
        // A server that stopped during a test left its machine.
        self.delete(&node).await?;
        let in_cloud = self.our_image(&image.id).await?;
        let boot = Boot { node: &node, shape: &shape, image: &in_cloud, ours: &image.id };
        let booted = self.boot(&boot).await;
        self.delete(&node).await?;
        booted.map(drop)
    }
}

async fn convert(from: &Path, to: &Path) -> Result<(), ProviderError> {
    let what = || format!("convert {}", from.display());
    let ended = Call::new("qemu-img", CONVERT_LIMIT)
        .args(["convert", "-O", "raw"])
        .args([from, to])
        .run(b"")
        .await
        .map_err(|e| ProviderError::new(what(), &e))?;
    if ended.is_well() { Ok(()) } else { Err(ProviderError::said(what(), ended.complaint)) }
}

impl Shelf for Glance {
    fn used(&self) -> BTreeSet<String> {
        self.0.roster.used_images()
    }

    fn open(&self) -> Work<'_, Result<(), ProviderError>> {
        Box::pin(async {
            let asked = self.0.cloud.whoami().await;
            asked.map(drop).map_err(|e| failed("log in to the cloud", e))
        })
    }

    fn put<'a>(&'a self, id: &'a str, file: &'a Path) -> Work<'a, Result<(), ProviderError>> {
        Box::pin(self.0.put_image(id, file))
    }

    fn prove<'a>(&'a self, image: &'a Image) -> Work<'a, Result<bool, ProviderError>> {
        // How its hosts run servers is the cloud's business.
        Box::pin(async { self.0.boots(image).await.map(|()| false) })
    }

    fn remove<'a>(&'a self, id: &'a str) -> Work<'a, Result<(), ProviderError>> {
        Box::pin(self.0.remove_image(id))
    }

    fn there(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>> {
        Box::pin(async {
            let marks = self.0.marks()?;
            let images = self.0.our_images().await?;
            Ok(images.iter().filter_map(|i| marks.image_id(i)).map(str::to_owned).collect())
        })
    }
}
