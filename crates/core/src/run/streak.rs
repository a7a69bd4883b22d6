//! Failures of a job in a row, of changes that have nothing in common: then it is hardly the changes' fault, and the job
//! is paused if its layout says so.

use crate::pipeline::{MergeSubject, RunResult, RunWish};
use crate::run::record::Record;
use std::collections::{BTreeMap, BTreeSet};

/// Jobs that are counted at most; beyond that those that failed least often are forgotten.
const COUNTED_MAX: usize = 10_000;

/// What of a run is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// So many failures pause the job.
    after: u32,
    /// The change under test and those ahead, whatever their patchsets; or the ref, or the branch.
    changes: BTreeSet<String>,
}

impl Watched {
    /// Of a job that is paused by itself.
    pub fn of(wish: &RunWish) -> Option<Watched> {
        let after = wish.job.pause_after_failures?;
        let items = wish.context.series.iter().map(|item| {
            let project = &item.project;
            match &item.subject {
                MergeSubject::Change { key, .. } => format!("{project} {}", key.number),
                MergeSubject::Ref(update) => format!("{project} {}", update.reference),
                MergeSubject::Tip => format!("{project} {}", item.branch),
            }
        });
        Some(Watched { after, changes: items.collect() })
    }
}

#[derive(Debug, Default)]
struct Streak {
    failures: u32,
    /// Of all failures that count.
    changes: BTreeSet<String>,
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Streaks {
    jobs: BTreeMap<String, Streak>,
}

impl Streaks {
    /// A run is over. Gives back why its job is to be paused, if it is.
    pub fn count(&mut self, record: &Record, watched: &Watched) -> Option<String> {
        let result = record.result()?;
        let job = record.job.to_string();
        if result.says_nothing() {
            return None;
        }
        if result == RunResult::Success {
            self.jobs.remove(&job);
            return None;
        }
        let streak = self.jobs.entry(job).or_default();
        // One bad change fails every run that it is part of, and each time that it is tried again.
        if streak.changes.is_disjoint(&watched.changes) {
            streak.failures += 1;
            streak.changes.extend(watched.changes.iter().cloned());
        }
        let failures = streak.failures;
        if self.jobs.len() > COUNTED_MAX
            && let Some(least) = self.jobs.iter().min_by_key(|(_, streak)| streak.failures)
        {
            let least = least.0.clone();
            self.jobs.remove(&least);
        }
        (failures >= watched.after).then(|| {
            format!(
                "{failures} failures in a row, of changes that have nothing in common; the last one is run {} of {}: {}",
                record.run,
                record.subject,
                result.word()
            )
        })
    }

    /// Somebody says that the job goes on.
    pub fn forget(&mut self, job: &str) {
        self.jobs.remove(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ItemId, RunId};
    use crate::layout::{JobName, PipelineName};
    use crate::run::steps::State;
    use crate::time::Time;

    fn record(result: RunResult) -> Record {
        Record {
            run: RunId(0xabc),
            item: ItemId(1),
            job: JobName("unit".into()),
            voting: true,
            attempt: 1,
            pipeline: PipelineName("check".into()),
            project: None,
            branch: None,
            subject: "7,1".into(),
            state: State::Over(result),
            waits_for: String::new(),
            queued: Time(0),
            started: None,
            ended: None,
            nodes: Vec::new(),
            lease: None,
            url: String::new(),
            note: String::new(),
        }
    }

    /// Counts runs of these changes; for each, whether the job is to be paused after three failures.
    fn counted(runs: &[(&[&str], RunResult)]) -> Vec<bool> {
        let mut streaks = Streaks::default();
        let mut count = |(changes, result): &(&[&str], RunResult)| {
            let changes = changes.iter().map(|change| (*change).to_owned()).collect();
            streaks.count(&record(*result), &Watched { after: 3, changes }).is_some()
        };
        runs.iter().map(&mut count).collect()
    }

    use RunResult::{Aborted, Canceled, ConfigError, Failure, NodeFailure, Success, TimedOut};

    #[test]
    fn failures_of_three_changes_that_have_nothing_in_common_are_the_jobs() {
        let runs: [(&[&str], RunResult); 4] =
            [(&["a"], Failure), (&["b"], TimedOut), (&["x", "c"], NodeFailure), (&["d"], Failure)];
        assert_eq!(counted(&runs), [false, false, true, true]);
    }

    #[test]
    fn a_bad_change_is_counted_once_whatever_is_tried_with_it() {
        let runs: [(&[&str], RunResult); 6] = [
            (&["a"], Failure),
            (&["a", "b"], Failure),
            (&["a", "b", "c"], Failure),
            (&["a"], Failure),
            (&["b"], Failure),
            (&["c"], Failure),
        ];
        assert_eq!(counted(&runs), [false, false, false, false, false, true]);
    }

    #[test]
    fn a_success_ends_it_and_what_says_nothing_does_not() {
        let runs: [(&[&str], RunResult); 8] = [
            (&["a"], Failure),
            (&["b"], Failure),
            (&["c"], Success),
            (&["d"], Failure),
            (&["e"], Failure),
            (&["f"], Aborted),
            (&["g"], Canceled),
            (&["h"], ConfigError),
        ];
        assert!(!counted(&runs).contains(&true));
        let more: Vec<_> = runs.into_iter().chain([(&["i"][..], Failure)]).collect();
        assert_eq!(counted(&more).last(), Some(&true));
    }

    #[test]
    fn a_pause_says_why() {
        let mut streaks = Streaks::default();
        let watched = Watched { after: 1, changes: BTreeSet::from(["a".to_owned()]) };
        let why = streaks.count(&record(Failure), &watched).unwrap();
        let expected = "1 failures in a row, of changes that have nothing in common; the last one is run \
                        00000000000000000000000000000abc of 7,1: FAILURE";
        assert_eq!(why, expected);
        streaks.forget("unit");
        let later = Watched { after: 2, changes: BTreeSet::from(["b".to_owned()]) };
        assert_eq!(streaks.count(&record(Failure), &later), None);
    }
}
