//! Telling a pull request: a status or check run, a comment or review, and the merge.

use super::api::Api;
use super::config::{Auth, MergeMethod};
use super::json::CheckRuns;
use super::name::Pull;
use super::view::{CONTEXT, state};
use crate::http::Method;
use crate::source::{SourceError, SourceReport};
use serde_json::{Value, json};
use toci_core::event::ChangeState;
use toci_core::layout::{GerritVote, MergeMode};
use toci_core::pipeline::ReportAction;

/// Longest comment, in characters: GitHub takes 65,536.
const COMMENT_MAX_CHARS: usize = 60_000;
/// Longest description of a status, in characters: GitHub's limit.
const DESCRIPTION_MAX_CHARS: usize = 140;

/// Tells it; whether the pull request is merged now.
pub(super) async fn report(api: &Api, report: &SourceReport) -> Result<bool, SourceError> {
    let key = &report.change.key;
    let pull = api.meant(key.number).await?;
    let Some(pull) = pull.filter(|pull| pull.project == report.change.project.name) else {
        return Err(api.refused(format!("there is no change {}", key.short())));
    };
    result(api, &pull, report).await?;
    if report.merge && !merge(api, &pull, report).await? {
        return Ok(false);
    }
    words(api, &pull, report).await?;
    Ok(report.merge)
}

/// How a pipeline stands with a head commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Runs,
    Good,
    Bad,
}

/// By the vote for verified, else by what is reported. A disabled pipeline stands nowhere.
fn standing(report: &SourceReport) -> Option<Standing> {
    if report.action == ReportAction::Start {
        return Some(Standing::Runs);
    }
    let verified = report.votes.iter().find_map(|vote| match vote {
        GerritVote::Label(label, value) if label == "verified" => Some(*value),
        GerritVote::Label(..) | GerritVote::Flag(_) => None,
    });
    match (verified, report.action) {
        (Some(1..), _) => Some(Standing::Good),
        (Some(..0), _) => Some(Standing::Bad),
        (Some(0) | None, ReportAction::Success) => Some(Standing::Good),
        (Some(0) | None, ReportAction::Failure | ReportAction::MergeFailure) => Some(Standing::Bad),
        (Some(0) | None, ReportAction::Start | ReportAction::Disabled) => None,
    }
}

async fn result(api: &Api, pull: &Pull, report: &SourceReport) -> Result<(), SourceError> {
    let Some(standing) = standing(report) else { return Ok(()) };
    let context = format!("{CONTEXT}{}", report.pipeline);
    let head = report.change.revision.as_str();
    let first = report.message.lines().next().unwrap_or_default();
    if matches!(api.config.auth, Auth::App { .. }) {
        return check_run(api, pull, report, &context, standing).await;
    }
    let word = match standing {
        Standing::Runs => "pending",
        Standing::Good => "success",
        Standing::Bad => "failure",
    };
    let mut body = json!({
        "state": word,
        "context": context,
        "description": first.chars().take(DESCRIPTION_MAX_CHARS).collect::<String>(),
    });
    if let Some(link) = link(&report.message) {
        body["target_url"] = Value::from(link);
    }
    let url = api.url(&pull.project, &format!("/statuses/{head}"));
    api.change(Method::POST, &url, &body).await.map(drop)
}

/// One check run a pipeline and commit: it is found again by its name.
async fn check_run(
    api: &Api,
    pull: &Pull,
    report: &SourceReport,
    name: &str,
    standing: Standing,
) -> Result<(), SourceError> {
    let head = report.change.revision.as_str();
    let mut body = json!({
        "name": name,
        "head_sha": head,
        "output": {
            "title": report.message.lines().next().unwrap_or_default(),
            "summary": text(&report.message),
        },
    });
    match standing {
        Standing::Runs => body["status"] = "in_progress".into(),
        Standing::Good | Standing::Bad => {
            let good = standing == Standing::Good;
            body["status"] = "completed".into();
            body["conclusion"] = if good { "success" } else { "failure" }.into();
        }
    }
    if let Some(link) = link(&report.message) {
        body["details_url"] = Value::from(link);
    }
    let all = api.url(&pull.project, &format!("/commits/{head}/check-runs"));
    let before: Option<CheckRuns> = api.get(&all.query("check_name", name)).await?;
    // A run that is over is left as it is: a new start has a new one.
    let unfinished = before
        .into_iter()
        .flat_map(|runs| runs.check_runs)
        .find(|run| run.name == name && run.conclusion.is_none());
    let (method, url) = match unfinished {
        Some(run) => (Method::PATCH, format!("/check-runs/{}", run.id)),
        None => (Method::POST, "/check-runs".to_owned()),
    };
    api.change(method, &api.url(&pull.project, &url), &body).await.map(drop)
}

/// The comment, or a review with it when code-review is voted on. A start is seen by its status alone.
async fn words(api: &Api, pull: &Pull, report: &SourceReport) -> Result<(), SourceError> {
    let flag = |name: &str| {
        report.votes.iter().any(|vote| matches!(vote, GerritVote::Flag(f) if f == name))
    };
    let review = report.votes.iter().find_map(|vote| match vote {
        GerritVote::Label(label, value) if label == "code-review" && *value != 0 => Some(*value),
        GerritVote::Label(..) | GerritVote::Flag(_) => None,
    });
    let body = text(&report.message);
    if let Some(value) = review {
        let event = if value > 0 { "APPROVE" } else { "REQUEST_CHANGES" };
        let head = report.change.revision.as_str();
        let body = json!({"event": event, "body": body, "commit_id": head});
        let url = api.url(&pull.project, &format!("/pulls/{}/reviews", pull.number));
        return api.change(Method::POST, &url, &body).await.map(drop);
    }
    if report.action == ReportAction::Start
        || flag("status-only")
        || report.message.trim().is_empty()
    {
        return Ok(());
    }
    let url = api.url(&pull.project, &format!("/issues/{}/comments", pull.number));
    api.change(Method::POST, &url, &json!({"body": body})).await.map(drop)
}

/// Merges exactly the commit that was tested. An answer that got lost is no harm: merged is merged.
async fn merge(api: &Api, pull: &Pull, report: &SourceReport) -> Result<bool, SourceError> {
    let Some(found) = api.pull(pull).await? else {
        return Err(api.refused(format!("there is no {}#{}", pull.project, pull.number)));
    };
    if state(&found) == ChangeState::Merged {
        return Ok(true);
    }
    let asked = report.votes.iter().find_map(|vote| match vote {
        GerritVote::Flag(flag) => MergeMethod::named(flag),
        GerritVote::Label(..) => None,
    });
    let method = asked.unwrap_or_else(|| method(report.mode, api.config.merge));
    let body = json!({"sha": report.change.revision.as_str(), "merge_method": method.word()});
    let url = api.url(&pull.project, &format!("/pulls/{}/merge", pull.number));
    let answer = api.change(Method::PUT, &url, &body).await?;
    let answer: Value = answer.json().map_err(|e| api.unreachable(e.to_string()))?;
    Ok(answer["merged"].as_bool().unwrap_or(false))
}

/// The layout's way; the source's own when the layout leaves it open.
fn method(mode: MergeMode, usual: MergeMethod) -> MergeMethod {
    match mode {
        MergeMode::MergeResolve => usual,
        MergeMode::Merge => MergeMethod::Merge,
        MergeMode::Squash => MergeMethod::Squash,
        MergeMode::CherryPick => MergeMethod::Rebase,
    }
}

/// The first address in the text, mostly of a job's log.
fn link(message: &str) -> Option<&str> {
    message
        .split_whitespace()
        .find(|word| word.starts_with("http://") || word.starts_with("https://"))
}

fn text(message: &str) -> String {
    if message.chars().count() <= COMMENT_MAX_CHARS {
        return message.to_owned();
    }
    let kept: String = message.chars().take(COMMENT_MAX_CHARS).collect();
    format!("{kept}\n\n[the rest is too long for GitHub]\n")
}
