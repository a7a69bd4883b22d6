//! Whatever happens in whatever order: what [`super::super`] promises holds.

use super::world::{World, labels, provider, provider_name};
use crate::id::{NodeId, RunId};
use crate::layout::Precedence;
use crate::node::{Amount, Event, NodeState, Settings};
use core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Ask(u128, u8),
    GiveBack(u128),
    Work(usize, bool),
    Vanish(usize),
    Stranger(usize),
    List(usize, bool),
    Hold(u64),
    Delete(u64),
    Pause(usize, bool),
    Room(usize, u64, u64),
    Pass(u64),
    Crash(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..18_u128, 0..3_u8).prop_map(|(run, precedence)| Step::Ask(run, precedence)),
        3 => (0..18_u128).prop_map(Step::GiveBack),
        12 => (0..20_usize, prop::bool::weighted(0.8)).prop_map(|(n, well)| Step::Work(n, well)),
        1 => (0..20_usize).prop_map(Step::Vanish),
        1 => (0..2_usize).prop_map(Step::Stranger),
        2 => (0..2_usize, prop::bool::weighted(0.8)).prop_map(|(p, well)| Step::List(p, well)),
        1 => (0..30_u64).prop_map(Step::Hold),
        1 => (0..30_u64).prop_map(Step::Delete),
        1 => (0..2_usize, any::<bool>()).prop_map(|(p, on)| Step::Pause(p, on)),
        1 => (0..2_usize, 0..6_u64, 0..3_u64).prop_map(|(p, most, others)| Step::Room(p, most, others)),
        2 => (1..2000_u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Crash),
    ]
}

/// Runs that ask for nodes, of which some turn out to be dead.
fn use_of_nodes() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..18_u128, 0..3_u8).prop_map(|(run, precedence)| Step::Ask(run, precedence)),
        6 => (0..20_usize, prop::bool::weighted(0.8)).prop_map(|(n, well)| Step::Work(n, well)),
    ]
}

const LABELS: [&str; 3] = ["a", "b", "c"];
const PROVIDERS: [&str; 2] = ["p", "q"];

fn settings(max: (u64, u64), memory: u64) -> Settings {
    Settings {
        labels: labels(&[("a", 1), ("b", 0), ("c", 1)]),
        providers: vec![
            provider("p", max.0, memory, &[("a", 1), ("b", 4), ("c", 2)]),
            provider("q", max.1, u64::MAX, &[("a", 1), ("b", 1), ("c", 1)]),
        ],
    }
}

fn servers(servers: u64) -> Amount {
    Amount { servers, cpus: u64::MAX, memory_mib: u64::MAX }
}

fn pause(name: &str, on: bool) -> Event {
    let provider = provider_name(name);
    if on {
        Event::PauseProvider { provider, by: "ann".into(), reason: "x".into() }
    } else {
        Event::ResumeProvider(provider)
    }
}

fn take(world: &mut World, step: Step, live: &mut BTreeSet<u128>) {
    match step {
        Step::Ask(run, precedence) => {
            let precedence =
                [Precedence::Low, Precedence::Normal, Precedence::High][usize::from(precedence)];
            // The same run always asks for the same.
            let place = usize::try_from(run).unwrap();
            let (of, count) = (LABELS[place % 3], u32::try_from(place / 3 % 3).unwrap() + 1);
            if !live.contains(&run) && world.ask_as(run, of, count, precedence).is_ok() {
                live.insert(run);
            }
        }
        Step::GiveBack(run) => {
            live.remove(&run);
            world.outcomes.remove(&RunId(run));
            world.on(Event::GiveBack(RunId(run))).unwrap();
        }
        Step::Work(pick, well) => {
            world.work(pick, well);
        }
        Step::Vanish(pick) => {
            let provider = provider_name(PROVIDERS[pick % 2]);
            let machines = world.machines.get_mut(&provider).unwrap();
            if let Some(name) = machines.iter().nth(pick / 2).cloned() {
                machines.remove(&name);
            }
        }
        Step::Stranger(pick) => {
            // From a former life of the server, say; room for it there must be.
            let machines = world.machines.get_mut(&provider_name(PROVIDERS[pick])).unwrap();
            if machines.is_empty() {
                machines.insert("stranger".into());
            }
        }
        Step::List(pick, well) => world.list(&provider_name(PROVIDERS[pick]), well),
        Step::Hold(n) => {
            let length = Duration::from_secs(600);
            // Refused for nodes that are not there.
            let _ = world.on(Event::Hold { node: NodeId(n), length, reason: "x".into() });
        }
        Step::Delete(n) => {
            let _ = world.on(Event::Delete(NodeId(n)));
        }
        Step::Pause(pick, on) => {
            let _ = world.on(pause(PROVIDERS[pick], on));
        }
        Step::Room(pick, most, others) => {
            let left = servers(most.saturating_sub(others));
            world.room(PROVIDERS[pick], servers(most), left);
        }
        Step::Pass(seconds) => world.pass(seconds),
        Step::Crash(half_built) => {
            world.crash(half_built);
            // The executor asks again for whatever it still wants.
            live.clear();
        }
    }
}

/// Runs that were answered give back what they have.
fn end_what_is_over(world: &mut World, live: &mut BTreeSet<u128>) {
    let over: Vec<RunId> = world.outcomes.keys().copied().collect();
    for run in over {
        world.outcomes.remove(&run);
        live.remove(&run.0);
        world.on(Event::GiveBack(run)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_used_twice_leaked_or_forgotten(
        max in (3..6_u64, 0..5_u64),
        memory in prop::sample::select(vec![12_u64, 14, 100]),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(settings(max, memory));
        let mut live = BTreeSet::new();
        for step in steps {
            take(&mut world, step, &mut live);
        }
        for name in PROVIDERS {
            // Refused unless it is paused.
            let _ = world.on(pause(name, false));
            world.room(name, servers(9), servers(9));
        }
        // From here on all goes well, and everybody is served or told in the end.
        for round in 0..200 {
            world.list_all();
            world.work_off();
            end_what_is_over(&mut world, &mut live);
            world.pass(60);
            if live.is_empty() && round > 150 {
                break;
            }
        }
        prop_assert!(live.is_empty(), "{live:?} wait: {:?}", live.iter().map(|r| world.pool.waiting(RunId(*r))).collect::<Vec<_>>());
        world.list_all();
        world.work_off();
        world.list_all();
        for (of, least) in [("a", 1), ("c", 1)] {
            let ready = world.pool.nodes().filter(|n| n.label.as_str() == of && n.state == NodeState::Ready);
            prop_assert!(ready.count() >= least, "{of}: {:?}", world.states());
        }
        // What exists is what is known.
        for name in PROVIDERS {
            let provider = provider_name(name);
            let known: BTreeSet<String> = world.pool.nodes().filter(|n| n.provider == provider).map(|n| n.name.clone()).collect();
            prop_assert_eq!(&world.machines[&provider], &known);
        }
    }
    /// A provider never answers again, its builds never end, and nodes of it are dead when a run is to have them.
    #[test]
    fn a_broken_region_keeps_nobody_waiting(
        broken in 0..2_usize,
        max in (3..7_u64, 3..7_u64),
        mut steps in prop::collection::vec(step(), 0..40),
        then in prop::collection::vec(use_of_nodes(), 0..80),
    ) {
        let mut world = World::new(settings(max, 100));
        let mut live = BTreeSet::new();
        steps.extend(then);
        for step in steps {
            take(&mut world, step, &mut live);
        }
        let (broken, well) = (provider_name(PROVIDERS[broken]), provider_name(PROVIDERS[1 - broken]));
        let _ = world.on(pause(well.as_str(), false));
        world.room(well.as_str(), servers(9), servers(9));
        // A run that had its nodes there before the server died waits for them: they may be alive.
        let resumes = |run: &u128, world: &World| {
            let why = world.pool.waiting(RunId(*run));
            why.is_some_and(|why| why.starts_with("its provider is asked"))
        };
        for _ in 0..200 {
            world.list(&broken, false);
            world.list(&well, true);
            for (provider, name) in world.pool.wanted().aliens {
                if provider == well {
                    world.remove_alien(provider, name);
                }
            }
            while world.work_where(|node| node.provider == well, true)
                || world.work_where(|node| node.provider == broken && matches!(node.state, NodeState::Handing(_)), false)
            {}
            end_what_is_over(&mut world, &mut live);
            world.pass(60);
        }
        live.retain(|run| !resumes(run, &world));
        prop_assert!(live.is_empty(), "{live:?} wait: {:?}", live.iter().map(|r| world.pool.waiting(RunId(*r))).collect::<Vec<_>>());
    }
}
