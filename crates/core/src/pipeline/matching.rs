//! Which events enter, and what must hold of a change (origin.md 7.2, 7.9).

use crate::event::{
    Approval, Change, ChangeState, EventKind, LabelStatus, RecordStatus, TriggerEvent,
};
use crate::layout::{
    ApprovalRule, GerritVote, Pattern, Pipeline, Reporter, Requirements, Trigger, TriggerFilter,
};
use crate::time::Time;

/// Why a trigger does not listen to an event: the first of its filters that does not match.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deaf<'f> {
    /// It listens to something else altogether.
    Trigger,
    /// It is of another source.
    Source,
    Timespecs,
    Pipelines,
    Events,
    Branches,
    Refs,
    Comments,
    Emails,
    Usernames,
    /// This vote was not given with the event.
    Approval(&'f (String, Vec<i32>)),
    /// No vote that stands is so.
    Required(&'f ApprovalRule),
    /// A vote that stands is so, and must not.
    Rejected(&'f ApprovalRule),
}

/// The first trigger of the pipeline that listens to this event, or why each does not. This and
/// [`super::jobs::select`] decide, and say why.
pub(super) fn heard<'p>(
    pipeline: &'p Pipeline,
    event: &TriggerEvent,
    change: Option<&Change>,
    now: Time,
) -> Result<&'p TriggerFilter, Vec<Deaf<'p>>> {
    let mut deaf = Vec::new();
    for filter in &pipeline.triggers {
        match listens(pipeline, filter, event, change, now) {
            Ok(()) => return Ok(filter),
            Err(why) => deaf.push(why),
        }
    }
    Err(deaf)
}

fn listens<'f>(
    pipeline: &Pipeline,
    filter: &'f TriggerFilter,
    event: &TriggerEvent,
    change: Option<&Change>,
    now: Time,
) -> Result<(), Deaf<'f>> {
    hears(pipeline, filter, event)?;
    let need = |holds: bool, why: Deaf<'f>| if holds { Ok(()) } else { Err(why) };
    let reference = event.reference.as_ref().map(zuul_name);
    let branch = event.branch.as_ref().map(|b| b.as_str());
    let some = |text: Option<&str>, p: &Pattern| text.is_some_and(|text| p.matches(text));
    need(filter.events.is_empty() || filter.events.contains(&event.kind), Deaf::Events)?;
    need(any(&filter.branches, |p| some(branch, p)), Deaf::Branches)?;
    need(any(&filter.refs, |p| some(reference, p)), Deaf::Refs)?;
    need(any(&filter.comments, |p| p.search(&event.comment)), Deaf::Comments)?;
    need(any(&filter.emails, |p| p.search(&event.by.email)), Deaf::Emails)?;
    need(any(&filter.usernames, |p| p.search(&event.by.username)), Deaf::Usernames)?;
    for vote in &filter.approvals {
        let given = event.approvals.iter().any(|(l, v)| *l == vote.0 && vote.1.contains(v));
        need(given, Deaf::Approval(vote))?;
    }
    for rule in &filter.require_approvals {
        need(met(rule, change, now), Deaf::Required(rule))?;
    }
    for rule in &filter.reject_approvals {
        need(!met(rule, change, now), Deaf::Rejected(rule))?;
    }
    Ok(())
}

/// Whether the event comes from where the trigger listens.
fn hears<'f>(
    pipeline: &Pipeline,
    filter: &TriggerFilter,
    event: &TriggerEvent,
) -> Result<(), Deaf<'f>> {
    if origin_of(event.kind) != filter.trigger {
        return Err(Deaf::Trigger);
    }
    let (heard, why) = match filter.trigger {
        Trigger::Source => (event.project.source == pipeline.source, Deaf::Source),
        Trigger::Timer => {
            let any = filter.timespecs.is_empty() || filter.timespecs.contains(&event.origin);
            (any, Deaf::Timespecs)
        }
        Trigger::Zuul => (any(&filter.pipelines, |p| p.matches(&event.origin)), Deaf::Pipelines),
    };
    if heard { Ok(()) } else { Err(why) }
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
    if !any(&required.topics, |p| p.matches(&change.topic)) {
        return Some(match change.topic.as_str() {
            "" => "it has no topic".to_owned(),
            topic => format!("its topic is `{topic}`"),
        });
    }
    if let Some(lacks) = required.hashtags.iter().find(|p| !is_tagged(change, p)) {
        return Some(format!("no hashtag is `{}`", lacks.as_str()));
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
    if reject.topics.iter().any(|p| p.matches(&change.topic)) {
        return Some(format!("the pipeline rejects the topic `{}`", change.topic));
    }
    if let Some(bad) = reject.hashtags.iter().find(|p| is_tagged(change, p)) {
        return Some(format!("the pipeline rejects the hashtag `{}`", bad.as_str()));
    }
    let bad = reject.approvals.iter().find(|rule| met(rule, Some(change), now))?;
    Some(format!("a vote is {}, which the pipeline rejects", describe(bad)))
}

fn is_tagged(change: &Change, pattern: &Pattern) -> bool {
    change.hashtags.iter().any(|tag| pattern.matches(tag))
}

pub(super) fn describe(rule: &ApprovalRule) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Person, RefName, SubmitRecord};
    use crate::pipeline::tests::a_pipeline;
    use core::time::Duration;

    const NOW: Time = Time(1_000_000_000_000);

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    /// One trigger, one event, one change, each edited.
    fn hears(
        filter: impl FnOnce(&mut TriggerFilter),
        event: impl FnOnce(&mut TriggerEvent),
        change: impl FnOnce(&mut Change),
    ) -> bool {
        let (mut pipeline, mut an_event, mut a_change) = a_pipeline();
        filter(&mut pipeline.triggers[0]);
        event(&mut an_event);
        change(&mut a_change);
        heard(&pipeline, &an_event, Some(&a_change), NOW).is_ok()
    }

    fn vote(label: &str, value: i32, seconds_ago: i64) -> Approval {
        let by = Person {
            username: "jenkins".to_owned(),
            email: "jenkins@example.org".to_owned(),
            name: String::new(),
        };
        Approval { label: label.to_owned(), value, by, at: Time(NOW.0 - seconds_ago * 1_000_000) }
    }

    #[test]
    fn each_filter_counts() {
        assert!(hears(|_| (), |_| (), |_| ()));
        assert!(!hears(|_| (), |e| e.kind = EventKind::Timer, |_| ()));
        assert!(!hears(|_| (), |e| e.kind = EventKind::ChangeMerged, |_| ()));
        assert!(hears(|f| f.events.clear(), |e| e.kind = EventKind::ChangeMerged, |_| ()));
        let other = crate::event::SourceName::new("other").unwrap();
        assert!(!hears(|_| (), |e| e.project.source = other, |_| ()));
        assert!(hears(|f| f.branches = vec![pattern("mast")], |_| (), |_| ()));
        assert!(!hears(|f| f.branches = vec![pattern("aster")], |_| (), |_| ()));
        assert!(!hears(|f| f.branches = vec![pattern("m")], |e| e.branch = None, |_| ()));
        assert!(hears(
            |f| f.comments = vec![pattern("check")],
            |e| e.comment = "recheck".into(),
            |_| ()
        ));
        assert!(!hears(
            |f| f.comments = vec![pattern("^check")],
            |e| e.comment = "recheck".into(),
            |_| ()
        ));
        let by = |e: &mut TriggerEvent| {
            e.by = Person {
                username: "jenkins".into(),
                email: "j@example.org".into(),
                name: String::new(),
            };
        };
        assert!(hears(|f| f.usernames = vec![pattern("enk")], by, |_| ()));
        assert!(!hears(|f| f.usernames = vec![pattern("zuul")], by, |_| ()));
        assert!(hears(|f| f.emails = vec![pattern("nobody"), pattern("example")], by, |_| ()));
        assert!(!hears(|f| f.emails = vec![pattern("example.com")], by, |_| ()));
    }

    #[test]
    fn votes_given_with_the_event_must_all_be_there() {
        let wants = |f: &mut TriggerFilter| {
            f.approvals = vec![("verified".into(), vec![1, 2]), ("workflow".into(), vec![1])];
        };
        let gives = |votes: &[(&str, i32)]| {
            let votes = votes.iter().map(|(l, v)| ((*l).to_owned(), *v)).collect();
            move |e: &mut TriggerEvent| e.approvals = votes
        };
        assert!(hears(wants, gives(&[("workflow", 1), ("verified", 2)]), |_| ()));
        assert!(!hears(wants, gives(&[("verified", 2)]), |_| ()));
        assert!(!hears(wants, gives(&[("workflow", 1), ("verified", -2)]), |_| ()));
    }

    #[test]
    fn votes_that_stand_are_required_or_rejected_by_age_and_person() {
        let rule = |edit: fn(&mut ApprovalRule)| {
            let mut rule = ApprovalRule {
                labels: vec![("verified".into(), vec![1, 2])],
                ..ApprovalRule::default()
            };
            edit(&mut rule);
            rule
        };
        let required = |edit: fn(&mut ApprovalRule), votes: Vec<Approval>| {
            hears(|f| f.require_approvals = vec![rule(edit)], |_| (), |c| c.approvals = votes)
        };
        assert!(required(|_| (), vec![vote("verified", 1, 5)]));
        assert!(!required(|_| (), vec![vote("verified", -1, 5), vote("workflow", 1, 5)]));
        assert!(!required(|_| (), Vec::new()), "a change without votes meets nothing");
        assert!(required(
            |r| r.username = Some(pattern("^jenkins$")),
            vec![vote("verified", 1, 5)]
        ));
        assert!(!required(|r| r.email = Some(pattern("zuul")), vec![vote("verified", 1, 5)]));
        let old = |r: &mut ApprovalRule| r.older_than = Some(Duration::from_secs(60));
        assert!(
            required(old, vec![vote("verified", 1, 61)])
                && !required(old, vec![vote("verified", 1, 59)])
        );
        let young = |r: &mut ApprovalRule| r.newer_than = Some(Duration::from_secs(60));
        assert!(
            !required(young, vec![vote("verified", 1, 61)])
                && required(young, vec![vote("verified", 1, 59)])
        );
        let both = |r: &mut ApprovalRule| r.labels.push(("workflow".into(), vec![1]));
        assert!(required(both, vec![vote("verified", 2, 5), vote("workflow", 1, 5)]));
        assert!(!required(both, vec![vote("verified", 2, 5)]));
        let rejected = |votes: Vec<Approval>| {
            !hears(|f| f.reject_approvals = vec![rule(|_| ())], |_| (), |c| c.approvals = votes)
        };
        assert!(rejected(vec![vote("verified", 2, 5)]) && !rejected(vec![vote("verified", -2, 5)]));
    }

    #[test]
    fn refs_are_matched_by_zuuls_names() {
        let updated = |name: &'static str| {
            move |e: &mut TriggerEvent| {
                e.kind = EventKind::RefUpdated;
                e.reference = Some(RefName::new(name).unwrap());
            }
        };
        let heads = |f: &mut TriggerFilter| {
            f.events = vec![EventKind::RefUpdated];
            f.refs = vec![pattern("^(?!refs/).*$")];
        };
        assert!(hears(heads, updated("refs/heads/master"), |_| ()));
        assert!(!hears(heads, updated("refs/tags/1.0"), |_| ()));
        assert!(!hears(heads, |e| e.kind = EventKind::RefUpdated, |_| ()), "no ref");
    }

    #[test]
    fn timers_and_own_events_have_their_triggers() {
        let timer = |f: &mut TriggerFilter| {
            f.trigger = Trigger::Timer;
            f.events.clear();
            f.timespecs = vec!["0 6 * * *".into()];
        };
        let at = |time: &'static str| {
            move |e: &mut TriggerEvent| {
                e.kind = EventKind::Timer;
                e.origin = time.into();
            }
        };
        assert!(hears(timer, at("0 6 * * *"), |_| ()) && !hears(timer, at("1 6 * * *"), |_| ()));
        let own = |f: &mut TriggerFilter| {
            f.trigger = Trigger::Zuul;
            f.events = vec![EventKind::ProjectChangeMerged];
            f.pipelines = vec![pattern("^gate$")];
        };
        let merged = |of: &'static str| {
            move |e: &mut TriggerEvent| {
                e.kind = EventKind::ProjectChangeMerged;
                e.origin = of.into();
            }
        };
        assert!(hears(own, merged("gate"), |_| ()) && !hears(own, merged("check"), |_| ()));
        assert!(!hears(own, |_| (), |_| ()), "a source's event is not the gate's own");
    }

    #[test]
    fn requirements_say_what_is_missing() {
        let (mut pipeline, _, mut change) = a_pipeline();
        assert_eq!(objection(&pipeline, &change, NOW), None);
        pipeline.require.status = vec!["new".into(), "submitted".into()];
        assert_eq!(objection(&pipeline, &change, NOW), None);
        change.wip = true;
        assert_eq!(objection(&pipeline, &change, NOW).unwrap(), "its status is DRAFT");
        change.wip = false;
        let rule = ApprovalRule {
            username: Some(pattern("jenkins")),
            labels: vec![("verified".into(), vec![1, 2])],
            ..ApprovalRule::default()
        };
        pipeline.require.approvals = vec![rule.clone()];
        let why = objection(&pipeline, &change, NOW).unwrap();
        assert_eq!(why, "no vote is verified 1 or 2, by `jenkins`");
        change.approvals = vec![vote("verified", 1, 1)];
        assert_eq!(objection(&pipeline, &change, NOW), None);
        pipeline.reject.approvals = vec![rule];
        assert!(objection(&pipeline, &change, NOW).unwrap().contains("rejects"));
        pipeline.reject = Requirements { open: Some(true), ..Requirements::default() };
        assert!(objection(&pipeline, &change, NOW).is_some());
    }

    #[test]
    fn topics_and_hashtags_are_required_or_rejected() {
        let (mut pipeline, _, mut change) = a_pipeline();
        let mut said = |pipeline: &Pipeline, topic: &str, tags: &[&str]| {
            change.topic = topic.into();
            change.hashtags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            objection(pipeline, &change, NOW).unwrap_or_default()
        };
        pipeline.require.topics = vec![pattern("devtest"), pattern("bug/")];
        assert_eq!(said(&pipeline, "", &[]), "it has no topic");
        assert_eq!(said(&pipeline, "my-devtest", &[]), "its topic is `my-devtest`");
        assert_eq!(said(&pipeline, "bug/1234", &[]), "");
        pipeline.require.hashtags = vec![pattern("urgent$"), pattern("ok")];
        assert_eq!(said(&pipeline, "devtest", &["okay"]), "no hashtag is `urgent$`");
        assert_eq!(said(&pipeline, "devtest", &["okay", "urgent"]), "");
        pipeline.reject.hashtags = vec![pattern("hold")];
        let told = said(&pipeline, "devtest", &["okay", "urgent", "hold-on"]);
        assert_eq!(told, "the pipeline rejects the hashtag `hold`");
        pipeline.reject.topics = vec![pattern("devtest")];
        assert_eq!(said(&pipeline, "devtest", &[]), "no hashtag is `urgent$`");
        pipeline.require = Requirements::default();
        assert_eq!(said(&pipeline, "devtest", &[]), "the pipeline rejects the topic `devtest`");
        assert_eq!(said(&pipeline, "", &[]), "");
    }

    #[test]
    fn submit_rules_allow_what_the_pipeline_itself_votes() {
        let (pipeline, _, mut change) = a_pipeline();
        let mut allowed = |status, labels: &[(&str, LabelStatus)]| {
            let labels = labels.iter().map(|(l, s)| ((*l).to_owned(), *s)).collect();
            change.submit = vec![SubmitRecord { status, labels }];
            unmergeable(&pipeline, &change).is_none()
        };
        use LabelStatus::{Impossible, May, Need, Ok, Reject};
        use RecordStatus::{Closed, NotReady, RuleError};
        assert!(allowed(RecordStatus::Ok, &[]));
        assert!(
            allowed(NotReady, &[("verified", Need), ("workflow", Ok)]),
            "verified is its own vote"
        );
        assert!(allowed(NotReady, &[("verified", Reject), ("style", May)]), "MAY does not matter");
        assert!(!allowed(NotReady, &[("workflow", Need)]));
        assert!(!allowed(NotReady, &[("verified", Impossible)]));
        assert!(!allowed(Closed, &[]) && !allowed(RuleError, &[]));
        change.submit.clear();
        assert!(unmergeable(&pipeline, &change).is_none(), "a source without rules");
        change.current = false;
        assert!(unmergeable(&pipeline, &change).is_some());
    }
}
