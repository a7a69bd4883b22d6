//! Jobs that are paused.

use crate::db::{Store, read_db};
use crate::error::StoreError;
use crate::row;
use std::sync::atomic::Ordering;
use toci_core::time::Time;

const READ: &str = "SELECT job, since_us, paused_by, reason FROM job_pause ORDER BY job";
const REMOVE: &str = "DELETE FROM job_pause WHERE job = $1";

pub(crate) const STATEMENTS: &[&str] = &[READ, REMOVE];

/// A job of which no run begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPause {
    /// Its name.
    pub job: String,
    /// Since when.
    pub since: Time,
    /// Who paused it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Store {
    /// All jobs that are paused.
    pub async fn job_pauses(&self) -> Result<Vec<JobPause>, StoreError> {
        let rows: Vec<(String, i64, String, String)> =
            read_db!(self, p => sqlx::query_as(READ).fetch_all(p).await)
                .map_err(|source| StoreError::Read { what: "paused jobs", source })?;
        let pause = |(job, since, by, reason)| JobPause { job, since: Time(since), by, reason };
        Ok(rows.into_iter().map(pause).collect())
    }

    /// Remembers that a job is paused: on disk when this returns. Only the writer of the lease book may
    /// ([`Store::claim_book`]).
    pub async fn put_job_pause(&self, pause: &JobPause) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        row::still_writer(&mut tx, self.epoch.load(Ordering::SeqCst)).await?;
        let values = vec![
            pause.job.as_str().into(),
            pause.since.0.into(),
            pause.by.as_str().into(),
            pause.reason.as_str().into(),
        ];
        row::JOB_PAUSE.write(&mut tx, vec![values]).await?;
        self.written(tx.commit("a paused job").await)
    }

    /// Forgets that a job was paused.
    pub async fn remove_job_pause(&self, job: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        row::still_writer(&mut tx, self.epoch.load(Ordering::SeqCst)).await?;
        row::execute(&mut tx, "a paused job", REMOVE, &[job.into()]).await?;
        self.written(tx.commit("a paused job").await)
    }
}
