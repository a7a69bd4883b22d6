//! The volume service. Few tests need it, so it only runs while one does: others pay nothing for it, and the cloud is one
//! without volumes for them.

use anyhow::Result;
use serde_json::json;

use crate::api::text;
use crate::fault::restored;
use crate::{Api, Service};

/// All of Cinder.
const SERVICES: [Service; 3] =
    [Service::CinderApi, Service::CinderScheduler, Service::CinderVolume];
/// Where its API is.
const ADDRESS: &str = "http://127.0.0.1:8776/v3/%(project_id)s";

/// The volume service, running and in the catalogue until this is dropped. Who has logged in before does not see it.
#[derive(Debug)]
pub struct Volumes {
    /// Its id in the catalogue.
    entry: Option<String>,
}

/// Starts the volume service.
///
/// # Errors
/// It does not come up.
pub fn volumes() -> Result<Volumes> {
    // From here on whatever was started ends with it.
    let mut volumes = Volumes { entry: None };
    SERVICES.iter().try_for_each(|service| service.told("start"))?;
    SERVICES.iter().try_for_each(|service| service.told("ready"))?;
    let admin = Api::admin()?;
    let service = json!({"service": {"name": "cinder", "type": "volumev3"}});
    let entry = text(&admin.post("identity", "/services", &service)?["service"]["id"])?;
    let endpoint = json!({"endpoint": {
        "service_id": entry, "interface": "public", "region_id": "RegionOne", "url": ADDRESS,
    }});
    volumes.entry = Some(entry);
    admin.post("identity", "/endpoints", &endpoint)?;
    Ok(volumes)
}

impl Drop for Volumes {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            let path = format!("/services/{entry}");
            restored(Api::admin().and_then(|admin| admin.delete("identity", &path)));
        }
        for service in SERVICES {
            restored(service.told("stop"));
        }
    }
}
