//! Jobs that an operator, or their failures, have paused: what runs goes on, nothing of them begins until they are resumed. Kept in the store.

use super::desk::{Alert, RunDesk};
use crate::clock::now;
use toci_store::{JobPause, StoreError};

/// Jobs that may be paused at a time.
pub const PAUSED_MAX: usize = 1_000;
/// Longest reason, in characters; the rest is cut off.
const REASON_MAX: usize = 500;

/// Why a job was not paused.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// There are too many already.
    #[error("more than {PAUSED_MAX} jobs are paused")]
    TooMany,
    /// It could not be written.
    #[error("the pause could not be written")]
    Failed(#[from] StoreError),
}

impl RunDesk {
    /// Nothing of this job begins any more; on disk when this returns. Again is no harm.
    ///
    /// # Errors
    /// There are too many, or it cannot be written.
    pub async fn pause(&self, job: &str, by: &str, reason: &str) -> Result<JobPause, PauseError> {
        let known = self.pauses();
        if let Some(pause) = known.iter().find(|pause| pause.job == job) {
            return Ok(pause.clone());
        }
        if known.len() >= PAUSED_MAX {
            return Err(PauseError::TooMany);
        }
        let pause = JobPause {
            job: job.to_owned(),
            since: now(),
            by: by.to_owned(),
            reason: reason.chars().take(REASON_MAX).collect(),
        };
        self.store().put_job_pause(&pause).await?;
        tracing::warn!(job, by, reason = pause.reason, "a job is paused");
        self.change_pauses(|table| {
            table.paused.insert(job.to_owned(), pause.clone());
            Some(Alert::Paused(pause.clone()))
        });
        Ok(pause)
    }

    /// The job goes on. Says whether it was paused.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn resume(&self, job: &str) -> Result<bool, PauseError> {
        self.store().remove_job_pause(job).await?;
        let mut was = false;
        self.change_pauses(|table| {
            was = table.paused.remove(job).is_some();
            table.streaks.forget(job);
            was.then(|| Alert::Resumed(job.to_owned()))
        });
        if was {
            tracing::info!(job, "a job goes on");
        }
        Ok(was)
    }
}
