//! Which logs are in the archive, and since when.

use crate::db::{Store, read_db, write_db};
use crate::error::StoreError;
use sqlx::FromRow;
use toci_core::id::RunId;
use toci_core::time::Time;

// Nobody puts logs where another run's lie.
const KEEP: &str = "INSERT INTO log (run, path, kept_us, shown) \
     SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS BIGINT), 0 \
     WHERE NOT EXISTS (SELECT 1 FROM log WHERE path = CAST($2 AS TEXT) AND run <> CAST($1 AS TEXT)) \
     ON CONFLICT (run) DO UPDATE SET path = excluded.path, kept_us = excluded.kept_us, shown = 0";
const SHOW: &str = "UPDATE log SET shown = 1 WHERE run = $1";
const HIDE: &str = "UPDATE log SET shown = 0 WHERE run = $1 AND kept_us = $2";
const HIDDEN: &str = "SELECT path FROM log WHERE shown = 0";
const EXPIRED: &str =
    "SELECT run, path, kept_us FROM log WHERE kept_us < $1 ORDER BY kept_us, run LIMIT $2";
const FORGET: &str = "DELETE FROM log WHERE run = $1 AND kept_us = $2";

pub(crate) const STATEMENTS: &[&str] = &[KEEP, SHOW, HIDE, HIDDEN, EXPIRED, FORGET];

/// The logs of a run in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// Which run, 32 hex digits.
    pub run: String,
    /// Where in the archive.
    pub path: String,
    /// Since when.
    pub kept: Time,
}

#[derive(FromRow)]
struct Row {
    run: String,
    path: String,
    kept_us: i64,
}

impl Store {
    /// Remembers that the logs of a run will lie there, unless another run's do; says whether it was remembered. They are
    /// hidden until [`Store::show_log`].
    pub async fn keep_log(&self, run: RunId, path: &str, now: Time) -> Result<bool, StoreError> {
        let (run, path) = (run.to_string(), path.to_owned());
        let outcome = write_db!(self, p => sqlx::query(KEEP)
            .bind(run).bind(path).bind(now.0).execute(p).await.map(|done| done.rows_affected()))
        .map_err(|source| StoreError::Write { what: "logs of a run", source });
        Ok(self.written(outcome)? > 0)
    }

    /// The logs of a run are whole.
    pub async fn show_log(&self, run: RunId) -> Result<(), StoreError> {
        let run = run.to_string();
        let outcome = write_db!(self, p => sqlx::query(SHOW).bind(run).execute(p).await.map(drop))
            .map_err(|source| StoreError::Write { what: "logs of a run", source });
        self.written(outcome)
    }

    /// Logs are about to be removed, unless they were archived again meanwhile.
    pub async fn hide_log(&self, row: &LogRow) -> Result<(), StoreError> {
        let (run, kept) = (row.run.clone(), row.kept.0);
        let outcome = write_db!(self, p => sqlx::query(HIDE)
            .bind(run).bind(kept).execute(p).await.map(drop))
        .map_err(|source| StoreError::Write { what: "logs of a run", source });
        self.written(outcome)
    }

    /// Where logs lie that are not whole: they come or go this moment, or did when a server was killed.
    pub async fn hidden_logs(&self) -> Result<Vec<String>, StoreError> {
        read_db!(self, p => sqlx::query_scalar(HIDDEN).fetch_all(p).await)
            .map_err(|source| StoreError::Read { what: "hidden logs", source })
    }

    /// Logs that are kept since before a moment, the oldest first.
    pub async fn expired_logs(&self, before: Time, max: u32) -> Result<Vec<LogRow>, StoreError> {
        let rows: Vec<Row> = read_db!(self, p => sqlx::query_as(EXPIRED)
            .bind(before.0).bind(i64::from(max)).fetch_all(p).await)
        .map_err(|source| StoreError::Read { what: "expired logs", source })?;
        let row = |r: Row| LogRow { run: r.run, path: r.path, kept: Time(r.kept_us) };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Forgets logs that were removed, unless they were archived again meanwhile.
    pub async fn forget_log(&self, row: &LogRow) -> Result<(), StoreError> {
        let (run, kept) = (row.run.clone(), row.kept.0);
        let outcome = write_db!(self, p => sqlx::query(FORGET)
            .bind(run).bind(kept).execute(p).await.map(drop))
        .map_err(|source| StoreError::Write { what: "logs of a run", source });
        self.written(outcome)
    }
}
