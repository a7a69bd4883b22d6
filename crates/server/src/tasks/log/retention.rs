//! Once an hour, logs that are old enough go.

use super::store::{LogError, LogStore, WeakLogStore};
use crate::clock::wall;
use std::time::Duration;
use toci_core::log::LogPath;
use toci_core::log::retention::horizon;
use tokio::time::{Instant, MissedTickBehavior};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(3600);
/// When it is looked first: a server that starts has other things to do.
const FIRST: Duration = Duration::from_secs(60);
/// Runs that are removed before the store is asked again.
const BATCH_MAX: u32 = 100;

impl LogStore {
    /// Removes what has expired; says how many runs' logs are gone. What cannot be removed now stays for the next time.
    pub async fn sweep(&self) -> Result<usize, LogError> {
        let Some(horizon) = horizon(wall(), self.keep()) else { return Ok(0) };
        let mut gone = 0;
        loop {
            let rows = self.store().expired_logs(horizon, BATCH_MAX).await?;
            let (count, mut removed) = (rows.len(), 0);
            for row in rows {
                self.store().hide_log(&row).await?;
                // A path that is none could never have been written to.
                if let Ok(at) = LogPath::new(&row.path)
                    && let Err(error) = self.remove(&at).await
                {
                    tracing::error!(error = ?error, path = row.path, "expired logs cannot be removed");
                    continue;
                }
                self.store().forget_log(&row).await?;
                removed += 1;
            }
            gone += removed;
            if count < BATCH_MAX as usize || removed == 0 {
                return Ok(gone);
            }
        }
    }
}

/// Sweeps for as long as anybody holds the archive.
pub(super) async fn keep_swept(archive: WeakLogStore) {
    let mut ticks = tokio::time::interval_at(Instant::now() + FIRST, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(archive) = archive.upgrade() else { return };
        match archive.sweep().await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(runs = gone, "expired logs were removed"),
            Err(error) => {
                tracing::error!(error = ?error, "expired logs could not be looked for");
            }
        }
    }
}
