//! Gerrit over HTTP: its answers as the ones over SSH, so that both are read the same way.

use super::config::GerritHttp;
use super::json::{
    Account, ApprovalJson, ChangeJson, CommentJson, DependencyJson, FileJson, Number, PatchSetJson,
    RecordJson, Value,
};
use super::missed::seconds_of;
use super::query::Rows;
use super::source::Show;
use crate::http::{HttpError, Request, quote};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What stands before Gerrit's JSON, against scripts of other sites.
const PREFIX: &[u8] = b")]}'";
/// Rows of one answer.
const PAGE: usize = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChangeInfo {
    project: String,
    branch: String,
    topic: String,
    hashtags: Vec<String>,
    change_id: String,
    subject: String,
    status: String,
    updated: String,
    work_in_progress: bool,
    #[serde(rename = "_number")]
    number: u64,
    owner: Account,
    labels: BTreeMap<String, LabelInfo>,
    messages: Vec<MessageInfo>,
    current_revision: String,
    revisions: BTreeMap<String, RevisionInfo>,
    submit_records: Vec<RecordJson>,
    #[serde(rename = "_more_changes")]
    more_changes: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LabelInfo {
    all: Vec<VoteInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VoteInfo {
    value: i32,
    date: String,
    #[serde(flatten)]
    by: Account,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessageInfo {
    author: Account,
    date: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RevisionInfo {
    #[serde(rename = "_number")]
    number: u64,
    created: String,
    uploader: Account,
    #[serde(rename = "ref")]
    reference: String,
    commit: Option<CommitInfo>,
    files: Option<BTreeMap<String, FileInfo>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CommitInfo {
    commit: String,
    parents: Vec<ParentInfo>,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ParentInfo {
    commit: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileInfo {
    old_path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RelatedInfo {
    changes: Vec<RelatedChange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RelatedChange {
    commit: CommitInfo,
    #[serde(rename = "_change_number")]
    change: Option<u64>,
    #[serde(rename = "_revision_number")]
    revision: u64,
}

fn request(http: &GerritHttp, request: Request) -> Request {
    match &http.credentials {
        Some((user, password)) => request.basic(user, password),
        None => request,
    }
}

fn path(http: &GerritHttp, path: &str) -> String {
    // Below /a/ Gerrit wants to know who one is.
    if http.credentials.is_some() { format!("/a{path}") } else { path.to_owned() }
}

/// A query, from its `start`th row on.
pub(super) async fn query(
    http: &GerritHttp,
    show: Show,
    query: &str,
    start: usize,
) -> Result<Rows, HttpError> {
    let options: &[&str] = match show {
        Show::Whole => {
            &["ALL_REVISIONS", "ALL_FILES", "ALL_COMMITS", "DETAILED_LABELS", "DETAILED_ACCOUNTS"]
        }
        Show::Message => &["CURRENT_REVISION", "CURRENT_COMMIT", "DETAILED_ACCOUNTS"],
        Show::History => &["ALL_REVISIONS", "MESSAGES", "DETAILED_ACCOUNTS"],
    };
    let mut url = http.url.join(&path(http, "/changes/")).query("q", query);
    url = url.query("n", &PAGE.to_string()).query("S", &start.to_string());
    for option in options {
        url = url.query("o", option);
    }
    let answer = http.client.send(request(http, Request::get(&url))).await?.well()?;
    let found: Vec<ChangeInfo> = answer.json_after(PREFIX)?;
    let more = found.last().is_some_and(|c| c.more_changes);
    let rows = found.into_iter().map(|info| row(http, info)).collect();
    Ok(Rows { rows, malformed: Vec::new(), more })
}

/// Adds the changes of Gerrit's own parents and children, which only another question tells. False when Gerrit does not
/// find the change any more.
pub(super) async fn add_related(
    http: &GerritHttp,
    row: &mut ChangeJson,
) -> Result<bool, HttpError> {
    let url = format!("/changes/{}/revisions/current/related", row.number.0);
    let url = http.url.join(&path(http, &url));
    let answer = http.client.send(request(http, Request::get(&url))).await?;
    if answer.status() == 404 {
        return Ok(false);
    }
    let answer = answer.well()?;
    let related: RelatedInfo = answer.json_after(PREFIX)?;
    let revision = row.current_patch_set.as_ref().map_or("", |p| p.revision.as_str());
    let own = related.changes.iter().find(|c| c.commit.commit == revision);
    let parents: Vec<&str> = own
        .map(|own| own.commit.parents.iter().map(|p| p.commit.as_str()).collect())
        .unwrap_or_default();
    let revisions: Vec<&str> = row.patch_sets.iter().map(|p| p.revision.as_str()).collect();
    let dependency = |c: &RelatedChange| {
        let number = c.change?;
        let reference = format!("refs/changes/{:02}/{number}/{}", number % 100, c.revision);
        Some(DependencyJson { number: Number(number), reference })
    };
    let needs = related.changes.iter().filter(|c| parents.contains(&c.commit.commit.as_str()));
    let depends_on = needs.filter_map(dependency).collect();
    let needing = related
        .changes
        .iter()
        .filter(|c| c.commit.parents.iter().any(|p| revisions.contains(&p.commit.as_str())));
    row.needed_by = needing.filter_map(dependency).collect();
    row.depends_on = depends_on;
    Ok(true)
}

/// Votes and comments on a patchset.
pub(super) async fn review(
    http: &GerritHttp,
    number: u64,
    patchset: &str,
    message: &str,
    votes: &[(String, i32)],
) -> Result<(), HttpError> {
    let labels: BTreeMap<&str, i32> = votes.iter().map(|(l, v)| (l.as_str(), *v)).collect();
    let body = serde_json::json!({"message": message, "labels": labels});
    let to = format!("/changes/{number}/revisions/{}/review", quote(patchset));
    post(http, &to, &body).await
}

/// Merges a change.
pub(super) async fn submit(http: &GerritHttp, number: u64) -> Result<(), HttpError> {
    post(http, &format!("/changes/{number}/submit"), &serde_json::json!({})).await
}

async fn post(http: &GerritHttp, to: &str, body: &serde_json::Value) -> Result<(), HttpError> {
    let url = http.url.join(&path(http, to));
    http.client.send(request(http, Request::post(&url).json(body))).await?.well().map(drop)
}

fn row(http: &GerritHttp, info: ChangeInfo) -> ChangeJson {
    let votes = approvals(&info.labels);
    let current = info.current_revision.as_str();
    let patch_sets: Vec<PatchSetJson> =
        info.revisions.iter().map(|(sha, revision)| patchset(sha, revision)).collect();
    let mut current_patch_set = patch_sets.iter().find(|p| p.revision == current).cloned();
    if let Some(current) = &mut current_patch_set {
        current.approvals = votes;
    }
    let commit = info.revisions.get(current).and_then(|r| r.commit.as_ref());
    let base = http.url.to_string();
    ChangeJson {
        url: format!("{}/c/{}/+/{}", base.trim_end_matches('/'), info.project, info.number),
        commit_message: commit.map(|c| c.message.clone()).unwrap_or_default(),
        current_patch_set,
        patch_sets,
        comments: info.messages.into_iter().map(comment).collect(),
        number: Number(info.number),
        last_updated: Number(seconds_of(&info.updated)),
        id: info.change_id,
        project: info.project,
        branch: info.branch,
        topic: info.topic,
        hashtags: info.hashtags,
        subject: info.subject,
        status: info.status,
        wip: info.work_in_progress,
        owner: info.owner,
        submit_records: info.submit_records,
        ..ChangeJson::default()
    }
}

fn comment(message: MessageInfo) -> CommentJson {
    CommentJson {
        timestamp: Number(seconds_of(&message.date)),
        reviewer: message.author,
        message: message.message,
    }
}

/// The votes of the current patchset. A vote of nothing is none.
fn approvals(labels: &BTreeMap<String, LabelInfo>) -> Vec<ApprovalJson> {
    let votes = labels.iter().flat_map(|(label, info)| info.all.iter().map(move |v| (label, v)));
    votes
        .filter(|(_, vote)| vote.value != 0)
        .map(|(label, vote)| ApprovalJson {
            label: label.clone(),
            value: Value(vote.value),
            old_value: None,
            granted_on: Number(seconds_of(&vote.date)),
            by: vote.by.clone(),
        })
        .collect()
}

fn patchset(sha: &str, revision: &RevisionInfo) -> PatchSetJson {
    let file = |(name, info): (&String, &FileInfo)| FileJson {
        file: name.clone(),
        file_old: info.old_path.clone(),
    };
    let mut files: Option<Vec<FileJson>> =
        revision.files.as_ref().map(|files| files.iter().map(file).collect());
    // Over HTTP nothing marks a merge but its parents.
    if revision.commit.as_ref().is_some_and(|c| c.parents.len() > 1) {
        files = None;
    }
    PatchSetJson {
        number: Number(revision.number),
        revision: sha.to_owned(),
        reference: revision.reference.clone(),
        uploader: revision.uploader.clone(),
        created_on: Number(seconds_of(&revision.created)),
        is_draft: false,
        approvals: Vec::new(),
        files,
    }
}
