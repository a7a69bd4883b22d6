//! The environment of a job's scripts: ZUUL_* exactly as Zuul 2 gave them (origin.md 7.6; ZUUL_VOTING came later in Zuul
//! 2), and where its logs go.

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
        // Timer jobs have neither; devstack-gate's rules go by an empty ZUUL_BRANCH. Ours is TOCI_BRANCH.
        Subject::Branch { .. } => {}
    }
    let job = &wish.job;
    for (name, value) in job.parameters.iter().chain(&job.run.env) {
        out.retain(|(known, _)| known != name);
        out.push((name.clone(), value.clone()));
    }
    out
}

/// The branch that it is about.
#[must_use]
pub fn branch(wish: &RunWish) -> Option<&str> {
    match &wish.context.subject {
        Subject::Change(_) => wish.context.series.last().map(|item| item.branch.as_str()),
        Subject::Ref(update) => update.branch(),
        Subject::Branch { branch, .. } => Some(branch.as_str()),
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{Branch, ChangeKey, ProjectKey, RefName, RefUpdate, SourceName};
    use crate::id::{ItemId, RunId};
    use crate::layout::{Job, JobName, JobRun, MergeMode, PipelineName, Precedence};
    use crate::pipeline::{MergeItem, RunContext};
    use crate::time::Time;
    use core::time::Duration;
    use std::sync::Arc;

    const UUID: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "abcdefabcdefabcdefabcdefabcdefabcdefabcd";

    pub(in crate::run) fn project(name: &str) -> ProjectKey {
        let source = SourceName::new("gerrit").unwrap();
        ProjectKey { source, name: ProjectName::new(name).unwrap() }
    }

    pub(in crate::run) fn item(name: &str, branch: &str, number: u64) -> MergeItem {
        let source = SourceName::new("gerrit").unwrap();
        MergeItem {
            project: project(name),
            branch: Branch::new(branch).unwrap(),
            subject: MergeSubject::Change {
                key: ChangeKey { source, number, patchset: "2".into() },
                reference: RefName::new(format!("refs/changes/x/{number}/2")).unwrap(),
                revision: Revision::new("1".repeat(40)).unwrap(),
                mode: MergeMode::Merge,
            },
        }
    }

    fn job() -> Job {
        let run = JobRun {
            pre: vec![],
            run: vec![],
            post: vec![],
            node: None,
            nodes: 1,
            testenv: None,
            timeout: Duration::from_secs(1),
            post_timeout: Duration::from_secs(1),
            wait_timeout: None,
            attempts: 1,
            artifacts: vec![],
            env: vec![],
            secrets: vec![],
            projects: vec![],
            override_branch: None,
            project_branches: vec![],
        };
        Job {
            name: JobName("check-nova".into()),
            voting: true,
            hold_following: false,
            queue_name: None,
            success_message: None,
            failure_message: None,
            success_pattern: None,
            failure_pattern: None,
            branches: vec![],
            files: vec![],
            skip_if: vec![],
            semaphore: None,
            pause_after_failures: None,
            tags: vec![],
            dependencies: vec![],
            parameters: vec![],
            run,
        }
    }

    pub(in crate::run) fn wish(subject: Subject, series: Vec<MergeItem>) -> RunWish {
        let commits = series
            .iter()
            .map(|i| (i.project.clone(), i.branch.clone(), Revision::new(NEW).unwrap()))
            .collect();
        let context = RunContext {
            pipeline: PipelineName("gate".into()),
            post_review: false,
            subject,
            change: None,
            series,
            changes: vec![
                ("openstack/glance:master:refs/changes/x/1233/2".into(), "1233,2".into()),
                ("openstack/nova:stable/icehouse:refs/changes/x/1203/2".into(), "1203,2".into()),
            ],
            reference: "Zfeed".into(),
            commits,
        };
        RunWish {
            run: UUID.parse::<RunId>().unwrap(),
            item: ItemId(1),
            job: Arc::new(job()),
            attempt: 1,
            context: Arc::new(context),
            precedence: Precedence::Normal,
            relative_priority: 0,
            enqueued: Time(0),
        }
    }

    /// All of them, without those that every job has.
    fn rest(wish: &RunWish, base: &str) -> Vec<String> {
        let all: Vec<String> =
            variables(wish, "http://zm/p").iter().map(|(k, v)| format!("{k}={v}")).collect();
        let always = [
            format!("ZUUL_UUID={UUID}"),
            "ZUUL_PROJECT=openstack/nova".into(),
            "ZUUL_PIPELINE=gate".into(),
            "ZUUL_URL=http://zm/p".into(),
            "ZUUL_VOTING=1".into(),
            format!("BASE_LOG_PATH={base}"),
            format!("LOG_PATH={base}/gate/check-nova/0123456"),
        ];
        assert_eq!(all[..always.len()], always);
        all[always.len()..].to_vec()
    }

    /// Of this number.
    pub(in crate::run) fn change(number: u64) -> Subject {
        let source = SourceName::new("gerrit").unwrap();
        Subject::Change(ChangeKey { source, number, patchset: "2".into() })
    }

    fn pushed(name: &str, new: Revision) -> RunWish {
        let update = RefUpdate {
            project: project("openstack/nova"),
            reference: RefName::new(name).unwrap(),
            old: Revision::none(),
            new,
        };
        wish(Subject::Ref(update), vec![])
    }

    #[test]
    fn a_change_has_these_and_no_others() {
        let series = vec![
            item("openstack/glance", "master", 1233),
            item("openstack/nova", "stable/icehouse", 1203),
        ];
        let wish = wish(change(1203), series);
        assert_eq!(
            rest(&wish, "03/1203/2"),
            [
                "ZUUL_BRANCH=stable/icehouse",
                "ZUUL_REF=refs/zuul/stable/icehouse/Zfeed",
                "ZUUL_CHANGES=openstack/glance:master:refs/changes/x/1233/2^openstack/nova:stable/icehouse:refs/changes/x/1203/2",
                &format!("ZUUL_COMMIT={NEW}"),
                "ZUUL_CHANGE_IDS=1233,2 1203,2",
                "ZUUL_CHANGE=1203",
                "ZUUL_PATCHSET=2",
            ]
        );
        assert_eq!(branch(&wish), Some("stable/icehouse"));
    }

    #[test]
    fn a_ref_that_moved_has_these_and_no_others() {
        let none = "0".repeat(40);
        let wish = pushed("refs/heads/master", Revision::new(NEW).unwrap());
        assert_eq!(
            rest(&wish, &format!("ab/{NEW}")),
            [
                "ZUUL_REFNAME=master",
                &format!("ZUUL_OLDREV={none}"),
                &format!("ZUUL_NEWREV={NEW}"),
                "ZUUL_REF=master",
                &format!("ZUUL_COMMIT={NEW}"),
            ]
        );
        assert_eq!(branch(&wish), Some("master"));
        let gone = pushed("refs/tags/1.0", Revision::none());
        assert_eq!(
            rest(&gone, &format!("00/{none}")),
            [
                "ZUUL_REFNAME=refs/tags/1.0",
                &format!("ZUUL_OLDREV={none}"),
                &format!("ZUUL_NEWREV={none}"),
                "ZUUL_REF=refs/tags/1.0",
                &format!("ZUUL_COMMIT={none}"),
            ]
        );
        assert_eq!(branch(&gone), None);
    }

    #[test]
    fn a_periodic_job_has_only_those_of_all() {
        let branch_of = Branch::new("stable/icehouse").unwrap();
        let subject = Subject::Branch { project: project("openstack/nova"), branch: branch_of };
        let wish = wish(subject, vec![]);
        assert_eq!(rest(&wish, "periodic/openstack/nova/stable/icehouse"), [""; 0]);
        assert_eq!(branch(&wish), Some("stable/icehouse"));
    }

    #[test]
    fn the_jobs_own_win() {
        let mut wish = pushed("refs/heads/master", Revision::new(NEW).unwrap());
        let mut own = job();
        own.voting = false;
        own.parameters = vec![("ZUUL_REF".into(), "mine".into()), ("A".into(), "1".into())];
        own.run.env = vec![("A".into(), "2".into())];
        wish.job = Arc::new(own);
        let all = variables(&wish, "http://zm/p");
        let found = |name: &str| {
            let found: Vec<&str> =
                all.iter().filter(|(k, _)| k == name).map(|(_, v)| v.as_str()).collect();
            found
        };
        assert_eq!(found("ZUUL_REF"), ["mine"]);
        assert_eq!(found("A"), ["2"]);
        assert_eq!(found("ZUUL_VOTING"), ["0"]);
    }
}
