//! Writing many rows with few statements: each table's upsert, for 1 to 32 rows at a time.

use crate::db::{Tx, in_tx};
use crate::error::StoreError;
use sqlx::{AssertSqlSafe, Row as _};
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

/// Row counts for which there is a statement; each is prepared once a connection.
const CHUNKS: [usize; 5] = [32, 8, 4, 2, 1];

/// The texts of one table's upsert, one for each of [`CHUNKS`].
type Texts = [Arc<str>; CHUNKS.len()];

/// How binds are written. Numbers are names to SQLite: it looks each one up among all the others, so that the cost of
/// a statement would grow with the square of their number. PostgreSQL knows nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Marks {
    /// `?`, for SQLite.
    Plain,
    /// `$1`, for PostgreSQL.
    Numbered,
}

/// A table that is written by upsert.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// How many of the first columns are the key.
    pub(crate) keys: usize,
    pub(crate) columns: &'static [&'static str],
    plain: OnceLock<Texts>,
    numbered: OnceLock<Texts>,
}

/// A column's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
}

impl From<String> for Value {
    fn from(s: String) -> Value {
        Value::Text(Some(s))
    }
}
impl From<i64> for Value {
    fn from(n: i64) -> Value {
        Value::Int(Some(n))
    }
}
impl From<Option<i64>> for Value {
    fn from(n: Option<i64>) -> Value {
        Value::Int(n)
    }
}
impl From<&str> for Value {
    fn from(s: &str) -> Value {
        Value::Text(Some(s.to_owned()))
    }
}
impl From<Option<&str>> for Value {
    fn from(s: Option<&str>) -> Value {
        Value::Text(s.map(str::to_owned))
    }
}

macro_rules! table {
    ($id:ident, $name:literal, $keys:literal, [$($col:literal),* $(,)?]) => {
        pub(crate) static $id: Table = Table {
            name: $name,
            keys: $keys,
            columns: &[$($col),*],
            plain: OnceLock::new(),
            numbered: OnceLock::new(),
        };
    };
}

table!(HOST, "host", 1, ["id", "draining", "enrolled_us"]);
table!(
    TESTENV,
    "testenv",
    1,
    [
        "id",
        "host",
        "number",
        "shape",
        "labels",
        "generation",
        "state",
        "lease",
        "draining",
        "strikes",
        "reason",
        "since_us",
    ]
);
table!(
    LEASE,
    "lease",
    1,
    [
        "id",
        "live",
        "state",
        "moment_us",
        "owner",
        "project",
        "label",
        "shape",
        "count",
        "priority",
        "purpose",
        "idempotency_key",
        "timeout_us",
        "wait_until_us",
        "queue_rank",
        "requested_us",
        "active_us",
        "testenvs",
        "reason",
    ]
);
table!(CREDENTIAL, "credential", 2, ["lease", "testenv", "generation", "te_json"]);
table!(HOLD_BUDGET, "hold_budget", 1, ["project", "used_us", "at_us"]);
table!(
    NODE,
    "node",
    1,
    [
        "id",
        "name",
        "label",
        "provider",
        "state",
        "run",
        "since_us",
        "machine",
        "job",
        "hold_until_us",
        "hold_reason",
        "reason",
    ]
);

table!(AUTOHOLD, "autohold", 1, ["id", "body"]);
table!(GATE_ITEM, "gate_item", 1, ["id", "body"]);
table!(GATE_REPORT, "gate_report", 1, ["id", "body"]);
table!(GATE_WAITING, "gate_waiting", 1, ["id", "body"]);
table!(
    GATE_ENDED,
    "gate_ended",
    1,
    ["id", "ended_us", "pipeline", "project", "source", "number", "patchset", "ended_as", "body"]
);
table!(GATE_STATE, "gate_state", 1, ["id", "body"]);
table!(JOB_PAUSE, "job_pause", 1, ["job", "since_us", "paused_by", "reason"]);
table!(PROVIDER, "provider", 1, ["name", "body"]);
table!(RUN, "run", 1, ["id", "live", "queued_us", "body"]);
table!(SOURCE_CURSOR, "source_cursor", 2, ["source", "name", "body"]);

static ALL: &[&Table] = &[
    &HOST,
    &TESTENV,
    &LEASE,
    &CREDENTIAL,
    &HOLD_BUDGET,
    &NODE,
    &AUTOHOLD,
    &PROVIDER,
    &GATE_ITEM,
    &GATE_REPORT,
    &GATE_WAITING,
    &GATE_ENDED,
    &GATE_STATE,
    &SOURCE_CURSOR,
    &RUN,
    &JOB_PAUSE,
];

pub(crate) fn statements(marks: Marks) -> impl Iterator<Item = String> {
    ALL.iter().flat_map(move |t| t.texts(marks).iter().map(|s| s.to_string()))
}

impl Table {
    fn texts(&self, marks: Marks) -> &Texts {
        let texts = match marks {
            Marks::Plain => &self.plain,
            Marks::Numbered => &self.numbered,
        };
        texts.get_or_init(|| CHUNKS.map(|n| self.upsert(n, marks).into()))
    }

    fn upsert(&self, rows: usize, marks: Marks) -> String {
        let width = self.columns.len();
        let mut sql = format!("INSERT INTO {} ({}) VALUES ", self.name, self.columns.join(", "));
        for row in 0..rows {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..width {
                let comma = if column == 0 { "" } else { ", " };
                // Writing to a String cannot fail.
                let _ = match marks {
                    Marks::Plain => write!(sql, "{comma}?"),
                    Marks::Numbered => write!(sql, "{comma}${}", row * width + column + 1),
                };
            }
            sql.push(')');
        }
        let keys = self.columns[..self.keys].join(", ");
        let rest = &self.columns[self.keys..];
        let set: Vec<String> = rest.iter().map(|c| format!("{c} = excluded.{c}")).collect();
        let _ = write!(sql, " ON CONFLICT ({keys}) DO UPDATE SET {}", set.join(", "));
        sql
    }

    /// Writes the rows; no two may have the same key.
    pub(crate) async fn write(&self, tx: &mut Tx, rows: Vec<Vec<Value>>) -> Result<(), StoreError> {
        let mut left = rows.into_iter();
        for (size, text) in CHUNKS.iter().zip(self.texts(tx.marks())) {
            while left.len() >= *size {
                let chunk = left.by_ref().take(*size);
                in_tx!(tx, t => {
                    let mut query = sqlx::query(AssertSqlSafe(text.clone()));
                    for value in chunk.flatten() {
                        query = match value {
                            Value::Int(n) => query.bind(n),
                            Value::Text(s) => query.bind(s),
                        };
                    }
                    query.execute(t).await.map(drop)
                })
                .map_err(|source| StoreError::Write { what: self.name, source })?;
            }
        }
        Ok(())
    }
}

/// Runs one statement with binds in a transaction.
pub(crate) async fn execute(
    tx: &mut Tx,
    what: &'static str,
    sql: &'static str,
    values: &[Value],
) -> Result<u64, StoreError> {
    in_tx!(tx, t => {
        let mut query = sqlx::query(sql);
        for value in values {
            query = match value {
                Value::Int(n) => query.bind(*n),
                Value::Text(s) => query.bind(s.clone()),
            };
        }
        query.execute(t).await.map(|done| done.rows_affected())
    })
    .map_err(|source| StoreError::Write { what, source })
}

/// Reads one number that a statement returns in a transaction.
pub(crate) async fn fetch_number(
    tx: &mut Tx,
    what: &'static str,
    sql: &'static str,
    values: &[Value],
) -> Result<i64, StoreError> {
    in_tx!(tx, t => {
        let mut query = sqlx::query(sql);
        for value in values {
            query = match value {
                Value::Int(n) => query.bind(*n),
                Value::Text(s) => query.bind(s.clone()),
            };
        }
        query.fetch_one(t).await.and_then(|row| row.try_get::<i64, _>(0))
    })
    .map_err(|source| StoreError::Read { what, source })
}

/// Locks the row as well, so that a commit of the new writer waits for this one or is seen by it.
pub(crate) const STILL_WRITER: &str = "UPDATE writer SET epoch = epoch WHERE id = 1 AND epoch = $1";

/// Refuses a server that was replaced.
pub(crate) async fn still_writer(tx: &mut Tx, epoch: i64) -> Result<(), StoreError> {
    match execute(tx, "the writer", STILL_WRITER, &[epoch.into()]).await? {
        1 => Ok(()),
        _ => Err(StoreError::TakenOver),
    }
}
