//! The provider itself: the port's calls, handed on.

use super::config::LibvirtConfig;
use super::machine::{Boot, Machines};
use super::shelf::Volumes;
use crate::provider::image::keeper::{Keeper, KeeperConfig};
use crate::provider::{ImageView, Machine, Provider, ProviderError, Work};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::Label;

/// A machine that died is noticed so soon; a look costs five calls of virsh.
const LIST_EVERY: Duration = Duration::from_secs(15);

/// Virtual machines on a libvirt daemon.
#[derive(Debug)]
pub struct Libvirt {
    config: LibvirtConfig,
    machines: Arc<Machines>,
    keeper: Arc<Keeper>,
    swept: tokio::sync::OnceCell<()>,
}

impl Libvirt {
    /// With these settings. `workshop` is everybody's who builds images on this machine.
    #[must_use]
    pub fn new(config: LibvirtConfig, workshop: Arc<tokio::sync::Mutex<()>>) -> Libvirt {
        let machines = Arc::new(Machines::new(&config));
        let shelf = Volumes { config: config.clone(), machines: Arc::clone(&machines) };
        let keeper = KeeperConfig {
            provider: config.name.clone(),
            state: config.state.clone(),
            built: config.built.clone(),
            images: config.images.clone(),
        };
        let keeper = Arc::new(Keeper::new(keeper, Arc::new(shelf), workshop));
        Libvirt { config, machines, keeper, swept: tokio::sync::OnceCell::new() }
    }

    async fn make(&self, node: &str, label: &Label) -> Result<Machine, ProviderError> {
        let Some(shape) = self.config.shapes.get(label) else {
            return Err(ProviderError::said(
                format!("make a {label}"),
                "it is not configured here",
            ));
        };
        let image = self.keeper.ready(&shape.image).await?;
        let limit = self.config.boot_limit;
        self.machines.boot(&Boot { node, shape, image: &image.id, kvm: image.kvm, limit }).await
    }

    async fn look(&self) -> Result<BTreeSet<String>, ProviderError> {
        let nodes = self.machines.list().await?;
        self.swept.get_or_try_init(|| self.keeper.sweep()).await?;
        self.keeper.wake();
        Ok(nodes)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        self.keeper.stop();
    }
}

impl Provider for Libvirt {
    fn kind(&self) -> &'static str {
        "libvirt"
    }

    fn list_every(&self) -> Duration {
        LIST_EVERY
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        label: &'a Label,
    ) -> Work<'a, Result<Machine, ProviderError>> {
        Box::pin(self.make(name, label))
    }

    fn find<'a>(
        &'a self,
        name: &'a str,
        token: &'a str,
    ) -> Work<'a, Result<Option<Machine>, ProviderError>> {
        Box::pin(self.machines.find(name, token))
    }

    fn list(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>> {
        Box::pin(self.look())
    }

    fn delete<'a>(&'a self, name: &'a str, _token: &'a str) -> Work<'a, Result<(), ProviderError>> {
        Box::pin(self.machines.delete(name))
    }

    fn remember(&self, name: &str, _token: &str) {
        self.machines.roster.remember(name);
    }

    fn images(&self) -> Vec<ImageView> {
        self.keeper.views()
    }

    fn rebuild(&self, image: &str) -> bool {
        self.keeper.rebuild(image)
    }

    fn withdraw(&self, image: &str) -> bool {
        self.keeper.withdraw(image)
    }
}
