//! Cinder: volumes that servers boot from.

use super::compute::{LimitsAnswer, there};
use super::error::CloudError;
use super::network::QuotaUse;
use super::session::{Cloud, Service};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Version of Cinder's interface that is spoken: the first one (Ocata, 2017) that tells what a volume is attached to, and
/// lets it be detached by who owns it.
pub const VOLUME_MICROVERSION: &str = "3.27";

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// `creating`, `downloading`, `available`, `reserved`, `in-use`, `deleting`, `error`, ...
    pub status: String,
    /// GiB.
    #[serde(rename = "size")]
    pub gib: u64,
    /// Marks.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// A volume that is made of an image.
#[derive(Clone, Debug)]
pub struct NewVolume<'a> {
    /// Its name.
    pub name: &'a str,
    /// The image, by id.
    pub image: &'a str,
    /// Its size.
    pub gib: u64,
    /// Where; none: where the cloud likes.
    pub zone: Option<&'a str>,
    /// Marks.
    pub metadata: BTreeMap<String, String>,
}

/// What ties a volume to a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// Its id.
    pub id: String,
    /// The server's id.
    #[serde(default)]
    pub instance: Option<String>,
}

/// What a project may have of Cinder, and has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeLimits {
    /// Volumes.
    pub volumes: QuotaUse,
    /// GiB of all volumes.
    pub gib: QuotaUse,
}

#[derive(Deserialize)]
struct OneVolume {
    volume: Volume,
}

/// -1: no limit. A cloud without quotas tells none, and what is used may be for administrators only.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLimits {
    max_total_volumes: Option<i64>,
    total_volumes_used: Option<i64>,
    max_total_volume_gigabytes: Option<i64>,
    total_gigabytes_used: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Zones {
    availability_zone_info: Vec<Zone>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Zone {
    zone_name: String,
}

impl Cloud {
    /// Volumes of the project.
    pub async fn volumes(&self, query: &[(&str, &str)]) -> Result<Vec<Volume>, CloudError> {
        self.list(Service::Volume, "/volumes/detail", "volumes", query).await
    }

    /// A volume; none when it is not there.
    pub async fn volume(&self, id: &str) -> Result<Option<Volume>, CloudError> {
        let answer = self.get::<OneVolume>(Service::Volume, &format!("/volumes/{id}")).await;
        there(answer.map(|one| one.volume))
    }

    /// Begins to make a volume; it is `available` when the image is on it.
    pub async fn create_volume(&self, new: &NewVolume<'_>) -> Result<Volume, CloudError> {
        let mut volume = json!({
            "name": new.name,
            "imageRef": new.image,
            "size": new.gib,
            "metadata": new.metadata,
        });
        if let Some(zone) = new.zone {
            volume["availability_zone"] = json!(zone);
        }
        let body = json!({"volume": volume});
        let answer: OneVolume = self.post(Service::Volume, "/volumes", body).await?;
        Ok(answer.volume)
    }

    /// Begins to delete a volume; whether it was there.
    pub async fn delete_volume(&self, id: &str) -> Result<bool, CloudError> {
        self.delete(Service::Volume, &format!("/volumes/{id}")).await
    }

    /// What a volume is attached to, or reserved for.
    pub async fn attachments(&self, volume: &str) -> Result<Vec<Attachment>, CloudError> {
        let query = [("volume_id", volume)];
        self.list(Service::Volume, "/attachments", "attachments", &query).await
    }

    /// Takes a volume from a server; whether it was there.
    pub async fn delete_attachment(&self, id: &str) -> Result<bool, CloudError> {
        self.delete(Service::Volume, &format!("/attachments/{id}")).await
    }

    /// The names of the zones that volumes may be in; they may be others than those of servers.
    pub async fn volume_zones(&self) -> Result<Vec<String>, CloudError> {
        let answer: Zones = self.get(Service::Volume, "/os-availability-zone").await?;
        Ok(answer.availability_zone_info.into_iter().map(|zone| zone.zone_name).collect())
    }

    /// What the project may have of volumes, and has.
    pub async fn volume_limits(&self) -> Result<VolumeLimits, CloudError> {
        let answer: LimitsAnswer<RawLimits> = self.get(Service::Volume, "/limits").await?;
        Ok(answer.absolute().limits())
    }
}

impl RawLimits {
    fn limits(&self) -> VolumeLimits {
        let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        let pair = |used, most| QuotaUse { used: count(used).unwrap_or(0), most: count(most) };
        VolumeLimits {
            volumes: pair(self.total_volumes_used, self.max_total_volumes),
            gib: pair(self.total_gigabytes_used, self.max_total_volume_gigabytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_what_a_cloud_tells() {
        let of = |text: &str| serde_json::from_str::<RawLimits>(text).unwrap().limits();
        assert_eq!(of("{}"), VolumeLimits::default());
        let text = r#"{"maxTotalVolumes": 10, "maxTotalVolumeGigabytes": -1,
            "totalVolumesUsed": 3, "totalGigabytesUsed": 120, "maxTotalBackups": 10}"#;
        let (volumes, gib) =
            (QuotaUse { used: 3, most: Some(10) }, QuotaUse { used: 120, most: None });
        assert_eq!(of(text), VolumeLimits { volumes, gib });
    }
}
