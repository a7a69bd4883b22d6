//! Items that left their pipelines, for people who look back.

use crate::db::{Store, read_db};
use crate::error::StoreError;
use crate::row::{self, Value};
use toci_core::id::ItemId;
use toci_core::pipeline::{Left, Subject};
use toci_core::time::Time;

/// Items that one look gives at most.
pub const ENDED_READ_MAX: usize = 1_000;

const READ: &str = "SELECT ended_us, body FROM gate_ended WHERE ($1 = '' OR pipeline = $1) \
     AND ($2 = '' OR project = $2) AND ($3 = '' OR source = $3) AND ($4 = 0 OR number = $4) \
     AND ($5 = '' OR patchset = $5) AND ($6 = '' OR ended_as = $6) \
     AND ($7 = '' OR (ended_us, id) < (SELECT ended_us, id FROM gate_ended WHERE id = $7)) \
     ORDER BY ended_us DESC, id DESC LIMIT $8";
const PRUNE_OLD: &str = "DELETE FROM gate_ended WHERE ended_us < $1";
const PRUNE_MANY: &str = "DELETE FROM gate_ended WHERE ended_us < \
     (SELECT MIN(ended_us) FROM (SELECT ended_us FROM gate_ended \
     ORDER BY ended_us DESC LIMIT $1) AS kept)";

pub(crate) const STATEMENTS: &[&str] = &[READ, PRUNE_OLD, PRUNE_MANY];

/// An item that left, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedItem {
    /// When.
    pub at: Time,
    /// Which, and why.
    pub left: Left,
}

/// Which of them to read. Empty texts and 0 are all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedFilter {
    /// Of this pipeline.
    pub pipeline: String,
    /// Of this project, as its source calls it.
    pub project: String,
    /// Of this source's changes.
    pub source: String,
    /// Of this change.
    pub number: u64,
    /// Of this patchset.
    pub patchset: String,
    /// That ended so: [`toci_core::pipeline::End::word`].
    pub ended_as: String,
    /// That left before this one did: the next page.
    pub before: Option<ItemId>,
    /// So many at most; not more than [`ENDED_READ_MAX`].
    pub limit: usize,
}

impl Store {
    /// Items that left, the newest first.
    pub async fn ended_items(&self, filter: &EndedFilter) -> Result<Vec<EndedItem>, StoreError> {
        let number = i64::try_from(filter.number).unwrap_or(i64::MAX);
        let before = filter.before.map(|id| id.to_string()).unwrap_or_default();
        let limit = i64::try_from(filter.limit.min(ENDED_READ_MAX)).unwrap_or(i64::MAX);
        let rows: Vec<(i64, String)> = read_db!(self, p => sqlx::query_as(READ)
            .bind(filter.pipeline.clone())
            .bind(filter.project.clone())
            .bind(filter.source.clone())
            .bind(number)
            .bind(filter.patchset.clone())
            .bind(filter.ended_as.clone())
            .bind(before.clone())
            .bind(limit)
            .fetch_all(p).await)
        .map_err(|source| StoreError::Read { what: "ended items", source })?;
        let bad =
            |e: serde_json::Error| StoreError::BadRow { what: "an ended item", why: e.to_string() };
        rows.into_iter()
            .map(|(at, body)| {
                let left = serde_json::from_str(&body).map_err(bad)?;
                Ok(EndedItem { at: Time(at), left })
            })
            .collect()
    }

    /// Forgets what left before this moment, and all but the newest `keep`. Says how many went.
    pub async fn prune_ended_items(&self, before: Time, keep: usize) -> Result<u64, StoreError> {
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let mut tx = self.begin().await?;
        let old = row::execute(&mut tx, "ended items", PRUNE_OLD, &[before.0.into()]).await?;
        let many = row::execute(&mut tx, "ended items", PRUNE_MANY, &[keep.into()]).await?;
        self.written(tx.commit("ended items").await)?;
        Ok(old + many)
    }
}

/// The columns of one.
pub(crate) fn columns(ended: &EndedItem) -> Result<Vec<Value>, StoreError> {
    let EndedItem { at, left } = ended;
    let body = serde_json::to_string(left)
        .map_err(|e| StoreError::BadRow { what: "an ended item", why: e.to_string() })?;
    let (number, patchset) = match &left.subject {
        Subject::Change(key) => (i64::try_from(key.number).unwrap_or(i64::MAX), &*key.patchset),
        Subject::Ref(_) | Subject::Branch { .. } => (0, ""),
    };
    Ok(vec![
        left.item.to_string().as_str().into(),
        at.0.into(),
        left.pipeline.0.as_str().into(),
        left.project.name.as_str().into(),
        left.project.source.as_str().into(),
        number.into(),
        patchset.into(),
        left.end.word().into(),
        body.as_str().into(),
    ])
}
