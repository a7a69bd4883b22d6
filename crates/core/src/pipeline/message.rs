//! The text of reports (origin.md 7.3, "Reporting text").

use super::gate::Policy;
use super::input::RunResult;
use super::item::{Done, Failing, Item, JobState, MergeState};
use super::wanted::{ReportAction, RunWish};
use crate::event::Change;
use crate::layout::{Job, Pipeline};
use crate::run::variables::variables;
use crate::time::Time;
use std::fmt::Write as _;
use std::sync::Arc;

/// Paths of a conflict that are named.
const CONFLICT_FILES_MAX: usize = 20;

/// The whole text.
pub(super) fn of(
    policy: &Policy,
    pipeline: &Pipeline,
    item: &Item,
    change: Option<&Arc<Change>>,
    action: ReportAction,
) -> String {
    let mut text = match action {
        ReportAction::Start => return start(policy, pipeline),
        ReportAction::Success => {
            with_jobs(&pipeline.messages.success, policy, pipeline, item, change)
        }
        ReportAction::MergeFailure => conflict(pipeline, item),
        ReportAction::Failure => failure(policy, pipeline, item, change),
        ReportAction::Disabled if item.failing.is_empty() => {
            with_jobs(&pipeline.messages.success, policy, pipeline, item, change)
        }
        ReportAction::Disabled if item.failing.contains(&Failing::MergeConflict) => {
            conflict(pipeline, item)
        }
        ReportAction::Disabled => failure(policy, pipeline, item, change),
    };
    add_footer(pipeline, &mut text);
    text
}

/// A text of our own, with the pipeline's footer.
pub(super) fn refusal(pipeline: &Pipeline, why: &str) -> String {
    let mut text = format!("{why}\n");
    add_footer(pipeline, &mut text);
    text
}

fn add_footer(pipeline: &Pipeline, text: &mut String) {
    if !pipeline.messages.footer.is_empty() {
        text.push('\n');
        text.push_str(&pipeline.messages.footer);
    }
}

fn start(policy: &Policy, pipeline: &Pipeline) -> String {
    let mut text = match &pipeline.messages.start {
        Some(text) => text.replace("{pipeline.name}", &pipeline.name.0),
        None => format!("Starting {} jobs.", pipeline.name),
    };
    if let Some(url) = &policy.status_url {
        text.push('\n');
        text.push_str(url);
    }
    text
}

fn failure(
    policy: &Policy,
    pipeline: &Pipeline,
    item: &Item,
    change: Option<&Arc<Change>>,
) -> String {
    if item.failing.contains(&Failing::NeededChange) {
        return "This change depends on a change that failed to merge.\n".to_owned();
    }
    let first = &pipeline.messages.failure;
    match &item.set.merge {
        MergeState::Unreadable { errors } => format!("{first}\n\n{errors}\n"),
        MergeState::GivenUp { why } => {
            format!("{first}\n\nThe change could not be prepared for testing: {why}\n")
        }
        MergeState::New
        | MergeState::Wanted { .. }
        | MergeState::Merged
        | MergeState::Conflict { .. } => {
            let mut text = with_jobs(first, policy, pipeline, item, change);
            if item.failing.contains(&Failing::Cycle) {
                text.push_str("\nAnother change of its dependency cycle failed.\n");
            }
            text
        }
    }
}

fn conflict(pipeline: &Pipeline, item: &Item) -> String {
    let mut text = pipeline.messages.merge_failure.clone();
    if let MergeState::Conflict { files, with } = &item.set.merge
        && !files.is_empty()
    {
        let other =
            with.as_ref().map_or("its branch".to_owned(), |key| format!("change {}", key.short()));
        let _ = write!(text, "\n\nIn conflict with {other}:\n");
        for file in files.iter().take(CONFLICT_FILES_MAX) {
            let _ = writeln!(text, "- {file}");
        }
        if files.len() > CONFLICT_FILES_MAX {
            let _ = writeln!(text, "- and {} more", files.len() - CONFLICT_FILES_MAX);
        }
    }
    text
}

fn with_jobs(
    first: &str,
    policy: &Policy,
    pipeline: &Pipeline,
    item: &Item,
    change: Option<&Arc<Change>>,
) -> String {
    let mut text = format!("{first}\n\n");
    for (frozen, slot) in item.set.frozen.jobs.iter().zip(&item.set.jobs) {
        let JobState::Done(done) = &slot.state else { continue };
        let job = &frozen.job;
        let name = if policy.job_names { format!("{} ", job.name) } else { String::new() };
        let url = url(policy, pipeline, item, change, job, done);
        let took =
            done.started.filter(|_| policy.times).map(|s| took(s, done.ended)).unwrap_or_default();
        let voting = if job.voting { "" } else { " (non-voting)" };
        let _ = writeln!(text, "- {name}{url} : {}{took}{voting}", word(job, done.result));
    }
    text
}

/// What a job says of itself for a result. Only for its own success and failure: nothing else is its doing.
fn own<'t>(
    result: RunResult,
    success: &'t Option<String>,
    failure: &'t Option<String>,
) -> Option<&'t str> {
    match result {
        RunResult::Success => success.as_deref(),
        RunResult::Failure => failure.as_deref(),
        RunResult::TimedOut
        | RunResult::Aborted
        | RunResult::Canceled
        | RunResult::Skipped
        | RunResult::PostFailure
        | RunResult::NodeFailure
        | RunResult::TeFailure
        | RunResult::Lost
        | RunResult::RetryLimit
        | RunResult::ConfigError => None,
    }
}

fn word(job: &Job, result: RunResult) -> &str {
    own(result, &job.success_message, &job.failure_message).unwrap_or(result.word())
}

/// ` in 1h 02m 03s`, ` in 2m 03s` or ` in 3s`.
fn took(started: Time, ended: Time) -> String {
    let seconds = ended.since(started).as_secs();
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!(" in {s}s"),
        (0, m) => format!(" in {m}m {s:02}s"),
        (h, m) => format!(" in {h}h {m:02}m {s:02}s"),
    }
}

/// By the job's pattern, or the common one; else where the run said its logs are. A job that never ran has its name.
fn url(
    policy: &Policy,
    pipeline: &Pipeline,
    item: &Item,
    change: Option<&Arc<Change>>,
    job: &Arc<Job>,
    done: &Done,
) -> String {
    let own = own(done.result, &job.success_pattern, &job.failure_pattern);
    let Some(run) = done.run else { return job.name.to_string() };
    if let Some(pattern) = own.or(policy.url_pattern.as_deref()) {
        let wish = item.set.context.as_ref().map(|context| RunWish {
            run,
            item: item.id,
            job: Arc::clone(job),
            attempt: done.attempt,
            context: Arc::clone(context),
            precedence: pipeline.precedence,
            relative_priority: 0,
            enqueued: item.enqueued,
        });
        let given = wish.map(|wish| variables(&wish, "")).unwrap_or_default();
        return fill(pattern, |place| {
            let parameter = || {
                let name = place.strip_prefix("build.parameters[")?.strip_suffix(']')?;
                given.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            };
            let change = change.map(AsRef::as_ref);
            match place {
                "build.uuid" => Some(run.to_string()),
                "build.url" => Some(done.url.clone()),
                "build.result" => Some(done.result.word().to_owned()),
                "job.name" => Some(job.name.0.clone()),
                "pipeline.name" => Some(pipeline.name.0.clone()),
                "change.number" => change.map(|c| c.key.number.to_string()),
                "change.patchset" => change.map(|c| c.key.patchset.clone()),
                "change.project" | "change.project.name" => Some(item.project.name.to_string()),
                "change.branch" => change.map(|c| c.branch.to_string()),
                "change.url" => change.map(|c| c.url.clone()),
                _ => parameter(),
            }
        });
    }
    if done.url.is_empty() { job.name.to_string() } else { done.url.clone() }
}

/// Python's `str.format` with named places only; unknown ones stay as they are.
pub(super) fn fill(pattern: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            out.push_str(&rest[..1]);
            rest = &rest[2..];
            continue;
        }
        let end = rest.find('}').filter(|_| rest.starts_with('{'));
        let whole = &rest[..end.map_or(1, |end| end + 1)];
        match end.and_then(|end| value(&rest[1..end])) {
            Some(text) => out.push_str(&text),
            None => out.push_str(whole),
        }
        rest = &rest[whole.len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_zuuls() {
        let after = |seconds: i64| took(Time(0), Time(seconds * 1_000_000));
        assert_eq!(after(5), " in 5s");
        assert_eq!(after(65), " in 1m 05s");
        assert_eq!(after(3_600 + 2 * 60 + 3), " in 1h 02m 03s");
        assert_eq!(after(3_600), " in 1h 00m 00s");
    }

    #[test]
    fn places_of_patterns_are_filled() {
        let value = |place: &str| (place == "job.name").then(|| "unit".to_owned());
        assert_eq!(fill("http://x/{job.name}/{nobody}/{{a}}", value), "http://x/unit/{nobody}/{a}");
        assert_eq!(fill("}{", value), "}{");
        assert_eq!(fill("a{job.name", value), "a{job.name");
    }
}
