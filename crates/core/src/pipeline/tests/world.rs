//! Everything around a gate, for scenarios: a source that holds changes, a merger, runs, a disk. What the gate wants
//! differently than before is written down, a line each.

use super::build::{project, source};
use super::explain::Foretold;
use crate::event::{
    Branch, Change, ChangeKey, ChangeState, EventKind, Person, RefName, Revision, TriggerEvent,
};
use crate::id::{BuildSetId, ItemId, ReportId, RunId};
use crate::layout::{Layout, Reporter};
use crate::pipeline::{
    Answer, Changes, End, Gate, Input, ItemRow, MergeOutcome, MergeSubject, MergeWish, Policy,
    ReportOutcome, ReportRow, ReportWish, Rows, RunUpdate, RunWish, StateRow, Subject, WaitingId,
    WaitingRow,
};
use crate::refused::Refused;
use crate::time::Time;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether the world answers by itself.
#[derive(Debug, Default)]
pub(super) struct Habits {
    pub(super) hold_merges: bool,
    pub(super) hold_reports: bool,
    /// Pairs that cannot be merged together; a change with itself: with its branch.
    pub(super) conflicts: BTreeSet<(u64, u64)>,
    /// So many merges cannot be tried.
    pub(super) broken_merges: u32,
    /// Changes whose refs are gone.
    pub(super) gone: BTreeSet<u64>,
    /// Reports that would merge these are refused.
    pub(super) refuses: BTreeSet<u64>,
    /// Reports on these find no one.
    pub(super) later: BTreeSet<u64>,
    /// These are said to be told, but are not merged.
    pub(super) not_merging: BTreeSet<u64>,
}

#[derive(Default)]
struct Disk {
    items: BTreeMap<ItemId, String>,
    reports: BTreeMap<ReportId, String>,
    waiting: BTreeMap<WaitingId, String>,
    state: Option<String>,
}

pub(super) struct World {
    pub(super) gate: Gate,
    pub(super) now: Time,
    pub(super) changes: BTreeMap<u64, Change>,
    pub(super) habits: Habits,
    pub(super) log: Vec<String>,
    pub(super) last_text: BTreeMap<Subject, String>,
    /// Everything that ever came in, in order, and how what left ended.
    pub(super) entered: Vec<ItemId>,
    pub(super) left: BTreeMap<ItemId, End>,
    next_id: u128,
    saves: usize,
    /// The disk is compared with the gate at every so many steps.
    pub(super) check_every: usize,
    pub(super) runs: BTreeMap<RunId, RunWish>,
    pub(super) merges: BTreeMap<BuildSetId, MergeWish>,
    pub(super) reports: BTreeMap<ReportId, ReportWish>,
    stopping: Vec<RunId>,
    disk: Disk,
    pub(super) policy: Policy,
}

impl World {
    pub(super) fn new(layout: Arc<Layout>) -> World {
        let policy = Policy { files: vec![".toci.yaml".to_owned()], ..Policy::default() };
        World {
            gate: Gate::new(layout, policy.clone()),
            now: Time(1_000_000_000),
            changes: BTreeMap::new(),
            habits: Habits::default(),
            log: Vec::new(),
            last_text: BTreeMap::new(),
            entered: Vec::new(),
            left: BTreeMap::new(),
            next_id: 0,
            saves: 0,
            check_every: 1,
            runs: BTreeMap::new(),
            merges: BTreeMap::new(),
            reports: BTreeMap::new(),
            stopping: Vec::new(),
            disk: Disk::default(),
            policy,
        }
    }

    /// Everything that is known of changes, as the event task would hand it over.
    pub(super) fn views(&self) -> Vec<Change> {
        self.changes.values().cloned().collect()
    }

    pub(super) fn event(&mut self, kind: EventKind, of: u64, edit: impl FnOnce(&mut TriggerEvent)) {
        let mut event = self.about(kind, of);
        edit(&mut event);
        let changes = self.views();
        self.put(Input::Event { event: Box::new(event), changes });
    }

    pub(super) fn about(&self, kind: EventKind, of: u64) -> TriggerEvent {
        let change = &self.changes[&of];
        TriggerEvent {
            kind,
            project: change.project.clone(),
            branch: Some(change.branch.clone()),
            change: Some(change.key.clone()),
            reference: None,
            old: None,
            new: None,
            by: Person::default(),
            comment: String::new(),
            approvals: Vec::new(),
            origin: String::new(),
            at: self.now,
        }
    }

    pub(super) fn put(&mut self, input: Input) {
        if let Err(refused) = self.try_put(input) {
            self.log.push(format!("refused {}: {refused}", refused.code));
        }
    }

    pub(super) fn try_put(&mut self, input: Input) -> Result<(), Refused> {
        self.now = self.now.after(Duration::from_secs(1));
        let mut next = self.next_id;
        let mut ids = || {
            next += 1;
            next
        };
        let foretold = Foretold::of(&self.gate, &input, self.now);
        let answer = self.gate.on(input, self.now, &mut ids);
        self.next_id = next;
        if let (Some(foretold), Ok(answer)) = (foretold, &answer) {
            foretold.check(&self.gate, answer);
        }
        let refused = answer.map(|answer| self.write_down(&answer));
        self.save();
        self.compare();
        self.habitual();
        refused
    }

    fn write_down(&mut self, answer: &Answer) {
        self.entered.extend(&answer.entered);
        self.left.extend(answer.left.iter().map(|left| (left.item, left.end)));
        for note in &answer.notes {
            let whom = note.subject.as_ref().map(short).unwrap_or_default();
            let pipeline = note.pipeline.as_ref().map(|p| p.0.clone()).unwrap_or_default();
            self.log.push(format!("note {pipeline} {whom}: {}", note.text));
        }
        for left in &answer.left {
            self.log.push(format!(
                "left {} {} {}",
                left.pipeline,
                short(&left.subject),
                left.end.word()
            ));
        }
        for (pipeline, project) in &answer.merged_in {
            self.log.push(format!("merged in {pipeline} {}", project.name));
        }
    }

    /// The rows on disk are always those of the gate, and a gate that is read from them wants the same.
    fn save(&mut self) {
        let changes = self.gate.take_changes();
        let Changes { items, removed_items, reports, removed_reports, .. } = changes;
        let text = |value: &dyn erased::Json| value.json();
        for id in items {
            let row = self.gate.item_row(id).expect("a changed item is there");
            self.disk.items.insert(id, text(&row));
        }
        removed_items.iter().for_each(|id| drop(self.disk.items.remove(id)));
        for id in reports {
            let row = self.gate.report_row(id).expect("a changed report is there");
            self.disk.reports.insert(id, text(&row));
        }
        removed_reports.iter().for_each(|id| drop(self.disk.reports.remove(id)));
        for id in changes.waiting {
            let row = self.gate.waiting_row(&id).expect("a changed wish is there");
            self.disk.waiting.insert(id, text(&row));
        }
        changes.removed_waiting.iter().for_each(|id| drop(self.disk.waiting.remove(id)));
        if changes.state {
            self.disk.state = Some(text(&self.gate.state_row()));
        }
        self.saves += 1;
        if !self.saves.is_multiple_of(self.check_every) {
            return;
        }
        let Rows { items, reports, waiting, state } = self.gate.rows();
        let items: BTreeMap<ItemId, String> =
            items.iter().map(|row| (row.id(), text(row))).collect();
        assert_eq!(self.disk.items, items, "items on disk");
        let reports: BTreeMap<ReportId, String> =
            reports.iter().map(|r| (r.id(), text(r))).collect();
        assert_eq!(self.disk.reports, reports, "reports on disk");
        let waiting: BTreeMap<WaitingId, String> =
            waiting.iter().map(|row| (row.id().clone(), text(row))).collect();
        assert_eq!(self.disk.waiting, waiting, "waiting changes on disk");
        if let Some(saved) = &self.disk.state {
            assert_eq!(*saved, text(&state.unwrap()), "state on disk");
        }
        assert_eq!(self.read_back().wanted(), self.gate.wanted(), "wanted after a restart");
    }

    pub(super) fn read_back(&self) -> Gate {
        let item = |text: &String| serde_json::from_str::<ItemRow>(text).unwrap();
        let report = |text: &String| serde_json::from_str::<ReportRow>(text).unwrap();
        let waiting = |text: &String| serde_json::from_str::<WaitingRow>(text).unwrap();
        let state = |text: &String| serde_json::from_str::<StateRow>(text).unwrap();
        let rows = Rows {
            items: self.disk.items.values().map(item).collect(),
            reports: self.disk.reports.values().map(report).collect(),
            waiting: self.disk.waiting.values().map(waiting).collect(),
            state: self.disk.state.as_ref().map(state),
        };
        Gate::load(Arc::clone(&self.gate.layout), self.policy.clone(), rows)
    }

    /// What is wanted now and was not, or the other way round.
    fn compare(&mut self) {
        let wanted = self.gate.wanted();
        let runs: BTreeMap<RunId, RunWish> = wanted.runs.into_iter().map(|w| (w.run, w)).collect();
        let mut lines = Vec::new();
        for wish in self.runs.values().filter(|wish| !runs.contains_key(&wish.run)) {
            lines.push(format!("stop {}", run_name(wish)));
        }
        for wish in runs.values().filter(|wish| !self.runs.contains_key(&wish.run)) {
            let again =
                if wish.attempt > 1 { format!(" attempt {}", wish.attempt) } else { String::new() };
            lines.push(format!("run {} on {}{again}", run_name(wish), series(wish)));
        }
        let new = |wish: &&ReportWish| !self.reports.contains_key(&wish.report);
        for wish in wanted.reports.iter().filter(new) {
            let action = format!("{:?}", wish.action).to_lowercase();
            lines.push(format!(
                "tell {} {} {action}{}",
                wish.pipeline,
                short(&wish.subject),
                voice(wish)
            ));
            self.last_text.insert(wish.subject.clone(), wish.message.clone());
        }
        self.log.append(&mut lines);
        self.runs = runs;
        self.merges = wanted.merges.into_iter().map(|w| (w.build_set, w)).collect();
        self.reports = wanted.reports.into_iter().map(|w| (w.report, w)).collect();
        self.stopping = wanted.stopping;
    }

    /// Reports that did not get through yet.
    pub(super) fn say_untold(&mut self) {
        let line = |wish: &ReportWish| format!("untold {} {}", wish.pipeline, short(&wish.subject));
        self.log.extend(self.reports.values().map(line));
    }

    /// Merges and reports are carried out at once, unless somebody holds them.
    fn habitual(&mut self) {
        let due = |at: Time| at <= self.now;
        let merge = self.merges.values().find(|wish| due(wish.not_before));
        if let Some(wish) = merge.filter(|_| !self.habits.hold_merges).cloned() {
            self.merge(&wish);
            return;
        }
        let report =
            self.reports.values().find(|wish| due(wish.not_before)).map(|wish| wish.report);
        if let Some(report) = report.filter(|_| !self.habits.hold_reports) {
            self.report(report);
        }
    }

    fn merge(&mut self, wish: &MergeWish) {
        let number = |subject: &MergeSubject| match subject {
            MergeSubject::Change { key, .. } => key.number,
            MergeSubject::Ref(_) | MergeSubject::Tip => 0,
        };
        let own = number(&wish.series.last().unwrap().subject);
        let clashes = |other: &u64| self.habits.conflicts.contains(&(own, *other));
        let with = wish.series.iter().map(|link| number(&link.subject)).find(clashes);
        let outcome = if self.habits.broken_merges > 0 {
            self.habits.broken_merges -= 1;
            MergeOutcome::Failed { why: "the source is down".to_owned() }
        } else if let Some(lost) =
            wish.series.iter().map(|l| number(&l.subject)).find(|n| self.habits.gone.contains(n))
        {
            MergeOutcome::Gone { why: format!("the source has no ref of change {lost}") }
        } else if let Some(with) = with {
            let with = (with != own).then(|| self.changes[&with].key.clone());
            MergeOutcome::Conflict { files: vec!["README".to_owned()], with }
        } else {
            let commit = Revision::new("c".repeat(40)).unwrap();
            let of = |link: &crate::pipeline::MergeItem| {
                (link.project.clone(), link.branch.clone(), commit.clone())
            };
            let text = self.changes.get(&own).map(|c| c.message.clone()).unwrap_or_default();
            let files = wish.files.iter().map(|f| (f.clone(), text.clone())).collect();
            MergeOutcome::Merged { commits: wish.series.iter().map(of).collect(), files }
        };
        self.put(Input::Merge { build_set: wish.build_set, outcome });
    }

    pub(super) fn report(&mut self, report: ReportId) {
        let wish = self.reports[&report].clone();
        let merges =
            wish.reporters.iter().any(|r| matches!(r, Reporter::Source { merge: true, .. }));
        let number = match &wish.subject {
            Subject::Change(key) => key.number,
            Subject::Ref(_) | Subject::Branch { .. } => 0,
        };
        let outcome = if self.habits.later.contains(&number) {
            ReportOutcome::Later { why: "no route".to_owned() }
        } else if merges && self.habits.refuses.contains(&number) {
            ReportOutcome::Refused { why: "submit rule".to_owned() }
        } else {
            let merged = merges && !self.habits.not_merging.contains(&number);
            if merged {
                self.changes.get_mut(&number).unwrap().state = ChangeState::Merged;
                self.relate();
                self.log.push(format!("merged {}", short(&wish.subject)));
            }
            ReportOutcome::Done { merged }
        };
        self.put(Input::Report { report, outcome });
    }

    /// Ends wanted runs that match `[pipeline/]A[.job]`.
    pub(super) fn finish(&mut self, which: &str, update: impl Fn(Time) -> RunUpdate) {
        let runs: Vec<RunId> = self
            .runs
            .values()
            .filter(|wish| matches_run(wish, which))
            .map(|wish| wish.run)
            .collect();
        if runs.is_empty() {
            self.log.push(format!("no run {which}"));
        }
        for run in runs {
            let update = update(self.now);
            if self.runs.contains_key(&run) {
                // What ends by itself is not stopped.
                if matches!(update, RunUpdate::Finished { .. }) {
                    self.runs.remove(&run);
                }
                self.put(Input::Run { run, update });
            }
        }
    }

    /// Runs that were to be stopped are over now.
    pub(super) fn stopped(&mut self) {
        for run in std::mem::take(&mut self.stopping) {
            let result = crate::pipeline::RunResult::Canceled;
            let update = RunUpdate::Finished {
                at: self.now,
                result,
                url: String::new(),
                note: String::new(),
            };
            self.put(Input::Run { run, update });
        }
    }

    /// Wanted runs in the order of their urgency, with how many of their project stand before.
    pub(super) fn urgency(&self) -> Vec<String> {
        let runs = self.gate.wanted().runs;
        runs.iter().map(|wish| format!("{} {}", wish.relative_priority, run_name(wish))).collect()
    }

    /// The merge of one change, though merges are held.
    pub(super) fn merge_of(&mut self, number: u64) {
        let own = |wish: &&MergeWish| match &wish.series.last().unwrap().subject {
            MergeSubject::Change { key, .. } => key.number == number,
            MergeSubject::Ref(_) | MergeSubject::Tip => false,
        };
        let wish = self.merges.values().find(own).cloned().expect("a merge of it is wanted");
        self.merge(&wish);
    }

    pub(super) fn has_runs(&self) -> bool {
        !self.runs.is_empty()
    }

    pub(super) fn change(&mut self, number: u64, name: &str, branch: &str, files: Vec<String>) {
        let change = Change {
            key: first_patchset(number),
            project: project(name),
            branch: Branch::new(branch).unwrap(),
            reference: RefName::new(format!("refs/changes/{:02}/{number}/1", number % 100))
                .unwrap(),
            revision: Revision::new(format!("{number:040x}")).unwrap(),
            change_id: String::new(),
            state: ChangeState::Open,
            current: true,
            wip: false,
            title: String::new(),
            message: String::new(),
            owner: Person::default(),
            url: String::new(),
            topic: String::new(),
            hashtags: Vec::new(),
            files: Some(files),
            approvals: Vec::new(),
            submit: Vec::new(),
            needs: Vec::new(),
            needed_by: Vec::new(),
        };
        self.changes.insert(number, change);
    }

    /// Who needs whom, by number; also from the other side.
    pub(super) fn relate(&mut self) {
        let keys: BTreeMap<u64, ChangeKey> =
            self.changes.iter().map(|(n, c)| (*n, c.key.clone())).collect();
        let mut needed_by: BTreeMap<u64, Vec<ChangeKey>> = BTreeMap::new();
        for change in self.changes.values_mut() {
            for need in &mut change.needs {
                if let Some(key) = keys.get(&need.number) {
                    need.clone_from(key);
                }
            }
            if change.state == ChangeState::Open {
                for need in &change.needs {
                    needed_by.entry(need.number).or_default().push(change.key.clone());
                }
            }
        }
        for (number, change) in &mut self.changes {
            change.needed_by = needed_by.remove(number).unwrap_or_default();
        }
    }
}

pub(super) fn first_patchset(number: u64) -> ChangeKey {
    ChangeKey { source: source(), number, patchset: "1".to_owned() }
}

/// 1 is A.
pub(super) fn letter(number: u64) -> String {
    match u8::try_from(number) {
        Ok(n @ 1..=26) => char::from(b'A' + n - 1).to_string(),
        Ok(_) | Err(_) => number.to_string(),
    }
}

pub(super) fn short(subject: &Subject) -> String {
    match subject {
        Subject::Change(key) if key.patchset == "1" => letter(key.number),
        Subject::Change(key) => format!("{},{}", letter(key.number), key.patchset),
        Subject::Ref(update) => format!("{}@{}", update.project.name, update.zuul_name()),
        Subject::Branch { project, branch } => format!("{}@{branch}", project.name),
    }
}

fn run_name(wish: &RunWish) -> String {
    format!("{}/{}.{}", wish.context.pipeline, short(&wish.context.subject), wish.job.name)
}

fn series(wish: &RunWish) -> String {
    let names = wish.context.series.iter().map(|link| match &link.subject {
        MergeSubject::Change { key, .. } => short(&Subject::Change(key.clone())),
        MergeSubject::Ref(update) => update.zuul_name().to_owned(),
        MergeSubject::Tip => "tip".to_owned(),
    });
    names.collect::<Vec<_>>().join("+")
}

fn matches_run(wish: &RunWish, which: &str) -> bool {
    let name = run_name(wish);
    let bare = name.split_once('/').map_or(name.as_str(), |(_, bare)| bare);
    let item =
        |name: &str| name.rsplit_once('.').map(|(item, _)| item.to_owned()).unwrap_or_default();
    which == "*"
        || [name.clone(), bare.to_owned(), item(&name), item(bare)].iter().any(|n| n == which)
}

fn voice(wish: &ReportWish) -> String {
    let reporter = wish.reporters.first().map(|reporter| match reporter {
        Reporter::Source { votes, merge, .. } => {
            let vote = votes.iter().find_map(|vote| match vote {
                crate::layout::GerritVote::Label(_, value) => Some(format!(" {value:+}")),
                crate::layout::GerritVote::Flag(_) => None,
            });
            format!("{}{}", vote.unwrap_or_default(), if *merge { " submit" } else { "" })
        }
        Reporter::Smtp { .. } => " mail".to_owned(),
        Reporter::Webhook { url } => format!(" {url}"),
    });
    reporter.unwrap_or_default()
}

/// JSON of any row.
mod erased {
    pub(super) trait Json {
        fn json(&self) -> String;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}
