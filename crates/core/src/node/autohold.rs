//! Holds that take effect by themselves: "keep the nodes of the next failures of this job, somebody wants to look".
//!
//! A wish is spent by runs that failed by the job's own fault, while they still have their nodes. It ends when it is
//! spent, when it is [`AUTOHOLD_LIFE`] old, or by hand.

use super::model::Hold;
use super::policy::{AUTOHOLD_COUNT_MAX, AUTOHOLD_LIFE, AUTOHOLDS_MAX};
use super::pool::{Pool, shortened};
use crate::id::{AutoholdId, RunId};
use crate::pipeline::{RunWish, Subject};
use crate::refused::Refused;
use crate::time::Time;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// Which failures are meant, and what is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meant {
    /// Of this job.
    pub job: String,
    /// Only of this project; none: of all.
    pub project: Option<String>,
    /// Only of this change (`1234`, `1234,5`) or ref (`refs/heads/master`, `master`); none: of all.
    pub subject: Option<String>,
    /// Of so many runs.
    pub count: u32,
    /// How long the nodes of each are kept.
    pub length: Duration,
    /// Why.
    pub reason: String,
}

/// A standing wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autohold {
    /// Its number.
    pub id: AutoholdId,
    /// What it says; `count` is what is left of it.
    pub meant: Meant,
    /// When it ends, spent or not.
    pub until: Time,
}

/// A run that failed by its job's own fault, and still has its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub run: RunId,
    /// Of which job.
    pub job: String,
    /// Of which project, if it is about one.
    pub project: Option<String>,
    /// Everything that what it is about may be called.
    pub subjects: Vec<String>,
}

impl Failure {
    /// Of this run.
    #[must_use]
    pub fn of(wish: &RunWish) -> Failure {
        let subjects = match &wish.context.subject {
            Subject::Change(key) => vec![key.number.to_string(), key.short()],
            Subject::Ref(update) => {
                vec![update.zuul_name().to_owned(), update.reference.to_string()]
            }
            Subject::Branch { branch, .. } => {
                vec![branch.to_string(), format!("refs/heads/{branch}")]
            }
        };
        Failure {
            run: wish.run,
            job: wish.job.name.to_string(),
            project: crate::run::variables::project(wish).map(ToString::to_string),
            subjects,
        }
    }
}

impl Autohold {
    fn means(&self, failure: &Failure) -> bool {
        let Meant { job, project, subject, .. } = &self.meant;
        *job == failure.job
            && (project.is_none() || *project == failure.project)
            && subject.as_ref().is_none_or(|subject| failure.subjects.contains(subject))
    }

    /// The one that says more goes first; of equals the older.
    fn rank(&self) -> (bool, bool, AutoholdId) {
        (self.meant.subject.is_none(), self.meant.project.is_none(), self.id)
    }
}

impl Pool {
    /// Every standing wish, the oldest first.
    pub fn autoholds(&self) -> impl Iterator<Item = &Autohold> {
        self.autoholds.values()
    }

    /// How long the nodes of a run will be kept when it is over; none: they will not be.
    #[must_use]
    pub fn hold_of(&self, run: RunId) -> Option<&Hold> {
        let mut mine = self.nodes.values().filter(|e| e.row.state.run() == Some(run));
        mine.find_map(|e| e.row.hold.as_ref())
    }

    pub(super) fn autohold(&mut self, meant: Meant) -> Result<(), Refused> {
        let bad = |message: String, hint: String| Err(Refused::new("bad_request", message, hint));
        let Meant { job, project, subject, count, length, reason } = &meant;
        if job.is_empty() || reason.is_empty() {
            return bad("no job, or no reason".into(), "say both: others will ask".into());
        }
        let words = [Some(job), project.as_ref(), subject.as_ref(), Some(reason)];
        if words.into_iter().flatten().any(|text| *text != shortened(text)) {
            let most = super::policy::TEXT_MAX_BYTES;
            return bad("a text is too long".into(), format!("use at most {most} bytes"));
        }
        if *count == 0 || *count > AUTOHOLD_COUNT_MAX {
            let hint = format!("ask for 1 to {AUTOHOLD_COUNT_MAX}");
            return bad(format!("nodes of {count} failures"), hint);
        }
        self.check_hold(*length)?;
        if self.autoholds.len() >= AUTOHOLDS_MAX {
            return Err(Refused::new(
                "too_many",
                format!("there are {AUTOHOLDS_MAX} such wishes already"),
                "delete some: `toci node autohold list` shows them",
            ));
        }
        // One sequence with the nodes: no number is ever used again.
        self.last_node += 1;
        let id = AutoholdId(self.last_node);
        let until = self.now.after(AUTOHOLD_LIFE);
        self.autoholds.insert(id, Autohold { id, meant, until });
        self.changes.autoholds.insert(id);
        Ok(())
    }

    pub(super) fn delete_autohold(&mut self, id: AutoholdId) -> Result<(), Refused> {
        match self.autoholds.remove(&id) {
            Some(_) => {
                self.changes.autoholds.insert(id);
                Ok(())
            }
            None => Err(Refused::new(
                "no_such_autohold",
                format!("there is no autohold {id}"),
                "see `toci node autohold list`",
            )),
        }
    }

    /// A run failed: its nodes are marked, if somebody wants to look at them. Again is no harm.
    pub(super) fn failed(&mut self, failure: &Failure) {
        let nodes = self.nodes_of(failure.run);
        if nodes.is_empty() || self.hold_of(failure.run).is_some() {
            return;
        }
        let found = self.autoholds.values_mut().filter(|wish| wish.means(failure));
        let Some(wish) = found.min_by_key(|wish| wish.rank()) else { return };
        let id = wish.id;
        let hold = Hold {
            until: self.now.after(wish.meant.length),
            reason: shortened(&format!("{id}, run {}: {}", failure.run, wish.meant.reason)),
        };
        wish.meant.count -= 1;
        if wish.meant.count == 0 {
            self.autoholds.remove(&id);
        }
        self.changes.autoholds.insert(id);
        for node in nodes {
            if let Some(entry) = self.nodes.get_mut(&node) {
                entry.row.hold = Some(hold.clone());
                self.changes.nodes.insert(node);
            }
        }
    }

    pub(super) fn end_autoholds(&mut self) {
        let now = self.now;
        let old = self.autoholds.values().filter(|wish| wish.until <= now);
        let old: Vec<AutoholdId> = old.map(|wish| wish.id).collect();
        for id in old {
            self.autoholds.remove(&id);
            self.changes.autoholds.insert(id);
        }
    }
}
