//! Webhooks: is it GitHub's, and what happened.

use super::config::GithubConfig;
use super::json::{Comment, Head, PullRequest, Repository, Review, User, person, time};
use super::name::{PULLS_MAX, Pull};
use super::view::{CONTEXT, Vote, vote};
use serde::Deserialize;
use serde_json::Value;
use toci_core::event::{
    Branch, EventKind, Person, ProjectKey, ProjectName, RefName, Revision, normal_label,
};
use toci_core::time::Time;

/// Why a webhook is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The settings name no `webhook_secret_file`, so nobody can be believed.
    #[error("webhooks are not configured for this source: set webhook_secret_file")]
    NotConfigured,
    /// The signature is missing or of somebody else.
    #[error("the signature is not that of the configured secret")]
    Unsigned,
    /// It is no such JSON as GitHub sends.
    #[error("this is no webhook of GitHub's: {0}")]
    Malformed(String),
    /// Too many wait.
    #[error("too many webhooks wait already; the news will be found by looking")]
    Busy,
}

/// Something that happened, before it is known to which commit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Happened {
    pub(super) kind: EventKind,
    pub(super) project: ProjectName,
    /// With the head commit and branch, if they were told.
    pub(super) pull: Option<(u64, Option<String>, Option<Branch>)>,
    pub(super) moved: Option<(RefName, Revision, Revision)>,
    pub(super) by: Person,
    pub(super) comment: String,
    pub(super) approvals: Vec<(String, i32)>,
    pub(super) at: Option<Time>,
    /// What it is called, when looking may find it too.
    pub(super) id: Option<String>,
    /// When the pull request itself changed: its text, where `Depends-On:` may stand.
    pub(super) body: Option<String>,
}

impl Happened {
    pub(super) fn new(kind: EventKind, project: &ProjectName) -> Happened {
        Happened {
            kind,
            project: project.clone(),
            pull: None,
            moved: None,
            by: Person::default(),
            comment: String::new(),
            approvals: Vec::new(),
            at: None,
            id: None,
            body: None,
        }
    }

    /// A comment on a pull request.
    pub(super) fn comment(project: &ProjectName, number: u64, comment: &Comment) -> Happened {
        Happened {
            pull: Some((number, None, None)),
            by: person(&comment.user),
            comment: comment.body.clone().unwrap_or_default(),
            at: time(&comment.created_at),
            id: Some(format!("comment {}", comment.id)),
            ..Happened::new(EventKind::CommentAdded, project)
        }
    }

    /// A review of a pull request: a comment with a vote.
    pub(super) fn review(project: &ProjectName, pull: &Reviewed, review: &Review) -> Happened {
        let approvals = match vote(review) {
            Vote::Is(value) => vec![("code-review".to_owned(), value)],
            Vote::Gone => vec![("code-review".to_owned(), 0)],
            Vote::None => Vec::new(),
        };
        Happened {
            pull: Some((pull.number, Some(pull.head.sha.clone()), None)),
            by: person(&review.user),
            comment: review.body.clone().unwrap_or_default(),
            approvals,
            at: review.submitted_at.as_deref().and_then(time),
            id: Some(format!("review {} {}", review.id, review.state.to_ascii_lowercase())),
            ..Happened::new(EventKind::CommentAdded, project)
        }
    }

    /// Of the pull request itself.
    pub(super) fn pull(kind: EventKind, project: &ProjectName, found: &PullRequest) -> Happened {
        let branch = Branch::new(found.base.branch.as_str()).ok();
        Happened {
            pull: Some((found.number, Some(found.head.sha.clone()), branch)),
            by: person(&found.user),
            at: time(&found.updated_at),
            body: Some(found.body.clone().unwrap_or_default()),
            ..Happened::new(kind, project)
        }
    }

    pub(super) fn project_key(&self, config: &GithubConfig) -> ProjectKey {
        ProjectKey { source: config.name.clone(), name: self.project.clone() }
    }

    pub(super) fn pull_name(&self) -> Option<Pull> {
        let (number, ..) = self.pull.as_ref()?;
        Some(Pull { project: self.project.clone(), number: *number })
    }
}

/// A pull request where others stand in the foreground.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Reviewed {
    pub(super) number: u64,
    pub(super) head: Head,
}

#[derive(Deserialize)]
struct Common {
    #[serde(default)]
    action: String,
    repository: Option<Repository>,
    sender: Option<User>,
}

/// What a payload says. What is about other repositories, or about nothing that pipelines know, is nothing.
pub(super) fn read(
    config: &GithubConfig,
    event: &str,
    body: &[u8],
) -> Result<Vec<Happened>, HookError> {
    let whole: Value =
        serde_json::from_slice(body).map_err(|e| HookError::Malformed(e.to_string()))?;
    let common: Common = of(&whole)?;
    let Some(repository) = common.repository else { return Ok(Vec::new()) };
    let known = |p: &&ProjectName| p.as_str().eq_ignore_ascii_case(&repository.full_name);
    let Some(project) = config.projects.iter().find(known) else { return Ok(Vec::new()) };
    let by = person(&common.sender);
    let mut happened = match event {
        "pull_request" => pull_request(project, &common.action, &whole)?,
        "issue_comment" if common.action == "created" => issue_comment(project, &whole)?,
        "pull_request_review" if matches!(common.action.as_str(), "submitted" | "dismissed") => {
            let pull: Reviewed = of(&whole["pull_request"])?;
            vec![Happened::review(project, &pull, &of(&whole["review"])?)]
        }
        "push" => push(project, &whole)?,
        "check_run" if common.action == "rerequested" => {
            let ours = whole["check_run"]["name"].as_str().is_some_and(|n| n.starts_with(CONTEXT));
            if ours { again(project, &whole["check_run"])? } else { Vec::new() }
        }
        "check_suite" if common.action == "rerequested" => again(project, &whole["check_suite"])?,
        _ => Vec::new(),
    };
    for one in &mut happened {
        one.by = by.clone();
        if one.pull.as_ref().is_some_and(|(number, ..)| *number >= PULLS_MAX) {
            return Err(HookError::Malformed("such a pull request cannot be".to_owned()));
        }
    }
    Ok(happened)
}

fn of<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, HookError> {
    T::deserialize(value).map_err(|e| HookError::Malformed(e.to_string()))
}

fn pull_request(
    project: &ProjectName,
    action: &str,
    whole: &Value,
) -> Result<Vec<Happened>, HookError> {
    let found: PullRequest = of(&whole["pull_request"])?;
    let label = || {
        let name = whole["label"]["name"].as_str().unwrap_or_default();
        normal_label(name)
    };
    let (kind, approvals) = match action {
        "opened" | "synchronize" => (EventKind::PatchsetCreated, Vec::new()),
        // Another branch is another test; the text may need other changes, but that is no event.
        "edited" if whole["changes"]["base"].is_object() => {
            (EventKind::PatchsetCreated, Vec::new())
        }
        "reopened" => (EventKind::ChangeRestored, Vec::new()),
        "ready_for_review" => (EventKind::DraftPublished, Vec::new()),
        "closed" if found.merged_at.is_some() => (EventKind::ChangeMerged, Vec::new()),
        "closed" => (EventKind::ChangeAbandoned, Vec::new()),
        "labeled" => (EventKind::CommentAdded, vec![(label(), 1)]),
        "unlabeled" => (EventKind::CommentAdded, vec![(label(), 0)]),
        _ => return Ok(Vec::new()),
    };
    let id = (action == "edited").then(|| format!("base {} {}", found.number, found.updated_at));
    Ok(vec![Happened { approvals, id, ..Happened::pull(kind, project, &found) }])
}

fn issue_comment(project: &ProjectName, whole: &Value) -> Result<Vec<Happened>, HookError> {
    let issue = &whole["issue"];
    if !issue["pull_request"].is_object() {
        return Ok(Vec::new());
    }
    let number = issue["number"].as_u64();
    let number = number.ok_or_else(|| HookError::Malformed("an issue without a number".into()))?;
    Ok(vec![Happened::comment(project, number, &of(&whole["comment"])?)])
}

fn push(project: &ProjectName, whole: &Value) -> Result<Vec<Happened>, HookError> {
    let text = |name: &str| whole[name].as_str().unwrap_or_default().to_owned();
    let bad = |e: toci_core::event::NotAName| HookError::Malformed(e.to_string());
    let moved = (
        RefName::new(text("ref")).map_err(bad)?,
        Revision::new(text("before")).map_err(bad)?,
        Revision::new(text("after")).map_err(bad)?,
    );
    Ok(vec![Happened { moved: Some(moved), ..Happened::new(EventKind::RefUpdated, project) }])
}

/// "Re-run" in GitHub's pages is the comment `recheck`, so that one trigger serves both.
fn again(project: &ProjectName, of_what: &Value) -> Result<Vec<Happened>, HookError> {
    let pulls: Vec<Reviewed> = of(&of_what["pull_requests"])?;
    let event = |pull: Reviewed| Happened {
        pull: Some((pull.number, Some(pull.head.sha), None)),
        comment: "recheck".to_owned(),
        ..Happened::new(EventKind::CommentAdded, project)
    };
    Ok(pulls.into_iter().map(event).collect())
}
