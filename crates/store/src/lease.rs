//! The lease stage: the book's rows, written in one transaction a batch.

use crate::db::{Store, read_db};
use crate::error::StoreError;
use crate::row::{self, Value};
use sqlx::FromRow;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use toci_core::id::{Generation, HostId, Label, LeaseId, Project, ShapeName, TeId};
use toci_core::lease::{Demand, HoldBudget, Host, Lease, LeaseState, Rows, Te, TeState};
use toci_core::time::Time;

const CLAIM: &str = "UPDATE writer SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch";
const MARK: &str =
    "UPDATE writer SET boot = $1, boot_us = $2, book_us = $3 WHERE id = 1 AND epoch = $4";
const READ_MARK: &str = "SELECT boot, boot_us, book_us FROM writer WHERE id = 1";
const READ_HOSTS: &str = "SELECT id, draining, enrolled_us FROM host ORDER BY id";
const READ_TES: &str = "SELECT id, host, number, shape, labels, generation, state, lease, \
     draining, strikes, reason, since_us FROM testenv ORDER BY id";
const READ_LIVE: &str = "SELECT id, state, moment_us, owner, project, label, shape, count, \
     priority, purpose, idempotency_key, timeout_us, wait_until_us, queue_rank, requested_us, \
     active_us, testenvs, reason FROM lease WHERE live = 1 ORDER BY id";
const READ_ENDED: &str = "SELECT id, state, moment_us, owner, project, label, shape, count, \
     priority, purpose, idempotency_key, timeout_us, wait_until_us, queue_rank, requested_us, \
     active_us, testenvs, reason FROM lease WHERE live = 0 ORDER BY id DESC LIMIT $1";
const READ_CONFIRMED: &str = "SELECT lease, testenv FROM credential";
const READ_BUDGETS: &str = "SELECT project, used_us, at_us FROM hold_budget";
const ERASE: &str = "DELETE FROM credential WHERE lease IN ($1, $2, $3, $4, $5, $6, $7, $8)";
/// Binds of `ERASE`.
const ERASE_AT_ONCE: usize = 8;
const REMOVE_HOST: &str = "DELETE FROM host WHERE id = $1";
const REMOVE_TES: &str = "DELETE FROM testenv WHERE host = $1";
const READ_CREDENTIALS: &str =
    "SELECT lease, testenv, generation, te_json FROM credential WHERE lease = $1 ORDER BY testenv";
const PRUNE: &str = "DELETE FROM lease WHERE live = 0 AND id < \
     (SELECT MIN(id) FROM (SELECT id FROM lease WHERE live = 0 ORDER BY id DESC LIMIT $1) AS kept)";

pub(crate) const STATEMENTS: &[&str] = &[
    CLAIM,
    MARK,
    READ_MARK,
    READ_HOSTS,
    READ_TES,
    READ_LIVE,
    READ_ENDED,
    READ_CONFIRMED,
    READ_BUDGETS,
    ERASE,
    REMOVE_HOST,
    REMOVE_TES,
    READ_CREDENTIALS,
    PRUNE,
];

/// What the clock said at a commit, so that a restarted server knows how long it was away even
/// when the wall clock was set meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockMark {
    /// Names the machine's boot; another boot makes `boot_us` meaningless.
    pub boot: String,
    /// Time since that boot, microseconds.
    pub boot_us: i64,
    /// The book's time at that moment.
    pub book: Time,
}

impl ClockMark {
    /// The book's time at a start. On the same boot it goes on by the time since the boot, so the
    /// wall clock may have been set to anything; otherwise at the wall clock, but never back.
    #[must_use]
    pub fn resume(&self, wall: Time, boot: &str, since_boot: Duration) -> Time {
        let away = since_boot.checked_sub(micros(self.boot_us));
        match away {
            Some(away) if !boot.is_empty() && boot == self.boot => self.book.after(away),
            Some(_) | None => wall.max(self.book),
        }
    }
}

/// The TE JSON of one grant. Its text is secret and not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The lease.
    pub lease: LeaseId,
    /// The TE.
    pub te: TeId,
    /// The generation of the grant.
    pub generation: Generation,
    /// The JSON text.
    pub te_json: String,
}

impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Credential")
            .field("lease", &self.lease)
            .field("te", &self.te)
            .finish_non_exhaustive()
    }
}

/// All rows that one batch of events changed.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Hosts that are new or changed.
    pub hosts: Vec<Host>,
    /// Hosts to forget with their TEs.
    pub removed_hosts: Vec<HostId>,
    /// TEs that are new or changed.
    pub tes: Vec<Te>,
    /// Leases that are new or changed; those that are over lose their credentials.
    pub leases: Vec<Lease>,
    /// New TE JSON, at most one a lease and TE.
    pub credentials: Vec<Credential>,
    /// Hold budgets that changed.
    pub budgets: Vec<HoldBudget>,
    /// What the clock says.
    pub mark: ClockMark,
}

impl Store {
    /// Makes this handle (and its clones) the one writer of the book and reads it. `ended` is how
    /// many of the newest ended leases to read.
    pub async fn claim_book(&self, ended: usize) -> Result<(Rows, ClockMark), StoreError> {
        let epoch = self.written(self.claim().await)?;
        self.epoch.store(epoch, Ordering::SeqCst);
        let rows = self.read_book(ended).await?;
        let what = "the clock mark";
        let (boot, boot_us, book_us): (String, i64, i64) =
            read_db!(self, p => sqlx::query_as(READ_MARK).fetch_one(p).await)
                .map_err(|source| StoreError::Read { what, source })?;
        Ok((rows, ClockMark { boot, boot_us, book: Time(book_us) }))
    }

    async fn claim(&self) -> Result<i64, StoreError> {
        let mut tx = self.begin().await?;
        let epoch = row::fetch_number(&mut tx, "the writer's epoch", CLAIM, &[]).await?;
        tx.commit("the writer's epoch").await?;
        Ok(epoch)
    }

    /// Reads the book, for the start and after a commit that failed.
    pub async fn read_book(&self, ended: usize) -> Result<Rows, StoreError> {
        let failed = |what| move |source| StoreError::Read { what, source };
        let hosts: Vec<HostRow> =
            read_db!(self, p => sqlx::query_as(READ_HOSTS).fetch_all(p).await)
                .map_err(failed("hosts"))?;
        let tes: Vec<TeRow> = read_db!(self, p => sqlx::query_as(READ_TES).fetch_all(p).await)
            .map_err(failed("test environments"))?;
        let live: Vec<LeaseRow> = read_db!(self, p => sqlx::query_as(READ_LIVE).fetch_all(p).await)
            .map_err(failed("leases"))?;
        let limit = i64::try_from(ended).unwrap_or(i64::MAX);
        let mut leases: Vec<LeaseRow> =
            read_db!(self, p => sqlx::query_as(READ_ENDED).bind(limit).fetch_all(p).await)
                .map_err(failed("ended leases"))?;
        leases.extend(live);
        leases.sort_by_key(|l| l.id);
        let confirmed: Vec<(i64, String)> =
            read_db!(self, p => sqlx::query_as(READ_CONFIRMED).fetch_all(p).await)
                .map_err(failed("confirmed grants"))?;
        let budgets: Vec<(String, i64, i64)> =
            read_db!(self, p => sqlx::query_as(READ_BUDGETS).fetch_all(p).await)
                .map_err(failed("hold budgets"))?;
        Ok(Rows {
            hosts: hosts.into_iter().map(HostRow::value).collect::<Result<_, _>>()?,
            tes: tes.into_iter().map(TeRow::value).collect::<Result<_, _>>()?,
            leases: leases.into_iter().map(LeaseRow::value).collect::<Result<_, _>>()?,
            confirmed: confirmed
                .into_iter()
                .map(|(l, te)| Ok((LeaseId(number(l)), bad("a credential", TeId::new(te))?)))
                .collect::<Result<BTreeSet<_>, StoreError>>()?,
            budgets: budgets
                .into_iter()
                .map(|(project, used, at)| {
                    let project = bad("a hold budget", Project::new(project))?;
                    Ok(HoldBudget { project, used: micros(used), at: Time(at) })
                })
                .collect::<Result<_, StoreError>>()?,
        })
    }

    /// Writes a batch: all of it is on disk when this returns `Ok`, nothing of it otherwise
    /// (but see [`StoreError::Write`]).
    pub async fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.written(self.write(batch).await)
    }

    async fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let epoch = self.epoch.load(Ordering::SeqCst);
        let mark = &batch.mark;
        let values =
            [mark.boot.as_str().into(), mark.boot_us.into(), mark.book.0.into(), epoch.into()];
        if row::execute(&mut tx, "the clock mark", MARK, &values).await? != 1 {
            return Err(StoreError::TakenOver);
        }
        for host in &batch.removed_hosts {
            let id = [host.as_str().into()];
            row::execute(&mut tx, "test environments", REMOVE_TES, &id).await?;
            row::execute(&mut tx, "hosts", REMOVE_HOST, &id).await?;
        }
        row::HOST.write(&mut tx, rows(&batch.hosts, host_values)).await?;
        row::TESTENV.write(&mut tx, rows(&batch.tes, te_values)).await?;
        row::LEASE.write(&mut tx, rows(&batch.leases, lease_values)).await?;
        row::CREDENTIAL.write(&mut tx, rows(&batch.credentials, credential_values)).await?;
        row::HOLD_BUDGET.write(&mut tx, rows(&batch.budgets, budget_values)).await?;
        let over: Vec<Value> = batch
            .leases
            .iter()
            .filter(|l| l.state.is_over() && !l.tes.is_empty())
            .map(|l| int(l.id.0).into())
            .collect();
        for some in over.chunks(ERASE_AT_ONCE) {
            // The statement has a fixed number of binds: the last fills those that are left.
            let mut eight = some.to_vec();
            eight.resize(ERASE_AT_ONCE, some[some.len() - 1].clone());
            row::execute(&mut tx, "credentials", ERASE, &eight).await?;
        }
        tx.commit("a batch of leases").await
    }

    /// The TE JSON of a live lease.
    pub async fn credentials(&self, lease: LeaseId) -> Result<Vec<Credential>, StoreError> {
        let id = int(lease.0);
        let what = "credentials";
        let rows: Vec<(i64, String, i64, String)> =
            read_db!(self, p => sqlx::query_as(READ_CREDENTIALS).bind(id).fetch_all(p).await)
                .map_err(|source| StoreError::Read { what, source })?;
        rows.into_iter()
            .map(|(_, te, generation, te_json)| {
                let te = bad("a credential", TeId::new(te))?;
                Ok(Credential { lease, te, generation: Generation(number(generation)), te_json })
            })
            .collect()
    }

    /// Forgets all but the newest `keep` ended leases.
    pub async fn prune_ended(&self, keep: usize) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let keep = i64::try_from(keep.max(1)).unwrap_or(i64::MAX);
        row::execute(&mut tx, "old leases", PRUNE, &[keep.into()]).await?;
        tx.commit("old leases").await
    }
}

fn rows<T>(values: &[T], of: fn(&T) -> Vec<Value>) -> Vec<Vec<Value>> {
    values.iter().map(of).collect()
}

/// Ids and counts are far below 2^63; a number that is not is a bug and stops at the maximum.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn number(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn micros(n: i64) -> Duration {
    Duration::from_micros(number(n))
}

fn in_micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

fn bad<T, E: core::fmt::Display>(what: &'static str, r: Result<T, E>) -> Result<T, StoreError> {
    r.map_err(|e| StoreError::BadRow { what, why: e.to_string() })
}

fn host_values(h: &Host) -> Vec<Value> {
    vec![h.id.as_str().into(), i64::from(h.draining).into(), h.enrolled.0.into()]
}

fn te_values(te: &Te) -> Vec<Value> {
    let labels: Vec<&str> = te.labels.iter().map(Label::as_str).collect();
    vec![
        te.id.as_str().into(),
        te.host.as_str().into(),
        i64::from(te.number).into(),
        te.shape.as_str().into(),
        serde_json::Value::from(labels).to_string().into(),
        int(te.generation.0).into(),
        te.state.word().into(),
        te.state.lease().map(|l| int(l.0)).into(),
        i64::from(te.draining).into(),
        i64::from(te.strikes).into(),
        te.reason.as_str().into(),
        te.since.0.into(),
    ]
}

fn lease_values(l: &Lease) -> Vec<Value> {
    let tes: Vec<serde_json::Value> =
        l.tes.iter().map(|(te, g)| serde_json::json!([te.as_str(), g.0])).collect();
    vec![
        int(l.id.0).into(),
        i64::from(!l.state.is_over()).into(),
        l.state.word().into(),
        l.state.moment().0.into(),
        l.owner.as_str().into(),
        l.project.as_str().into(),
        l.demand.label.as_ref().map(Label::as_str).into(),
        l.demand.shape.as_ref().map(ShapeName::as_str).into(),
        i64::from(l.count).into(),
        i64::from(l.priority).into(),
        l.purpose.as_str().into(),
        l.idempotency_key.as_deref().into(),
        in_micros(l.timeout).into(),
        l.wait_until.map(|t| t.0).into(),
        l.rank.into(),
        l.requested.0.into(),
        l.active.map(|t| t.0).into(),
        serde_json::Value::from(tes).to_string().into(),
        l.reason.as_str().into(),
    ]
}

fn credential_values(c: &Credential) -> Vec<Value> {
    vec![
        int(c.lease.0).into(),
        c.te.as_str().into(),
        int(c.generation.0).into(),
        c.te_json.as_str().into(),
    ]
}

fn budget_values(b: &HoldBudget) -> Vec<Value> {
    vec![b.project.as_str().into(), in_micros(b.used).into(), b.at.0.into()]
}

#[derive(FromRow)]
struct HostRow {
    id: String,
    draining: i64,
    enrolled_us: i64,
}

impl HostRow {
    fn value(self) -> Result<Host, StoreError> {
        let id = bad("a host", HostId::new(self.id))?;
        Ok(Host { id, draining: self.draining != 0, enrolled: Time(self.enrolled_us) })
    }
}

#[derive(FromRow)]
struct TeRow {
    id: String,
    host: String,
    number: i64,
    shape: String,
    labels: String,
    generation: i64,
    state: String,
    lease: Option<i64>,
    draining: i64,
    strikes: i64,
    reason: String,
    since_us: i64,
}

impl TeRow {
    fn value(self) -> Result<Te, StoreError> {
        const WHAT: &str = "a test environment";
        let lease = self.lease.map(|l| LeaseId(number(l)));
        Ok(Te {
            id: bad(WHAT, TeId::new(self.id))?,
            host: bad(WHAT, HostId::new(self.host))?,
            number: bad(WHAT, u32::try_from(self.number))?,
            shape: bad(WHAT, ShapeName::new(self.shape))?,
            labels: bad(WHAT, serde_json::from_str(&self.labels))?,
            generation: Generation(number(self.generation)),
            state: bad(WHAT, TeState::parse(&self.state, lease))?,
            draining: self.draining != 0,
            strikes: bad(WHAT, u32::try_from(self.strikes))?,
            reason: self.reason,
            since: Time(self.since_us),
        })
    }
}

#[derive(FromRow)]
pub(crate) struct LeaseRow {
    id: i64,
    state: String,
    moment_us: i64,
    owner: String,
    project: String,
    label: Option<String>,
    shape: Option<String>,
    count: i64,
    priority: i64,
    purpose: String,
    idempotency_key: Option<String>,
    timeout_us: i64,
    wait_until_us: Option<i64>,
    queue_rank: i64,
    requested_us: i64,
    active_us: Option<i64>,
    testenvs: String,
    reason: String,
}

impl LeaseRow {
    pub(crate) fn value(self) -> Result<Lease, StoreError> {
        const WHAT: &str = "a lease";
        let tes: Vec<(TeId, Generation)> = bad(WHAT, serde_json::from_str(&self.testenvs))?;
        Ok(Lease {
            id: LeaseId(number(self.id)),
            state: bad(WHAT, LeaseState::parse(&self.state, Time(self.moment_us)))?,
            owner: self.owner,
            project: bad(WHAT, Project::new(self.project))?,
            demand: Demand {
                label: bad(WHAT, self.label.map(Label::new).transpose())?,
                shape: bad(WHAT, self.shape.map(ShapeName::new).transpose())?,
            },
            count: bad(WHAT, u32::try_from(self.count))?,
            priority: bad(WHAT, u8::try_from(self.priority))?,
            purpose: self.purpose,
            idempotency_key: self.idempotency_key,
            timeout: micros(self.timeout_us),
            wait_until: self.wait_until_us.map(Time),
            rank: self.queue_rank,
            requested: Time(self.requested_us),
            active: self.active_us.map(Time),
            tes,
            reason: self.reason,
        })
    }
}
