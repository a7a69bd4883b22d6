//! The pipeline stage: the gate's rows, written in one transaction a batch; and how far each source was heard.

use crate::db::{Store, read_db};
use crate::ended::{EndedItem, columns};
use crate::error::StoreError;
use crate::row::{self, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use toci_core::event::SourceName;
use toci_core::id::{ItemId, ReportId};
use toci_core::pipeline::{ItemRow, ReportRow, Rows, StateRow, WaitingId, WaitingRow};

const READ_ITEMS: &str = "SELECT body FROM gate_item ORDER BY id";
const READ_REPORTS: &str = "SELECT body FROM gate_report ORDER BY id";
const READ_WAITING: &str = "SELECT body FROM gate_waiting ORDER BY id";
const READ_STATE: &str = "SELECT body FROM gate_state WHERE id = 1";
const READ_CURSORS: &str = "SELECT source, name, body FROM source_cursor ORDER BY source, name";
const REMOVE_ITEM: &str = "DELETE FROM gate_item WHERE id = $1";
const REMOVE_WAITING: &str = "DELETE FROM gate_waiting WHERE id = $1";
const REMOVE_REPORT: &str = "DELETE FROM gate_report WHERE id = $1";

pub(crate) const STATEMENTS: &[&str] = &[
    READ_ITEMS,
    READ_REPORTS,
    READ_WAITING,
    READ_STATE,
    READ_CURSORS,
    REMOVE_ITEM,
    REMOVE_REPORT,
    REMOVE_WAITING,
];

/// All rows that a batch of inputs changed.
#[derive(Clone, Debug, Default)]
pub struct GateBatch {
    /// Items that are new or changed.
    pub items: Vec<ItemRow>,
    /// Items that left.
    pub removed_items: Vec<ItemId>,
    /// Reports that are new or changed.
    pub reports: Vec<ReportRow>,
    /// Reports that are told.
    pub removed_reports: Vec<ReportId>,
    /// Waiting changes that are new or changed.
    pub waiting: Vec<WaitingRow>,
    /// Changes that do not wait any more.
    pub removed_waiting: Vec<WaitingId>,
    /// The gate's own row, when it changed.
    pub state: Option<StateRow>,
    /// Items that left, and when.
    pub ended: Vec<EndedItem>,
    /// How far sources were heard: source, cursor's name and text.
    pub cursors: Vec<(SourceName, String, String)>,
}

/// How far each source was heard: its cursors by name.
pub type Heard = BTreeMap<SourceName, BTreeMap<String, String>>;

impl Store {
    /// Reads the gate.
    pub async fn read_gate(&self) -> Result<Rows, StoreError> {
        Ok(Rows {
            items: self.bodies("an item", READ_ITEMS).await?,
            reports: self.bodies("a report", READ_REPORTS).await?,
            waiting: self.bodies("a waiting change", READ_WAITING).await?,
            state: self.bodies("the gate's state", READ_STATE).await?.pop(),
        })
    }

    /// How far each source was heard.
    pub async fn read_cursors(&self) -> Result<Heard, StoreError> {
        let what = "how far a source was heard";
        let rows: Vec<(String, String, String)> =
            read_db!(self, p => sqlx::query_as(READ_CURSORS).fetch_all(p).await)
                .map_err(|source| StoreError::Read { what, source })?;
        let mut heard = Heard::new();
        for (source, name, body) in rows {
            let source = SourceName::new(source)
                .map_err(|e| StoreError::BadRow { what, why: e.to_string() })?;
            heard.entry(source).or_default().insert(name, body);
        }
        Ok(heard)
    }

    /// Writes a batch: all of it is on disk when this returns `Ok`, nothing of it otherwise (but see
    /// [`StoreError::Write`]). Only the writer of the lease book may ([`Store::claim_book`]).
    pub async fn commit_gate(&self, batch: &GateBatch) -> Result<(), StoreError> {
        self.written(self.write_gate(batch).await)
    }

    async fn write_gate(&self, batch: &GateBatch) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let epoch = self.epoch.load(Ordering::SeqCst);
        row::still_writer(&mut tx, epoch).await?;
        for id in &batch.removed_items {
            let id = [id.to_string().as_str().into()];
            row::execute(&mut tx, "items", REMOVE_ITEM, &id).await?;
        }
        for id in &batch.removed_reports {
            let id = [id.to_string().as_str().into()];
            row::execute(&mut tx, "reports", REMOVE_REPORT, &id).await?;
        }
        for id in &batch.removed_waiting {
            let id = [id.to_string().as_str().into()];
            row::execute(&mut tx, "waiting changes", REMOVE_WAITING, &id).await?;
        }
        let items: Vec<Vec<Value>> = rows(&batch.items, |item| item.id().to_string())?;
        row::GATE_ITEM.write(&mut tx, items).await?;
        let reports = rows(&batch.reports, |report| report.id().to_string())?;
        row::GATE_REPORT.write(&mut tx, reports).await?;
        let waiting = rows(&batch.waiting, |row| row.id().to_string())?;
        row::GATE_WAITING.write(&mut tx, waiting).await?;
        if let Some(state) = &batch.state {
            let values = vec![1.into(), body(state)?.as_str().into()];
            row::GATE_STATE.write(&mut tx, vec![values]).await?;
        }
        let ended = batch.ended.iter().map(columns).collect::<Result<Vec<_>, _>>()?;
        row::GATE_ENDED.write(&mut tx, ended).await?;
        // A row may stand once in a statement: the last text of a cursor is the one that counts.
        let cursors: BTreeMap<(&str, &str), &str> = batch
            .cursors
            .iter()
            .map(|(source, name, body)| ((source.as_str(), name.as_str()), body.as_str()))
            .collect();
        let cursors: Vec<Vec<Value>> = cursors
            .into_iter()
            .map(|((source, name), body)| vec![source.into(), name.into(), body.into()])
            .collect();
        row::SOURCE_CURSOR.write(&mut tx, cursors).await?;
        tx.commit("a batch of the gate").await
    }

    /// The values of a table's JSON.
    pub(crate) async fn bodies<T: DeserializeOwned>(
        &self,
        what: &'static str,
        sql: &'static str,
    ) -> Result<Vec<T>, StoreError> {
        let rows: Vec<(String,)> = read_db!(self, p => sqlx::query_as(sql).fetch_all(p).await)
            .map_err(|source| StoreError::Read { what, source })?;
        rows.iter()
            .map(|(body,)| {
                serde_json::from_str(body)
                    .map_err(|e| StoreError::BadRow { what, why: e.to_string() })
            })
            .collect()
    }
}

fn body<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|e| StoreError::BadRow { what: "a row of the gate", why: e.to_string() })
}

fn rows<T: Serialize>(
    values: &[T],
    id: impl Fn(&T) -> String,
) -> Result<Vec<Vec<Value>>, StoreError> {
    values.iter().map(|v| Ok(vec![id(v).as_str().into(), body(v)?.as_str().into()])).collect()
}
