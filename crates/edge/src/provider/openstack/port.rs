//! The provider itself: the port's calls, handed on.

use super::config::{ImageChoice, OpenStackConfig};
use super::server::{Boot, Servers};
use super::shelf::Glance;
use crate::openstack::CallCount;
use crate::provider::image::keeper::{Keeper, KeeperConfig};
use crate::provider::{ImageView, Machine, Provider, ProviderError, Work};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use toci_core::id::Label;
use toci_core::node::Room;

/// A server that died is noticed so soon; a look is one call.
const LIST_EVERY: Duration = Duration::from_secs(15);
/// Quotas, and what was left behind of ports, floating IPs and volumes, are looked at so often: five calls, or seven.
const AROUND_EVERY: Duration = Duration::from_secs(30);

/// Servers of a cloud.
#[derive(Debug)]
pub struct OpenStack {
    config: OpenStackConfig,
    servers: Arc<Servers>,
    keeper: Arc<Keeper>,
    swept: tokio::sync::OnceCell<()>,
    /// When was looked around last, and what room there was then that nobody has taken notice of yet.
    around: Mutex<(Option<Instant>, Option<Room>)>,
}

impl OpenStack {
    /// With these settings. `workshop` is everybody's who builds images on this machine.
    #[must_use]
    pub fn new(config: OpenStackConfig, workshop: Arc<tokio::sync::Mutex<()>>) -> OpenStack {
        let servers = Arc::new(Servers::new(config.clone()));
        let keeper = KeeperConfig {
            provider: config.name.clone(),
            state: config.state.clone(),
            built: config.built.clone(),
            images: config.images.clone(),
        };
        let shelf = Arc::new(Glance(Arc::clone(&servers)));
        let keeper = Arc::new(Keeper::new(keeper, shelf, workshop));
        let (swept, around) = (tokio::sync::OnceCell::new(), Mutex::default());
        OpenStack { config, servers, keeper, swept, around }
    }

    async fn make(&self, node: &str, label: &Label) -> Result<Machine, ProviderError> {
        let Some(shape) = self.config.shapes.get(label) else {
            return Err(ProviderError::said(
                format!("make a {label}"),
                "it is not configured here",
            ));
        };
        let (image, ours) = match &shape.image {
            ImageChoice::Clouds(name) => (self.servers.finder.image(name).await?, String::new()),
            ImageChoice::Ours(name) => {
                let image = self.keeper.ready(name).await?;
                (self.servers.our_image(&image.id).await?, image.id)
            }
        };
        self.servers.boot(&Boot { node, shape, image: &image, ours: &ours }).await
    }

    async fn look(&self) -> Result<BTreeSet<String>, ProviderError> {
        let due = {
            let mut around = self.around.lock().unwrap_or_else(PoisonError::into_inner);
            let due = around.0.is_none_or(|at| at.elapsed() >= AROUND_EVERY);
            if due {
                around.0 = Some(Instant::now());
            }
            due
        };
        let found = if due { Some(self.servers.look_around().await?) } else { None };
        let nodes = self.servers.list(found.as_ref()).await?;
        if let Some(found) = &found {
            let room = self.servers.room(found).await?;
            self.around.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(room);
        }
        if !self.config.images.is_empty() {
            self.swept.get_or_try_init(|| self.keeper.sweep()).await?;
            self.keeper.wake();
        }
        Ok(nodes)
    }
}

impl Drop for OpenStack {
    fn drop(&mut self) {
        self.keeper.stop();
    }
}

impl Provider for OpenStack {
    fn kind(&self) -> &'static str {
        "openstack"
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
        Box::pin(self.servers.find(name, token))
    }

    fn list(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>> {
        Box::pin(self.look())
    }

    fn room(&self) -> Option<Room> {
        self.around.lock().unwrap_or_else(PoisonError::into_inner).1.take()
    }

    fn delete<'a>(&'a self, name: &'a str, _token: &'a str) -> Work<'a, Result<(), ProviderError>> {
        Box::pin(self.servers.delete(name))
    }

    fn remember(&self, name: &str, _token: &str) {
        self.servers.roster.remember(name);
    }

    fn calls(&self) -> Vec<CallCount> {
        self.config.cloud.counts()
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
