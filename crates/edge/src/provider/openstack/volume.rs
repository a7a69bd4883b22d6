//! The volume that a node boots from: made before its server, so that it carries our mark, and gone after it.
//!
//! Nova would make it too, with the server; but without a name or a mark, so that one that Nova leaves behind is nobody's,
//! and with its want of room told as a failed build.

use super::server::{Boot, LOOK_AGAIN, Servers, failed};
use crate::openstack::{CloudError, NewVolume, Volume};
use crate::provider::ProviderError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So long a volume may take to be gone after its server is. The next attempt goes on from there.
pub const VOLUME_DELETE_WAIT: Duration = Duration::from_secs(60);

impl Servers {
    /// Whether Cinder is of any interest.
    pub(super) fn use_volumes(&self) -> bool {
        self.config.shapes.values().any(|shape| shape.volume_gib.is_some())
    }

    /// All volumes of the project, as they were not longer ago than this.
    pub(super) async fn all_volumes(&self, age: Duration) -> Result<Arc<Vec<Volume>>, CloudError> {
        self.seen_volumes.within(age, self.cloud.volumes(&[])).await
    }

    /// Begins to make a node's volume; its id.
    pub(super) async fn ask_for_volume(
        &self,
        boot: &Boot<'_>,
        gib: u64,
        zone: Option<&str>,
    ) -> Result<String, ProviderError> {
        let told = |error| failed(format!("make the volume of {}", boot.node), error);
        let zone = match zone {
            None => None,
            // Where servers take volumes of their own zone only, zones of both have the same names.
            Some(zone) => {
                let zones = self.cloud.volume_zones().await.map_err(told)?;
                zones.iter().any(|name| name == zone).then_some(zone)
            }
        };
        let new = NewVolume {
            name: boot.node,
            image: boot.image,
            gib,
            zone,
            metadata: self.marks()?.metadata(boot.node),
        };
        Ok(self.cloud.create_volume(&new).await.map_err(told)?.id)
    }

    /// Waits until a volume can be booted from. It was asked for at that moment.
    pub(super) async fn until_available(
        &self,
        node: &str,
        id: &str,
        asked: Instant,
    ) -> Result<(), ProviderError> {
        let what = || format!("wait for the volume of {node}");
        loop {
            let all = self.all_volumes(LOOK_AGAIN).await.map_err(|e| failed(what(), e))?;
            let mut volume = all.iter().find(|volume| volume.id == id).cloned();
            // A list may be older than the volume.
            if volume.is_none() {
                volume = self.cloud.volume(id).await.map_err(|e| failed(what(), e))?;
            }
            let Some(volume) = volume else {
                return Err(ProviderError::said(what(), "somebody has deleted it"));
            };
            match on_the_way(&volume.status, asked.elapsed(), self.config.launch_limit) {
                Ok(true) => return Ok(()),
                Ok(false) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(why) => {
                    return Err(ProviderError::said(what(), format!("{why} (volume {id})")));
                }
            }
        }
    }

    /// Deletes a node's volumes and waits until they are gone. It has no server any more.
    pub(super) async fn delete_volumes(&self, node: &str) -> Result<(), ProviderError> {
        let what = || format!("delete the volume of {node}");
        let marks = self.marks()?;
        let begun = Instant::now();
        // By id: the state in which it was ordered to go, and what Cinder said to that.
        let mut ordered: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut age = Duration::ZERO;
        loop {
            let all = self.all_volumes(age).await.map_err(|e| failed(what(), e))?;
            let left: Vec<&Volume> =
                all.iter().filter(|volume| marks.node_of_volume(volume) == Some(node)).collect();
            let Some(first) = left.first() else { return Ok(()) };
            for volume in &left {
                // What was refused in one state may go in the next one.
                if ordered.get(&volume.id).is_none_or(|(state, _)| *state != volume.status) {
                    let said = self.order_away(&volume.id).await.map_err(|e| failed(what(), e))?;
                    ordered.insert(volume.id.clone(), (volume.status.clone(), said));
                }
            }
            if begun.elapsed() >= VOLUME_DELETE_WAIT {
                let said = ordered.get(&first.id).map_or("", |(_, said)| said);
                let why = format!(
                    "after {} s the volume {} is still {}{said}: see whether cinder-volume works; an administrator can reset its state",
                    VOLUME_DELETE_WAIT.as_secs(),
                    first.id,
                    first.status,
                );
                return Err(ProviderError::said(what(), why));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            age = LOOK_AGAIN / 2;
        }
    }

    /// Orders a volume to be deleted; what Cinder says against it.
    async fn order_away(&self, id: &str) -> Result<String, CloudError> {
        // Nova forgets to give a volume back when it cannot reach Cinder while it deletes the server.
        for attachment in self.cloud.attachments(id).await? {
            let server = match &attachment.instance {
                Some(server) => self.cloud.server(server).await?,
                None => None,
            };
            if server.is_none() {
                match self.cloud.delete_attachment(&attachment.id).await {
                    // Cinder asks Nova too, and then says no.
                    Ok(_) | Err(CloudError::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        match self.cloud.delete_volume(id).await {
            Ok(_) => Ok(String::new()),
            // It is being made, or deleted already, or is in use.
            Err(
                CloudError::Conflict { said, .. } | CloudError::Refused { status: 400, said, .. },
            ) => Ok(format!(" (Cinder says: {said})")),
            Err(error) => Err(error),
        }
    }
}

/// Whether a new volume is there, or why it will never be.
fn on_the_way(status: &str, since: Duration, limit: Duration) -> Result<bool, String> {
    match status {
        "available" => Ok(true),
        status if status.starts_with("error") => Err(format!(
            "the cloud failed to make it: it is {status}; `openstack volume message list` or the log of cinder-volume says why"
        )),
        status if since >= limit => Err(format!(
            "after {} s it is {status}: see whether cinder-scheduler and cinder-volume of the cloud work",
            limit.as_secs()
        )),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_volume_is_waited_for_until_it_fails() {
        let (limit, soon) = (Duration::from_secs(15), Duration::from_secs(1));
        for status in ["creating", "downloading", "a new one"] {
            assert_eq!(on_the_way(status, soon, limit), Ok(false), "{status}");
            let late = on_the_way(status, limit, limit).unwrap_err();
            assert!(late.starts_with(&format!("after 15 s it is {status}")), "{late}");
        }
        assert_eq!(on_the_way("available", limit, limit), Ok(true));
        let failed = on_the_way("error", soon, limit).unwrap_err();
        assert!(failed.contains("it is error; `openstack volume message list`"), "{failed}");
    }
}
