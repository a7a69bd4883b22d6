//! The environment of a job's scripts: ZUUL_* exactly as Zuul 2 gave them (origin.md 7.6), and where its logs go.

use crate::event::{ProjectName, Revision, SourceName};
use crate::pipeline::{MergeSubject, RunWish, Subject};

/// Variable and value, in a fixed order.
pub type Variables = Vec<(String, String)>;

/// Digits of the run's id in a log path.
const UUID_DIGITS: usize = 7;

/// Everything Zuul 2 would have given the job, then the job's own parameters and environment, which win.
///
/// `merger_url` is where nodes fetch speculative refs, without a project (ZUUL_URL).
#[must_use]
pub fn variables(wish: &RunWish, merger_url: &str) -> Variables {
    let context = &wish.context;
    let mut out: Variables = Vec::new();
    let mut set = |name: &str, value: String| out.push((name.to_owned(), value));
    set("ZUUL_UUID", wish.run.to_string());
    if let Some(project) = project(wish) {
        set("ZUUL_PROJECT", project.to_string());
    }
    set("ZUUL_PIPELINE", context.pipeline.to_string());
    set("ZUUL_URL", merger_url.to_owned());
    set("ZUUL_VOTING", if wish.job.voting { "1" } else { "0" }.to_owned());
    set("BASE_LOG_PATH", base_log_path(wish));
    set("LOG_PATH", log_path(wish));
    match &context.subject {
        Subject::Change(key) => {
            let joined = |part: fn(&(String, String)) -> &String, by: &str| {
                context.changes.iter().map(|c| part(c).as_str()).collect::<Vec<_>>().join(by)
            };
            if let Some(own) = context.series.last() {
                set("ZUUL_BRANCH", own.branch.to_string());
                set("ZUUL_REF", zuul_ref(own.branch.as_str(), &context.reference));
            }
            set("ZUUL_CHANGES", joined(|c| &c.0, "^"));
            if let Some(commit) = own_commit(wish) {
                set("ZUUL_COMMIT", commit.to_string());
            }
            set("ZUUL_CHANGE_IDS", joined(|c| &c.1, " "));
            set("ZUUL_CHANGE", key.number.to_string());
            set("ZUUL_PATCHSET", key.patchset.clone());
        }
        Subject::Ref(update) => {
            set("ZUUL_REFNAME", update.zuul_name().to_owned());
            set("ZUUL_OLDREV", update.old.to_string());
            set("ZUUL_NEWREV", update.new.to_string());
            set("ZUUL_REF", update.zuul_name().to_owned());
            set("ZUUL_COMMIT", update.new.to_string());
        }
        // Timer jobs have neither; the branch is ours.
        Subject::Branch { branch, .. } => set("ZUUL_BRANCH", branch.to_string()),
    }
    let job = &wish.job;
    for (name, value) in job.parameters.iter().chain(&job.run.env) {
        out.retain(|(known, _)| known != name);
        out.push((name.clone(), value.clone()));
    }
    out
}

/// The project under test.
#[must_use]
pub fn project(wish: &RunWish) -> Option<&ProjectName> {
    match &wish.context.subject {
        Subject::Change(_) => wish.context.series.last().map(|item| &item.project.name),
        Subject::Ref(update) => Some(&update.project.name),
        Subject::Branch { project, .. } => Some(&project.name),
    }
}

/// The source of the project under test.
#[must_use]
pub fn source(wish: &RunWish) -> Option<&SourceName> {
    match &wish.context.subject {
        Subject::Change(_) => wish.context.series.last().map(|item| &item.project.source),
        Subject::Ref(update) => Some(&update.project.source),
        Subject::Branch { project, .. } => Some(&project.source),
    }
}

/// The commit under test.
#[must_use]
pub fn own_commit(wish: &RunWish) -> Option<&Revision> {
    let own = wish.context.series.last()?;
    if let MergeSubject::Ref(update) = &own.subject {
        return Some(&update.new);
    }
    let mut commits = wish.context.commits.iter();
    commits.find(|(p, b, _)| *p == own.project && *b == own.branch).map(|(_, _, c)| c)
}

/// Where the merger keeps the speculative state of a branch.
#[must_use]
pub fn zuul_ref(branch: &str, reference: &str) -> String {
    format!("refs/zuul/{branch}/{reference}")
}

/// `<last 2 digits>/<change>/<patchset>`, `<newrev[:2]>/<newrev>`, or `<project>/<branch>` for timers.
#[must_use]
pub fn base_log_path(wish: &RunWish) -> String {
    match &wish.context.subject {
        Subject::Change(key) => {
            format!("{:02}/{}/{}", key.number % 100, key.number, key.patchset)
        }
        Subject::Ref(update) => {
            let new = update.new.as_str();
            format!("{}/{new}", &new[..2])
        }
        Subject::Branch { project, branch } => format!("periodic/{}/{branch}", project.name),
    }
}

/// `BASE/<pipeline>/<job>/<uuid[:7]>`.
#[must_use]
pub fn log_path(wish: &RunWish) -> String {
    let uuid = wish.run.to_string();
    let (base, pipeline, job) = (base_log_path(wish), &wish.context.pipeline, &wish.job.name);
    format!("{base}/{pipeline}/{job}/{}", &uuid[..UUID_DIGITS])
}
