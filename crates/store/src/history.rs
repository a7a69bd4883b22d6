//! Leases that are over, for people who look back.

use crate::db::{Store, read_db};
use crate::error::StoreError;
use crate::lease::LeaseRow;
use toci_core::id::LeaseId;
use toci_core::lease::Lease;

const READ_ONE: &str = "SELECT id, state, moment_us, owner, project, label, shape, count, \
     priority, purpose, idempotency_key, timeout_us, wait_until_us, queue_rank, requested_us, \
     active_us, testenvs, reason FROM lease WHERE id = $1";
const READ_SOME: &str = "SELECT id, state, moment_us, owner, project, label, shape, count, \
     priority, purpose, idempotency_key, timeout_us, wait_until_us, queue_rank, requested_us, \
     active_us, testenvs, reason FROM lease WHERE live = 0 \
     AND ($1 = '' OR owner = $1) AND ($2 = '' OR project = $2) ORDER BY id DESC LIMIT $3";

pub(crate) const STATEMENTS: &[&str] = &[READ_ONE, READ_SOME];

/// Which leases to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseFilter {
    /// Also those that are over.
    pub ended: bool,
    /// Only this owner's.
    pub owner: Option<String>,
    /// Only this project's.
    pub project: Option<String>,
    /// At most so many, the newest; 0 means the default of the reader.
    pub limit: usize,
}

impl Store {
    /// One lease, live or over.
    pub async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        let number = i64::try_from(id.0).unwrap_or(i64::MAX);
        let row: Option<LeaseRow> =
            read_db!(self, p => sqlx::query_as(READ_ONE).bind(number).fetch_optional(p).await)
                .map_err(|source| StoreError::Read { what: "a lease", source })?;
        row.map(LeaseRow::value).transpose()
    }

    /// Leases that are over, newest first.
    pub async fn ended_leases(&self, filter: &LeaseFilter) -> Result<Vec<Lease>, StoreError> {
        let owner = filter.owner.clone().unwrap_or_default();
        let project = filter.project.clone().unwrap_or_default();
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        let rows: Vec<LeaseRow> = read_db!(self, p => sqlx::query_as(READ_SOME)
            .bind(owner).bind(project).bind(limit).fetch_all(p).await)
        .map_err(|source| StoreError::Read { what: "ended leases", source })?;
        rows.into_iter().map(LeaseRow::value).collect()
    }
}
