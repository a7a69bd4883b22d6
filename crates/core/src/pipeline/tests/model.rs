//! By chance: whatever order outcomes come in, the gate merges exactly what gating one change after the other merges.
//!
//! The model is that sentence: in the order of the queue, a change is merged if what it needs is merged, it is not bad, and
//! it does not clash with a change that was merged before it. It knows nothing of windows, series, runs or restarts.

use super::build::layout;
use super::world::{World, first_patchset};
use crate::event::{ChangeState, EventKind};
use crate::id::{ItemId, ReportId, RunId};
use crate::layout::PipelineName;
use crate::pipeline::{
    End, Input, MergeOutcome, MergeSubject, MergeWish, ReportAction, ReportOutcome, RunResult,
    RunUpdate, RunWish, Subject,
};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, BTreeSet};

const CHANGES: u64 = 7;
const PROJECTS: [&str; 3] = ["a", "b", "c"];

/// What the world does next; an index picks one of what is there.
#[derive(Clone, Debug)]
enum Action {
    Approve(u64),
    Abandon(u64),
    Dequeue(u64),
    Promote(u64),
    Merge(Index),
    MergeFails(Index),
    Run(Index),
    Infrastructure(Index),
    Report(Index),
    ReportLater(Index),
    Stopped,
    Restart,
    Reconfigure,
}

#[derive(Clone, Debug)]
struct Plan {
    window: u32,
    floor: u32,
    words: String,
    hold: bool,
    projects: Vec<usize>,
    needs: Vec<(u64, u64)>,
    bad: BTreeSet<u64>,
    /// Changes that cannot be together: (one, other, already when they are merged).
    clashes: Vec<(u64, u64, bool)>,
    actions: Vec<Action>,
}

fn an_action() -> impl Strategy<Value = Action> {
    let change = || 1..=CHANGES;
    let index = any::<Index>;
    prop_oneof![
        6 => change().prop_map(Action::Approve),
        1 => change().prop_map(Action::Abandon),
        1 => change().prop_map(Action::Dequeue),
        1 => change().prop_map(Action::Promote),
        8 => index().prop_map(Action::Merge),
        1 => index().prop_map(Action::MergeFails),
        10 => index().prop_map(Action::Run),
        1 => index().prop_map(Action::Infrastructure),
        5 => index().prop_map(Action::Report),
        1 => index().prop_map(Action::ReportLater),
        2 => Just(Action::Stopped),
        1 => Just(Action::Restart),
        1 => Just(Action::Reconfigure),
    ]
}

fn a_plan() -> impl Strategy<Value = Plan> {
    let pair = || (1..=CHANGES, 1..=CHANGES);
    let words = prop_oneof![Just(""), Just("abandon"), Just("cycles"), Just("start cycles")];
    (
        (0..5u32, 1..4u32, words, any::<bool>()),
        proptest::collection::vec(0..PROJECTS.len(), 7),
        proptest::collection::vec(pair(), 0..5),
        proptest::collection::btree_set(1..=CHANGES, 0..3),
        proptest::collection::vec((1..=CHANGES, 1..=CHANGES, any::<bool>()), 0..3),
        proptest::collection::vec(an_action(), 1..80),
    )
        .prop_map(|((window, floor, words, hold), projects, needs, bad, clashes, actions)| {
            Plan {
                window,
                floor,
                words: words.to_owned(),
                hold,
                projects,
                needs,
                bad,
                clashes,
                actions,
            }
        })
}

/// The world with what was seen of the gate.
struct Play {
    plan: Plan,
    world: World,
    /// Change and queue of every item that entered, in the order in which they are gated; a bundle in one entry.
    order: Vec<Vec<(ItemId, u64)>>,
    known: usize,
    merged: Vec<u64>,
    ends_told: BTreeMap<ItemId, ReportId>,
}

impl Play {
    fn new(plan: Plan) -> Play {
        let hold = if plan.hold { "job m hold" } else { "" };
        let text = format!(
            "pipeline gate dependent window={} floor={} {}
             project a gate=m>u,l
             project b gate=u
             project c gate=x
             job l semaphore=s
             {hold}",
            plan.window, plan.floor, plan.words
        );
        let mut world = World::new(layout(&text));
        world.check_every = 7;
        world.habits.hold_merges = true;
        world.habits.hold_reports = true;
        for (number, project) in (1..).zip(&plan.projects) {
            world.change(number, PROJECTS[*project], "master", Vec::new());
        }
        let cycles = plan.words.contains("cycles");
        for (one, other) in &plan.needs {
            // Without cycles only older ones are needed.
            if one != other && (cycles || other < one) {
                let needs = &mut world.changes.get_mut(one).unwrap().needs;
                if !needs.contains(&first_patchset(*other)) {
                    needs.push(first_patchset(*other));
                }
            }
        }
        world.relate();
        let (order, merged) = (Vec::new(), Vec::new());
        Play { plan, world, order, known: 0, merged, ends_told: BTreeMap::new() }
    }

    fn queue(&self, number: u64) -> bool {
        PROJECTS[self.plan.projects[usize::try_from(number).unwrap() - 1]] == "c"
    }

    fn clash(&self, one: u64, other: u64, merging: Option<bool>) -> bool {
        self.queue(one) == self.queue(other)
            && self.plan.clashes.iter().any(|(a, b, kind)| {
                a != b
                    && ((*a, *b) == (one, other) || (*b, *a) == (one, other))
                    && merging.is_none_or(|merging| merging == *kind)
            })
    }

    fn act(&mut self, action: &Action) {
        let pick = |index: &Index, len: usize| (len > 0).then(|| index.index(len));
        match action {
            Action::Approve(n) => {
                let votes = vec![("approved".to_owned(), 1)];
                self.world.event(EventKind::CommentAdded, *n, |e| e.approvals = votes);
            }
            Action::Abandon(n) if self.alone(*n) => {
                self.world.changes.get_mut(n).unwrap().state = ChangeState::Abandoned;
                self.world.relate();
                self.world.event(EventKind::ChangeAbandoned, *n, |_| ());
            }
            Action::Dequeue(n) if self.alone(*n) => {
                let subject = Subject::Change(first_patchset(*n));
                let _ = self.world.try_put(Input::Dequeue { pipeline: gate(), subject });
            }
            Action::Abandon(_) | Action::Dequeue(_) => {}
            Action::Promote(n) => self.promote(*n),
            Action::Merge(i) => {
                if let Some(at) = pick(i, self.world.merges.len()) {
                    self.merge(at);
                }
            }
            Action::MergeFails(i) => {
                let sets: Vec<_> = self.world.merges.keys().copied().collect();
                if let Some(at) = pick(i, sets.len()) {
                    let outcome = MergeOutcome::Failed { why: "down".to_owned() };
                    self.world.put(Input::Merge { build_set: sets[at], outcome });
                }
            }
            Action::Run(i) => {
                if let Some(at) = pick(i, self.world.runs.len()) {
                    self.run(at);
                }
            }
            Action::Infrastructure(i) => {
                let runs: Vec<&RunWish> =
                    self.world.runs.values().filter(|r| r.attempt < 3).collect();
                if let Some(at) = pick(i, runs.len()) {
                    let run = runs[at].run;
                    self.end(run, RunResult::NodeFailure);
                }
            }
            Action::Report(i) => {
                if let Some(at) = pick(i, self.world.reports.len()) {
                    self.report(at);
                }
            }
            Action::ReportLater(i) => {
                let reports: Vec<ReportId> = self.world.reports.keys().copied().collect();
                if let Some(at) = pick(i, reports.len()) {
                    let outcome = ReportOutcome::Later { why: "down".to_owned() };
                    self.world.put(Input::Report { report: reports[at], outcome });
                }
            }
            Action::Stopped => self.world.stopped(),
            Action::Restart => self.world.gate = self.world.read_back(),
            Action::Reconfigure => {
                let layout = self.world.gate.layout.clone();
                self.world.put(Input::Layout(layout));
            }
        }
        self.look();
    }

    /// Not gated as one with others: there is no telling what half of a cycle should do.
    fn alone(&self, number: u64) -> bool {
        self.world.changes[&number].state == ChangeState::Open
            && !self
                .order
                .iter()
                .any(|entry| entry.len() > 1 && entry.iter().any(|(_, n)| *n == number))
    }

    fn promote(&mut self, number: u64) {
        let changes = vec![first_patchset(number)];
        if self.world.try_put(Input::Promote { pipeline: gate(), changes }).is_err() {
            return;
        }
        self.look();
        let place: BTreeMap<ItemId, usize> = self
            .world
            .gate
            .status()
            .iter()
            .flat_map(|p| &p.queues)
            .flat_map(|q| q.heads.iter().flatten())
            .enumerate()
            .map(|(at, item)| (item.id, at + 1))
            .collect();
        // What ended comes first, as it did; the others stand as the gate says.
        self.order.sort_by_key(|entry| {
            entry.iter().filter_map(|(id, _)| place.get(id)).min().copied().unwrap_or(0)
        });
    }

    fn merge(&mut self, at: usize) {
        let wish: MergeWish = self.world.merges.values().nth(at).unwrap().clone();
        let series: Vec<u64> = wish.series.iter().map(|link| number(&link.subject)).collect();
        let (own, ahead) = series.split_last().unwrap();
        let mut others = ahead.iter().chain(&self.merged);
        let outcome = if others.any(|other| self.clash(*own, *other, Some(true))) {
            MergeOutcome::Conflict { files: Vec::new(), with: None }
        } else {
            MergeOutcome::Merged { commits: Vec::new(), files: Vec::new() }
        };
        self.world.put(Input::Merge { build_set: wish.build_set, outcome });
    }

    fn run(&mut self, at: usize) {
        let wish = self.world.runs.values().nth(at).unwrap();
        let series: Vec<u64> =
            wish.context.series.iter().map(|link| number(&link.subject)).collect();
        let (own, ahead) = series.split_last().unwrap();
        let mut others = ahead.iter().chain(&self.merged);
        // Bad changes fail in a job that every project has.
        let tests = matches!(wish.job.name.0.as_str(), "u" | "x");
        let clashes = others.any(|other| self.clash(*own, *other, Some(false)));
        let good = !tests || !(clashes || self.plan.bad.contains(own));
        let run = wish.run;
        self.end(run, if good { RunResult::Success } else { RunResult::Failure });
    }

    fn end(&mut self, run: RunId, result: RunResult) {
        let update = RunUpdate::Finished {
            at: self.world.now,
            result,
            url: String::new(),
            note: String::new(),
        };
        self.world.put(Input::Run { run, update });
    }

    fn report(&mut self, at: usize) {
        let wish = self.world.reports.values().nth(at).unwrap().clone();
        if wish.action == ReportAction::Success {
            let Subject::Change(key) = &wish.subject else { panic!("only changes are gated") };
            self.merged.push(key.number);
        }
        self.world.report(wish.report);
    }

    /// What holds after every step.
    fn look(&mut self) {
        for id in self.world.entered[self.known..].iter().copied() {
            let number =
                |id: ItemId| self.world.gate.item_view(id).map(|item| change(&item.subject));
            if self.order.iter().flatten().any(|(known, _)| *known == id) {
                continue;
            }
            let bundle = self.world.gate.item_view(id).map(|item| item.bundle).unwrap_or_default();
            let ids = if bundle.is_empty() { vec![id] } else { bundle };
            let entry: Vec<(ItemId, u64)> =
                ids.into_iter().filter_map(|id| Some((id, number(id)?))).collect();
            assert!(!entry.is_empty(), "it ended in the step in which it entered");
            self.order.push(entry);
        }
        self.known = self.world.entered.len();
        for run in self.world.runs.values() {
            let item = self.world.gate.item_view(run.item).expect("a wanted run has an item");
            assert!(item.live);
        }
        for wish in self.world.reports.values().filter(|wish| wish.action != ReportAction::Start) {
            let told = *self.ends_told.entry(wish.item).or_insert(wish.report);
            assert_eq!(told, wish.report, "two reports on one item's end");
            if wish.action == ReportAction::Success {
                let item =
                    self.world.gate.item_view(wish.item).expect("it stays until it is merged");
                assert_eq!(item.ahead, None, "it is merged before what it was built on");
                assert_eq!(item.position, 1, "it is merged out of turn");
            }
        }
    }

    /// Everything is answered until nothing is wanted any more.
    fn finish(&mut self) {
        for _ in 0..5_000 {
            if !self.world.merges.is_empty() {
                self.merge(0);
            } else if !self.world.runs.is_empty() {
                self.run(0);
            } else if !self.world.reports.is_empty() {
                self.report(0);
            } else if self.world.gate.wanted().stopping.is_empty() {
                break;
            } else {
                self.world.stopped();
            }
            self.look();
        }
        let left: Vec<String> = self
            .world
            .gate
            .status()
            .iter()
            .flat_map(|p| &p.queues)
            .flat_map(|q| q.heads.iter().flatten())
            .map(|item| format!("{}: {}", change(&item.subject), item.waits_for))
            .collect();
        assert!(left.is_empty(), "still there: {left:?}");
    }

    /// One after the other.
    fn compare(&self) {
        let mut merged: Vec<u64> = Vec::new();
        for entry in &self.order {
            let ends: BTreeSet<End> = entry.iter().map(|(id, _)| self.world.left[id]).collect();
            if ends.iter().any(|end| matches!(end, End::Abandoned | End::Dequeued)) {
                continue;
            }
            let mates: Vec<u64> = entry.iter().map(|(_, n)| *n).collect();
            let good = mates.iter().all(|n| {
                let needs = &self.world.changes[n].needs;
                let met = |need: &u64| merged.contains(need) || mates.contains(need);
                let clashes = |other: &u64| other != n && self.clash(*n, *other, None);
                !self.plan.bad.contains(n)
                    && needs.iter().map(|key| key.number).all(|need| met(&need))
                    && !merged.iter().chain(&mates).any(clashes)
            });
            let ended_well = ends == BTreeSet::from([End::Succeeded]);
            assert_eq!(ended_well, good, "{entry:?} after {merged:?} ended as {ends:?}");
            if good {
                merged.extend(mates);
            }
        }
        let of = |list: &[u64], c: bool| -> Vec<u64> {
            list.iter().copied().filter(|n| self.queue(*n) == c).collect()
        };
        for queue in [true, false] {
            assert_eq!(
                of(&self.merged, queue),
                of(&merged, queue),
                "merged in the order of the queue"
            );
        }
    }
}

fn gate() -> PipelineName {
    PipelineName("gate".to_owned())
}

fn change(subject: &Subject) -> u64 {
    match subject {
        Subject::Change(key) => key.number,
        Subject::Ref(_) | Subject::Branch { .. } => panic!("only changes are gated"),
    }
}

fn number(subject: &MergeSubject) -> u64 {
    match subject {
        MergeSubject::Change { key, .. } => key.number,
        MergeSubject::Ref(_) | MergeSubject::Tip => panic!("only changes are gated"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_gate_merges_what_one_after_the_other_merges(plan in a_plan()) {
        let mut play = Play::new(plan);
        for action in play.plan.actions.clone() {
            play.act(&action);
        }
        play.finish();
        play.compare();
    }
}
