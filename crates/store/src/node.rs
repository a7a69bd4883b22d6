//! The node stage: the pool's rows, written in one transaction a batch.

use crate::db::{Store, read_db};
use crate::error::StoreError;
use crate::row::STILL_WRITER;
use crate::row::{self, Value};
use sqlx::FromRow;
use std::sync::atomic::Ordering;
use toci_core::id::{AutoholdId, Label, NodeId, ProviderName, RunId};
use toci_core::node::{Autohold, Hold, Node, NodeState, ProviderRow, Rows};
use toci_core::time::Time;

const READ_NODES: &str = "SELECT id, name, label, provider, state, run, since_us, machine, job, \
     hold_until_us, hold_reason, reason FROM node ORDER BY id";
const READ_AUTOHOLDS: &str = "SELECT body FROM autohold ORDER BY id";
const READ_PROVIDERS: &str = "SELECT body FROM provider ORDER BY name";
const READ_LAST: &str = "SELECT last FROM node_number WHERE id = 1";
const WRITE_LAST: &str = "UPDATE node_number SET last = $1 WHERE id = 1 AND last < $2";
const REMOVE: &str = "DELETE FROM node WHERE id = $1";
const REMOVE_AUTOHOLD: &str = "DELETE FROM autohold WHERE id = $1";
const REMOVE_PROVIDER: &str = "DELETE FROM provider WHERE name = $1";

pub(crate) const STATEMENTS: &[&str] = &[
    READ_NODES,
    READ_AUTOHOLDS,
    READ_PROVIDERS,
    READ_LAST,
    WRITE_LAST,
    REMOVE,
    REMOVE_AUTOHOLD,
    REMOVE_PROVIDER,
];

/// All rows that one batch of events changed.
#[derive(Clone, Debug, Default)]
pub struct NodeBatch {
    /// Nodes that are new or changed.
    pub nodes: Vec<Node>,
    /// Nodes that are gone.
    pub gone: Vec<NodeId>,
    /// Wishes to hold that are new or changed.
    pub autoholds: Vec<Autohold>,
    /// Those that are spent or ended.
    pub autoholds_gone: Vec<AutoholdId>,
    /// Providers of which something new is kept.
    pub providers: Vec<ProviderRow>,
    /// Those of which nothing is kept any more.
    pub providers_gone: Vec<ProviderName>,
    /// The highest number that was ever given.
    pub last_node: u64,
}

impl Store {
    /// Reads the pool. The book must have been claimed before, for it decides who writes.
    pub async fn read_nodes(&self) -> Result<Rows, StoreError> {
        let failed = |source| StoreError::Read { what: "nodes", source };
        let rows: Vec<NodeRow> =
            read_db!(self, p => sqlx::query_as(READ_NODES).fetch_all(p).await).map_err(failed)?;
        let (last,): (i64,) =
            read_db!(self, p => sqlx::query_as(READ_LAST).fetch_one(p).await).map_err(failed)?;
        Ok(Rows {
            last_node: u64::try_from(last).unwrap_or(0),
            autoholds: self.bodies("an autohold", READ_AUTOHOLDS).await?,
            providers: self.bodies("a provider", READ_PROVIDERS).await?,
            nodes: rows.into_iter().map(NodeRow::value).collect::<Result<_, _>>()?,
        })
    }

    /// Writes a batch: all of it is on disk when this returns `Ok`, nothing of it otherwise.
    pub async fn commit_nodes(&self, batch: &NodeBatch) -> Result<(), StoreError> {
        self.written(self.write_nodes(batch).await)
    }

    async fn write_nodes(&self, batch: &NodeBatch) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let epoch = self.epoch.load(Ordering::SeqCst);
        if row::execute(&mut tx, "nodes", STILL_WRITER, &[epoch.into()]).await? != 1 {
            return Err(StoreError::TakenOver);
        }
        let last: Value = int(batch.last_node).into();
        row::execute(&mut tx, "nodes", WRITE_LAST, &[last.clone(), last]).await?;
        for id in &batch.gone {
            row::execute(&mut tx, "nodes", REMOVE, &[int(id.0).into()]).await?;
        }
        for id in &batch.autoholds_gone {
            row::execute(&mut tx, "nodes", REMOVE_AUTOHOLD, &[int(id.0).into()]).await?;
        }
        let wishes = batch.autoholds.iter().map(|wish| {
            let body = bad(serde_json::to_string(wish))?;
            Ok(vec![int(wish.id.0).into(), body.as_str().into()])
        });
        let wishes = wishes.collect::<Result<Vec<Vec<Value>>, StoreError>>()?;
        row::AUTOHOLD.write(&mut tx, wishes).await?;
        for name in &batch.providers_gone {
            row::execute(&mut tx, "nodes", REMOVE_PROVIDER, &[name.as_str().into()]).await?;
        }
        let providers = batch.providers.iter().map(|provider| {
            let body = bad(serde_json::to_string(provider))?;
            Ok(vec![provider.name.as_str().into(), body.as_str().into()])
        });
        let providers = providers.collect::<Result<Vec<Vec<Value>>, StoreError>>()?;
        row::PROVIDER.write(&mut tx, providers).await?;
        let rows: Vec<Vec<Value>> = batch.nodes.iter().map(values).collect();
        row::NODE.write(&mut tx, rows).await?;
        tx.commit("nodes").await
    }
}

/// Numbers are far below 2^63; one that is not is a bug and stops at the maximum.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn values(node: &Node) -> Vec<Value> {
    let run = node.state.run().map(|run| run.to_string());
    let hold = node.hold.as_ref();
    vec![
        int(node.id.0).into(),
        node.name.as_str().into(),
        node.label.as_str().into(),
        node.provider.as_str().into(),
        node.state.word().into(),
        run.as_deref().into(),
        node.since.0.into(),
        node.machine.as_str().into(),
        node.job.as_str().into(),
        hold.map(|h| h.until.0).into(),
        hold.map_or("", |h| h.reason.as_str()).into(),
        node.reason.as_str().into(),
    ]
}

#[derive(FromRow)]
struct NodeRow {
    id: i64,
    name: String,
    label: String,
    provider: String,
    state: String,
    run: Option<String>,
    since_us: i64,
    machine: String,
    job: String,
    hold_until_us: Option<i64>,
    hold_reason: String,
    reason: String,
}

impl NodeRow {
    fn value(self) -> Result<Node, StoreError> {
        let run = self.run.map(|run| bad(run.parse::<RunId>())).transpose()?;
        let reason = self.hold_reason;
        Ok(Node {
            id: NodeId(u64::try_from(self.id).unwrap_or(0)),
            name: self.name,
            label: bad(Label::new(self.label))?,
            provider: bad(ProviderName::new(self.provider))?,
            state: bad(NodeState::parse(&self.state, run))?,
            since: Time(self.since_us),
            machine: self.machine,
            job: self.job,
            hold: self.hold_until_us.map(|until| Hold { until: Time(until), reason }),
            reason: self.reason,
        })
    }
}

fn bad<T, E: core::fmt::Display>(r: Result<T, E>) -> Result<T, StoreError> {
    r.map_err(|e| StoreError::BadRow { what: "a node", why: e.to_string() })
}
