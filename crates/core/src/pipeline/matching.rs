//! Which events enter, and what must hold of a change (origin.md 7.2, 7.9).

use crate::event::{
    Approval, Change, ChangeState, EventKind, LabelStatus, RecordStatus, TriggerEvent,
};
use crate::layout::{
    ApprovalRule, GerritVote, Pattern, Pipeline, Reporter, Requirements, Trigger, TriggerFilter,
};
use crate::time::Time;

/// Whether some trigger of the pipeline listens to this event.
#[must_use]
pub fn triggers(
    pipeline: &Pipeline,
    event: &TriggerEvent,
    change: Option<&Change>,
    now: Time,
) -> bool {
    pipeline.triggers.iter().any(|filter| listens(pipeline, filter, event, change, now))
}

fn listens(
    pipeline: &Pipeline,
    filter: &TriggerFilter,
    event: &TriggerEvent,
    change: Option<&Change>,
    now: Time,
) -> bool {
    let heard = match filter.trigger {
        Trigger::Source => {
            origin_of(event.kind) == Trigger::Source && event.project.source == pipeline.source
        }
        Trigger::Timer => {
            origin_of(event.kind) == Trigger::Timer
                && (filter.timespecs.is_empty() || filter.timespecs.contains(&event.origin))
        }
        Trigger::Zuul => {
            origin_of(event.kind) == Trigger::Zuul
                && any(&filter.pipelines, |p| p.matches(&event.origin))
        }
    };
    let reference = event.reference.as_ref().map(zuul_name);
    let branch = event.branch.as_ref().map(|b| b.as_str());
    let some = |text: Option<&str>, p: &Pattern| text.is_some_and(|text| p.matches(text));
    heard
        && (filter.events.is_empty() || filter.events.contains(&event.kind))
        && any(&filter.branches, |p| some(branch, p))
        && any(&filter.refs, |p| some(reference, p))
        && any(&filter.comments, |p| p.search(&event.comment))
        && any(&filter.emails, |p| p.search(&event.by.email))
        && any(&filter.usernames, |p| p.search(&event.by.username))
        && filter.approvals.iter().all(|(label, values)| {
            event.approvals.iter().any(|(l, v)| l == label && values.contains(v))
        })
        && stand(&filter.require_approvals, change, now)
        && !filter.reject_approvals.iter().any(|rule| met(rule, change, now))
}

fn any(patterns: &[Pattern], matches: impl Fn(&Pattern) -> bool) -> bool {
    patterns.is_empty() || patterns.iter().any(matches)
}

fn zuul_name(reference: &crate::event::RefName) -> &str {
    reference.as_str().strip_prefix("refs/heads/").unwrap_or(reference.as_str())
}

fn origin_of(kind: EventKind) -> Trigger {
    match kind {
        EventKind::PatchsetCreated
        | EventKind::DraftPublished
        | EventKind::ChangeAbandoned
        | EventKind::ChangeRestored
        | EventKind::ChangeMerged
        | EventKind::CommentAdded
        | EventKind::RefUpdated => Trigger::Source,
        EventKind::Timer => Trigger::Timer,
        EventKind::ParentChangeEnqueued | EventKind::ProjectChangeMerged => Trigger::Zuul,
    }
}

/// Every rule is met by some vote that stands.
fn stand(rules: &[ApprovalRule], change: Option<&Change>, now: Time) -> bool {
    rules.iter().all(|rule| met(rule, change, now))
}

/// Several labels in one rule: each by some vote that meets the rest of it. (In Zuul such a rule could never be met.)
fn met(rule: &ApprovalRule, change: Option<&Change>, now: Time) -> bool {
    let Some(change) = change else { return false };
    let mut votes = change.approvals.iter().filter(|vote| could_meet(vote, rule, now)).peekable();
    if rule.labels.is_empty() {
        return votes.peek().is_some();
    }
    let votes: Vec<&Approval> = votes.collect();
    rule.labels.iter().all(|(label, values)| {
        votes.iter().any(|vote| vote.label == *label && values.contains(&vote.value))
    })
}

/// Everything but the labels.
fn could_meet(vote: &Approval, rule: &ApprovalRule, now: Time) -> bool {
    let age = now.since(vote.at);
    rule.username.as_ref().is_none_or(|p| p.search(&vote.by.username))
        && rule.email.as_ref().is_none_or(|p| p.search(&vote.by.email))
        && rule.older_than.is_none_or(|least| age >= least)
        && rule.newer_than.is_none_or(|most| age <= most)
}

/// What `require` and `reject` of a pipeline have against a change.
pub(super) fn objection(pipeline: &Pipeline, change: &Change, now: Time) -> Option<String> {
    let required = &pipeline.require;
    if required.open.is_some_and(|open| open != is_open(change)) {
        return Some(if is_open(change) { "it is open" } else { "it is not open" }.to_owned());
    }
    if required.current_patchset.is_some_and(|current| current != change.current) {
        return Some("its patchset is not the one that is asked for".to_owned());
    }
    if !required.status.is_empty() && !has_status(required, change) {
        return Some(format!("its status is {}", status(change)));
    }
    if let Some(rule) = required.approvals.iter().find(|rule| !met(rule, Some(change), now)) {
        return Some(format!("no vote is {}", describe(rule)));
    }
    rejection(&pipeline.reject, change, now)
}

fn rejection(reject: &Requirements, change: &Change, now: Time) -> Option<String> {
    if reject.open == Some(is_open(change)) {
        return Some("the pipeline rejects changes that are (not) open".to_owned());
    }
    if reject.current_patchset == Some(change.current) {
        return Some("the pipeline rejects this patchset".to_owned());
    }
    if has_status(reject, change) {
        return Some(format!("the pipeline rejects the status {}", status(change)));
    }
    let bad = reject.approvals.iter().find(|rule| met(rule, Some(change), now))?;
    Some(format!("a vote is {}, which the pipeline rejects", describe(bad)))
}

fn describe(rule: &ApprovalRule) -> String {
    let mut parts: Vec<String> = rule
        .labels
        .iter()
        .map(|(label, values)| {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            format!("{label} {}", values.join(" or "))
        })
        .collect();
    parts.extend(rule.username.iter().map(|p| format!("by `{}`", p.as_str())));
    parts.extend(rule.email.iter().map(|p| format!("by `{}`", p.as_str())));
    parts.extend(rule.older_than.map(|d| format!("older than {} s", d.as_secs())));
    parts.extend(rule.newer_than.map(|d| format!("newer than {} s", d.as_secs())));
    parts.join(", ")
}

fn is_open(change: &Change) -> bool {
    change.state == ChangeState::Open
}

/// Gerrit's word.
fn status(change: &Change) -> &'static str {
    match change.state {
        ChangeState::Open if change.wip => "DRAFT",
        ChangeState::Open => "NEW",
        ChangeState::Merged => "MERGED",
        ChangeState::Abandoned => "ABANDONED",
    }
}

fn has_status(rule: &Requirements, change: &Change) -> bool {
    rule.status.iter().any(|word| word.eq_ignore_ascii_case(status(change)))
}

/// What stands in the way of merging the change, were the pipeline's own success votes on it.
pub(super) fn unmergeable(pipeline: &Pipeline, change: &Change) -> Option<String> {
    if !is_open(change) {
        return Some(format!("its status is {}", status(change)));
    }
    if change.wip {
        return Some("it is a draft or work in progress".to_owned());
    }
    if !change.current {
        return Some("it is not the current patchset".to_owned());
    }
    if change.submit.iter().any(|record| record.status == RecordStatus::Ok) {
        return None;
    }
    let own = own_labels(pipeline);
    for record in &change.submit {
        match record.status {
            RecordStatus::Ok => {}
            RecordStatus::Closed => return Some("its source says that it is closed".to_owned()),
            RecordStatus::RuleError => return Some("its submit rule is broken".to_owned()),
            RecordStatus::NotReady => {
                let missing = record.labels.iter().find(|(label, status)| match status {
                    LabelStatus::Ok | LabelStatus::May => false,
                    LabelStatus::Need | LabelStatus::Reject => !own.contains(&label.as_str()),
                    LabelStatus::Impossible => true,
                });
                if let Some((label, _)) = missing {
                    return Some(format!("its vote on {label} is missing or forbids it"));
                }
            }
        }
    }
    None
}

fn own_labels(pipeline: &Pipeline) -> Vec<&str> {
    let mut labels = Vec::new();
    for reporter in &pipeline.actions.success {
        match reporter {
            Reporter::Source { votes, .. } => {
                labels.extend(votes.iter().filter_map(|vote| match vote {
                    GerritVote::Label(label, _) => Some(label.as_str()),
                    GerritVote::Flag(_) => None,
                }));
            }
            Reporter::Smtp { .. } | Reporter::Webhook { .. } => {}
        }
    }
    labels
}
