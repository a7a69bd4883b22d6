//! The folder on libvirt's host, as a storage pool: the same for a libvirt here and for one far away.

use super::names;
use super::virsh::{Virsh, first_column};
use crate::provider::ProviderError;
use crate::provider::keys::random_hex;
use ring::digest::{SHA256, digest};
use std::path::{Path, PathBuf};
use toci_core::hex::hex;
use tokio::sync::{Mutex, OnceCell};

/// What libvirt says when somebody else's transfer keeps it from looking at the folder.
const BUSY: &str = "has asynchronous jobs running";

/// The folder.
#[derive(Debug)]
pub(super) struct Volumes {
    virsh: Virsh,
    /// The pool's name follows from the folder, so that one folder is one pool.
    pool: String,
    folder: PathBuf,
    /// The file that remembers which folder is ours.
    mark: PathBuf,
    owner: OnceCell<String>,
    /// Who opens the pool, so that two do not make it.
    opening: Mutex<()>,
}

impl Volumes {
    pub(super) fn new(virsh: Virsh, folder: &Path, state: &Path) -> Volumes {
        let hash = hex(digest(&SHA256, folder.as_os_str().as_encoded_bytes()).as_ref());
        Volumes {
            virsh,
            pool: format!("toci-{}", &hash[..12]),
            folder: folder.to_owned(),
            mark: state.join("owner"),
            owner: OnceCell::new(),
            opening: Mutex::new(()),
        }
    }

    /// Where a volume lies on libvirt's host.
    pub(super) fn path(&self, volume: &str) -> String {
        self.folder.join(volume).display().to_string()
    }

    /// Makes sure that the pool is there and that it is ours; says by which mark.
    pub(super) async fn open(&self) -> Result<&str, ProviderError> {
        let _one = self.opening.lock().await;
        let active = self.virsh.ask(&["pool-list", "--name"]).await?;
        if !active.lines().any(|line| line.trim() == self.pool) {
            let all = self.virsh.ask(&["pool-list", "--all", "--name"]).await?;
            let folder = self.folder.display().to_string();
            if all.lines().any(|line| line.trim() == self.pool) {
                self.virsh.ask(&["pool-start", &self.pool]).await?;
            } else {
                let create = ["pool-create-as", &self.pool, "dir", "--target", &folder, "--build"];
                self.virsh.ask(&create).await?;
            }
        }
        self.owner.get_or_try_init(|| self.own()).await.map(String::as_str)
    }

    async fn own(&self) -> Result<String, ProviderError> {
        let what = || format!("use the folder {}", self.folder.display());
        let there = names::owner_of(&self.list().await?).map(str::to_owned);
        let mine = std::fs::read_to_string(&self.mark).ok().map(|text| text.trim().to_owned());
        match (there, mine) {
            (Some(there), Some(mine)) if there == mine => Ok(mine),
            (Some(there), _) => Err(ProviderError::said(
                what(),
                format!(
                    "it belongs to another toci ({there}): use another one, or, if this is the only toci that uses it, write {there} into {}",
                    self.mark.display()
                ),
            )),
            (None, mine) => {
                let owner = match mine {
                    Some(mine) => mine,
                    None => random_hex()?[..16].to_owned(),
                };
                let written = self.mark.parent().map_or(Ok(()), std::fs::create_dir_all);
                written
                    .and_then(|()| std::fs::write(&self.mark, format!("{owner}\n")))
                    .map_err(|e| ProviderError::new(what(), &e))?;
                self.create(&names::owner_volume(&owner), 0).await?;
                Ok(owner)
            }
        }
    }

    /// All volumes that are there.
    pub(super) async fn list(&self) -> Result<Vec<String>, ProviderError> {
        match self.virsh.ask(&["pool-refresh", &self.pool]).await {
            // The list without what came to be by itself, which is consoles only.
            Err(error) if error.why.contains(BUSY) => {}
            other => drop(other?),
        }
        Ok(first_column(&self.virsh.ask(&["vol-list", "--pool", &self.pool]).await?))
    }

    async fn create(&self, volume: &str, bytes: u64) -> Result<(), ProviderError> {
        let size = format!("{bytes}B");
        let create = ["vol-create-as", &self.pool, volume, &size, "--format", "raw"];
        self.virsh.ask(&create).await.map(drop)
    }

    /// Makes a volume of a file.
    pub(super) async fn put(&self, volume: &str, file: &Path) -> Result<(), ProviderError> {
        let bytes = std::fs::metadata(file)
            .map_err(|e| ProviderError::new(format!("read {}", file.display()), &e))?
            .len();
        self.create(volume, bytes).await?;
        self.virsh.upload(&self.pool, volume, file).await
    }

    /// Makes a disk over an image.
    pub(super) async fn layer(
        &self,
        volume: &str,
        image: &str,
        gib: u64,
    ) -> Result<(), ProviderError> {
        let size = format!("{gib}GiB");
        let create = ["vol-create-as", &self.pool, volume, &size, "--format", "qcow2"];
        let below = ["--backing-vol", image, "--backing-vol-format", "qcow2"];
        self.virsh.ask(&[&create[..], &below[..]].concat()).await.map(drop)
    }

    /// Removes a volume that is there.
    pub(super) async fn remove(&self, volume: &str) -> Result<(), ProviderError> {
        self.virsh.ask(&["vol-delete", "--pool", &self.pool, volume]).await.map(drop)
    }

    /// What is in a volume that grows by itself; nothing when it is not there.
    pub(super) async fn read(&self, volume: &str) -> Result<String, ProviderError> {
        if !self.list().await?.iter().any(|v| v == volume) {
            return Ok(String::new());
        }
        self.virsh.ask(&["vol-download", "--pool", &self.pool, volume, "/dev/stdout"]).await
    }
}
