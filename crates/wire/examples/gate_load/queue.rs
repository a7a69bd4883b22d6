//! A dependent queue that is as long as nobody wants it: every event of its life is timed in the pure core.

use crate::at;
use crate::layout::{change, event, layout};
use serde_json::{Value, json};
use std::time::Instant;
use toci_core::event::EventKind;
use toci_core::pipeline::{
    Gate, Input, MergeOutcome, Policy, ReportAction, ReportOutcome, RunResult, RunUpdate,
};
use toci_core::time::Time;

/// One job in so many fails, each time throwing its change out of the middle of the queue.
const FAILS_ONE_IN: u64 = 500;
/// Changes after whose end the load stops: those behind show nothing new.
const ENDS: usize = 200;

struct Load {
    gate: Gate,
    now: Time,
    next: u128,
    on_us: Vec<f64>,
    wanted_us: Vec<f64>,
    left: usize,
}

impl Load {
    fn on(&mut self, input: Input) {
        self.now.0 += 1_000;
        let next = &mut self.next;
        let mut ids = || {
            *next += 1;
            *next
        };
        let began = Instant::now();
        let answer = self.gate.on(input, self.now, &mut ids);
        self.on_us.push(began.elapsed().as_secs_f64() * 1e6);
        self.left += answer.map_or(0, |answer| answer.left.len());
        let _ = self.gate.take_changes();
    }
}

pub(crate) fn run(changes: u64, projects: u64) -> Value {
    let before = resident_kib();
    let gate = Gate::new(layout(projects, 0), Policy::default());
    let mut load = Load { gate, now: Time(0), next: 0, on_us: vec![], wanted_us: vec![], left: 0 };
    for number in 1..=changes {
        let change = change(number, projects);
        let event = event(EventKind::CommentAdded, &change, load.now);
        load.on(Input::Event { event, changes: vec![change] });
    }
    let entered = resident_kib();
    let mut finished = 0;
    while load.left < ENDS.min(usize::try_from(changes).unwrap_or(usize::MAX)) {
        let began = Instant::now();
        let wanted = load.gate.wanted();
        load.wanted_us.push(began.elapsed().as_secs_f64() * 1e6);
        if let Some(merge) = wanted.merges.first() {
            let own = merge.series.last();
            let commits =
                own.into_iter().map(|i| (i.project.clone(), i.branch.clone(), revision()));
            let outcome = MergeOutcome::Merged { commits: commits.collect(), files: Vec::new() };
            load.on(Input::Merge { build_set: merge.build_set, outcome });
            continue;
        }
        for report in &wanted.reports {
            let merged = report.action == ReportAction::Success;
            load.on(Input::Report {
                report: report.report,
                outcome: ReportOutcome::Done { merged },
            });
        }
        let Some(run) = wanted.runs.first().filter(|_| wanted.reports.is_empty()) else { continue };
        finished += 1;
        let result =
            if finished % FAILS_ONE_IN == 0 { RunResult::Failure } else { RunResult::Success };
        let (at, url, note) = (load.now, String::new(), String::new());
        load.on(Input::Run { run: run.run, update: RunUpdate::Started { at, url: url.clone() } });
        load.on(Input::Run { run: run.run, update: RunUpdate::Finished { at, result, url, note } });
    }
    load.on_us.sort_by(f64::total_cmp);
    load.wanted_us.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a thousand changes")]
    let a_change_kib = entered.saturating_sub(before) as f64 / changes as f64;
    json!({
        "changes": changes,
        "projects": projects,
        "events": load.on_us.len(),
        "on_us": {"p50": at(&load.on_us, 0.5), "p99": at(&load.on_us, 0.99), "max": at(&load.on_us, 1.0)},
        "wanted_us": {"p50": at(&load.wanted_us, 0.5), "p99": at(&load.wanted_us, 0.99)},
        "kib_a_change": a_change_kib,
    })
}

fn revision() -> toci_core::event::Revision {
    toci_core::event::Revision::none()
}

/// Memory of this process.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
