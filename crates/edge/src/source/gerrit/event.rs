//! One line of `stream-events` -> what it tells.

use super::json::{Account, ApprovalJson, ChangeJson, EventJson, PatchSetJson, RefUpdateJson};
use toci_core::event::{
    Branch, ChangeKey, EventKind, NotAName, ProjectKey, ProjectName, RefName, Revision, SourceName,
    TriggerEvent, normal_label,
};
use toci_core::time::Time;

/// Longest line of `stream-events` that is read, in bytes: a comment of Gerrit has 16 KiB, a commit message may be long.
pub const EVENT_MAX_BYTES: usize = 4 << 20;

/// What a line tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// Something that may trigger pipelines.
    Event(Box<TriggerEvent>),
    /// A well-formed event of a kind that nobody waits for.
    Other,
}

/// Why a line is no event.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoEvent {
    #[error("it is no event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Name(#[from] NotAName),
    #[error("an event without a type")]
    NoType,
    #[error("a {0} event without `{1}`")]
    Missing(String, &'static str),
}

/// Reads a line. `now` stands in for the time in events of old Gerrits, which have none.
pub(super) fn read(source: &SourceName, line: &str, now: Time) -> Result<Told, NoEvent> {
    let event: EventJson = serde_json::from_str(line)?;
    if event.kind.is_empty() {
        return Err(NoEvent::NoType);
    }
    let at = event.event_created_on.map_or(now, |n| seconds(n.0));
    match kind_of(&event) {
        None => Ok(Told::Other),
        Some(EventKind::RefUpdated) => {
            let missing = || NoEvent::Missing(event.kind.clone(), "refUpdate");
            let update = event.ref_update.as_ref().ok_or_else(missing)?;
            ref_event(source, update, person_of(&event), at)
        }
        Some(kind) => {
            let missing = |what| NoEvent::Missing(event.kind.clone(), what);
            let change = event.change.as_ref().ok_or_else(|| missing("change"))?;
            // `change-deleted` of some Gerrits comes without one.
            let patchset = event.patch_set.as_ref().or(change.current_patch_set.as_ref());
            let patchset = patchset.ok_or_else(|| missing("patchSet"))?;
            let mut told = change_event(source, kind, change, patchset)?;
            told.by = person_of(&event).person();
            told.at = at;
            if kind == EventKind::CommentAdded {
                told.approvals = votes(&event.comment, &event.approvals);
                told.comment = event.comment;
            }
            Ok(Told::Event(Box::new(told)))
        }
    }
}

/// Gerrit's words for kinds -> ours.
fn kind_of(event: &EventJson) -> Option<EventKind> {
    match event.kind.as_str() {
        "patchset-created" => Some(EventKind::PatchsetCreated),
        "draft-published" => Some(EventKind::DraftPublished),
        // The change as it is now: no longer in progress.
        "wip-state-changed" if !event.change.as_ref().is_some_and(|c| c.wip) => {
            Some(EventKind::DraftPublished)
        }
        "change-abandoned" | "change-deleted" => Some(EventKind::ChangeAbandoned),
        "change-restored" => Some(EventKind::ChangeRestored),
        "change-merged" => Some(EventKind::ChangeMerged),
        "comment-added" => Some(EventKind::CommentAdded),
        "ref-updated" => Some(EventKind::RefUpdated),
        _ => None,
    }
}

fn person_of(event: &EventJson) -> Account {
    [
        &event.author,
        &event.uploader,
        &event.submitter,
        &event.abandoner,
        &event.restorer,
        &event.changer,
        &event.deleter,
    ]
    .into_iter()
    .flatten()
    .next()
    .cloned()
    .unwrap_or_default()
}

fn ref_event(
    source: &SourceName,
    update: &RefUpdateJson,
    by: Account,
    at: Time,
) -> Result<Told, NoEvent> {
    // Branches are bare in old Gerrits.
    let full = if update.ref_name.starts_with("refs/") {
        update.ref_name.clone()
    } else {
        format!("refs/heads/{}", update.ref_name)
    };
    // Gerrit's own bookkeeping: every patchset and every comment moves such a ref.
    if full.starts_with("refs/changes/") || full.starts_with("refs/cache-automerge/") {
        return Ok(Told::Other);
    }
    let project = project(source, &update.project)?;
    let branch = full.strip_prefix("refs/heads/").map(Branch::new).transpose()?;
    Ok(Told::Event(Box::new(TriggerEvent {
        kind: EventKind::RefUpdated,
        project,
        branch,
        change: None,
        reference: Some(RefName::new(full)?),
        old: Some(Revision::new(update.old_rev.as_str())?),
        new: Some(Revision::new(update.new_rev.as_str())?),
        by: by.person(),
        comment: String::new(),
        approvals: Vec::new(),
        origin: String::new(),
        at,
    })))
}

/// An event about a patchset; who, when and the comment are left to the caller.
pub(super) fn change_event(
    source: &SourceName,
    kind: EventKind,
    change: &ChangeJson,
    patchset: &PatchSetJson,
) -> Result<TriggerEvent, NotAName> {
    Ok(TriggerEvent {
        kind,
        project: project(source, &change.project)?,
        branch: Some(branch(&change.branch)?),
        change: Some(ChangeKey {
            source: source.clone(),
            number: change.number.0,
            patchset: patchset.number.0.to_string(),
        }),
        reference: None,
        old: None,
        new: None,
        by: change.owner.person(),
        comment: String::new(),
        approvals: Vec::new(),
        origin: String::new(),
        at: Time::default(),
    })
}

pub(super) fn project(source: &SourceName, name: &str) -> Result<ProjectKey, NotAName> {
    Ok(ProjectKey { source: source.clone(), name: ProjectName::new(name)? })
}

pub(super) fn branch(name: &str) -> Result<Branch, NotAName> {
    Branch::new(name.strip_prefix("refs/heads/").unwrap_or(name))
}

pub(super) fn seconds(since_epoch: u64) -> Time {
    Time(i64::try_from(since_epoch).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}

/// The votes that a comment gave. Since 2.13 an event lists what changed with its `oldValue`, beside the same person's
/// votes that stood before; and a label that was not spelt as it is configured is listed as if it had not changed. The
/// comment's own first line says it in every Gerrit since 2.6. Without either, what is listed was given.
pub(super) fn votes(comment: &str, approvals: &[ApprovalJson]) -> Vec<(String, i32)> {
    let mut given: Vec<(String, i32)> = approvals
        .iter()
        .filter(|a| a.old_value.is_some_and(|old| old != a.value))
        .map(|a| (normal_label(&a.label), a.value.0))
        .collect();
    match votes_of_text(comment) {
        Some(told) => {
            for (label, value) in told {
                if !given.iter().any(|(l, _)| *l == label) {
                    given.push((label, value));
                }
            }
        }
        None if given.is_empty() => {
            let standing = approvals.iter().filter(|a| a.value.0 != 0);
            given.extend(standing.map(|a| (normal_label(&a.label), a.value.0)));
        }
        None => {}
    }
    given
}

/// The votes in a comment's first line, `Patch Set 3: Code-Review+2 -Workflow`; `None` when there is no such line.
pub(super) fn votes_of_text(comment: &str) -> Option<Vec<(String, i32)>> {
    let first = comment.lines().next()?.strip_prefix("Patch Set ")?;
    let (number, rest) = first.split_once(':')?;
    number.parse::<u64>().ok()?;
    Some(rest.split_whitespace().filter_map(vote_of_word).collect())
}

fn vote_of_word(word: &str) -> Option<(String, i32)> {
    if let Some(removed) = word.strip_prefix('-') {
        let is_label = removed.starts_with(|c: char| c.is_ascii_alphabetic());
        return is_label.then(|| (normal_label(removed), 0));
    }
    let sign = word.rfind(['+', '-'])?;
    let value = word.get(sign..)?.parse().ok()?;
    let label = word.get(..sign)?;
    label.starts_with(|c: char| c.is_ascii_alphabetic()).then(|| (normal_label(label), value))
}
