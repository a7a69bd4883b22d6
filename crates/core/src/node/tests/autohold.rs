//! Nodes of failed runs that are kept because somebody said so before.

use super::world::*;
use crate::id::{AutoholdId, RunId};
use crate::node::{
    AUTOHOLD_COUNT_MAX, AUTOHOLD_LIFE, AUTOHOLDS_MAX, Event, Failure, Meant, NodeState, Settings,
};
use core::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn world() -> World {
    let mut world = World::new(Settings {
        labels: labels(&[("small", 0)]),
        providers: vec![provider("a", 10, u64::MAX, &[("small", 1)])],
    });
    world.list_all();
    world
}

fn meant(job: &str) -> Meant {
    Meant {
        job: job.into(),
        project: None,
        subject: None,
        count: 1,
        length: HOUR,
        reason: "look".into(),
    }
}

fn failure(run: RunId, job: &str, change: &str) -> Failure {
    Failure {
        run,
        job: job.into(),
        project: Some("org/app".into()),
        subjects: vec![change.into(), format!("{change},5")],
    }
}

/// A run that has a node, fails and gives it back; whether the node is held.
fn fails(world: &mut World, number: u128, job: &str, change: &str) -> bool {
    let run = RunId(number);
    world.ask(number, "small", 1).unwrap();
    world.work_off();
    let node = world.served(number).expect("a node")[0];
    world.on(Event::Failed(failure(run, job, change))).unwrap();
    world.on(Event::GiveBack(run)).unwrap();
    world.pool.node(node).is_some_and(|node| node.state == NodeState::Held)
}

#[test]
fn so_many_failures_are_kept_and_the_next_is_not() {
    let mut world = world();
    world.on(Event::Autohold(Meant { count: 2, ..meant("devtest") })).unwrap();
    assert!(!fails(&mut world, 1, "unit", "7"), "another job");
    assert!(fails(&mut world, 2, "devtest", "7"));
    world.crash(false);
    world.list_all();
    assert!(fails(&mut world, 3, "devtest", "8"), "a restart forgets nothing");
    assert!(!fails(&mut world, 4, "devtest", "9"));
    assert_eq!(world.pool.autoholds().count(), 0);
    let held: Vec<_> = world.pool.nodes().filter(|n| n.state == NodeState::Held).collect();
    assert_eq!(held.len(), 2);
    let hold = held[0].hold.as_ref().unwrap();
    assert!(hold.reason.ends_with(": look") && hold.reason.contains("run 0000"), "{hold:?}");
    world.pass(HOUR.as_secs() + 1);
    world.work_off();
    assert_eq!(world.pool.nodes().count(), 0, "their time is over");
}

#[test]
fn a_success_and_a_failure_that_is_told_twice_spend_nothing() {
    let mut world = world();
    world.on(Event::Autohold(Meant { count: 2, ..meant("devtest") })).unwrap();
    world.ask(1, "small", 1).unwrap();
    world.work_off();
    world.on(Event::GiveBack(RunId(1))).unwrap();
    assert_eq!(world.pool.autoholds().next().unwrap().meant.count, 2);
    world.ask(2, "small", 1).unwrap();
    world.work_off();
    for _ in 0..2 {
        world.on(Event::Failed(failure(RunId(2), "devtest", "7"))).unwrap();
    }
    assert_eq!(world.pool.autoholds().next().unwrap().meant.count, 1);
    assert_eq!(world.pool.hold_of(RunId(2)).unwrap().until, world.now.after(HOUR));
    // A run that has no node has nothing to keep.
    world.on(Event::Failed(failure(RunId(3), "devtest", "7"))).unwrap();
    assert_eq!(world.pool.autoholds().next().unwrap().meant.count, 1);
}

#[test]
fn the_one_that_says_most_is_spent_first() {
    let mut world = world();
    let with = |project: Option<&str>, subject: Option<&str>| Meant {
        project: project.map(Into::into),
        subject: subject.map(Into::into),
        ..meant("devtest")
    };
    for wish in [
        with(None, None),
        with(Some("org/app"), None),
        with(Some("org/app"), Some("7")),
        with(Some("org/lib"), Some("7")),
        with(None, Some("7,4")),
    ] {
        world.on(Event::Autohold(wish)).unwrap();
    }
    let mut spent = Vec::new();
    for run in 1..=4 {
        let before: Vec<AutoholdId> = world.pool.autoholds().map(|a| a.id).collect();
        let kept = fails(&mut world, run, "devtest", "7");
        let gone = before.iter().position(|id| world.pool.autoholds().all(|a| a.id != *id));
        spent.push((kept, gone));
    }
    assert_eq!(spent, [(true, Some(2)), (true, Some(1)), (true, Some(0)), (false, None)]);
}

#[test]
fn wishes_end_by_hand_and_with_time_and_make_sense() {
    let mut world = world();
    world.on(Event::Autohold(meant("devtest"))).unwrap();
    let id = world.pool.autoholds().next().unwrap().id;
    world.on(Event::DeleteAutohold(id)).unwrap();
    assert_eq!(world.on(Event::DeleteAutohold(id)), Err("no_such_autohold".into()));
    world.on(Event::Autohold(meant("devtest"))).unwrap();
    let next = world.pool.autoholds().next().unwrap().id;
    assert!(next > id, "no number is used again");
    world.pass(AUTOHOLD_LIFE.as_secs() + 1);
    assert_eq!(world.pool.autoholds().count(), 0);
    world.crash(false);
    world.list_all();
    assert_eq!(world.pool.autoholds().count(), 0);
    for wrong in [
        meant(""),
        Meant { reason: String::new(), ..meant("devtest") },
        Meant { reason: "x".repeat(1000), ..meant("devtest") },
        Meant { count: 0, ..meant("devtest") },
        Meant { count: AUTOHOLD_COUNT_MAX + 1, ..meant("devtest") },
        Meant { length: Duration::ZERO, ..meant("devtest") },
        Meant { length: 1000 * HOUR, ..meant("devtest") },
    ] {
        assert_eq!(
            world.on(Event::Autohold(wrong.clone())),
            Err("bad_request".into()),
            "{wrong:?}"
        );
    }
    for _ in 0..AUTOHOLDS_MAX {
        world.on(Event::Autohold(meant("devtest"))).unwrap();
    }
    assert_eq!(world.on(Event::Autohold(meant("devtest"))), Err("too_many".into()));
}
