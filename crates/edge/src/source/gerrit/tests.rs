//! Reading what a real Gerrit said: `fixtures/*-3.10.jsonl` are recorded from Gerrit 3.10.2 started by
//! `examples/gerrit/gerrit.sh`. Lines of 2.8, which cannot be got any more, are written after its documentation.

use super::event::EVENT_MAX_BYTES;
use super::event::{Told, read, votes_of_text};
use super::json::ChangeJson;
use super::listen::{CURSOR, Line, Lines, Memory};
use super::missed::{calendar, of_change, seconds_of};
use super::query::{NoAnswer, change_of, read_rows};
use super::{GerritConfig, GerritHttp, GerritSource, Transport};
use crate::http::fake::{Fake, Reply};
use crate::http::{Http, Trust};
use crate::source::{Source as _, SourceReport};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use toci_core::event::{
    Change, ChangeKey, ChangeState, EventKind, LabelStatus, RecordStatus, SourceName, TriggerEvent,
};
use toci_core::id::ReportId;
use toci_core::layout::MergeMode;
use toci_core::pipeline::ReportAction;
use toci_core::time::Time;

const STREAM: &str = include_str!("fixtures/stream-3.10.jsonl");
const QUERY: &str = include_str!("fixtures/query-3.10.jsonl");
const MISSED: &str = include_str!("fixtures/missed-3.10.jsonl");

fn source() -> SourceName {
    SourceName::new("gerrit").unwrap()
}

fn key(number: u64, patchset: &str) -> ChangeKey {
    ChangeKey { source: source(), number, patchset: patchset.to_owned() }
}

fn heard(line: &str) -> Option<TriggerEvent> {
    match read(&source(), line, Time(7_000_000)).unwrap() {
        Told::Event(event) => Some(*event),
        Told::Other => None,
    }
}

fn short(event: &TriggerEvent) -> String {
    let change = event.change.as_ref().map_or_else(String::new, ChangeKey::short);
    let reference = event.reference.as_ref().map_or("", |r| r.as_str());
    let votes: Vec<String> = event.approvals.iter().map(|(l, v)| format!("{l}{v:+}")).collect();
    let line = format!(
        "{} {change}{reference} by {} {}",
        event.kind.word(),
        event.by.username,
        votes.join(" ")
    );
    line.trim_end().to_owned()
}

#[test]
fn a_recorded_stream_is_told() {
    let events: Vec<TriggerEvent> = STREAM.lines().filter_map(heard).collect();
    let told: Vec<String> = events.iter().map(short).collect();
    assert_eq!(
        told,
        [
            "patchset-created 1,1 by dev",
            "patchset-created 2,1 by dev",
            "patchset-created 2,2 by dev",
            "patchset-created 3,1 by dev",
            "comment-added 1,1 by jenkins verified+2",
            "comment-added 2,2 by jenkins verified+2",
            "change-abandoned 2,2 by dev",
            "change-restored 2,2 by dev",
            "draft-published 3,1 by admin",
            // Workflow was given by its lower-case name: only the comment's first line tells.
            "comment-added 1,1 by dev code-review+2 workflow+1",
            // A comment of somebody whose vote stands gives no vote.
            "comment-added 1,1 by jenkins",
            "ref-updated refs/heads/master by jenkins",
            "change-merged 1,1 by jenkins",
            "comment-added 2,1 by jenkins verified+1",
            "ref-updated refs/heads/stable/icehouse by admin",
            "ref-updated refs/tags/1.0 by admin",
            "ref-updated refs/heads/stable/icehouse by admin",
        ]
    );
    let recheck = &events[9];
    assert_eq!(recheck.comment.lines().nth(2), Some("recheck \"it\" now's"));
    assert_eq!(recheck.branch.as_ref().unwrap().as_str(), "master");
    assert_eq!(recheck.at, Time(1_795_644_443_000_000));
    assert!(
        events[14].old.as_ref().unwrap().is_none() && events[16].new.as_ref().unwrap().is_none()
    );
}

#[test]
fn events_of_2014_are_told() {
    let comment = r#"{"type":"comment-added","change":{"project":"openstack/tripleo-ci","branch":"master","topic":"t","id":"I01","number":"1234","subject":"S","owner":{"name":"D","email":"d@example.org","username":"dev"},"url":"https://review.example.org/1234"},"patchSet":{"number":"5","revision":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","ref":"refs/changes/34/1234/5","uploader":{"name":"D"},"createdOn":1413000000},"author":{"name":"R","username":"rev"},"approvals":[{"type":"Code-Review","description":"Code-Review","value":"2"},{"type":"Workflow","description":"Workflow","value":"1"}],"comment":"Patch Set 5: Code-Review+2 Workflow+1"}"#;
    let event = heard(comment).unwrap();
    assert_eq!(short(&event), "comment-added 1234,5 by rev code-review+2 workflow+1");
    assert_eq!(event.at, Time(7_000_000), "without a time of its own it is now");
    let draft = comment.replace("comment-added", "draft-published");
    assert_eq!(short(&heard(&draft).unwrap()), "draft-published 1234,5 by rev");
    let silent = comment.replace("Patch Set 5: Code-Review+2 Workflow+1", "");
    assert_eq!(heard(&silent).unwrap().approvals.len(), 2, "without a first line all are given");
    let moved = r#"{"type":"ref-updated","submitter":{"username":"dev"},"refUpdate":{"oldRev":"0000000000000000000000000000000000000000","newRev":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","refName":"stable/icehouse","project":"openstack/nova"}}"#;
    let event = heard(moved).unwrap();
    assert_eq!(event.reference.unwrap().as_str(), "refs/heads/stable/icehouse");
    for ignored in ["reviewer-added", "merge-failed", "topic-changed", "made-up"] {
        assert_eq!(heard(&comment.replace("comment-added", ignored)), None);
    }
}

#[test]
fn what_is_no_event_says_why() {
    for (line, expected) in [
        ("", "it is no event"),
        ("hello", "it is no event"),
        ("7", "it is no event"),
        ("{}", "an event without a type"),
        (r#"{"type":"comment-added"}"#, "a comment-added event without `change`"),
        (r#"{"type":"change-merged","change":{"project":"p","branch":"b"}}"#, "without `patchSet`"),
        (r#"{"type":"ref-updated"}"#, "without `refUpdate`"),
        (
            r#"{"type":"ref-updated","refUpdate":{"refName":"m","project":"../etc"}}"#,
            "is not a project name",
        ),
        (
            r#"{"type":"ref-updated","refUpdate":{"refName":"m","project":"p","oldRev":"x","newRev":"y"}}"#,
            "is not a commit id",
        ),
        (r#"{"type":"comment-added","change":{"number":"x"}}"#, "`x` is no number"),
        (
            r#"{"type":"comment-added","change":{"project":"-p","branch":"b"},"patchSet":{"number":1}}"#,
            "is not a project name",
        ),
    ] {
        let error = read(&source(), line, Time(0)).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

/// A line that is too long, one of other bytes than text, empty ones, one that was cut: each is one line, and the good
/// ones around it are read as if nothing had been.
#[tokio::test]
async fn a_stream_of_odd_lines_keeps_its_good_ones() {
    let good = STREAM.lines().next().unwrap();
    let mut bytes = format!("{good}\n\n \r\n").into_bytes();
    bytes.extend(vec![b'x'; EVENT_MAX_BYTES + 1]);
    bytes.extend(format!("\n{good}\n").into_bytes());
    bytes.extend(b"\xff\xfe\0{\n");
    bytes.extend(vec![b'y'; EVENT_MAX_BYTES]);
    bytes.extend(format!("\n{good}\n{{\"type\":\"comment-add").into_bytes());
    let mut lines = Lines::new(&bytes[..]);
    let mut read = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        read.push(match line {
            Line::Text(text) if text == good => "good".to_owned(),
            Line::Text(text) => match super::event::read(&source(), &text, Time(0)) {
                Err(why) => why.to_string().chars().take(15).collect(),
                Ok(told) => panic!("{told:?}"),
            },
            Line::TooLong => "too long".to_owned(),
        });
    }
    let odd = "it is no event:";
    assert_eq!(read, ["good", "too long", "good", odd, odd, "good"], "the cut one is no line");
}

#[test]
fn votes_stand_in_a_comments_first_line() {
    let votes = |text| votes_of_text(text).map(|v| format!("{v:?}"));
    assert_eq!(
        votes("Patch Set 12: Verified-1 Code-Review+2 -Workflow\n\n(3 comments)"),
        Some(r#"[("verified", -1), ("code-review", 2), ("workflow", 0)]"#.to_owned())
    );
    assert_eq!(votes("Patch Set 1:\n\nVerified+2"), Some("[]".to_owned()));
    for none in ["", "Verified+2", "Patch Set x: Verified+2", "Patch Set 1"] {
        assert_eq!(votes(none), None, "{none}");
    }
}

#[test]
fn a_recorded_query_shows_changes() {
    let rows = read_rows(QUERY).unwrap();
    assert!(rows.malformed.is_empty() && !rows.more);
    let row = |number| rows.rows.iter().find(|r| r.number.0 == number).unwrap();
    let first = change_of(&source(), row(1), None).unwrap().unwrap();
    assert_eq!(first.state, ChangeState::Merged);
    assert_eq!((first.key.clone(), first.current, first.wip), (key(1, "1"), true, false));
    assert_eq!(first.reference.as_str(), "refs/changes/01/1/1");
    assert_eq!(first.title, "First \"quoted\" ü");
    assert!(first.message.contains("\n\nBody line\n"));
    assert_eq!((first.topic.as_str(), first.hashtags.len()), ("top", 2));
    assert_eq!(first.files.as_deref(), Some(["a".to_owned()].as_slice()));
    assert_eq!(first.needed_by, [key(2, "2")], "only its newest patchset");
    let votes: Vec<String> = first
        .approvals
        .iter()
        .map(|a| format!("{}{:+} {}", a.label, a.value, a.by.username))
        .collect();
    assert_eq!(votes, ["workflow+1 dev", "code-review+2 dev", "verified+2 jenkins"]);
    assert!(first.approvals.iter().all(|a| a.at.0 > 1_795_644_400_000_000));

    let second = change_of(&source(), row(2), None).unwrap().unwrap();
    assert_eq!((second.state, second.key.clone()), (ChangeState::Open, key(2, "2")));
    assert_eq!(second.needs, [key(1, "1")]);
    assert_eq!(second.submit.len(), 1);
    assert_eq!(second.submit[0].status, RecordStatus::NotReady);
    assert!(second.submit[0].labels.contains(&("code-review".to_owned(), LabelStatus::Need)));
    assert!(second.submit[0].labels.contains(&("verified".to_owned(), LabelStatus::Ok)));
    let old = change_of(&source(), row(2), Some("1")).unwrap().unwrap();
    assert!(!old.current && old.reference.as_str() == "refs/changes/02/2/1");
    assert_ne!(old.revision, second.revision);
    assert_eq!(change_of(&source(), row(2), Some("9")).unwrap(), None);
}

#[test]
fn renames_merges_drafts_and_odd_states_are_read() {
    let row = |more: &str| {
        let text = format!(
            r#"{{"project":"p","branch":"refs/heads/b","number":"5","status":"NEW","currentPatchSet":{{"number":"1","ref":"refs/changes/05/5/1","revision":"{}"{more}"#,
            "a".repeat(40)
        );
        let row: ChangeJson = serde_json::from_str(&text).unwrap();
        change_of(&source(), &row, None).unwrap().unwrap()
    };
    let renamed = row(r#","files":[{"file":"/COMMIT_MSG"},{"file":"new","fileOld":"old"}]}}"#);
    assert_eq!(renamed.files.unwrap(), ["old", "new"]);
    assert_eq!(row(r#","files":[{"file":"/MERGE_LIST"}]}}"#).files, None);
    assert_eq!(row("}}").files, None);
    assert_eq!(row("}}").branch.as_str(), "b");
    assert!(row(r#"},"status2":"","wip":true}"#).wip);
    assert!(row(r#","isDraft":true}}"#).wip);
    let odd = row(
        r#"},"submitRecords":[{"status":"NEWS","labels":[{"label":"Code Review","status":"?"}]}]}"#,
    );
    assert_eq!(odd.submit[0].status, RecordStatus::RuleError);
    assert_eq!(odd.submit[0].labels, [("code-review".to_owned(), LabelStatus::Impossible)]);
}

#[test]
fn answers_without_an_end_or_with_an_error_are_none() {
    let cut = QUERY.rsplit_once("{\"type\":\"stats\"").unwrap().0;
    assert_eq!(read_rows(cut).unwrap_err(), NoAnswer::Cut);
    assert_eq!(read_rows("").unwrap_err(), NoAnswer::Cut);
    let error = r#"{"type":"error","message":"Unsupported operator foo:bar"}"#;
    assert_eq!(
        read_rows(error).unwrap_err(),
        NoAnswer::Refused("Unsupported operator foo:bar".to_owned())
    );
    let odd = read_rows("{\"number\":\"x\"}\n{\"type\":\"stats\",\"moreChanges\":true}\n").unwrap();
    assert!(odd.more && odd.rows.is_empty() && odd.malformed.len() == 1);
}

/// The same hour heard by the stream, and afterwards from the changes: nothing that pipelines could wait for is
/// missing but the moves of refs, and what is told by both is known as the same.
#[test]
fn what_was_missed_is_found_and_what_was_heard_is_not_told_again() {
    let mut missed: Vec<TriggerEvent> = Vec::new();
    for row in read_rows(MISSED).unwrap().rows {
        missed.extend(of_change(&source(), &row, 0).unwrap());
    }
    missed.sort_by_key(|e| e.at);
    let told: Vec<String> = missed.iter().map(short).collect();
    let heard: Vec<TriggerEvent> = STREAM.lines().filter_map(heard).collect();
    for event in &heard {
        let line = short(event);
        let replaced = line.starts_with("patchset-created 2,1");
        if event.kind != EventKind::RefUpdated && !replaced {
            assert!(told.contains(&line), "{line} is not in {told:#?}");
        }
    }
    let mut memory = Memory::read(None, 0);
    assert!(heard.iter().all(|e| memory.is_new(e)));
    let again: Vec<String> = missed.iter().filter(|e| memory.is_new(e)).map(short).collect();
    assert_eq!(again, [""; 0]);
}

#[test]
fn only_what_is_recent_is_missed() {
    let rows = read_rows(MISSED).unwrap().rows;
    let since = 1_795_644_443;
    let events = rows.iter().flat_map(|r| of_change(&source(), r, since).unwrap());
    let told: Vec<String> = events.map(|e| short(&e)).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
}

#[test]
fn a_cursor_carries_what_was_told_over_a_restart() {
    let events: Vec<TriggerEvent> = STREAM.lines().filter_map(heard).collect();
    let mut memory = Memory::read(None, 0);
    assert!(events.iter().all(|e| memory.is_new(e)));
    let (name, text) = memory.cursor();
    assert_eq!(name, CURSOR);
    let mut after = Memory::read(Some(&text), 99);
    assert_eq!(after.since(), 1_795_644_445 - 30);
    let last = events.iter().filter(|e| e.at >= Time(1_795_644_443_000_000));
    assert!(last.into_iter().all(|e| !after.is_new(e)), "{text}");
    assert_eq!(Memory::read(Some(&"rubbish 1:2:3 x".to_owned()), 99).since(), 69);
}

#[test]
fn dates_are_spelt_for_gerrit() {
    assert_eq!(calendar(0), "1970-01-01 00:00:00 +0000");
    assert_eq!(calendar(951_782_399), "2000-02-28 23:59:59 +0000");
    assert_eq!(calendar(951_782_400), "2000-02-29 00:00:00 +0000");
    assert_eq!(calendar(1_795_644_443), "2026-11-25 22:07:23 +0000");
    assert_eq!(calendar(1_798_761_599), "2026-12-31 23:59:59 +0000");
    for second in [0, 951_782_399, 951_782_400, 1_795_644_443, 1_798_761_599] {
        assert_eq!(seconds_of(&calendar(second).replace(" +", ".")), second);
    }
    for rubbish in ["", "x", "2026-13-01 00:00:00", "2026-11-25", "0000-01-01 00:00:00"] {
        assert_eq!(seconds_of(rubbish), 0, "{rubbish}");
    }
}

/// A Gerrit over REST whose index shows change 7 in these states, one after the other, the last one for ever; `None`:
/// not at all; `GONE`: no longer when it is asked for what is related.
async fn index(states: &'static [Option<&'static str>]) -> (Fake, GerritSource) {
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |seen| {
        if seen.target.contains("/related") {
            let now = asked.load(Ordering::Relaxed).min(states.len()) - 1;
            if states[now] == Some("GONE") {
                return Reply::new(404, "Not found: 7");
            }
            return Reply::new(200, ")]}'\n{\"changes\": []}");
        }
        if !seen.target.starts_with("/changes/?q=change") {
            return Reply::new(200, ")]}'\n[]");
        }
        let asked = asked.fetch_add(1, Ordering::Relaxed).min(states.len() - 1);
        let revision = "7777777777777777777777777777777777777777";
        let of_change = |status: &&str| {
            serde_json::json!({
                "_number": 7, "project": "org/a", "branch": "master", "change_id": "I7", "status": status,
                "current_revision": revision,
                "revisions": {revision: {"_number": 1, "ref": "refs/changes/07/7/1"}},
            })
        };
        let rows: Vec<_> = states[asked].as_ref().map(of_change).into_iter().collect();
        Reply::new(200, format!(")]}}'\n{}", serde_json::Value::from(rows)))
    })
    .await;
    let http = GerritHttp {
        url: fake.url.clone(),
        client: Http::new(&Trust::System).unwrap(),
        credentials: None,
    };
    let transport = Transport::Rest(http, Duration::from_secs(1));
    let config = GerritConfig { name: source(), transport, votes_as_flags: false };
    (fake, GerritSource::new(config))
}

fn asked(fake: &Fake) -> usize {
    fake.seen().iter().filter(|seen| seen.target.starts_with("/changes/?q=change")).count()
}

fn merging(change: Change) -> SourceReport {
    SourceReport {
        report: ReportId(1),
        action: ReportAction::Success,
        pipeline: "gate".to_owned(),
        change,
        message: String::new(),
        votes: Vec::new(),
        merge: true,
        mode: MergeMode::default(),
        commit: None,
    }
}

#[tokio::test]
async fn a_change_that_the_index_moves_is_not_taken_for_gone() {
    let (fake, gerrit) = index(&[None, Some("GONE"), Some("MERGED")]).await;
    let change = gerrit.change(7, None).await.unwrap().unwrap();
    assert_eq!((change.state, asked(&fake)), (ChangeState::Merged, 3));
    let (fake, gerrit) = index(&[None]).await;
    assert_eq!(gerrit.change(7, None).await.unwrap(), None);
    assert_eq!(asked(&fake), 4);
}

#[tokio::test]
async fn what_gerrit_has_merged_is_merged_though_its_index_is_behind() {
    let (fake, gerrit) = index(&[Some("NEW"), Some("NEW"), None, Some("MERGED")]).await;
    let change = gerrit.change(7, None).await.unwrap().unwrap();
    assert!(gerrit.report(&merging(change)).await.unwrap());
    assert_eq!(asked(&fake), 4);
    let (fake, gerrit) = index(&[Some("NEW")]).await;
    let change = gerrit.change(7, None).await.unwrap().unwrap();
    assert!(!gerrit.report(&merging(change)).await.unwrap(), "it is not merged, whatever it said");
    assert_eq!(asked(&fake), 5);
}
