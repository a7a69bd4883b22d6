//! One rule a test.

use super::world::{World, label, labels, provider, provider_name};
use crate::id::{NodeId, RunId};
use crate::layout::Precedence;
use crate::node::{Amount, Event, NodeState, Outcome, Room, Settings};
use core::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn world(min_ready: u32, max_servers: u64) -> World {
    let mut world = World::new(Settings {
        labels: labels(&[("a", min_ready), ("b", 0)]),
        providers: vec![provider("p", max_servers, u64::MAX, &[("a", 1), ("b", 1)])],
    });
    world.list_all();
    world
}

#[test]
fn min_ready_is_kept_and_refilled_while_one_is_used() {
    let mut w = world(2, 4);
    assert_eq!(w.states(), ["building", "building"]);
    w.work_off();
    assert_eq!(w.states(), ["ready", "ready"]);
    w.ask(1, "a", 1).unwrap();
    assert_eq!(w.states(), ["handing", "ready", "building"]);
    w.work_off();
    assert_eq!(w.served(1), Some(&[NodeId(1)][..]));
    // Asking again gives the same; giving back deletes.
    w.outcomes.clear();
    w.ask(1, "a", 1).unwrap();
    assert_eq!(w.served(1), Some(&[NodeId(1)][..]));
    w.on(Event::GiveBack(RunId(1))).unwrap();
    w.work_off();
    assert_eq!(w.states(), ["ready", "ready"]);
    assert!(w.pool.node(NodeId(1)).is_none());
}

#[test]
fn nothing_is_built_before_the_provider_has_answered() {
    let mut w = World::new(Settings {
        labels: labels(&[("a", 1)]),
        providers: vec![provider("p", 1, u64::MAX, &[("a", 1)])],
    });
    w.pass(1);
    assert!(w.states().is_empty());
    w.list(&provider_name("p"), false);
    assert!(w.states().is_empty());
    assert_eq!(w.news, ["p cannot be reached: no route"]);
    w.ask(1, "a", 1).unwrap();
    assert_eq!(w.pool.waiting(RunId(1)).unwrap(), "p cannot be reached: no route");
    w.list_all();
    assert_eq!(w.states(), ["building"]);
}

#[test]
fn the_urgent_go_first_then_the_old() {
    let mut w = world(0, 1);
    w.ask(5, "a", 1).unwrap();
    w.ask(3, "a", 1).unwrap();
    w.ask_as(9, "a", 1, Precedence::High).unwrap();
    w.ask_as(1, "a", 1, Precedence::Low).unwrap();
    let mut order = Vec::new();
    while order.len() < 4 {
        w.work_off();
        let (run, _) = w.outcomes.pop_first().unwrap();
        order.push(run.0);
        w.on(Event::GiveBack(run)).unwrap();
    }
    assert_eq!(order, [9, 3, 5, 1]);
}

#[test]
fn a_request_for_several_gets_all_or_waits_and_keeps_what_is_free() {
    let mut w = world(0, 2);
    w.ask(1, "a", 1).unwrap();
    w.work_off();
    w.ask(2, "a", 2).unwrap();
    w.ask(3, "a", 1).unwrap();
    w.work_off();
    assert_eq!((w.served(2), w.served(3)), (None, None));
    assert_eq!(w.states(), ["in_use", "ready"]);
    w.on(Event::GiveBack(RunId(1))).unwrap();
    w.work_off();
    assert_eq!(w.served(2).map(<[NodeId]>::len), Some(2));
    assert_eq!(w.served(3), None);
}

#[test]
fn idle_nodes_make_room_for_those_who_wait() {
    let mut w = world(2, 2);
    w.work_off();
    w.ask(1, "b", 1).unwrap();
    assert_eq!(w.states().iter().filter(|s| **s == "deleting").count(), 1);
    w.work_off();
    assert!(w.served(1).is_some());
    assert_eq!(w.states(), ["ready", "in_use"]);
}

#[test]
fn what_never_fits_is_refused_with_what_to_do() {
    let mut w = world(0, 2);
    for (of, count, code) in [
        ("c", 1, "unknown_label"),
        ("a", 3, "never_fits"),
        ("a", 0, "bad_request"),
        ("a", 17, "bad_request"),
    ] {
        assert_eq!(w.ask(1, of, count), Err(code.to_owned()));
    }
}

#[test]
fn where_builds_fail_it_pauses_ever_longer_then_tries_one() {
    let mut w = world(3, 4);
    let first: Vec<_> = w.pool.nodes().cloned().collect();
    for node in &first {
        w.work_on(node, false);
    }
    assert!(w.news.last().unwrap().starts_with("p 3 builds of a in a row failed: no image"));
    w.work_off();
    assert!(w.states().is_empty());
    w.pass(39);
    assert!(w.states().is_empty());
    // 10 s, doubled twice.
    w.pass(1);
    assert_eq!(w.states(), ["building"], "one is tried");
    w.work(0, false);
    w.work_off();
    w.pass(79);
    assert!(w.states().is_empty());
    w.pass(1);
    w.work_off();
    assert_eq!(w.states(), ["ready", "ready", "ready"]);
    assert_eq!(w.news.last().unwrap(), "p a can be built again");
}

#[test]
fn a_cloud_without_room_is_no_failure_and_is_asked_again() {
    let mut w = world(0, 4);
    w.ask(1, "a", 1).unwrap();
    // More often than a request bears failed builds.
    for times in 0..6 {
        let node = w.pool.nodes().next().unwrap().clone();
        assert_eq!(node.state, NodeState::Building, "attempt {times}");
        w.on(Event::NoRoom { node: node.id, reason: "quota exceeded".into() }).unwrap();
        w.work_off();
        assert!(w.states().is_empty(), "what has no room is not asked for at once");
        let told = w.pool.waiting(RunId(1)).unwrap();
        assert_eq!(told, "p has no room: quota exceeded");
        assert_eq!(w.pool.provider_views()[0].problems, ["no room for a: quota exceeded"]);
        let pause = 10 << times;
        w.pass(pause - 1);
        assert!(w.states().is_empty());
        w.pass(1);
    }
    assert_eq!(w.news, ["p has no room for a: quota exceeded"]);
    w.work_off();
    assert!(w.served(1).is_some());
    assert!(w.pool.provider_row(&provider_name("p")).is_none(), "nothing of it is kept");
    // A node that goes makes room: who waits for it does not wait for the pause.
    w.ask(2, "a", 1).unwrap();
    let node = w.pool.nodes().last().unwrap().clone();
    w.on(Event::NoRoom { node: node.id, reason: "quota exceeded".into() }).unwrap();
    w.work_off();
    assert!(w.served(2).is_none());
    w.on(Event::GiveBack(RunId(1))).unwrap();
    w.work_off();
    assert!(w.served(2).is_some());
}

#[test]
fn what_a_cloud_says_of_its_room_counts() {
    let mut w = world(0, 4);
    let amount = |servers, cpus| Amount { servers, cpus, memory_mib: u64::MAX };
    let room = |servers, cpus| Event::Room {
        provider: provider_name("p"),
        room: Room {
            capacity: amount(servers, cpus),
            quota: amount(90, 90),
            costs: [(label("a"), Amount { servers: 1, cpus: 2, memory_mib: 1 })].into(),
        },
    };
    w.on(room(9, 3)).unwrap();
    for run in 1..=5 {
        w.ask(run, "a", 1).unwrap();
    }
    assert_eq!(w.states(), ["building"], "3 CPUs are left, and one takes 2");
    w.on(room(2, 90)).unwrap();
    assert_eq!(w.states().len(), 2);
    assert!(w.pool.waiting(RunId(5)).unwrap().starts_with("p makes 2 nodes of a"));
    w.work_off();
    assert_eq!(w.pool.waiting(RunId(5)).unwrap(), "2 of 2 machines of p exist");
    w.on(room(90, 90)).unwrap();
    assert_eq!(w.states().len(), 4, "max_servers counts too");
}

#[test]
fn another_provider_is_used_while_one_is_broken() {
    let mut w = World::new(Settings {
        labels: labels(&[("a", 0)]),
        providers: vec![
            provider("p", 9, u64::MAX, &[("a", 1)]),
            provider("q", 1, u64::MAX, &[("a", 1)]),
        ],
    });
    w.list_all();
    w.ask(1, "a", 1).unwrap();
    let node = w.pool.nodes().next().unwrap().clone();
    assert_eq!(node.provider, provider_name("p"), "where most is free");
    w.work_on(&node, false);
    let next = w.pool.nodes().last().unwrap().clone();
    assert_eq!((next.provider.as_str(), next.state), ("q", NodeState::Building));
}

#[test]
fn where_it_is_paused_by_hand_nothing_is_built_and_what_is_there_is_used() {
    let mut w = world(1, 4);
    w.work_off();
    let pause = |by: &str, reason: &str| Event::PauseProvider {
        provider: provider_name("p"),
        by: by.into(),
        reason: reason.into(),
    };
    let resume = || Event::ResumeProvider(provider_name("p"));
    assert_eq!(w.on(resume()), Err("not_paused".to_owned()));
    w.on(pause("ann", "the cloud is moved")).unwrap();
    w.on(pause("bob", "again is no harm")).unwrap();
    assert_eq!(w.news, ["p is paused by ann: the cloud is moved"]);
    w.ask(1, "a", 1).unwrap();
    w.ask(2, "a", 1).unwrap();
    w.work_off();
    assert_eq!((w.served(1).is_some(), w.served(2)), (true, None));
    assert_eq!(w.pool.waiting(RunId(2)).unwrap(), "p is paused by ann: the cloud is moved");
    w.on(Event::GiveBack(RunId(1))).unwrap();
    w.work_off();
    assert!(w.states().is_empty(), "{:?}", w.states());
    // Also under the next server.
    w.crash(false);
    w.list_all();
    w.ask(2, "a", 1).unwrap();
    w.pass(100_000);
    assert!(w.states().is_empty(), "{:?}", w.states());
    let view = w.pool.provider_views().remove(0);
    assert_eq!((view.paused.unwrap().by.as_str(), view.paused_until), ("ann", None));
    w.on(resume()).unwrap();
    w.work_off();
    assert!(w.served(2).is_some());
    assert!(w.providers.is_empty(), "nothing is left to be kept");
    let nobody = Event::ResumeProvider(provider_name("nobody"));
    assert_eq!(w.on(nobody), Err("no_such_provider".to_owned()));
}

#[test]
fn another_provider_is_used_while_one_is_paused() {
    let mut w = World::new(Settings {
        labels: labels(&[("a", 0)]),
        providers: vec![
            provider("p", 9, u64::MAX, &[("a", 1)]),
            provider("q", 1, u64::MAX, &[("a", 1)]),
        ],
    });
    w.list_all();
    let (provider, by, reason) = (provider_name("p"), "ann".into(), "x".into());
    w.on(Event::PauseProvider { provider, by, reason }).unwrap();
    w.ask(1, "a", 1).unwrap();
    w.work_off();
    assert_eq!(w.pool.node(w.served(1).unwrap()[0]).unwrap().provider, provider_name("q"));
}

#[test]
fn failures_count_on_after_a_restart_and_a_resumed_provider_is_tried_at_once() {
    let mut w = world(1, 1);
    let tries = |w: &mut World| {
        assert_eq!(w.states(), ["building"]);
        w.work(0, false);
        w.work_off();
        assert!(w.states().is_empty(), "{:?}", w.states());
    };
    tries(&mut w);
    for seconds in [10, 20, 40] {
        w.pass(seconds);
        tries(&mut w);
    }
    // 80 s were due; the next server tries one soon.
    w.crash(false);
    w.list_all();
    assert!(w.states().is_empty(), "{:?}", w.states());
    w.pass(10);
    tries(&mut w);
    assert!(w.news.last().unwrap().starts_with("p 5 builds of a in a row failed"), "{:?}", w.news);
    w.pass(159);
    assert!(w.states().is_empty(), "{:?}", w.states());
    w.on(Event::ResumeProvider(provider_name("p"))).unwrap();
    w.work_off();
    assert_eq!(w.states(), ["ready"]);
    assert!(w.providers.is_empty());
}

#[test]
fn a_request_is_given_up_after_so_many_failed_builds() {
    let mut w = world(0, 1);
    w.ask(1, "a", 1).unwrap();
    let mut failed = 0;
    while w.outcomes.is_empty() {
        let wanted = w.pool.wanted();
        if let Some(id) = wanted.builds.first() {
            let node = w.pool.node(*id).unwrap().clone();
            w.work_on(&node, false);
            failed += 1;
        }
        w.work_off();
        w.pass(60);
    }
    assert_eq!(failed, 4);
    let Outcome::GivenUp(why) = &w.outcomes[&RunId(1)] else { panic!() };
    assert_eq!(why, "4 nodes of a failed one after the other: no image");
    w.pass(3600);
    assert!(w.states().is_empty(), "nothing more is built for it");
}

#[test]
fn a_node_that_lies_about_being_ready_is_replaced() {
    let mut w = world(1, 2);
    w.work_off();
    w.ask(1, "a", 1).unwrap();
    let node = w.pool.node(NodeId(1)).unwrap().clone();
    w.work_on(&node, false);
    assert_eq!(w.pool.node(NodeId(1)).unwrap().state, NodeState::Deleting);
    w.work_off();
    assert_eq!(w.served(1).map(<[NodeId]>::len), Some(1));
    assert_ne!(w.served(1), Some(&[NodeId(1)][..]));
}

#[test]
fn who_has_some_of_its_nodes_gets_the_rest_before_the_urgent() {
    let mut w = world(0, 2);
    w.ask_as(1, "a", 2, Precedence::Low).unwrap();
    while !w.states().iter().all(|state| *state == "handing") {
        w.work(0, true);
    }
    let nodes: Vec<_> = w.pool.nodes().cloned().collect();
    w.work_on(&nodes[0], true);
    w.work_on(&nodes[1], false);
    w.ask_as(2, "b", 2, Precedence::High).unwrap();
    w.work_off();
    assert_eq!((w.served(1).is_some(), w.served(2)), (true, None));
    w.on(Event::GiveBack(RunId(1))).unwrap();
    w.work_off();
    assert!(w.served(2).is_some());
}

#[test]
fn held_nodes_stay_until_their_end() {
    let mut w = world(0, 2);
    w.ask(1, "a", 1).unwrap();
    w.work_off();
    let hold = |length| Event::Hold { node: NodeId(1), length, reason: "why is it red".into() };
    assert_eq!(w.on(hold(1000 * HOUR)), Err("bad_request".to_owned()));
    w.on(hold(2 * HOUR)).unwrap();
    assert_eq!(w.states(), ["in_use"], "the run goes on");
    assert_eq!(w.on(Event::Delete(NodeId(1))), Err("in_use".to_owned()));
    w.on(Event::GiveBack(RunId(1))).unwrap();
    w.work_off();
    assert_eq!(w.states(), ["held"]);
    w.crash(false);
    w.list_all();
    w.pass(7199);
    assert_eq!(w.states(), ["held"]);
    w.pass(1);
    assert_eq!(w.states(), ["deleting"]);
    assert_eq!(w.pool.node(NodeId(1)).unwrap().reason, "its hold is over");
}

#[test]
fn what_cannot_be_deleted_keeps_its_place_and_is_tried_again() {
    let mut w = world(0, 1);
    w.ask(1, "a", 1).unwrap();
    w.work_off();
    w.on(Event::GiveBack(RunId(1))).unwrap();
    w.ask(2, "a", 1).unwrap();
    assert!(w.work(0, false));
    assert!(!w.work(0, true), "it is not tried at once");
    assert_eq!(w.states(), ["deleting"]);
    w.pass(10);
    w.work_off();
    assert!(w.served(2).is_some());
}

#[test]
fn spare_nodes_go_after_a_while_and_ready_ones_are_looked_at_again() {
    let mut w = world(1, 4);
    w.work_off();
    w.ask(1, "a", 1).unwrap();
    w.ask(2, "a", 1).unwrap();
    w.on(Event::GiveBack(RunId(2))).unwrap();
    w.work_off();
    assert_eq!(w.states(), ["in_use", "ready", "ready"]);
    w.pass(600);
    assert_eq!(w.states(), ["in_use", "deleting", "ready"]);
    w.work_off();
    w.pass(300);
    assert_eq!(w.states(), ["in_use", "testing"]);
    w.work(0, false);
    assert!(w.pool.provider_views()[0].problems.is_empty(), "that is no failed build");
    assert_eq!(w.states(), ["in_use", "deleting", "building"]);
}

#[test]
fn after_a_crash_a_run_finds_its_node_and_the_rest_is_cleared() {
    let mut w = world(2, 8);
    w.work_off();
    w.ask(1, "a", 1).unwrap();
    w.work_off();
    w.ask(2, "a", 1).unwrap();
    w.crash(true);
    w.machines.get_mut(&provider_name("p")).unwrap().insert("stranger".into());
    w.outcomes.clear();
    w.ask(1, "a", 1).unwrap();
    assert_eq!(w.served(1), None, "it is not known yet whether it is there");
    w.list_all();
    assert_eq!(w.served(1), Some(&[NodeId(1)][..]));
    w.work_off();
    w.list_all();
    assert!(!w.machines[&provider_name("p")].contains("stranger"));
    assert!(w.news.iter().any(|n| n.contains("stranger that no node is")), "{:?}", w.news);
    assert_eq!(w.states(), ["in_use", "ready", "ready"]);
    // Nobody asks for it any more after the next crash.
    w.crash(false);
    w.list_all();
    w.pass(301);
    w.work_off();
    assert_eq!(w.states(), ["ready", "ready"]);
    assert!(w.pool.node(NodeId(1)).is_none());
}

#[test]
fn a_node_that_vanished_is_told_to_its_run() {
    let mut w = world(0, 2);
    w.ask(1, "a", 2).unwrap();
    w.work_off();
    w.machines.get_mut(&provider_name("p")).unwrap().pop_first();
    w.pass(1);
    w.list_all();
    assert_eq!(w.states(), ["deleting", "in_use"]);
    assert_eq!(w.ask(1, "a", 2), Err("nodes_lost".to_owned()));
    // Lost while the server was away: found out by the list.
    w.ask(1, "a", 1).unwrap();
    w.crash(false);
    w.machines.get_mut(&provider_name("p")).unwrap().clear();
    w.ask(1, "a", 1).unwrap();
    w.pass(1);
    w.list_all();
    assert_eq!(w.outcomes[&RunId(1)], Outcome::GivenUp("its node was lost".into()));
}

#[test]
fn a_label_that_few_offer_finds_its_provider_free() {
    // Everybody may build `a`; only p may build `b`, which is asked for often.
    let mut w = World::new(Settings {
        labels: labels(&[("a", 0), ("b", 0)]),
        providers: vec![
            provider("p", 4, u64::MAX, &[("a", 1), ("b", 1)]),
            provider("q", 2, u64::MAX, &[("a", 1)]),
        ],
    });
    w.list_all();
    w.ask(1, "b", 1).unwrap();
    w.ask(2, "a", 1).unwrap();
    let of_a = w.pool.nodes().find(|n| n.label == label("a")).unwrap();
    assert_eq!(of_a.provider, provider_name("q"), "though p has more room");
}
