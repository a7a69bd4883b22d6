//! Answers of `gerrit query` -> changes.

use super::event::{branch, project, seconds};
use super::json::{ChangeJson, DependencyJson, PatchSetJson, RecordJson, TailJson};
use std::collections::BTreeMap;
use toci_core::event::{
    Approval, Change, ChangeKey, ChangeState, LabelStatus, NotAName, RecordStatus, RefName,
    Revision, SourceName, SubmitRecord, normal_label,
};

/// What a query found.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub rows: Vec<ChangeJson>,
    /// Lines that are no change: told, and passed over.
    pub malformed: Vec<String>,
    /// Whether there is more than was shown.
    pub more: bool,
}

/// Why an answer is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Gerrit says that it does not understand the query, or may not answer it.
    Refused(String),
    /// The last line is missing.
    Cut,
}

/// Reads a whole answer: a line a change, then one of `type` `stats` or `error`.
pub(super) fn read_rows(text: &str) -> Result<Rows, NoAnswer> {
    let mut found = Rows::default();
    for line in text.lines() {
        if let Ok(tail) = serde_json::from_str::<TailJson>(line) {
            match tail.kind.as_str() {
                "error" => return Err(NoAnswer::Refused(tail.message)),
                "stats" => {
                    found.more = tail.more_changes;
                    return Ok(found);
                }
                _ => {}
            }
        }
        match serde_json::from_str::<ChangeJson>(line) {
            Ok(row) => found.rows.push(row),
            Err(e) => found.malformed.push(format!("{e}: {line:.200}")),
        }
    }
    Err(NoAnswer::Cut)
}

/// A change in one of its patchsets, the current one when none is named. What footers say is not in it yet.
pub(super) fn change_of(
    source: &SourceName,
    row: &ChangeJson,
    patchset: Option<&str>,
) -> Result<Option<Change>, NotAName> {
    let current = row.current_patch_set.as_ref().map(|p| p.number);
    let wanted = match patchset {
        None => row.current_patch_set.as_ref(),
        Some(wanted) => {
            let all = row.current_patch_set.iter().chain(&row.patch_sets);
            all.into_iter().find(|p| p.number.0.to_string() == wanted)
        }
    };
    let Some(wanted) = wanted else { return Ok(None) };
    let state = match row.status.as_str() {
        "MERGED" => ChangeState::Merged,
        "ABANDONED" => ChangeState::Abandoned,
        _ => ChangeState::Open,
    };
    Ok(Some(Change {
        key: ChangeKey {
            source: source.clone(),
            number: row.number.0,
            patchset: wanted.number.0.to_string(),
        },
        project: project(source, &row.project)?,
        branch: branch(&row.branch)?,
        reference: RefName::new(wanted.reference.as_str())?,
        revision: Revision::new(wanted.revision.as_str())?,
        change_id: row.id.clone(),
        state,
        current: current == Some(wanted.number),
        wip: row.wip || row.is_draft || wanted.is_draft || row.status == "DRAFT",
        title: row.subject.clone(),
        message: row.commit_message.clone(),
        owner: row.owner.person(),
        url: row.url.clone(),
        topic: row.topic.clone(),
        hashtags: row.hashtags.clone(),
        files: files(wanted),
        approvals: approvals(wanted),
        submit: row.submit_records.iter().map(record).collect(),
        // What is merged needs nothing any more; following it would walk through the whole history.
        needs: if state == ChangeState::Merged { vec![] } else { keys(source, &row.depends_on) },
        needed_by: newest(keys(source, &row.needed_by)),
    }))
}

fn files(patchset: &PatchSetJson) -> Option<Vec<String>> {
    let files = patchset.files.as_ref()?;
    // Of a merge commit, Gerrit lists only what it resolved by hand.
    if files.iter().any(|f| f.file == "/MERGE_LIST") {
        return None;
    }
    let real = files.iter().filter(|f| f.file != "/COMMIT_MSG");
    Some(real.flat_map(|f| f.file_old.iter().chain([&f.file])).cloned().collect())
}

fn approvals(patchset: &PatchSetJson) -> Vec<Approval> {
    // SUBM marks who submitted; it is no label.
    let votes = patchset.approvals.iter().filter(|a| a.label != "SUBM");
    votes
        .map(|a| Approval {
            label: normal_label(&a.label),
            value: a.value.0,
            by: a.by.person(),
            at: seconds(a.granted_on.0),
        })
        .collect()
}

fn record(record: &RecordJson) -> SubmitRecord {
    let status = match record.status.as_str() {
        "OK" | "FORCED" => RecordStatus::Ok,
        "NOT_READY" => RecordStatus::NotReady,
        "CLOSED" => RecordStatus::Closed,
        _ => RecordStatus::RuleError,
    };
    let label = |status: &str| match status {
        "OK" => LabelStatus::Ok,
        "NEED" => LabelStatus::Need,
        "REJECT" => LabelStatus::Reject,
        "MAY" => LabelStatus::May,
        _ => LabelStatus::Impossible,
    };
    let labels = record.labels.iter();
    SubmitRecord {
        status,
        labels: labels.map(|l| (normal_label(&l.label), label(&l.status))).collect(),
    }
}

/// `refs/changes/34/1234/5` holds change and patchset.
fn keys(source: &SourceName, dependencies: &[DependencyJson]) -> Vec<ChangeKey> {
    let key = |d: &DependencyJson| {
        let mut parts = d.reference.strip_prefix("refs/changes/")?.split('/').skip(1);
        let number = parts.next()?.parse().ok()?;
        let patchset: u64 = parts.next()?.parse().ok()?;
        Some(ChangeKey { source: source.clone(), number, patchset: patchset.to_string() })
    };
    let mut keys: Vec<ChangeKey> = dependencies.iter().filter_map(key).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Of several patchsets of one change only the newest.
fn newest(keys: Vec<ChangeKey>) -> Vec<ChangeKey> {
    let mut by_number: BTreeMap<u64, ChangeKey> = BTreeMap::new();
    let number = |k: &ChangeKey| k.patchset.parse::<u64>().unwrap_or(0);
    for key in keys {
        match by_number.get(&key.number) {
            Some(had) if number(had) >= number(&key) => {}
            Some(_) | None => {
                by_number.insert(key.number, key);
            }
        }
    }
    by_number.into_values().collect()
}
