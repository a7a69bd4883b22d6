//! One behaviour at a time.

use super::*;

const WORK_FAIL: WorkKind = WorkKind::Fail;

#[test]
fn a_job_goes_to_the_one_sleeper_and_back() {
    let mut w = World::new(Settings::geard());
    let (client, worker, other) = (w.connect(), w.sleeper("f"), w.sleeper("g"));
    let handle = w.submit(client, "f");
    assert_eq!(handle, "H:127.0.0.1:1");
    assert_eq!(w.heard(other), [""; 0], "who cannot do it is not woken");
    assert_eq!(w.heard(worker), ["NOOP"]);
    w.grab(worker);
    assert_eq!(w.heard(worker), [format!("ASSIGN Unique {handle} f [] x")]);
    let (numerator, denominator) = (&b"1"[..], &b"2"[..]);
    w.ask(worker, Request::WorkStatus { handle: handle.as_bytes(), numerator, denominator });
    w.ask(client, Request::GetStatus { handle: handle.as_bytes() });
    w.done(worker, WorkKind::Data, &handle, "part");
    w.done(worker, WorkKind::Warning, &handle, "hm");
    w.done(worker, WorkKind::Complete, &handle, "all");
    assert_eq!(
        w.heard(client),
        [
            format!("STATUS {handle} 1/2"),
            format!("KNOWN {handle} true true 1/2 None"),
            format!("Data {handle} part"),
            format!("Warning {handle} hm"),
            format!("Complete {handle} all"),
        ]
    );
    w.ask(client, Request::GetStatus { handle: handle.as_bytes() });
    assert_eq!(w.heard(client), [format!("KNOWN {handle} false false 0/0 None")]);
    w.grab(worker);
    w.pass(GRAB_PATIENCE_US);
    assert_eq!(w.heard(worker), ["NO_JOB"]);
    assert_eq!(w.admin(client, AdminCommand::Status), "f\t0\t0\t1\ng\t0\t0\t1\n.\n");
}

#[test]
fn who_has_just_ended_a_job_waits_a_moment_for_the_next() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.sleeper("f"));
    let first = w.submit(client, "f");
    w.grab(worker);
    w.done(worker, WorkKind::Complete, &first, "");
    w.heard(worker);
    w.grab(worker);
    assert_eq!(w.heard(worker), [""; 0], "a next job may come");
    w.heard(client);
    let second = w.submit(client, "f");
    assert_eq!(w.heard(worker), [format!("ASSIGN Unique {second} f [] x")], "no NOOP between");

    w.done(worker, WORK_FAIL, &second, "");
    w.grab(worker);
    w.ask(worker, Request::Echo { data: b"?" });
    assert_eq!(w.heard(worker), ["NO_JOB", "ECHO ?"], "answers are in order");
    w.grab(worker);
    assert_eq!(w.heard(worker), ["NO_JOB"], "only right after a job");
}

#[test]
fn patience_has_an_end_and_the_worker_may_go_meanwhile() {
    let mut w = World::new(Settings::geard());
    let client = w.connect();
    let workers = [w.sleeper("f"), w.sleeper("f")];
    let handles = workers.map(|worker| {
        w.submit(client, "f");
        w.grab(worker);
        let assigned = w.heard(worker).pop().unwrap();
        w.heard(client);
        assigned.split(' ').nth(2).unwrap().to_owned()
    });
    for (worker, handle) in workers.iter().zip(&handles) {
        w.done(*worker, WorkKind::Complete, handle, "");
        w.grab(*worker);
    }
    w.disconnect(workers[1]);
    w.pass(GRAB_PATIENCE_US - 1);
    assert_eq!(w.heard(workers[0]), [""; 0]);
    w.pass(1);
    assert_eq!(w.heard(workers[0]), ["NO_JOB"]);
    w.heard(client);
    w.submit(client, "f");
    assert_eq!(w.heard(workers[0]), [""; 0], "it does not sleep yet");
    w.ask(workers[0], Request::PreSleep);
    assert_eq!(w.heard(workers[0]), ["NOOP"]);
}

#[test]
fn precedence_goes_before_arrival_and_arrival_before_function() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.connect());
    for (function, precedence, payload) in [
        ("a", Precedence::Low, "1"),
        ("b", Precedence::Normal, "2"),
        ("a", Precedence::Normal, "3"),
        ("b", Precedence::High, "4"),
        ("a", Precedence::High, "5"),
    ] {
        let submit = Submit { precedence, ..submit_of(function, "", payload) };
        w.ask(client, Request::Submit(submit));
    }
    w.can_do(worker, "b");
    w.can_do(worker, "a");
    for _ in 0..5 {
        w.ask(worker, Request::Grab(GrabStyle::Plain));
    }
    let order: Vec<String> = w
        .heard(worker)
        .iter()
        .filter_map(|s| s.split(' ').next_back().map(str::to_owned))
        .collect();
    assert_eq!(order, ["4", "5", "2", "3", "1"]);
}

#[test]
fn gearmand_takes_the_function_registered_last_first() {
    let mut w = World::new(Settings::gearmand("box"));
    let (client, worker) = (w.connect(), w.connect());
    assert_eq!(w.submit(client, "a"), "H:box:1");
    w.submit(client, "b");
    w.can_do(worker, "a");
    w.can_do(worker, "b");
    w.grab(worker);
    assert_eq!(w.heard(worker), ["ASSIGN Unique H:box:2 b [] x"]);
}

#[test]
fn one_job_wakes_one_worker_and_another_when_that_one_does_not_come() {
    let mut w = World::new(Settings::geard());
    let client = w.connect();
    let workers: Vec<ConnId> = (0..5).map(|_| w.sleeper("f")).collect();
    w.submit(client, "f");
    let woken = |w: &mut World| -> Vec<ConnId> {
        workers.iter().copied().filter(|c| !w.heard(*c).is_empty()).collect()
    };
    let first = woken(&mut w);
    assert_eq!(first.len(), 1);
    w.disconnect(first[0]);
    let second = woken(&mut w);
    assert_eq!(second.len(), 1, "the woken worker died, so another is woken");
    w.pass(WAKE_PATIENCE_US - 1);
    assert!(woken(&mut w).is_empty());
    w.pass(1);
    let third = woken(&mut w);
    assert_eq!(third.len(), 1, "the woken worker did not come, so another is woken");
    w.ask(third[0], Request::CantDo { function: b"f" });
    let fourth = woken(&mut w);
    assert_eq!(fourth.len(), 1, "the woken worker gave the function up");
    w.ask(fourth[0], Request::ResetAbilities);
    assert_eq!(woken(&mut w).len(), 1);
    w.grab(second[0]);
    assert!(w.heard(second[0])[0].starts_with("ASSIGN"), "late, but still welcome");
}

#[test]
fn whoever_goes_to_sleep_beside_a_waiting_job_is_woken_at_once() {
    let mut w = World::new(Settings::geard());
    let (client, worker, second) = (w.connect(), w.connect(), w.connect());
    w.submit(client, "f");
    w.ask(worker, Request::PreSleep);
    assert!(w.heard(worker).is_empty());
    w.can_do(worker, "f");
    assert_eq!(w.heard(worker), ["NOOP"], "CAN_DO while asleep counts");
    w.can_do(second, "f");
    w.ask(second, Request::PreSleep);
    assert!(w.heard(second).is_empty(), "one is on the way already");
    w.ask(worker, Request::PreSleep);
    let heard = (w.heard(worker).len(), w.heard(second).len());
    assert!(heard == (1, 0) || heard == (0, 1), "exactly one is woken: {heard:?}");
}

#[test]
fn loss_of_a_worker_fails_or_requeues() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.sleeper("f"));
    let handle = w.submit(client, "f");
    w.grab(worker);
    w.disconnect(worker);
    assert_eq!(w.heard(client), [format!("Fail {handle}")]);

    let mut settings = Settings::gearmand("h");
    settings.worker_loss = WorkerLoss::Requeue { attempts: 2 };
    let mut w = World::new(settings);
    let (client, first, second) = (w.connect(), w.sleeper("f"), w.sleeper("f"));
    let handle = w.submit(client, "f");
    let later = w.submit(client, "f");
    w.grab(first);
    w.disconnect(first);
    w.heard(second);
    w.grab(second);
    assert_eq!(w.heard(second), [format!("ASSIGN Unique {handle} f [] x")], "before {later}");
    w.disconnect(second);
    assert_eq!(w.heard(client), [format!("Fail {handle}")], "after two losses");
}

#[test]
fn loss_of_the_client_forgets_or_runs_on() {
    for (settings, known) in [(Settings::geard(), false), (Settings::gearmand("h"), true)] {
        let mut w = World::new(settings);
        let (client, worker, other) = (w.connect(), w.sleeper("f"), w.connect());
        let running = w.submit(client, "f");
        w.grab(worker);
        let queued = w.submit(client, "f");
        w.disconnect(client);
        w.ask(other, Request::GetStatus { handle: running.as_bytes() });
        w.ask(other, Request::GetStatus { handle: queued.as_bytes() });
        let expected = [
            format!("KNOWN {running} {known} {known} 0/0 None"),
            format!("KNOWN {queued} false false 0/0 None"),
        ];
        assert_eq!(w.heard(other), expected);
        w.done(worker, WorkKind::Complete, &running, "");
        assert_eq!(w.broker.figures().total, 0);
    }
}

#[test]
fn nobody_but_its_worker_speaks_of_a_job() {
    for (settings, answer) in [
        (Settings::geard(), vec![]),
        (Settings::gearmand("h"), vec!["ERROR JOB_NOT_FOUND Job given in work result not found"]),
    ] {
        let mut w = World::new(settings);
        let (client, worker, stranger) = (w.connect(), w.sleeper("f"), w.connect());
        let handle = w.submit(client, "f");
        w.done(stranger, WORK_FAIL, &handle, "");
        assert_eq!(w.heard(stranger), answer);
        w.grab(worker);
        w.done(stranger, WorkKind::Complete, &handle, "mine");
        assert_eq!(w.heard(stranger), answer);
        assert!(w.heard(client).is_empty());
        w.done(stranger, WORK_FAIL, "nonsense", "");
        assert_eq!(w.heard(stranger), answer);
        w.done(worker, WorkKind::Complete, &handle, "yes");
        assert_eq!(w.heard(client), [format!("Complete {handle} yes")]);
    }
}

#[test]
fn exceptions_go_to_all_or_to_those_who_asked() {
    let mut w = World::new(Settings::gearmand("h"));
    let (asked, not, worker) = (w.connect(), w.connect(), w.sleeper("f"));
    w.ask(asked, Request::Option { name: b"Exceptions" });
    w.ask(not, Request::Option { name: b"colour" });
    assert_eq!(w.heard(asked), ["OPTION Exceptions"]);
    assert_eq!(w.heard(not), ["ERROR UNKNOWN_OPTION Server does not recognize given option"]);
    w.ask(asked, Request::Submit(submit_of("f", "u", "x")));
    w.ask(not, Request::Submit(submit_of("f", "u", "x")));
    let handle = w.handle(asked);
    assert_eq!(w.handle(not), handle, "coalesced");
    w.grab(worker);
    w.done(worker, WorkKind::Exception, &handle, "boom");
    assert_eq!(w.heard(asked), [format!("Exception {handle} boom")]);
    assert_eq!(w.heard(not), [format!("Fail {handle}")]);
    assert_eq!(w.broker.figures().total, 0);
    w.heard(worker);
    w.done(worker, WORK_FAIL, &handle, "");
    assert!(w.heard(worker).is_empty(), "perl's worker sends both, and dies of an error");
}

#[test]
fn coalescing_is_by_function_and_unique_or_by_payload() {
    let mut w = World::new(Settings::gearmand("h"));
    let client = w.connect();
    let mut created = |unique: &str, function: &str, payload: &str| {
        w.ask(client, Request::Submit(submit_of(function, unique, payload)));
        w.handle(client)
    };
    let first = created("u", "f", "1");
    assert_eq!(created("u", "f", "2"), first);
    assert_ne!(created("u", "g", "1"), first);
    let by_payload = created("-", "f", "same");
    assert_eq!(created("-", "f", "same"), by_payload);
    assert_ne!(created("-", "f", "other"), by_payload);
    assert_ne!(created("", "f", "1"), created("", "f", "1"));
    w.ask(client, Request::GetStatusUnique { unique: b"u" });
    assert_eq!(w.heard(client), ["KNOWN u true false 0/0 Some(2)"]);
    let long = "u".repeat(65);
    w.ask(client, Request::Submit(submit_of("f", &long, "1")));
    assert_eq!(w.heard(client), ["ERROR ARGUMENT_TOO_LARGE Unique value too large"]);

    let mut w = World::new(Settings::geard());
    let client = w.connect();
    w.ask(client, Request::Submit(submit_of("f", "u", "1")));
    w.ask(client, Request::Submit(submit_of("f", "u", "1")));
    assert_eq!(w.heard(client), ["CREATED H:127.0.0.1:1", "CREATED H:127.0.0.1:2"]);
}

#[test]
fn a_limit_in_seconds_is_not_taken_for_milliseconds() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.connect());
    w.ask(worker, Request::CanDo { function: b"f", timeout_ms: 5 });
    let handle = w.submit(client, "f");
    w.grab(worker);
    w.pass(999_999);
    assert!(w.heard(client).is_empty());
    w.pass(1);
    assert_eq!(w.heard(client), [format!("Fail {handle}")]);
}

#[test]
fn max_queue_counts_every_job_of_the_function() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.connect());
    w.can_do(worker, "f");
    let running = w.submit(client, "f");
    w.grab(worker);
    let max = AdminCommand::MaxQueue { function: b"f", limits: [None, Some(1), Some(2)] };
    assert_eq!(w.admin(client, max), "OK\n");
    w.ask(client, Request::Submit(submit_of("f", "", "x")));
    assert_eq!(w.heard(client), ["ERROR QUEUE_ERROR Job queue is full"], "one runs");
    let low = Submit { precedence: Precedence::Low, ..submit_of("f", "", "x") };
    w.ask(client, Request::Submit(low));
    w.handle(client);
    w.ask(client, Request::Submit(low));
    assert_eq!(w.heard(client), ["ERROR QUEUE_ERROR Job queue is full"], "one runs, one waits");
    w.done(worker, WorkKind::Complete, &running, "");
    w.heard(client);
    w.ask(client, Request::Submit(low));
    w.handle(client);
}

#[test]
fn an_empty_client_id_is_none() {
    let mut w = World::new(Settings::geard());
    let worker = w.connect();
    w.ask(worker, Request::SetClientId { id: b"me" });
    assert_eq!(w.admin(worker, AdminCommand::Workers), "7 127.0.0.1 me :\n.\n");
    w.ask(worker, Request::SetClientId { id: b"" });
    assert_eq!(w.admin(worker, AdminCommand::Workers), "7 127.0.0.1 - :\n.\n");
}

#[test]
fn a_requeued_job_has_made_no_progress() {
    let mut w = World::new(Settings::gearmand("h"));
    let (client, worker) = (w.connect(), w.connect());
    w.can_do(worker, "f");
    let handle = w.submit(client, "f");
    w.grab(worker);
    let handle = handle.as_bytes();
    w.ask(worker, Request::WorkStatus { handle, numerator: b"3", denominator: b"7" });
    w.disconnect(worker);
    w.heard(client);
    w.ask(client, Request::GetStatus { handle });
    assert_eq!(w.heard(client), ["KNOWN H:h:1 true false 0/0 None"]);
}

#[test]
fn a_job_that_outlives_its_limit_fails_or_is_requeued() {
    for (settings, fails) in [(Settings::geard(), true), (Settings::gearmand("h"), false)] {
        let mut w = World::new(settings);
        let (client, worker) = (w.connect(), w.connect());
        w.ask(worker, Request::CanDo { function: b"f", timeout_ms: 1500 });
        let handle = w.submit(client, "f");
        w.grab(worker);
        w.pass(1_499_999);
        assert!(w.heard(client).is_empty());
        assert_eq!(w.broker.next_wake(w.now), Some(std::time::Duration::from_micros(1)));
        w.pass(1);
        let expected = if fails { vec![format!("Fail {handle}")] } else { vec![] };
        assert_eq!(w.heard(client), expected);
        assert_eq!(w.broker.figures().waiting, usize::from(!fails));
        assert_eq!(w.broker.next_wake(w.now), None);
    }
}

#[test]
fn scheduled_jobs_wait_for_the_calendar_not_for_the_clock() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.sleeper("f"));
    let epoch = b"1415709300";
    let background = true;
    let when = When::Epoch(epoch);
    w.ask(client, Request::Submit(Submit { background, when, ..submit_of("f", "", "e") }));
    let when = When::Calendar([b"36", b"", b"", b"", b""]);
    w.ask(client, Request::Submit(Submit { background, when, ..submit_of("f", "", "s") }));
    let when = When::Epoch(b"soon");
    w.ask(client, Request::Submit(Submit { background, when, ..submit_of("f", "", "s") }));
    assert_eq!(w.heard(client).len(), 3);
    assert_eq!(w.admin(client, AdminCommand::Status), "f\t2\t0\t1\n.\n");
    w.pass(3_999_999);
    assert!(w.heard(worker).is_empty());
    w.pass(1);
    w.grab(worker);
    assert_eq!(w.heard(worker), ["NOOP", "ASSIGN Unique H:127.0.0.1:1 f [] e"]);
    w.done(worker, WorkKind::Complete, "H:127.0.0.1:1", "");
    w.now.calendar = w.now.calendar.after(std::time::Duration::from_secs(3600));
    w.ask(worker, Request::PreSleep);
    w.pass(0);
    assert_eq!(w.heard(worker), ["NOOP"], "after a jump of the calendar");
    assert!(w.heard(client).is_empty(), "it submitted in the background");
}

#[test]
fn limits_refuse_with_an_error() {
    let mut settings = Settings::geard();
    settings.limits =
        Limits { jobs: 3, payload_bytes: 10, functions: 2, functions_per_connection: 1 };
    let mut w = World::new(settings);
    let (client, worker) = (w.connect(), w.connect());
    const FULL: &str = "ERROR QUEUE_ERROR Job queue is full";
    w.ask(client, Request::Submit(submit_of("f", "", "12345678901")));
    assert_eq!(w.heard(client), [FULL]);
    let max = AdminCommand::MaxQueue { function: b"f", limits: [None, Some(2), None] };
    assert_eq!(w.admin(client, max), "OK\n");
    let first = w.submit(client, "f");
    w.submit(client, "f");
    w.ask(client, Request::Submit(submit_of("f", "", "x")));
    assert_eq!(w.heard(client), [FULL]);
    let submit = Submit { precedence: Precedence::High, ..submit_of("f", "", "x") };
    w.ask(client, Request::Submit(submit));
    w.handle(client);
    w.ask(client, Request::Submit(submit_of("g", "", "x")));
    assert_eq!(w.heard(client), [FULL], "three jobs in all");
    w.can_do(worker, "f");
    w.can_do(worker, "g");
    assert!(w.heard(worker)[0].starts_with("ERROR QUEUE_FULL This connection"));
    w.ask(client, Request::Submit(submit_of("h", "", "x")));
    assert_eq!(w.heard(client), [FULL], "g was forgotten for h, then the jobs are too many");
    w.can_do(worker, "");
    w.can_do(worker, &"n".repeat(1025));
    assert_eq!(w.heard(worker).len(), 2);
    assert_eq!(w.admin(client, AdminCommand::CancelJob(first.as_bytes())), "OK\n");
    w.ask(client, Request::Submit(submit));
    w.handle(client);
}

#[test]
fn cancel_follows_the_dialect() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.sleeper("f"));
    let (running, queued) = (w.submit(client, "f"), w.submit(client, "f"));
    w.grab(worker);
    assert_eq!(w.admin(client, AdminCommand::CancelJob(running.as_bytes())), "ERR UNKNOWN_JOB\n");
    assert_eq!(w.admin(client, AdminCommand::CancelJob(queued.as_bytes())), "OK\n");
    assert_eq!(w.admin(client, AdminCommand::CancelJob(queued.as_bytes())), "ERR UNKNOWN_JOB\n");
    assert_eq!(w.admin(client, AdminCommand::Status), "f\t1\t1\t1\n.\n");

    let mut w = World::new(Settings::gearmand("h"));
    let (client, worker) = (w.connect(), w.sleeper("f"));
    let running = w.submit(client, "f");
    w.grab(worker);
    let admin = w.connect();
    assert_eq!(w.admin(admin, AdminCommand::CancelJob(running.as_bytes())), "OK\r\n");
    assert_eq!(w.heard(client), [format!("Fail {running}")]);
    assert_eq!(w.admin(admin, AdminCommand::Status), "f\t0\t0\t1\n.\n");
}

#[test]
fn listings_have_the_exact_form() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.connect());
    w.ask(worker, Request::SetClientId { id: b"te\tworker" });
    w.can_do(worker, "z");
    w.can_do(worker, "a");
    w.can_do(worker, "z");
    w.ask(client, Request::Submit(submit_of("z", "one", "x")));
    w.ask(client, Request::Submit(submit_of("z", "", "x")));
    w.grab(worker);
    w.heard(client);
    assert_eq!(
        w.admin(client, AdminCommand::Workers),
        "7 127.0.0.1 - :\n7 127.0.0.1 te_worker : z a\n.\n"
    );
    assert_eq!(w.admin(client, AdminCommand::Status), "a\t0\t0\t1\nz\t2\t1\t1\n.\n");
    assert_eq!(w.admin(client, AdminCommand::PriorityStatus), "a\t0\t0\t0\t1\nz\t0\t1\t0\t1\n.\n");
    let jobs = "H:127.0.0.1:1\t0\t0\t0\nH:127.0.0.1:2\t0\t0\t1\n.\n";
    assert_eq!(w.admin(client, AdminCommand::ShowJobs), jobs);
    assert_eq!(w.admin(client, AdminCommand::ShowUniqueJobs), "one\n.\n");
    assert_eq!(w.admin(client, AdminCommand::GetPid), "OK 0\n");
    assert_eq!(w.admin(client, AdminCommand::CreateFunction(b"new")), "OK\n");
    let drop = |name| AdminCommand::DropFunction(name);
    assert_eq!(w.admin(client, drop(b"new")), "OK\n");
    assert_eq!(w.admin(client, drop(b"new")), "ERR function not found\n");
    let busy = "ERR there are still connected workers or executing clients\n";
    assert_eq!(w.admin(client, drop(b"z")), busy);
    w.disconnect(worker);
    w.heard(client);
    w.broker.admin(client, drop(b"z"), &mut w.said);
    assert_eq!(w.heard(client), ["Fail H:127.0.0.1:2", "OK\n"]);
}

#[test]
fn the_list_of_rights_denies_what_it_does_not_allow() {
    let mut acl = Acl::default();
    acl.grant_register("worker", "lock").unwrap();
    acl.grant_invoke("client", "lock").unwrap();
    acl.grant_grant("boss").unwrap();
    let mut w = World::with_acl(Settings::geard(), Some(acl));
    let client = w.connect_as(PeerKind::Remote, Some("client"));
    let worker = w.connect_as(PeerKind::Remote, Some("worker"));
    let boss = w.connect_as(PeerKind::Remote, Some("boss"));
    w.can_do(worker, "lockenv");
    w.can_do(worker, "other");
    w.can_do(client, "lockenv");
    assert!(w.heard(worker).is_empty() && w.heard(client).is_empty());
    assert_eq!(w.broker.function(b"lockenv").outside_workers, 1);
    assert_eq!(w.broker.function(b"other"), FunctionView::default());
    w.ask(worker, Request::Submit(submit_of("lockenv", "", "")));
    assert_eq!(w.heard(worker), ["ERROR 0 Permission denied by ACL"]);
    let handle = w.submit(client, "lockenv");
    let cancel = || AdminCommand::CancelJob(handle.as_bytes());
    assert_eq!(w.admin(worker, cancel()), "ERR PERMISSION_DENIED\n");
    let grant =
        |pattern| AdminCommand::AclGrant { verb: AclVerb::Invoke, subject: "worker", pattern };
    assert_eq!(w.admin(client, grant("x")), "ERR PERMISSION_DENIED\n");
    assert!(w.admin(boss, grant("(")).starts_with("ERR UNABLE Regular expression error: "));
    assert_eq!(w.admin(boss, grant("lock")), "OK\n");
    assert_eq!(w.admin(worker, cancel()), "OK\n");
    let listing = "boss\tregister=None\tinvoke=None\tgrant=True\n\
                   client\tregister=None\tinvoke=lock\tgrant=None\n\
                   worker\tregister=lock\tinvoke=lock\tgrant=None\n.\n";
    assert_eq!(w.admin(client, AdminCommand::AclList), listing);
    let revoke = AdminCommand::AclRevoke { verb: AclVerb::All, subject: "boss" };
    assert_eq!(w.admin(client, revoke), "ERR PERMISSION_DENIED\n");
    let shutdown = AdminCommand::Shutdown { graceful: false };
    assert_eq!(w.admin(client, shutdown), "ERR PERMISSION_DENIED\n");
    assert_eq!(w.admin(client, AdminCommand::AclSelfRevoke { verb: AclVerb::All }), "OK\n");
    w.ask(client, Request::Submit(submit_of("lockenv", "", "")));
    assert_eq!(w.heard(client), ["ERROR 0 Permission denied by ACL"]);

    let mut w = World::new(Settings::geard());
    let anyone = w.connect();
    assert_eq!(w.admin(anyone, AdminCommand::AclList), "ERR ACL_DISABLED\n");
}

#[test]
fn a_job_taken_within_the_process_waits_until_it_is_begun() {
    let mut w = World::new(Settings::geard());
    let (client, other) = (w.connect(), w.connect());
    let inside = w.connect_as(PeerKind::InProcess, None);
    w.can_do(inside, "lockenv");
    let [first, second] = [(); 2].map(|()| w.submit(client, "lockenv"));
    w.grab(inside);
    w.grab(inside);
    w.heard(inside);
    w.broker.begin(inside, first.as_bytes());
    // By others, twice, and of jobs that are not: nothing happens.
    w.broker.begin(other, second.as_bytes());
    w.broker.begin(inside, first.as_bytes());
    w.broker.begin(inside, b"H:127.0.0.1:99");
    assert_eq!(w.admin(other, AdminCommand::Status), "lockenv\t2\t1\t1\n.\n");
    let jobs = format!("{first}\t0\t0\t0\n{second}\t0\t0\t1\n.\n");
    assert_eq!(w.admin(other, AdminCommand::ShowJobs), jobs);
    w.ask(other, Request::GetStatus { handle: second.as_bytes() });
    assert_eq!(w.heard(other), [format!("KNOWN {second} true false 0/0 None")]);
    assert_eq!((w.broker.figures().running, w.broker.figures().waiting), (1, 1));

    let running = AdminCommand::CancelJob(first.as_bytes());
    assert_eq!(w.admin(other, running), "ERR UNKNOWN_JOB\n");
    let waiting = AdminCommand::CancelJob(second.as_bytes());
    assert_eq!(w.admin(other, waiting), "OK\n");
    assert_eq!(w.heard(inside), [format!("ABANDONED {second}")]);
    assert_eq!(w.admin(other, AdminCommand::Status), "lockenv\t1\t1\t1\n.\n");
}

#[test]
fn a_part_of_the_process_takes_jobs_only_when_it_asks() {
    let mut w = World::new(Settings::geard());
    let (client, outside) = (w.connect(), w.sleeper("lockenv"));
    let inside = w.connect_as(PeerKind::InProcess, None);
    w.can_do(inside, "lockenv");
    w.ask(inside, Request::PreSleep);
    let view = w.broker.function(b"lockenv");
    assert_eq!((view.outside_workers, view.inside_workers, view.queued), (1, 1, 0));
    let first = w.submit(client, "lockenv");
    assert_eq!((w.heard(inside), w.heard(outside)), (vec!["NOOP".into()], vec!["NOOP".into()]));
    w.grab(inside);
    assert!(w.heard(inside)[0].starts_with("ASSIGN"));
    w.grab(outside);
    assert_eq!(w.heard(outside), ["NO_JOB"]);
    w.disconnect(client);
    assert_eq!(w.heard(inside), [format!("ABANDONED {first}")]);
    assert!(!w.admin(outside, AdminCommand::Workers).contains("lockenv\n7"), "not listed");
}

#[test]
fn reducers_and_echoes_and_shutdown() {
    let mut w = World::new(Settings::geard());
    let (client, worker) = (w.connect(), w.connect());
    w.can_do(worker, "f");
    let submit = Submit { reducer: Some(b"sum"), ..submit_of("f", "u", "x") };
    w.ask(client, Request::Submit(submit));
    w.ask(worker, Request::Grab(GrabStyle::All));
    assert_eq!(w.heard(worker), ["ASSIGN All H:127.0.0.1:1 f [u] x by sum"]);
    w.ask(worker, Request::Echo { data: b"hi" });
    w.ask(worker, Request::AllYours);
    assert_eq!(w.heard(worker), ["ECHO hi"]);
    let effect = w.broker.admin(worker, AdminCommand::Shutdown { graceful: true }, &mut w.said);
    assert_eq!(effect, AdminEffect::Shutdown { graceful: true });
    let far = w.connect_as(PeerKind::Remote, None);
    let effect = w.broker.admin(far, AdminCommand::Shutdown { graceful: true }, &mut w.said);
    assert_eq!(effect, AdminEffect::None);
}
