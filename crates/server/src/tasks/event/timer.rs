//! Timer triggers: at each time, an event for every project that has jobs in a pipeline which listens to it.

use crate::clock::wall;
use crate::tasks::pipeline::GateHandle;
use std::collections::BTreeSet;
use std::time::Duration;
use toci_core::event::{Branch, Cron, EventKind, Person, ProjectKey, TriggerEvent};
use toci_core::layout::{Layout, Trigger};
use toci_core::pipeline::Input;
use toci_core::time::Time;

/// The layout is looked at anew at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The branch that periodic jobs test, as in Zuul 2's jobs (`ZUUL_BRANCH` is not set for them; devstack-gate's
/// default is master).
const BRANCH: &str = "master";

/// Rings until the gate stops.
pub(crate) async fn run_timers(gate: GateHandle) {
    let mut told = wall();
    loop {
        let Ok(layout) = gate.layout().await else { return };
        // What rang does not ring again when the clock is set back.
        let at = wall().max(told);
        for (due, text) in due(&layout, told, at) {
            for event in events(&layout, &text, due) {
                let input = Input::Event { event: Box::new(event), changes: Vec::new() };
                if gate.deliver(input, None).await.is_none() {
                    return;
                }
            }
        }
        told = at;
        let next = specs(&layout).iter().filter_map(|(_, cron)| cron.next_after(at)).min();
        let pause = next.map_or(LOOK_EVERY, |next| next.since(wall()));
        tokio::time::sleep(pause.min(LOOK_EVERY)).await;
    }
}

/// Every time that a trigger of the layout listens to, once.
fn specs(layout: &Layout) -> Vec<(String, Cron)> {
    let triggers = layout.pipelines.iter().flat_map(|p| &p.triggers);
    let texts: BTreeSet<&String> =
        triggers.filter(|t| t.trigger == Trigger::Timer).flat_map(|t| &t.timespecs).collect();
    let parsed = texts.into_iter().filter_map(|text| Some((text.clone(), Cron::parse(text).ok()?)));
    parsed.collect()
}

/// What rang after `from` and not after `to`; each only once, however long that is.
fn due(layout: &Layout, from: Time, to: Time) -> Vec<(Time, String)> {
    let rang = specs(layout).into_iter().filter_map(|(text, cron)| {
        cron.next_after(from).filter(|at| *at <= to).map(|at| (at, text))
    });
    rang.collect()
}

fn events(layout: &Layout, text: &str, at: Time) -> Vec<TriggerEvent> {
    let listens = |trigger: &toci_core::layout::TriggerFilter| {
        trigger.trigger == Trigger::Timer && trigger.timespecs.iter().any(|t| t == text)
    };
    let listening: Vec<_> =
        layout.pipelines.iter().filter(|p| p.triggers.iter().any(listens)).collect();
    let concerned: BTreeSet<&ProjectKey> = layout
        .projects
        .values()
        .filter(|project| listening.iter().any(|p| project.pipelines.contains_key(&p.name)))
        .map(|project| &project.key)
        .collect();
    let event = |project: &ProjectKey| TriggerEvent {
        kind: EventKind::Timer,
        project: project.clone(),
        branch: Branch::new(BRANCH).ok(),
        change: None,
        reference: None,
        old: None,
        new: None,
        by: Person::default(),
        comment: String::new(),
        approvals: Vec::new(),
        origin: text.to_owned(),
        at,
    };
    concerned.into_iter().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_rings_once_for_each_project_of_its_pipelines() {
        let text = "
pipelines:
  - {name: periodic, manager: independent, trigger: {timer: [{time: '0 6 * * *'}]}}
  - {name: check, manager: independent}
projects: [{name: a, periodic: [j]}, {name: b, check: [j]}, {name: c, periodic: [j]}]
";
        let source = toci_core::event::SourceName::new("gerrit").unwrap();
        let layout = toci_wire::layout::read("l", text, &source).layout.unwrap();
        let day = 86_400_000_000;
        let six = Time(6 * 3_600_000_000);
        assert_eq!(due(&layout, Time(0), Time(six.0 - 1)), []);
        assert_eq!(due(&layout, Time(0), Time(3 * day)), [(six, "0 6 * * *".to_owned())]);
        let events = events(&layout, "0 6 * * *", six);
        let names: Vec<&str> = events.iter().map(|e| e.project.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
