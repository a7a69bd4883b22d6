//! What is known of a series while it is merged, and the memory of series that were merged before: a queue of N items
//! costs N merges, because each series begins with the one before it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use toci_core::event::{Branch, ChangeKey, ProjectKey, Revision};
use toci_core::pipeline::{MergeItem, MergeSubject};

/// Remembered series at most; all are forgotten when there are more, which only costs merges.
const REMEMBERED_MAX: usize = 20_000;

/// What one link of a series did.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) project: ProjectKey,
    pub(super) branch: Branch,
    pub(super) change: ChangeKey,
    pub(super) before: Revision,
    pub(super) after: Revision,
}

/// Where a series stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// The newest commit of each project and branch.
    pub(super) commits: BTreeMap<(ProjectKey, Branch), Revision>,
    /// What led there, oldest first.
    pub(super) steps: Vec<Step>,
}

/// Series that were merged before, by their links.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: BTreeMap<String, Series>,
}

impl Memory {
    /// The longest beginning that is known, and how many links it has.
    pub(super) fn longest(&self, series: &[MergeItem]) -> (usize, Series) {
        // A series of one stands on the branch as it is now, so it is never taken from memory.
        let known = (1..series.len()).rev().find_map(|n| {
            let found = self.known.get(&name(&series[..n]))?;
            Some((n, found.clone()))
        });
        known.unwrap_or_default()
    }

    pub(super) fn remember(&mut self, series: &[MergeItem], state: &Series) {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(name(series), state.clone());
    }
}

fn name(series: &[MergeItem]) -> String {
    let mut out = String::new();
    for item in series {
        let what = match &item.subject {
            MergeSubject::Change { key, revision, .. } => format!("{key}@{revision}"),
            MergeSubject::Ref(update) => format!("{}@{}", update.reference, update.new),
            MergeSubject::Tip => "tip".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{} {} {what}", item.project, item.branch);
    }
    out
}
