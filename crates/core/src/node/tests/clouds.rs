//! Faults of clouds: quotas that are too small, regions that are silent or hang, machines that cannot be deleted.

use super::world::{World, label, labels, provider, provider_name};
use crate::id::{NodeId, RunId};
use crate::layout::Precedence;
use crate::node::{Amount, Event, Node, NodeState, Outcome, ProviderSpec, Settings};

const NOTHING: Amount = Amount { servers: u64::MAX, cpus: u64::MAX, memory_mib: u64::MAX };

fn quota(servers: u64, cpus: u64) -> Amount {
    Amount { servers, cpus, ..NOTHING }
}

/// A cloud: nodes of `a` take four CPUs, of `b` one.
fn cloud(name: &str, max_servers: u64) -> ProviderSpec {
    let mut spec = provider(name, max_servers, u64::MAX, &[("a", 1), ("b", 1)]);
    spec.pools.get_mut(&label("a")).unwrap().cost.cpus = 4;
    spec
}

fn world(min_ready: u32, providers: Vec<ProviderSpec>) -> World {
    World::new(Settings { labels: labels(&[("a", min_ready), ("b", 0)]), providers })
}

fn regions(min_ready: u32) -> World {
    let mut w = world(min_ready, vec![cloud("p", 9), cloud("q", 4)]);
    w.list_all();
    w
}

/// Where nodes are, and what they do.
fn places(w: &World) -> Vec<String> {
    w.pool.nodes().map(|n| format!("{} {}", n.provider, n.state.word())).collect()
}

fn impossible(w: &World, run: u128) -> Option<&str> {
    match w.outcomes.get(&RunId(run)) {
        Some(Outcome::Impossible(why)) => Some(why),
        Some(Outcome::GivenUp(_) | Outcome::Served(_)) | None => None,
    }
}

#[test]
fn more_than_the_quota_is_refused_with_the_figures_once_that_is_known() {
    let mut w = world(0, vec![cloud("p", 9)]);
    // Nobody knows yet.
    w.ask(1, "a", 2).unwrap();
    assert_eq!(impossible(&w, 1), None);
    w.room("p", quota(9, 4), quota(9, 4));
    w.list_all();
    let why = "2 nodes of a at p need 8 CPUs, and the quota is 4 CPUs";
    assert_eq!(impossible(&w, 1), Some(why));
    assert_eq!(w.ask(2, "a", 2), Err("never_fits".to_owned()));
    w.ask(3, "a", 1).unwrap();
    w.work_off();
    assert!(w.served(3).is_some());
    // It is raised.
    w.room("p", quota(9, 12), quota(9, 12));
    w.ask(4, "a", 2).unwrap();
    w.work_off();
    assert!(w.served(4).is_some());
}

#[test]
fn a_quota_that_was_lowered_is_waited_for_a_while() {
    let mut w = world(0, vec![cloud("p", 9)]);
    w.room("p", quota(9, 8), quota(9, 8));
    w.list_all();
    w.room("p", quota(0, 8), quota(0, 8));
    w.ask(1, "a", 1).unwrap();
    w.ask(2, "a", 1).unwrap();
    let told = "1 node of a at p need 1 server, and the quota is 0 servers";
    assert_eq!(w.pool.waiting(RunId(1)).unwrap(), told);
    w.pass(599);
    assert_eq!(impossible(&w, 1), None);
    w.room("p", quota(1, 8), quota(1, 8));
    w.work_off();
    assert!(w.served(1).is_some());
    // The other one's time begins anew.
    w.room("p", quota(0, 8), quota(0, 8));
    w.pass(599);
    assert_eq!(impossible(&w, 2), None);
    w.pass(1);
    assert_eq!(impossible(&w, 2), Some(told));
    // A silent cloud may have raised it.
    w.list(&provider_name("p"), false);
    w.ask(3, "a", 1).unwrap();
    w.pass(6000);
    assert_eq!(impossible(&w, 3), None);
    assert_eq!(w.pool.waiting(RunId(3)).unwrap(), "p cannot be reached: no route");
}

#[test]
fn what_others_use_is_waited_for_without_keeping_the_rest_from_anybody() {
    let mut w = world(0, vec![cloud("p", 9)]);
    w.room("p", quota(9, 8), quota(9, 3));
    w.list_all();
    w.ask(1, "a", 1).unwrap();
    w.ask(2, "b", 1).unwrap();
    w.work_off();
    assert!(w.served(2).is_some(), "{:?}", w.pool.waiting(RunId(2)));
    let told = "1 node of a at p need 4 CPUs, and others leave 3 CPUs of the quota";
    assert_eq!(w.pool.waiting(RunId(1)).unwrap(), told);
    w.pass(6000);
    assert!(!w.outcomes.contains_key(&RunId(1)));
    w.room("p", quota(9, 8), quota(9, 5));
    w.work_off();
    assert!(w.served(1).is_some());
}

#[test]
fn a_cloud_that_is_too_small_is_not_begun_with() {
    let mut w = regions(0);
    w.room("p", quota(9, 4), quota(9, 4));
    w.room("q", quota(9, 8), quota(9, 8));
    w.ask(1, "a", 2).unwrap();
    assert_eq!(places(&w), ["q building", "q building"]);
    assert_eq!(w.ask(2, "a", 3), Err("never_fits".to_owned()));
    // What is ready counts, whatever the quota is now.
    w.room("q", quota(9, 2), quota(9, 2));
    w.work_off();
    assert_eq!(w.served(1).map(<[NodeId]>::len), Some(2));
}

#[test]
fn a_region_that_falls_silent_delays_nobody() {
    let mut w = regions(0);
    w.ask(1, "a", 1).unwrap();
    assert_eq!(places(&w), ["p building"]);
    w.list(&provider_name("p"), false);
    assert_eq!(places(&w), ["p building", "q building"]);
    let node = w.pool.node(NodeId(2)).unwrap().clone();
    w.work_on(&node, true);
    w.pass(1);
    assert_eq!(places(&w), ["p building", "q testing"], "one elsewhere is enough");
    for _ in 0..2 {
        let node = w.pool.node(NodeId(2)).unwrap().clone();
        w.work_on(&node, true);
    }
    assert_eq!(w.served(1), Some(&[NodeId(2)][..]));
    // It is of use when it comes after all.
    w.list(&provider_name("p"), true);
    w.work_off();
    w.ask(2, "a", 1).unwrap();
    w.work_off();
    assert_eq!(w.served(2), Some(&[NodeId(1)][..]));
}

/// Two regions; a run for two nodes has one at p, for the other one was dead.
fn half_served(servers_of_q: u64) -> World {
    let mut w = world(0, vec![cloud("p", 3), cloud("q", servers_of_q)]);
    w.list(&provider_name("p"), true);
    w.ask(1, "a", 2).unwrap();
    while w.pool.nodes().any(|n| n.state.run().is_none()) {
        w.work(0, true);
    }
    assert_eq!(places(&w), ["p handing", "p handing"]);
    for (id, well) in [(1, true), (2, false)] {
        let node = w.pool.node(NodeId(id)).unwrap().clone();
        w.work_on(&node, well);
    }
    w.list(&provider_name("q"), true);
    assert_eq!(places(&w), ["p in_use", "p deleting", "p building"]);
    w
}

#[test]
fn a_run_with_some_nodes_at_a_region_that_falls_silent_goes_elsewhere() {
    let mut w = half_served(2);
    w.list(&provider_name("p"), false);
    let moved = ["p deleting", "p deleting", "p building", "q building", "q building"];
    assert_eq!(places(&w), moved);
    let of_q: Vec<NodeId> =
        w.pool.nodes().filter(|n| n.provider.as_str() == "q").map(|n| n.id).collect();
    for _ in 0..3 {
        for id in &of_q {
            let node = w.pool.node(*id).unwrap().clone();
            w.work_on(&node, true);
        }
    }
    assert_eq!(w.served(1), Some(&of_q[..]));
}

#[test]
fn so_does_one_whose_region_is_paused_is_full_or_hangs() {
    let pause = |w: &mut World| {
        let (by, reason) = ("ann".into(), "x".into());
        w.on(Event::PauseProvider { provider: provider_name("p"), by, reason }).unwrap();
        let node = w.pool.node(NodeId(3)).unwrap().clone();
        w.work_on(&node, false);
    };
    let fill = |w: &mut World| {
        w.on(Event::NoRoom { node: NodeId(3), reason: "no room".into() }).unwrap();
    };
    let wait: fn(&mut World) = |w| w.pass(300);
    for break_it in [&pause as &dyn Fn(&mut World), &fill, &wait] {
        let mut w = half_served(2);
        break_it(&mut w);
        let places = places(&w);
        assert_eq!(places[3..], ["q building", "q building"], "{places:?}");
        assert!(places[..2].iter().all(|place| place == "p deleting"), "{places:?}");
    }
}

#[test]
fn one_failed_build_elsewhere_keeps_no_run_at_a_silent_region() {
    let mut w = half_served(2);
    w.ask(2, "a", 1).unwrap();
    let of_q = |node: &Node| node.provider.as_str() == "q";
    assert!(w.work_where(of_q, false), "its build fails");
    w.on(Event::GiveBack(RunId(2))).unwrap();
    while w.work_where(of_q, true) {}
    assert_eq!(places(&w), ["p in_use", "p deleting", "p building"]);
    assert_eq!(w.pool.provider_views()[1].problems.len(), 1, "and nobody asks q to try again");
    w.list(&provider_name("p"), false);
    w.pass(60);
    let tried = ["p deleting", "p deleting", "p building", "q building"];
    assert_eq!(places(&w), tried, "one is tried first");
    while w.work_where(of_q, true) {}
    assert_eq!(w.served(1).map(<[NodeId]>::len), Some(2), "{:?}", places(&w));
}

#[test]
fn nobody_gives_nodes_up_for_a_region_that_has_no_room_now() {
    let mut w = half_served(1);
    w.list(&provider_name("p"), false);
    assert_eq!(places(&w), ["p in_use", "p deleting", "p building"]);
    // Whoever is before it has that room.
    let mut w = half_served(2);
    w.ask_as(2, "a", 1, Precedence::High).unwrap();
    w.list(&provider_name("p"), false);
    w.pass(60);
    assert_eq!(places(&w), ["p in_use", "p deleting", "p building", "q building"]);
    w.list(&provider_name("p"), true);
    w.work_off();
    let nodes = w.served(1).unwrap();
    assert!(nodes.contains(&NodeId(1)), "it kept what it had: {nodes:?}");
}

#[test]
fn the_only_region_is_not_asked_for_more_while_it_is_silent_or_hangs() {
    let mut w = world(2, vec![cloud("p", 9)]);
    w.list_all();
    w.ask(1, "a", 1).unwrap();
    let three = ["p building", "p building", "p building"];
    assert_eq!(places(&w), three);
    w.pass(1000);
    assert_eq!(places(&w), three);
    let told = w.pool.waiting(RunId(1)).unwrap();
    assert_eq!(told, "p makes 3 nodes of a, 3 of them for longer than usual");
    w.list(&provider_name("p"), false);
    w.pass(1000);
    assert_eq!(places(&w), three);
}

#[test]
fn a_region_whose_builds_hang_is_told_and_another_one_is_used() {
    let mut w = regions(1);
    assert_eq!(places(&w), ["p building"]);
    // It usually takes 30 s there.
    for _ in 0..3 {
        w.pass(30);
        w.work_off();
        let id = w.pool.nodes().next().unwrap().id;
        w.on(Event::Delete(id)).unwrap();
        w.work(0, true);
    }
    assert_eq!(places(&w), ["p building"]);
    w.ask(1, "a", 1).unwrap();
    assert_eq!(places(&w), ["p building", "p building"]);
    w.pass(89);
    assert_eq!(places(&w), ["p building", "p building"]);
    assert!(w.pool.provider_views()[0].problems.is_empty());
    w.pass(1);
    assert_eq!(places(&w), ["p building", "p building", "q building", "q building"]);
    let problems = &w.pool.provider_views()[0].problems;
    assert_eq!(*problems, ["2 builds of a take longer than 90 s"]);
    w.pass(200);
    assert_eq!(places(&w).len(), 4, "nothing more is begun anywhere: {:?}", places(&w));
    let of_q: Vec<_> = w.pool.nodes().filter(|n| n.provider.as_str() == "q").cloned().collect();
    for node in of_q {
        w.work_on(&node, true);
        let node = w.pool.node(node.id).unwrap().clone();
        w.work_on(&node, true);
    }
    assert_eq!(places(&w), ["p building", "p building", "q handing", "q ready"]);
}

#[test]
fn a_region_where_builds_fail_gives_no_run_up_that_another_may_serve() {
    let mut w = regions(0);
    w.ask(1, "a", 4).unwrap();
    let of_p: Vec<_> = w.pool.nodes().cloned().collect();
    assert_eq!(of_p.len(), 4);
    for node in &of_p {
        assert_eq!(node.provider.as_str(), "p");
        w.work_on(node, false);
    }
    assert_eq!(w.outcomes.get(&RunId(1)), None);
    w.work_off();
    assert_eq!(w.served(1).map(<[NodeId]>::len), Some(4));
    // When all of them fail it is given up.
    w.on(Event::GiveBack(RunId(1))).unwrap();
    w.work_off();
    w.ask(2, "a", 1).unwrap();
    let mut failed = 0;
    while !w.outcomes.contains_key(&RunId(2)) {
        let wanted = w.pool.wanted();
        for id in wanted.builds.iter().chain(&wanted.deletes) {
            let node = w.pool.node(*id).unwrap().clone();
            let builds = node.state == NodeState::Building;
            w.work_on(&node, !builds);
            failed += u32::from(builds);
        }
        w.pass(60);
        assert!(failed < 20, "{:?}", w.pool.waiting(RunId(2)));
    }
    let Some(Outcome::GivenUp(why)) = w.outcomes.get(&RunId(2)) else { panic!() };
    assert_eq!(*why, format!("{failed} nodes of a failed one after the other: no image"));
    assert!(failed >= 8, "four at each: {failed}");
}

#[test]
fn one_dead_node_is_enough_to_look_at_its_neighbours() {
    let mut w = world(3, vec![cloud("p", 3), cloud("q", 3)]);
    w.list(&provider_name("p"), true);
    w.work_off();
    assert_eq!(places(&w), ["p ready", "p ready", "p ready"]);
    w.ask(1, "a", 1).unwrap();
    let node = w.pool.node(NodeId(1)).unwrap().clone();
    w.work_on(&node, false);
    assert_eq!(places(&w), ["p deleting", "p testing", "p testing"]);
    for id in [2, 3] {
        let node = w.pool.node(NodeId(id)).unwrap().clone();
        w.work_on(&node, false);
    }
    assert_eq!(places(&w), ["p deleting", "p deleting", "p deleting"]);
    w.list(&provider_name("q"), true);
    w.work_off();
    assert!(w.served(1).is_some());
}

#[test]
fn nodes_of_a_silent_region_are_the_last_ones_taken() {
    let mut w = world(1, vec![cloud("p", 3), cloud("q", 3)]);
    w.list(&provider_name("p"), true);
    w.work_off();
    assert_eq!(places(&w), ["p ready"]);
    w.list(&provider_name("q"), true);
    w.list(&provider_name("p"), false);
    assert_eq!(places(&w), ["p ready", "q building"], "it may be as dead as its cloud");
    w.work_off();
    w.ask(1, "a", 1).unwrap();
    w.work_off();
    w.ask(2, "a", 1).unwrap();
    let of = |run: u128, w: &World| {
        w.pool.nodes().find(|n| n.state.run() == Some(RunId(run))).unwrap().provider.clone()
    };
    assert_eq!(of(1, &w), provider_name("q"));
}

#[test]
fn what_cannot_be_deleted_is_told_once_and_nobody_waits_for_its_room() {
    let mut w = world(1, vec![provider("p", 2, u64::MAX, &[("a", 1), ("b", 1)])]);
    w.list_all();
    w.work_off();
    w.ask(1, "b", 1).unwrap();
    w.work_off();
    w.on(Event::GiveBack(RunId(1))).unwrap();
    assert_eq!(places(&w), ["p ready", "p deleting"]);
    let stuck = w.pool.node(NodeId(2)).unwrap().clone();
    w.work_on(&stuck, false);
    w.ask(2, "b", 1).unwrap();
    w.pass(599);
    assert_eq!(w.pool.overdue().count(), 0);
    assert_eq!(places(&w), ["p ready", "p deleting"], "its room is expected");
    w.pass(1);
    assert_eq!(w.pool.overdue().map(|n| n.id).collect::<Vec<_>>(), [stuck.id]);
    assert_eq!(places(&w), ["p deleting", "p deleting"], "another one makes room instead");
    w.pass(60);
    let told = "p does not delete b-p-2, 600 s after it was told to: it cannot be deleted: busy";
    assert_eq!(w.news, [told]);
    let node = w.pool.node(NodeId(1)).unwrap().clone();
    w.work_on(&node, true);
    w.ask(3, "b", 1).unwrap();
    assert_eq!(places(&w), ["p deleting", "p building"], "it still takes its place");
    assert!(w.pool.waiting(RunId(3)).unwrap().starts_with("p makes 1 nodes"));
    // The order is given again, also to the next server, until it works.
    w.crash(false);
    assert_eq!(w.pool.overdue().count(), 1);
    assert!(w.pool.wanted().deletes.contains(&stuck.id));
    w.list_all();
    w.work_off();
    assert_eq!(w.pool.overdue().count(), 0);
    assert!(w.pool.node(stuck.id).is_none());
}

#[test]
fn a_deletion_that_its_provider_says_nothing_of_is_told_too() {
    let mut w = world(1, vec![cloud("p", 2)]);
    w.list_all();
    w.work_off();
    w.on(Event::Delete(NodeId(1))).unwrap();
    w.pass(600);
    let told = "by hand; its provider has not said yet that it is gone";
    assert_eq!(w.pool.overdue().next().unwrap().reason, told);
    assert_eq!(w.news, [format!("p does not delete a-p-1, 600 s after it was told to: {told}")]);
    // Not once more by each server.
    w.crash(false);
    w.pass(1);
    assert_eq!(w.pool.overdue().next().unwrap().reason, told);
}

#[test]
fn after_the_loss_of_the_database_no_name_is_given_twice() {
    let names = ["a-p-7", "b-p-12", "a-p-x", "image.p.9", "a-q-30", "a-p-99999999999999999999"];
    let mut w = world(1, vec![cloud("p", 9)]);
    w.machines.get_mut(&provider_name("p")).unwrap().extend(names.map(str::to_owned));
    w.list_all();
    let node = w.pool.nodes().next().unwrap();
    assert_eq!(node.name, "a-p-13");
    assert_eq!(w.pool.wanted().aliens.len(), names.len());
    w.work_off();
    assert_eq!(w.pool.node(NodeId(13)).unwrap().state, NodeState::Ready);
    assert_eq!(w.machines[&provider_name("p")], ["a-p-13".to_owned()].into());
}
