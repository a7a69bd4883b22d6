//! Tables and properties of the book, driven only through [`Book::on`].

use super::fence::Task;
use super::*;
use crate::id::{Generation, HostId, Label, LeaseId, Project, ShapeName, TeId};
use crate::refused::Refused;
use crate::time::Time;
use core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SECOND: Duration = Duration::from_secs(1);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A book with hosts that say what they are told to say.
struct World {
    book: Book,
    now: Time,
    /// Report of each TE, by host.
    hosts: BTreeMap<HostId, Vec<ReportedTe>>,
}

fn host(n: u32) -> HostId {
    HostId::new(format!("h{n}")).unwrap()
}

fn te(h: u32, n: u32) -> TeId {
    TeId::of(&host(h), n).unwrap()
}

fn ask(label: &str, count: u32) -> Request {
    Request {
        owner: "me".into(),
        project: Project::new("p").unwrap(),
        demand: Demand { label: Some(Label::new(label).unwrap()), shape: None },
        count,
        priority: 50,
        timeout: None,
        wait_timeout: None,
        purpose: String::new(),
        idempotency_key: None,
    }
}

impl World {
    /// `hosts` hosts with `tes` clean TEs each, label `devtest`.
    fn new(hosts: u32, tes: u32) -> World {
        let mut w = World {
            book: Book::new(Policy::default()),
            now: Time(1_000_000_000),
            hosts: BTreeMap::new(),
        };
        for h in 0..hosts {
            let reported = (1..=tes).map(|n| ReportedTe {
                id: te(h, n),
                number: n,
                shape: ShapeName::new("seed-2").unwrap(),
                labels: vec![Label::new("devtest").unwrap()],
                generation: Generation(0),
                state: ReportedState::Clean,
            });
            w.hosts.insert(host(h), reported.collect());
            w.on(Event::AddHost(host(h))).unwrap();
            w.on(Event::HostConnected(host(h))).unwrap();
            w.report(h);
        }
        w
    }

    fn on(&mut self, event: Event) -> Result<Answer, Refused> {
        self.book.on(event, self.now)
    }

    fn report(&mut self, h: u32) {
        let tes = self.hosts[&host(h)].clone();
        self.on(Event::HostReport { host: host(h), tes }).unwrap();
    }

    fn says(&mut self, te: &TeId, state: ReportedState) {
        let row = self.book.te(te).unwrap().clone();
        for t in self.hosts.get_mut(&row.host).unwrap() {
            if t.id == *te {
                t.generation = row.generation;
                t.state = state.clone();
            }
        }
        let tes = self.hosts[&row.host].clone();
        self.on(Event::HostReport { host: row.host, tes }).unwrap();
    }

    fn ask(&mut self, r: Request) -> LeaseId {
        match self.on(Event::Request(r)) {
            Ok(Answer::Lease(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Every host of a lease confirms.
    fn serve(&mut self, id: LeaseId) {
        for (te, generation) in self.lease(id).tes.clone() {
            let host = self.book.te(&te).unwrap().host.clone();
            self.on(Event::HostServing { host, te: te.clone(), generation }).unwrap();
            self.says(&te, ReportedState::Serving);
        }
    }

    fn wait(&mut self, d: Duration) {
        self.now = self.now.after(d);
        self.on(Event::Tick).unwrap();
    }

    fn lease(&self, id: LeaseId) -> Lease {
        self.book.lease(id).unwrap().clone()
    }

    fn word(&self, id: LeaseId) -> &'static str {
        self.lease(id).state.word()
    }

    fn te(&self, id: &TeId) -> TeState {
        self.book.te(id).unwrap().state.clone()
    }
}

#[test]
fn one_lease_from_request_to_regrant() {
    let mut w = World::new(1, 1);
    let a = w.ask(ask("devtest", 1));
    let b = w.ask(ask("devtest", 1));
    assert_eq!((w.word(a), w.word(b)), ("granted", "waiting"));
    assert_eq!(w.lease(a).tes, vec![(te(0, 1), Generation(1))]);
    assert!(matches!(w.book.desired(&host(0))[0].task, Task::Serve { lease, .. } if lease == a));
    w.serve(a);
    assert_eq!(w.word(a), "active");
    let waiting = w.book.waiting(b).unwrap();
    assert_eq!(waiting.position, 1);
    assert_eq!(waiting.reason, "all 1 TEs of label devtest are in use or being reset");
    // Nothing is known of such leases yet, so the first may last as long as it may.
    assert_eq!(waiting.estimate, Some(3 * 3600 * SECOND));
    w.wait(5 * SECOND);
    w.on(Event::Release { lease: a, reason: String::new() }).unwrap();
    assert_eq!((w.word(a), w.word(b)), ("released", "waiting"));
    assert_eq!(w.book.desired(&host(0))[0].task, Task::Vacate);
    // An old word does not free it, and neither does "serving".
    for state in [ReportedState::Clean, ReportedState::Serving] {
        w.hosts.get_mut(&host(0)).unwrap()[0].generation = Generation(0);
        w.hosts.get_mut(&host(0)).unwrap()[0].state = state;
        w.report(0);
        assert_eq!(w.word(b), "waiting");
    }
    w.says(&te(0, 1), ReportedState::Clean);
    assert_eq!(w.word(b), "granted");
    assert_eq!(w.lease(b).tes, vec![(te(0, 1), Generation(2))]);
    let stale = Event::HostServing { host: host(0), te: te(0, 1), generation: Generation(1) };
    assert_eq!(w.on(stale).unwrap_err().code, "stale_generation");
}

#[test]
fn every_way_out_is_the_same_vacate() {
    for (end, word) in [
        ("release", "released"),
        ("revoke", "revoked"),
        ("silence", "lost"),
        ("time", "expired"),
        ("gone", "revoked"),
    ] {
        let mut w = World::new(1, 1);
        let a = w.ask(Request { timeout: Some(8 * SECOND), ..ask("devtest", 1) });
        w.serve(a);
        match end {
            "release" => drop(w.on(Event::Release { lease: a, reason: String::new() })),
            "revoke" => drop(w.on(Event::Revoke { lease: a, reason: "x".into() })),
            "silence" => {
                w.on(Event::Extend { lease: a, length: 60 * SECOND }).unwrap();
                w.wait(12 * SECOND);
            }
            "time" => w.wait(8 * SECOND),
            _ => {
                w.hosts.insert(host(0), vec![]);
                w.report(0);
            }
        }
        assert_eq!(w.word(a), word, "{end}");
        let state = w.te(&te(0, 1));
        assert_eq!(state, if end == "gone" { TeState::Gone } else { TeState::Resetting }, "{end}");
        assert_eq!(w.on(Event::Heartbeat(a)).unwrap_err().code, "lease_over");
        w.on(Event::Release { lease: a, reason: String::new() }).unwrap();
    }
}

#[test]
fn heartbeats_keep_it_and_a_dead_client_is_noticed_within_15_s() {
    let mut w = World::new(1, 1);
    let a = w.ask(ask("devtest", 1));
    w.serve(a);
    for _ in 0..100 {
        w.wait(4 * SECOND);
        w.on(Event::Heartbeat(a)).unwrap();
    }
    assert_eq!(w.word(a), "active");
    w.wait(11 * SECOND);
    assert_eq!(w.word(a), "active");
    w.wait(SECOND);
    assert_eq!(w.word(a), "lost");
}

#[test]
fn a_grant_that_is_not_confirmed_goes_back_to_its_place() {
    let mut w = World::new(1, 2);
    let a = w.ask(ask("devtest", 2));
    let b = w.ask(ask("devtest", 1));
    assert_eq!((w.word(a), w.word(b)), ("granted", "waiting"));
    w.wait(20 * SECOND);
    assert_eq!((w.word(a), w.word(b)), ("waiting", "waiting"));
    w.says(&te(0, 1), ReportedState::Clean);
    assert_eq!((w.word(a), w.word(b)), ("waiting", "waiting"), "the free TE is kept for the older");
    assert_eq!(w.book.waiting(b).unwrap().position, 2);
    w.says(&te(0, 2), ReportedState::Clean);
    assert_eq!((w.word(a), w.word(b)), ("granted", "waiting"));
    // Its TEs failed twice in a row now.
    w.wait(20 * SECOND);
    assert_eq!(w.te(&te(0, 1)), TeState::Quarantined);
    assert_eq!(w.book.desired(&host(0))[0].task, Task::Quarantine);
}

#[test]
fn a_request_for_several_is_neither_starved_nor_does_it_block_without_need() {
    let mut w = World::new(2, 2);
    let small: Vec<LeaseId> = (0..3).map(|_| w.ask(ask("devtest", 1))).collect();
    for s in &small {
        w.serve(*s);
    }
    let big = w.ask(ask("devtest", 3));
    let late = w.ask(ask("devtest", 1));
    assert_eq!((w.word(big), w.word(late)), ("waiting", "waiting"), "the last free TE is kept");
    for s in &small[..2] {
        w.on(Event::Release { lease: *s, reason: String::new() }).unwrap();
        for (id, _) in w.lease(*s).tes {
            w.says(&id, ReportedState::Clean);
        }
    }
    assert_eq!((w.word(big), w.word(late)), ("granted", "waiting"));
    // With a host cut off it cannot be served, so it does not keep anything.
    let mut w = World::new(2, 2);
    w.on(Event::HostCutOff(host(1))).unwrap();
    let big = w.ask(ask("devtest", 3));
    let late = w.ask(ask("devtest", 1));
    assert_eq!((w.word(big), w.word(late)), ("waiting", "granted"));
    assert!(w.book.waiting(big).unwrap().reason.contains("out of reach"));
    w.on(Event::HostConnected(host(1))).unwrap();
    assert_eq!(w.word(big), "granted");
}

#[test]
fn impossible_requests_are_refused_with_what_there_is() {
    let mut w = World::new(1, 2);
    let code = |w: &mut World, r: Request| w.on(Event::Request(r)).unwrap_err();
    let r = code(&mut w, ask("devtets", 1));
    assert_eq!(
        (r.code, r.hint.as_str()),
        ("unknown_label", "did you mean `devtest`? Known: devtest")
    );
    assert_eq!(code(&mut w, ask("devtest", 3)).code, "never_fits");
    let shape = Demand { label: None, shape: Some(ShapeName::new("huge").unwrap()) };
    assert_eq!(code(&mut w, Request { demand: shape, ..ask("devtest", 1) }).code, "unknown_shape");
    assert_eq!(code(&mut w, ask("devtest", 0)).code, "bad_request");
    let long = Request { timeout: Some(13 * 3600 * SECOND), ..ask("devtest", 1) };
    assert_eq!(code(&mut w, long).code, "bad_request");
    assert!(w.book.leases().next().is_none(), "nothing is left of a refused request");
    let mut empty = World::new(0, 0);
    assert_eq!(code(&mut empty, ask("devtest", 1)).code, "never_fits");
}

#[test]
fn order_is_by_priority_age_and_fairness() {
    let mut w = World::new(1, 1);
    let first = w.ask(ask("devtest", 1));
    let project = |p: &str| Request { project: Project::new(p).unwrap(), ..ask("devtest", 1) };
    let many: Vec<LeaseId> = (0..3).map(|_| w.ask(project("many"))).collect();
    w.wait(5 * SECOND);
    let other = w.ask(project("other"));
    let urgent = w.ask(Request { priority: 60, ..project("many") });
    assert_eq!(w.word(first), "granted");
    let positions: Vec<u32> = [urgent, many[0], other, many[1], many[2]]
        .map(|l| w.book.waiting(l).unwrap().position)
        .into();
    assert_eq!(positions, [1, 2, 3, 4, 5]);
    let all: BTreeMap<LeaseId, Waiting> = w.book.all_waiting().into_iter().collect();
    for id in [urgent, many[0], other, many[1], many[2]] {
        assert_eq!(w.book.waiting(id), all.get(&id).cloned());
    }
}

#[test]
fn wait_limit_idempotency_and_silent_waiters() {
    let mut w = World::new(1, 1);
    let a = w.ask(ask("devtest", 1));
    let keyed = Request { idempotency_key: Some("k".into()), ..ask("devtest", 1) };
    let b = w.ask(keyed.clone());
    assert_eq!(w.ask(keyed), b);
    let c = w.ask(Request { wait_timeout: Some(3 * SECOND), ..ask("devtest", 1) });
    w.on(Event::Heartbeat(b)).unwrap();
    w.wait(3 * SECOND);
    assert_eq!((w.word(b), w.word(c)), ("waiting", "refused"));
    w.wait(9 * SECOND);
    assert_eq!((w.word(a), w.word(b)), ("granted", "refused"));
}

#[test]
fn extension_ends_at_the_maximum() {
    let mut w = World::new(1, 1);
    let a = w.ask(ask("devtest", 1));
    w.serve(a);
    let hour = 3600 * SECOND;
    w.on(Event::Extend { lease: a, length: hour }).unwrap();
    assert_eq!(w.lease(a).state, LeaseState::Active { expires: w.now.after(3 * hour) });
    w.on(Event::Extend { lease: a, length: 100 * hour }).unwrap();
    assert_eq!(w.lease(a).state, LeaseState::Active { expires: w.now.after(12 * hour) });
    let again = w.on(Event::Extend { lease: a, length: 100 * hour });
    assert_eq!(again.unwrap_err().code, "at_maximum");
    assert!(
        matches!(w.book.desired(&host(0))[0].task, Task::Serve { left, .. } if left == 12 * hour)
    );
}

#[test]
fn hold_has_a_budget_and_an_end() {
    let mut w = World::new(1, 1);
    let a = w.ask(ask("devtest", 1));
    w.serve(a);
    let hold = |s: u64| Event::Hold { lease: a, length: secs(s), reason: "look".into() };
    let [ten_h, h] = [36_000, 3_600];
    w.on(hold(ten_h)).unwrap();
    w.wait(60 * SECOND);
    assert_eq!(w.word(a), "held", "no heartbeats are needed");
    w.on(hold(h)).unwrap();
    w.wait(secs(h));
    assert_eq!(w.word(a), "expired");
    let used = w.book.budget(&Project::new("p").unwrap()).unwrap().used;
    assert!(used <= 3_700 * SECOND && used >= 3_000 * SECOND, "{used:?}");
    for (length, code) in
        [(13 * h, "bad_request"), (12 * h, ""), (12 * h, ""), (12 * h, "hold_budget")]
    {
        w.says(&te(0, 1), ReportedState::Clean);
        let b = w.ask(ask("devtest", 1));
        w.serve(b);
        let r = w.on(Event::Hold { lease: b, length: secs(length), reason: String::new() });
        assert_eq!(r.err().map_or("", |r| r.code), code);
        w.now = w.now.after(secs(12 * h));
        w.on(Event::Tick).unwrap();
    }
}

#[test]
fn quarantine_after_failures_and_return_by_burn_in() {
    let mut w = World::new(1, 1);
    let t = te(0, 1);
    w.says(&t, ReportedState::Broken("disk".into()));
    assert_eq!((w.te(&t), w.book.te(&t).unwrap().generation), (TeState::Resetting, Generation(1)));
    w.report(0);
    assert_eq!(w.book.te(&t).unwrap().strikes, 1, "the same word counts once");
    w.says(&t, ReportedState::Broken("disk".into()));
    assert_eq!(w.te(&t), TeState::Quarantined);
    assert_eq!(w.book.te(&t).unwrap().reason, "disk");
    assert_eq!(w.on(Event::ResetTe(t.clone())).unwrap_err().code, "quarantined");
    w.on(Event::DrainTe { te: t.clone(), drain: false }).unwrap();
    assert_eq!(w.book.desired(&host(0))[0].task, Task::BurnIn);
    w.report(0);
    assert_eq!(w.te(&t), TeState::BurnIn, "an older word does not confirm the burn-in");
    w.says(&t, ReportedState::Broken("still".into()));
    assert_eq!(w.te(&t), TeState::Quarantined);
    w.on(Event::DrainTe { te: t.clone(), drain: false }).unwrap();
    w.says(&t, ReportedState::Clean);
    assert_eq!(w.te(&t), TeState::Ready);
    // A reset that does not end.
    w.on(Event::ResetTe(t.clone())).unwrap();
    w.wait(900 * SECOND);
    assert_eq!(w.te(&t), TeState::Quarantined);
}

#[test]
fn draining_and_removal() {
    let mut w = World::new(1, 1);
    w.on(Event::DrainTe { te: te(0, 1), drain: true }).unwrap();
    let a = w.ask(ask("devtest", 1));
    assert_eq!(w.word(a), "waiting");
    w.on(Event::DrainTe { te: te(0, 1), drain: false }).unwrap();
    assert_eq!(w.word(a), "granted");
    w.on(Event::DrainHost { host: host(0), drain: true }).unwrap();
    w.serve(a);
    assert_eq!(w.on(Event::RemoveHost(host(0))).unwrap_err().code, "host_in_use");
    assert_eq!(
        w.on(Event::Quarantine { te: te(0, 1), reason: String::new() }).unwrap_err().code,
        "testenv_in_use"
    );
    w.on(Event::Release { lease: a, reason: String::new() }).unwrap();
    w.says(&te(0, 1), ReportedState::Clean);
    let b = w.ask(ask("devtest", 1));
    assert_eq!(w.word(b), "waiting");
    w.on(Event::RemoveHost(host(0))).unwrap();
    w.wait(SECOND);
    assert_eq!(w.word(b), "waiting", "a host may come back");
    w.wait(60 * SECOND);
    assert_eq!(w.word(b), "refused");
}

fn rows(book: &Book) -> Rows {
    let mut confirmed = std::collections::BTreeSet::new();
    for t in book.tes() {
        if let TeState::Confirmed(l) | TeState::Leased(l) | TeState::Held(l) = t.state {
            confirmed.insert((l, t.id.clone()));
        }
    }
    Rows {
        hosts: book.hosts().cloned().collect(),
        tes: book.tes().cloned().collect(),
        leases: book.leases().cloned().collect(),
        confirmed,
        budgets: vec![],
    }
}

#[test]
fn a_restart_keeps_grants_queue_and_gives_a_fresh_grace() {
    let mut w = World::new(1, 2);
    let a = w.ask(ask("devtest", 1));
    w.serve(a);
    let b = w.ask(ask("devtest", 1));
    let c = w.ask(ask("devtest", 1));
    w.now = w.now.after(30 * SECOND);
    w.book = Book::load(rows(&w.book), Policy::default(), w.now);
    w.on(Event::Tick).unwrap();
    assert_eq!((w.word(a), w.word(b), w.word(c)), ("active", "granted", "waiting"));
    w.on(Event::HostConnected(host(0))).unwrap();
    w.report(0);
    w.serve(b);
    assert_eq!(w.word(b), "active");
    w.wait(12 * SECOND);
    assert_eq!(w.word(a), "lost");
    let d = w.ask(ask("devtest", 1));
    assert!(d > c);
}

/// What must hold of any book after any event.
fn check(book: &Book, highest: &mut BTreeMap<TeId, Generation>) -> Result<(), TestCaseError> {
    let mut held: BTreeMap<&TeId, LeaseId> = BTreeMap::new();
    for lease in book.leases() {
        let live = match lease.state {
            LeaseState::Waiting => {
                prop_assert!(lease.tes.is_empty());
                false
            }
            LeaseState::Granted { .. } | LeaseState::Active { .. } | LeaseState::Held { .. } => {
                prop_assert_eq!(lease.tes.len(), lease.count as usize);
                true
            }
            LeaseState::Over { .. } => false,
        };
        for (id, generation) in lease.tes.iter().filter(|_| live) {
            prop_assert_eq!(held.insert(id, lease.id), None, "two live leases have one TE");
            let te = book.te(id).unwrap();
            prop_assert_eq!(te.state.lease(), Some(lease.id));
            prop_assert_eq!(te.generation, *generation);
        }
    }
    for te in book.tes() {
        prop_assert_eq!(te.state.lease(), held.get(&te.id).copied());
        let seen = highest.entry(te.id.clone()).or_default();
        prop_assert!(te.generation >= *seen, "a generation went back");
        *seen = te.generation;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    /// Random events, with hosts that answer, stay silent, tell old news or break.
    #[test]
    fn the_book_stays_consistent(script in proptest::collection::vec((0u8..16, 0u64..40, 0u32..4), 1..150)) {
        let mut w = World::new(2, 2);
        let mut highest = BTreeMap::new();
        let mut granted: BTreeMap<(TeId, Generation), LeaseId> = BTreeMap::new();
        for (what, x, y) in script {
            let lease = LeaseId(x);
            let t = te(y % 2, 1 + y / 2);
            let before = w.book.clone();
            let r = match what {
                0..=2 => w.on(Event::Request(ask("devtest", 1 + y))),
                3 => w.on(Event::Release { lease, reason: String::new() }),
                4 => w.on(Event::Heartbeat(lease)),
                5 => w.on(Event::Extend { lease, length: secs(x * 100) }),
                6 => w.on(Event::Hold { lease, length: secs(x), reason: String::new() }),
                7 => w.on(Event::DrainTe { te: t, drain: x % 4 == 0 }),
                8 => w.on(if x % 4 == 0 { Event::HostCutOff(host(y % 2)) } else { Event::HostConnected(host(y % 2)) }),
                9 => { w.says(&t, if x % 9 == 0 { ReportedState::Broken("x".into()) } else { ReportedState::Clean }); Ok(Answer::Done) }
                10 => { w.report(y % 2); Ok(Answer::Done) }
                11..=13 => {
                    let generation = w.book.te(&t).unwrap().generation;
                    w.on(Event::HostServing { host: host(y % 2), te: t, generation })
                }
                14 => w.on(Event::ResetTe(t)),
                _ => { w.wait(secs(x)); Ok(Answer::Done) }
            };
            if r.is_err() {
                prop_assert_eq!(rows(&before), rows(&w.book), "a refusal changes nothing");
            }
            check(&w.book, &mut highest)?;
            for lease in w.book.leases() {
                for (id, g) in &lease.tes {
                    let first = *granted.entry((id.clone(), *g)).or_insert(lease.id);
                    prop_assert_eq!(first, lease.id, "one generation was granted twice");
                }
            }
            let again = Book::load(rows(&w.book), Policy::default(), w.now);
            check(&again, &mut highest)?;
        }
    }
}
