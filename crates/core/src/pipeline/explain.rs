//! What an event would do, and why. The decisions are those that are taken when it happens (`heed`, `hears`, `entry`,
//! `select`); here they are told instead of carried out, so both cannot disagree.

use super::answer::Answer;
use super::gate::{Gate, Turn};
use super::input::Subject;
use super::jobs::{self, Frozen, LeftOut};
use super::matching::{Deaf, describe};
use crate::event::{Change, ChangeKey, ProjectKey, RefUpdate, TriggerEvent};
use crate::layout::{Job, JobName, Pattern, PipelineName, SkipIf, Trigger, TriggerFilter};
use crate::time::Time;
use std::collections::VecDeque;

/// What an event would do in one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineExplained {
    /// Which.
    pub pipeline: PipelineName,
    /// Whether what the event is about enters it.
    pub entry: Entry,
    /// The project's jobs there, in the order in which they stand; or what is wrong with its own configuration.
    pub jobs: Result<Vec<JobExplained>, String>,
}

/// Whether something enters a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It does.
    Enters {
        /// What the trigger that listens is.
        trigger: String,
        /// Changes that enter before it because it needs them.
        with: Vec<ChangeKey>,
    },
    /// No trigger listens: for each, what it is and why not. Empty: there is no trigger.
    Unheard(Vec<(String, String)>),
    /// A trigger listens, but it may not enter.
    Refused {
        /// What the trigger that listens is.
        trigger: String,
        /// A stable word for programs.
        code: &'static str,
        /// For people.
        why: String,
    },
}

/// Whether a job would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobExplained {
    /// Which.
    pub job: JobName,
    /// Whether it is part of the item.
    pub runs: bool,
    /// Whether its result counts.
    pub voting: bool,
    /// Jobs whose success comes first.
    pub after: Vec<JobName>,
    /// Why it does not run; empty when it does.
    pub why: String,
}

impl Gate {
    /// What the event would do, pipeline by pipeline in the layout's order, if it happened now. `changes`: as with
    /// [`super::Input::Event`]; `files`: the project's own configuration as it is in the change. Nothing is changed.
    ///
    /// # Errors
    /// It is about nothing that could enter anything; why.
    pub fn explain(
        &self,
        event: &TriggerEvent,
        changes: Vec<Change>,
        files: &[(String, String)],
        now: Time,
    ) -> Result<Vec<PipelineExplained>, String> {
        let mut gate = self.clone();
        let mut next = 0;
        let mut ids = || {
            next += 1;
            next
        };
        let mut turn =
            Turn { now, ids: &mut ids, answer: Answer::default(), events: VecDeque::new() };
        gate.see(changes, &mut turn);
        let Some(subject) = gate.heed(event, &mut turn) else {
            let last = turn.answer.notes.pop();
            return Err(last.map(|note| note.text).unwrap_or_default());
        };
        let lanes = 0..gate.lanes.len();
        Ok(lanes.map(|lane| gate.explain_lane(lane, event, &subject, files, now)).collect())
    }

    fn explain_lane(
        &self,
        lane: usize,
        event: &TriggerEvent,
        subject: &Subject,
        files: &[(String, String)],
        now: Time,
    ) -> PipelineExplained {
        let pipeline = self.pipeline(lane);
        let entry = match self.hears(lane, event, subject, now) {
            Err(deaf) => {
                let filters = pipeline.triggers.iter().zip(&deaf);
                let told = |(filter, why): (&TriggerFilter, &Deaf<'_>)| {
                    (name_of(filter), why_deaf(*why, filter, event))
                };
                Entry::Unheard(filters.map(told).collect())
            }
            Ok(filter) => {
                let trigger = name_of(filter);
                match self.entry(lane, subject, false, now) {
                    Ok(groups) => {
                        let own = |key: &ChangeKey| *subject == Subject::Change(key.clone());
                        let with = groups.into_iter().flatten().filter(|key| !own(key)).collect();
                        Entry::Enters { trigger, with }
                    }
                    Err(why) => Entry::Refused { trigger, code: why.code(), why: why.to_string() },
                }
            }
        };
        let jobs = self.explain_jobs(&pipeline.name, subject, files);
        PipelineExplained { pipeline: pipeline.name.clone(), entry, jobs }
    }

    fn explain_jobs(
        &self,
        pipeline: &PipelineName,
        subject: &Subject,
        files: &[(String, String)],
    ) -> Result<Vec<JobExplained>, String> {
        let change = self.view(subject).map(AsRef::as_ref);
        let Some(project) = project_of(subject, change) else { return Ok(Vec::new()) };
        let layout = self.layout_of(project, files)?;
        let (frozen, left_out) = jobs::select(&layout, pipeline, project, subject, change);
        let mut told: Vec<JobExplained> =
            (0..frozen.jobs.len()).map(|at| runs(&frozen, at)).collect();
        for (name, why) in left_out {
            let job = layout.jobs.iter().find(|job| job.name == name);
            told.push(JobExplained {
                runs: false,
                voting: job.is_none_or(|job| job.voting),
                after: Vec::new(),
                why: why_left_out(&why, job, jobs::branch_of(subject, change)),
                job: name,
            });
        }
        Ok(told)
    }
}

fn project_of<'a>(subject: &'a Subject, change: Option<&'a Change>) -> Option<&'a ProjectKey> {
    match subject {
        Subject::Change(_) => change.map(|change| &change.project),
        Subject::Ref(RefUpdate { project, .. }) | Subject::Branch { project, .. } => Some(project),
    }
}

fn runs(frozen: &Frozen, at: usize) -> JobExplained {
    let job = &frozen.jobs[at];
    let mut after: Vec<JobName> =
        job.needs.iter().map(|need| frozen.jobs[*need].job.name.clone()).collect();
    after.dedup();
    JobExplained {
        job: job.job.name.clone(),
        runs: true,
        voting: job.job.voting,
        after,
        why: String::new(),
    }
}

/// A trigger in a few words.
fn name_of(filter: &TriggerFilter) -> String {
    let events: Vec<&str> = filter.events.iter().map(|kind| kind.word()).collect();
    match filter.trigger {
        Trigger::Source if events.is_empty() => "any event".to_owned(),
        Trigger::Source => events.join(" or "),
        Trigger::Timer => format!("timer {}", filter.timespecs.join(" or ")),
        Trigger::Zuul => format!("zuul {}", events.join(" or ")),
    }
}

fn list(patterns: &[Pattern]) -> String {
    let quoted: Vec<String> = patterns.iter().map(|p| format!("`{}`", p.as_str())).collect();
    quoted.join(" nor ")
}

fn why_deaf(why: Deaf<'_>, filter: &TriggerFilter, event: &TriggerEvent) -> String {
    let branch = event.branch.as_ref().map_or("none", |b| b.as_str());
    let reference = event.reference.as_ref().map_or("none", |r| r.as_str());
    match why {
        Deaf::Trigger | Deaf::Events => format!("the event is {}", event.kind.word()),
        Deaf::Source => format!("the event is of the source {}", event.project.source),
        Deaf::Timespecs => format!("the time is {}", event.origin),
        Deaf::Pipelines => format!("it is of the pipeline {}", event.origin),
        Deaf::Branches => format!("the branch {branch} is not {}", list(&filter.branches)),
        Deaf::Refs => format!("the ref {reference} is not {}", list(&filter.refs)),
        Deaf::Comments => format!("the comment has not {}", list(&filter.comments)),
        Deaf::Emails => {
            format!("the address `{}` has not {}", event.by.email, list(&filter.emails))
        }
        Deaf::Usernames => {
            format!("the user `{}` has not {}", event.by.username, list(&filter.usernames))
        }
        Deaf::Approval((label, values)) => {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            format!("the vote {label} {} was not given with it", values.join(" or "))
        }
        Deaf::Required(rule) => format!("no vote that stands is {}", describe(rule)),
        Deaf::Rejected(rule) => format!("a vote that stands is {}", describe(rule)),
    }
}

fn why_left_out(why: &LeftOut, job: Option<&Job>, branch: Option<&str>) -> String {
    match why {
        LeftOut::Unknown => "the layout does not know this job".to_owned(),
        LeftOut::Branch => {
            let patterns = job.map(|job| list(&job.branches)).unwrap_or_default();
            format!("the branch {} is not {patterns}", branch.unwrap_or("none"))
        }
        LeftOut::Files => {
            let patterns = job.map(|job| list(&job.files)).unwrap_or_default();
            format!("no file of the change is {patterns}")
        }
        LeftOut::Skipped(at) => {
            let skip = job.and_then(|job| job.skip_if.get(*at));
            format!("its skip-if holds: {}", skip.map(condition).unwrap_or_default())
        }
        LeftOut::Behind(parent) => format!("it comes after {parent}, which does not run"),
    }
}

fn condition(skip: &SkipIf) -> String {
    let mut parts = Vec::new();
    parts.extend(skip.project.iter().map(|p| format!("the project is `{}`", p.as_str())));
    parts.extend(skip.branch.iter().map(|p| format!("the branch is `{}`", p.as_str())));
    if !skip.all_files_match_any.is_empty() {
        let any = list(&skip.all_files_match_any).replace(" nor ", " or ");
        parts.push(format!("every file is {any}"));
    }
    if parts.is_empty() { "it has no condition".to_owned() } else { parts.join(" and ") }
}
