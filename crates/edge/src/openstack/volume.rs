//! Cinder: volumes that servers boot from.

use super::error::CloudError;
use super::session::{Cloud, Service};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// `available`, `in-use`, `deleting`, `error`, ...
    pub status: String,
    /// Marks.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl Cloud {
    /// Volumes of the project.
    pub async fn volumes(&self, query: &[(&str, &str)]) -> Result<Vec<Volume>, CloudError> {
        self.list(Service::Volume, "/volumes/detail", "volumes", query).await
    }

    /// Deletes a volume; whether it was there.
    pub async fn delete_volume(&self, id: &str) -> Result<bool, CloudError> {
        self.delete(Service::Volume, &format!("/volumes/{id}")).await
    }
}
