//! By chance: whatever is done to the gate, and in whatever layout, every item ends once everything is answered.
//!
//! The [`World`] compares the disk with the gate at every step, and what a restarted gate wants with what this one wants.

use super::build::layout;
use super::words;
use super::world::World;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Three configurations that take projects, jobs, queues and pipelines from each other.
fn layouts() -> Vec<String> {
    let one = "pipeline check independent start
        pipeline gate dependent window=3 floor=1
        pipeline post independent
        project a check=m>u,l gate=m>u post=docs
        project b check=u,door gate=u,door
        project c check=x gate=x
        job door semaphore=s
        job l nonvoting";
    let two = "pipeline check independent abandon cycles
        pipeline gate dependent abandon cycles
        project a check=u,l gate=u,noop
        project b check=u,door gate=u,door
        project c check=x gate=x,u
        job door semaphore=s
        job u hold";
    let three = "pipeline gate independent keep-old disable=2
        pipeline check dependent alone disable=1
        project a check=u gate=door
        project c check=u gate=door
        job door semaphore=s";
    [one, two, three].map(str::to_owned).to_vec()
}

fn a_line() -> impl Strategy<Value = String> {
    let change = || proptest::sample::select(vec!["A", "B", "C", "D", "E", "F"]);
    let said = |word: &'static str| change().prop_map(move |c| format!("{word} {c}"));
    let pair = move |word: &'static str| {
        (change(), change()).prop_map(move |(a, b)| format!("{word} {a} {b}"))
    };
    let plain = proptest::sample::select(vec![
        "ok *",
        "begin *",
        "stopped",
        "restart",
        "wait 2",
        "wait 300",
        "hold merges",
        "go merges",
        "hold reports",
        "go reports",
        "later no",
        "broken 2",
        "push a refs/heads/master",
        "relayout 0",
        "relayout 1",
        "relayout 2",
        "end * NODE_FAILURE",
        "end * LOST",
    ]);
    prop_oneof![
        4 => said("upload"),
        8 => said("approve"),
        1 => said("patchset"),
        1 => said("abandon"),
        1 => said("restore"),
        1 => said("merge"),
        4 => said("ok"),
        3 => said("fail"),
        2 => said("begin"),
        1 => said("later"),
        1 => said("refuse"),
        1 => said("unmerging"),
        2 => pair("needs"),
        1 => pair("conflict"),
        1 => said("promote gate"),
        1 => pair("promote check"),
        1 => said("dequeue gate"),
        1 => said("dequeue check"),
        2 => said("enqueue gate"),
        1 => said("enqueue check"),
        8 => plain.prop_map(str::to_owned),
    ]
}

/// Everybody answers now.
fn answer_all(world: &mut World, layouts: &[String]) {
    for line in ["later no", "go merges", "go reports"] {
        words::run(world, layouts, line);
    }
    for _ in 0..300 {
        words::run(world, layouts, "wait 300");
        words::run(world, layouts, "stopped");
        if world.has_runs() {
            words::run(world, layouts, "ok *");
        }
        let wanted = world.gate.wanted();
        if wanted == crate::pipeline::Wanted::default() {
            break;
        }
    }
    let left: Vec<String> = world
        .gate
        .status()
        .iter()
        .flat_map(|p| &p.queues)
        .flat_map(|q| q.heads.iter().flatten())
        .map(|item| format!("{:?}: {}", item.subject, item.waits_for))
        .collect();
    assert!(left.is_empty(), "still there: {left:?}");
    assert_eq!(world.gate.wanted(), crate::pipeline::Wanted::default());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn every_item_ends(lines in proptest::collection::vec(a_line(), 1..60)) {
        let layouts = layouts();
        let mut world = World::new(layout(&layouts[0]));
        world.check_every = 5;
        for line in ["change A a", "change B b", "change C a", "change D c", "change E b", "change F a"] {
            words::run(&mut world, &layouts, line);
        }
        for line in &lines {
            words::run(&mut world, &layouts, line);
        }
        answer_all(&mut world, &layouts);
        let entered: BTreeSet<_> = world.entered.iter().copied().collect();
        prop_assert_eq!(entered.len(), world.entered.len(), "an item enters once");
        prop_assert!(entered.iter().all(|id| world.left.contains_key(id)), "and its end is told");
    }
}
