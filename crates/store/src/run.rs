//! The run stage: what is remembered of each run.

use crate::db::{Store, read_db};
use crate::error::StoreError;
use crate::row;
use std::sync::atomic::Ordering;
use toci_core::id::RunId;
use toci_core::run::record::Record;

const READ_ONE: &str = "SELECT body FROM run WHERE id = $1";
const READ_LIVE: &str = "SELECT body FROM run WHERE live = 1 ORDER BY queued_us, id";
const READ_ENDED: &str =
    "SELECT body FROM run WHERE live = 0 ORDER BY queued_us DESC, id DESC LIMIT $1";
const PRUNE: &str = "DELETE FROM run WHERE live = 0 AND queued_us < \
     (SELECT MIN(queued_us) FROM (SELECT queued_us FROM run WHERE live = 0 \
     ORDER BY queued_us DESC LIMIT $1) AS kept)";

const FORGET: &str = "DELETE FROM run WHERE id = $1 AND live = 1";

pub(crate) const STATEMENTS: &[&str] = &[READ_ONE, READ_LIVE, READ_ENDED, PRUNE, FORGET];

impl Store {
    /// Writes a run as it stands: on disk when this returns. Only the writer of the lease book may
    /// ([`Store::claim_book`]).
    pub async fn put_run(&self, record: &Record) -> Result<(), StoreError> {
        self.written(self.write_run(record).await)
    }

    async fn write_run(&self, record: &Record) -> Result<(), StoreError> {
        let bad = |e: serde_json::Error| StoreError::BadRow { what: "a run", why: e.to_string() };
        let body = serde_json::to_string(record).map_err(bad)?;
        let live = i64::from(record.result().is_none());
        let mut tx = self.begin().await?;
        let epoch = self.epoch.load(Ordering::SeqCst);
        row::still_writer(&mut tx, epoch).await?;
        let id = record.run.to_string();
        let values =
            vec![id.as_str().into(), live.into(), record.queued.0.into(), body.as_str().into()];
        row::RUN.write(&mut tx, vec![values]).await?;
        tx.commit("a run").await
    }

    /// One run.
    pub async fn run(&self, id: RunId) -> Result<Option<Record>, StoreError> {
        let id = id.to_string();
        let row: Option<(String,)> =
            read_db!(self, p => sqlx::query_as(READ_ONE).bind(id).fetch_optional(p).await)
                .map_err(|source| StoreError::Read { what: "a run", source })?;
        row.map(|(body,)| record(&body)).transpose()
    }

    /// Runs of which something may be running, the oldest first.
    pub async fn live_runs(&self) -> Result<Vec<Record>, StoreError> {
        let rows: Vec<(String,)> =
            read_db!(self, p => sqlx::query_as(READ_LIVE).fetch_all(p).await)
                .map_err(|source| StoreError::Read { what: "live runs", source })?;
        rows.iter().map(|(body,)| record(body)).collect()
    }

    /// Runs that are over, the newest first, at most so many.
    pub async fn ended_runs(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<(String,)> =
            read_db!(self, p => sqlx::query_as(READ_ENDED).bind(limit).fetch_all(p).await)
                .map_err(|source| StoreError::Read { what: "ended runs", source })?;
        rows.iter().map(|(body,)| record(body)).collect()
    }

    /// Forgets a run of which nothing has run yet.
    pub async fn forget_run(&self, id: RunId) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let id = id.to_string();
        row::execute(&mut tx, "a run", FORGET, &[id.as_str().into()]).await?;
        self.written(tx.commit("a run").await)
    }

    /// Forgets all runs that are over but the newest `keep`. Says how many went.
    pub async fn prune_runs(&self, keep: usize) -> Result<u64, StoreError> {
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let mut tx = self.begin().await?;
        let gone = row::execute(&mut tx, "ended runs", PRUNE, &[keep.into()]).await?;
        self.written(tx.commit("ended runs").await)?;
        Ok(gone)
    }
}

fn record(body: &str) -> Result<Record, StoreError> {
    serde_json::from_str(body).map_err(|e| StoreError::BadRow { what: "a run", why: e.to_string() })
}
