//! `toci cloud`: a zone is read from its file, compared with what its cloud has, and applied.
//!
//! ```text
//! zone file ─▶ ZoneAtHand (files hashed, keys read) ─┐
//!                                                    ├─▶ core::cloud::plan ─▶ apply: one step after the other
//! the cloud ─▶ read ─────────────────────────────────┘
//! ```
//!
//! Nothing here decides what is done: that is the plan's. All calls to the cloud are in `api`.

mod api;
mod apply;
mod body;
mod change;
mod create;
mod prepare;
mod read;

pub use api::ApiError;
pub use apply::{Progress, SERVER_BOOT_LIMIT, SERVER_DELETE_LIMIT, Stopped};
pub use prepare::{BadZone, ZoneAtHand};

use api::Api;
use apply::Executor;
use read::Reading;
use toci_core::cloud::{Plan, Stale, Zone};

/// A zone and its cloud.
#[derive(Debug)]
pub struct ZoneCloud {
    zone: Zone,
    api: Api,
}

/// What there is to do, and what it was found from.
#[derive(Debug)]
pub struct ZonePlan {
    /// What there is to do.
    pub plan: Plan,
    reading: Reading,
}

impl ZoneCloud {
    /// Logs in; nothing is asked or changed yet.
    pub async fn connect(zone: ZoneAtHand) -> Result<ZoneCloud, ApiError> {
        let api = Api::connect(zone.cloud.as_deref()).await?;
        Ok(ZoneCloud { zone: zone.zone, api })
    }

    /// Looks at the cloud, and says what is not as wished.
    pub async fn plan(&self, stale: Stale) -> Result<ZonePlan, ApiError> {
        let reading = read::read(&self.api, &self.zone).await?;
        let plan = toci_core::cloud::plan(&self.zone, &reading.found, stale);
        Ok(ZonePlan { plan, reading })
    }

    /// Does what the plan says, one step after the other, until the end or the first failure.
    pub async fn apply(
        &self,
        plan: &ZonePlan,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Stopped> {
        Executor::new(&self.api, &self.zone, &plan.reading).run(&plan.plan, tell).await
    }
}
