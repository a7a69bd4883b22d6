//! Glance: images.

use super::compute::there;
use super::error::CloudError;
use super::session::{Cloud, Service};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    #[serde(default)]
    pub name: Option<String>,
    /// `queued`, `saving`, `active`, `killed`, ...
    pub status: String,
    /// When it came to be; images of one name are told apart by it.
    #[serde(default)]
    pub created_at: String,
    /// Everything else, marks too.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Image {
    /// A property that is a text.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.other.get(name).and_then(Value::as_str)
    }
}

/// A new image.
#[derive(Clone, Debug)]
pub struct NewImage<'a> {
    /// Its name.
    pub name: &'a str,
    /// `qcow2`, `raw`, ...
    pub disk_format: &'a str,
    /// Marks, and what Nova is to know.
    pub properties: BTreeMap<String, String>,
}

impl Cloud {
    /// Images that may be used and fit the query.
    pub async fn images(&self, query: &[(&str, &str)]) -> Result<Vec<Image>, CloudError> {
        self.list(Service::Image, "/images", "images", query).await
    }

    /// An image; none when it is not there.
    pub async fn image(&self, id: &str) -> Result<Option<Image>, CloudError> {
        there(self.get(Service::Image, &format!("/images/{id}")).await)
    }

    /// Makes an image without content.
    pub async fn create_image(&self, new: &NewImage<'_>) -> Result<Image, CloudError> {
        let mut body: Map<String, Value> =
            new.properties.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        body.insert("name".to_owned(), json!(new.name));
        body.insert("disk_format".to_owned(), json!(new.disk_format));
        body.insert("container_format".to_owned(), json!("bare"));
        body.insert("visibility".to_owned(), json!("private"));
        self.post(Service::Image, "/images", Value::Object(body)).await
    }

    /// Sends an image's content; it is read while it is sent.
    pub async fn upload_image(&self, id: &str, file: &Path) -> Result<(), CloudError> {
        self.upload(Service::Image, &format!("/images/{id}/file"), file).await
    }

    /// Deletes an image; whether it was there.
    pub async fn delete_image(&self, id: &str) -> Result<bool, CloudError> {
        self.delete(Service::Image, &format!("/images/{id}")).await
    }
}
