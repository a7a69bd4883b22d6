//! A pull request as a change.

use super::api::{Api, FILES_MAX};
use super::config::Auth;
use super::json::{self, CheckRuns, File, PullRequest, Review, Status};
use super::name::{Pull, named};
use crate::source::{SourceError, depends_on};
use std::collections::BTreeMap;
use toci_core::event::{
    Approval, Branch, Change, ChangeKey, ChangeState, NotAName, Person, ProjectKey, RefName,
    Revision, normal_label,
};
use toci_core::time::Time;

/// Our statuses and check runs begin so; the pipeline's name follows.
pub(super) const CONTEXT: &str = "toci/";

/// A change's key.
pub(super) async fn key(api: &Api, pull: &Pull, head: &str) -> Result<ChangeKey, SourceError> {
    let number = api.number(pull).await?;
    Ok(ChangeKey { source: api.config.name.clone(), number, patchset: head.to_owned() })
}

/// What everybody may see of it at once: without files, votes, and what it needs.
pub(super) async fn outline(
    api: &Api,
    pull: &Pull,
    found: &PullRequest,
) -> Result<Change, SourceError> {
    let odd = |e: NotAName| api.refused(format!("{}#{}: {e}", pull.project, pull.number));
    let key = key(api, pull, &found.head.sha).await?;
    let body = found.body.as_deref().unwrap_or_default().replace("\r\n", "\n");
    Ok(Change {
        key,
        project: ProjectKey { source: api.config.name.clone(), name: pull.project.clone() },
        branch: Branch::new(found.base.branch.as_str()).map_err(odd)?,
        reference: RefName::new(format!("refs/pull/{}/head", pull.number)).map_err(odd)?,
        revision: Revision::new(found.head.sha.as_str()).map_err(odd)?,
        change_id: String::new(),
        state: state(found),
        current: true,
        wip: found.draft,
        title: found.title.clone(),
        message: format!("{}\n\n{body}", found.title),
        owner: json::person(&found.user),
        url: found.html_url.clone(),
        topic: String::new(),
        hashtags: found.labels.iter().map(|label| label.name.clone()).collect(),
        files: None,
        approvals: Vec::new(),
        submit: Vec::new(),
        needs: Vec::new(),
        needed_by: Vec::new(),
    })
}

pub(super) fn state(found: &PullRequest) -> ChangeState {
    match (found.state.as_str(), &found.merged_at) {
        (_, Some(_)) => ChangeState::Merged,
        ("closed", None) => ChangeState::Abandoned,
        (_, None) => ChangeState::Open,
    }
}

/// All of it but `needed_by`.
pub(super) async fn whole(
    api: &Api,
    pull: &Pull,
    found: &PullRequest,
) -> Result<Change, SourceError> {
    let mut change = outline(api, pull, found).await?;
    change.files = files(api, pull, found).await?;
    change.approvals = approvals(api, pull, found).await?;
    for footer in depends_on(&change.message) {
        let Some(needed) = named(&api.config, &footer, Some(&pull.project)) else { continue };
        if needed == *pull {
            continue;
        }
        // One that is closed and not merged is needed all the same: the gate says that it will never come.
        let Some(other) = api.pull(&needed).await? else { continue };
        let key = key(api, &needed, &other.head.sha).await?;
        if !change.needs.contains(&key) {
            change.needs.push(key);
        }
    }
    Ok(change)
}

async fn files(
    api: &Api,
    pull: &Pull,
    found: &PullRequest,
) -> Result<Option<Vec<String>>, SourceError> {
    if found.changed_files.is_some_and(|files| files > FILES_MAX) {
        return Ok(None);
    }
    let url = api.url(&pull.project, &format!("/pulls/{}/files", pull.number));
    let files: Vec<File> = api.list(&url, |_| true).await?;
    if files.len() >= FILES_MAX {
        return Ok(None);
    }
    let both = |file: File| [Some(file.filename), file.previous_filename];
    Ok(Some(files.into_iter().flat_map(both).flatten().collect()))
}

/// Reviews, labels, and our own results.
async fn approvals(
    api: &Api,
    pull: &Pull,
    found: &PullRequest,
) -> Result<Vec<Approval>, SourceError> {
    let url = api.url(&pull.project, &format!("/pulls/{}/reviews", pull.number));
    let reviews: Vec<Review> = api.list(&url, |_| true).await?;
    let mut latest: BTreeMap<Person, Approval> = BTreeMap::new();
    for review in reviews {
        let by = json::person(&review.user);
        match vote(&review) {
            Vote::Is(value) => {
                let at = review.submitted_at.as_deref().and_then(json::time).unwrap_or(Time(0));
                let approval =
                    Approval { label: "code-review".to_owned(), value, by: by.clone(), at };
                latest.insert(by, approval);
            }
            Vote::Gone => drop(latest.remove(&by)),
            Vote::None => {}
        }
    }
    let updated = json::time(&found.updated_at).unwrap_or(Time(0));
    let labels = found.labels.iter().map(|label| Approval {
        label: normal_label(&label.name),
        value: 1,
        by: Person::default(),
        at: updated,
    });
    let mut all: Vec<Approval> = latest.into_values().chain(labels).collect();
    all.extend(verified(api, pull, &found.head.sha).await?);
    Ok(all)
}

/// What a review says about merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    /// A vote for code-review.
    Is(i32),
    /// The reviewer's vote before is taken back.
    Gone,
    /// Nothing.
    None,
}

/// Approved is +2 and changes requested −2 from those who belong to the repository, +1 and −1 from anybody else.
pub(super) fn vote(review: &Review) -> Vote {
    let belongs = matches!(review.author_association.as_str(), "OWNER" | "MEMBER" | "COLLABORATOR");
    let weight = if belongs { 2 } else { 1 };
    match review.state.to_ascii_uppercase().as_str() {
        "APPROVED" => Vote::Is(weight),
        "CHANGES_REQUESTED" => Vote::Is(-weight),
        "DISMISSED" => Vote::Gone,
        _ => Vote::None,
    }
}

/// The results that we told about the head commit: +1 or −1 for verified, one for each pipeline.
async fn verified(api: &Api, pull: &Pull, head: &str) -> Result<Vec<Approval>, SourceError> {
    let approval = |good: bool, by: Person, at: &str| Approval {
        label: "verified".to_owned(),
        value: if good { 1 } else { -1 },
        by,
        at: json::time(at).unwrap_or(Time(0)),
    };
    match api.config.auth {
        Auth::Token(_) => {
            let url = api.url(&pull.project, &format!("/commits/{head}/statuses"));
            let statuses: Vec<Status> = api.list(&url, |_| true).await?;
            // The newest come first.
            let mut newest: BTreeMap<String, Status> = BTreeMap::new();
            for status in statuses.into_iter().filter(|s| s.context.starts_with(CONTEXT)) {
                newest.entry(status.context.clone()).or_insert(status);
            }
            let told = newest.into_values().filter_map(|status| match status.state.as_str() {
                "success" => {
                    Some(approval(true, json::person(&status.creator), &status.updated_at))
                }
                "failure" | "error" => {
                    Some(approval(false, json::person(&status.creator), &status.updated_at))
                }
                _ => None,
            });
            Ok(told.collect())
        }
        Auth::App { .. } => {
            let url = api.url(&pull.project, &format!("/commits/{head}/check-runs"));
            let url = url.query("filter", "latest").query("per_page", "100");
            let Some(runs) = api.get::<CheckRuns>(&url).await? else { return Ok(Vec::new()) };
            let ours = runs.check_runs.into_iter().filter(|run| run.name.starts_with(CONTEXT));
            let told = ours.filter_map(|run| {
                let slug = run.app.and_then(|app| app.slug).unwrap_or_default();
                let by = Person { username: format!("{slug}[bot]"), ..Person::default() };
                let at = run.completed_at.unwrap_or_default();
                match run.conclusion.as_deref() {
                    Some("success") => Some(approval(true, by, &at)),
                    Some("failure" | "cancelled" | "timed_out") => Some(approval(false, by, &at)),
                    Some(_) | None => None,
                }
            });
            Ok(told.collect())
        }
    }
}
