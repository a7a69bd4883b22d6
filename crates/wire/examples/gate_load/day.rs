//! A day of a CI as large as OpenStack's in 2014: changes come as people work, each is checked, approved, gated; nodes are
//! scarce at noon. Everything but the gate is a figure.

use crate::at;
use crate::layout::{JOBS, change, event, layout};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Instant;
use toci_core::event::{Change, EventKind};
use toci_core::id::{BuildSetId, ReportId, RunId};
use toci_core::pipeline::{
    Gate, Input, MergeOutcome, Policy, ReportAction, ReportOutcome, RunResult, RunUpdate,
};
use toci_core::time::Time;

const SECOND: i64 = 1_000_000;
const DAY_S: u64 = 86_400;
const PROJECTS: u64 = 50;
/// A speculative merge.
const MERGE_S: i64 = 5;
/// From the end of its checks to its approval.
const REVIEW_S: u64 = 7_200;
/// A job takes from the first to the sum of both.
const JOB_S: (u64, u64) = (1_200, 2_400);
/// One job in so many fails by itself.
const FAILS_ONE_IN: u64 = 40;
/// Zuul's usual window.
const WINDOW: u32 = 20;

/// What will happen, besides the gate's own doings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Proposed(u64),
    Approved(u64),
    Merged(BuildSetId),
    Over(RunId),
}

struct Day {
    gate: Gate,
    now: Time,
    ids: u128,
    random: u64,
    next: BinaryHeap<Reverse<(i64, Next)>>,
    merging: BTreeSet<BuildSetId>,
    /// Runs on nodes.
    running: BTreeSet<RunId>,
    told: BTreeSet<ReportId>,
    changes: BTreeMap<u64, Change>,
    /// Seconds from wanted to begun, by pipeline.
    waits: BTreeMap<String, Vec<f64>>,
    wanted_since: BTreeMap<RunId, Time>,
    events: u64,
    merged: u64,
    begun: u64,
    most_running: usize,
}

pub(crate) fn run(jobs: u64, nodes: usize) -> Value {
    let began = Instant::now();
    // Each change has its jobs in both pipelines.
    let count = jobs / (2 * JOBS as u64);
    let mut day = Day {
        gate: Gate::new(layout(PROJECTS, WINDOW), Policy::default()),
        now: Time(0),
        ids: 0,
        random: 1,
        next: BinaryHeap::new(),
        merging: BTreeSet::new(),
        running: BTreeSet::new(),
        told: BTreeSet::new(),
        changes: BTreeMap::new(),
        waits: BTreeMap::new(),
        wanted_since: BTreeMap::new(),
        events: 0,
        merged: 0,
        begun: 0,
        most_running: 0,
    };
    for number in 1..=count {
        let at = day.office_hour();
        day.next.push(Reverse((at, Next::Proposed(number))));
    }
    while let Some(Reverse((at, _))) = day.next.peek() {
        day.now = Time(*at);
        while let Some(Reverse((at, next))) = day.next.pop() {
            if at > day.now.0 {
                day.next.push(Reverse((at, next)));
                break;
            }
            day.happens(next);
        }
        day.serve(nodes);
    }
    let mut waits: BTreeMap<String, Value> = BTreeMap::new();
    for (pipeline, mut seconds) in std::mem::take(&mut day.waits) {
        seconds.sort_by(f64::total_cmp);
        let figures = json!({
            "p50_s": at_share(&seconds, 0.5), "p95_s": at_share(&seconds, 0.95),
            "max_s": at_share(&seconds, 1.0),
        });
        waits.insert(pipeline, figures);
    }
    json!({
        "changes": count,
        "jobs_begun": day.begun,
        "nodes": nodes,
        "most_nodes_in_use": day.most_running,
        "merged": day.merged,
        "events": day.events,
        "hours": day.now.0 / SECOND / 3600,
        "waits": waits,
        "took_s": began.elapsed().as_secs_f64(),
    })
}

fn at_share(seconds: &[f64], share: f64) -> f64 {
    at(seconds, share)
}

impl Day {
    /// A small generator: the same day every time.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    /// The mean of two draws: more at noon than at night.
    fn office_hour(&mut self) -> i64 {
        let second = u64::midpoint(self.draw(DAY_S), self.draw(DAY_S));
        i64::try_from(second).unwrap_or(0) * SECOND
    }

    fn on(&mut self, input: Input) {
        self.events += 1;
        let ids = &mut self.ids;
        let mut fresh = || {
            *ids += 1;
            *ids
        };
        // An order that is refused would be one by hand: there are none.
        let _ = self.gate.on(input, self.now, &mut fresh);
        let _ = self.gate.take_changes();
    }

    fn happens(&mut self, next: Next) {
        match next {
            Next::Proposed(number) => {
                let mut fresh = change(number, PROJECTS);
                fresh.approvals.clear();
                self.changes.insert(number, fresh.clone());
                let event = event(EventKind::PatchsetCreated, &fresh, self.now);
                self.on(Input::Event { event, changes: vec![fresh] });
            }
            Next::Approved(number) => {
                let approved = change(number, PROJECTS);
                let event = event(EventKind::CommentAdded, &approved, self.now);
                self.on(Input::Event { event, changes: vec![approved] });
            }
            Next::Merged(build_set) => {
                if self.merging.remove(&build_set) {
                    let outcome = MergeOutcome::Merged { commits: Vec::new(), files: Vec::new() };
                    self.on(Input::Merge { build_set, outcome });
                }
            }
            Next::Over(run) => {
                if self.running.remove(&run) {
                    let fails = self.draw(FAILS_ONE_IN) == 0;
                    let result = if fails { RunResult::Failure } else { RunResult::Success };
                    let (at, url, note) = (self.now, String::new(), String::new());
                    let update = RunUpdate::Finished { at, result, url, note };
                    self.on(Input::Run { run, update });
                }
            }
        }
    }

    /// Does what is wanted now.
    fn serve(&mut self, nodes: usize) {
        loop {
            let wanted = self.gate.wanted();
            let reports: Vec<_> =
                wanted.reports.iter().filter(|r| self.told.insert(r.report)).cloned().collect();
            if reports.is_empty() {
                self.merge(&wanted);
                self.run(&wanted, nodes);
                return;
            }
            for report in reports {
                let merged = report.pipeline.0 == "gate" && report.action == ReportAction::Success;
                self.merged += u64::from(merged);
                if report.pipeline.0 == "check"
                    && report.action == ReportAction::Success
                    && let Some(change) = &report.change
                {
                    let later = i64::try_from(self.draw(REVIEW_S)).unwrap_or(0) * SECOND;
                    let number = change.key.number;
                    self.next.push(Reverse((self.now.0 + later, Next::Approved(number))));
                }
                let outcome = ReportOutcome::Done { merged };
                self.on(Input::Report { report: report.report, outcome });
            }
        }
    }

    fn merge(&mut self, wanted: &toci_core::pipeline::Wanted) {
        for wish in &wanted.merges {
            if self.merging.insert(wish.build_set) {
                let at = self.now.0 + MERGE_S * SECOND;
                self.next.push(Reverse((at, Next::Merged(wish.build_set))));
            }
        }
    }

    fn run(&mut self, wanted: &toci_core::pipeline::Wanted, nodes: usize) {
        let live: BTreeSet<RunId> = wanted.runs.iter().map(|wish| wish.run).collect();
        // What is not wanted any more gives its node back.
        self.running.retain(|run| live.contains(run));
        self.wanted_since.retain(|run, _| live.contains(run));
        for wish in &wanted.runs {
            let since = *self.wanted_since.entry(wish.run).or_insert(self.now);
            if self.running.contains(&wish.run) || self.running.len() >= nodes {
                continue;
            }
            self.running.insert(wish.run);
            self.begun += 1;
            self.most_running = self.most_running.max(self.running.len());
            let waited = self.now.since(since).as_secs_f64();
            self.waits.entry(wish.context.pipeline.0.clone()).or_default().push(waited);
            let (at, url) = (self.now, String::new());
            let length = JOB_S.0 + self.draw(JOB_S.1);
            let over = self.now.0 + i64::try_from(length).unwrap_or(0) * SECOND;
            self.next.push(Reverse((over, Next::Over(wish.run))));
            self.on(Input::Run { run: wish.run, update: RunUpdate::Started { at, url } });
        }
    }
}
