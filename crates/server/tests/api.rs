//! The API from outside: a real server, the real client, simulated hosts.

mod common;

use common::{LIMIT, SimHost, World, eventually, no_operations, until, until_state};
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Change, ClientError, Token, Upload};
use toci_wire::api::{
    Connection, EnrolRequest, EnrolTokenRequest, Extend, ImagePushed, LeaseRequest, LeaseState,
    MachineState, Operation, OperationKind, OperationResult, PowerAction, PowerRequest, Release,
    Revoke, Role, TeState, TokenRequest,
};

fn devtest() -> LeaseRequest {
    LeaseRequest { label: Some("devtest".to_owned()), ..LeaseRequest::default() }
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (u16, String) {
    match result {
        Err(ClientError::Api { status, error }) => (status, error.code),
        other => panic!("a refusal was expected, this came: {other:?}"),
    }
}

/// A world with one host of `tes` TEs, all ready.
async fn world_with_host(tes: u32) -> (World, tokio::task::JoinHandle<()>) {
    let world = World::start().await;
    let host = world.enrol("h1").await;
    let host = tokio::spawn(SimHost::new("h1", host, tes).run(operate));
    ready(&world.admin, tes as usize).await;
    (world, host)
}

async fn ready(client: &ApiClient, count: usize) {
    eventually("TEs ready", async || {
        let tes = client.testenvs().await.map_err(|e| e.to_string())?;
        let ready = tes.iter().filter(|te| te.state == TeState::Ready).count();
        if ready == count { Ok(()) } else { Err(format!("{tes:?}")) }
    })
    .await;
}

/// What the simulated host does with operations.
async fn operate(client: &ApiClient, host: &str, operation: Operation) {
    let client = client.clone();
    let host = host.to_owned();
    tokio::spawn(async move {
        let id = operation.id.as_str();
        match operation.kind {
            OperationKind::Power { machine: Some(machine), .. } if machine == "missing" => {
                let result = OperationResult::Refused {
                    code: "no_such_machine".to_owned(),
                    message: "no such machine".to_owned(),
                };
                client.operation_result(&host, id, &result).await
            }
            OperationKind::Power { .. } => {
                let machines = vec![MachineState { name: "seed_1".to_owned(), on: true }];
                let result = OperationResult::Machines { machines };
                client.operation_result(&host, id, &result).await
            }
            OperationKind::View => {
                client.operation_output(&host, id, Upload::from_bytes("seed_1 on\n")).await
            }
            OperationKind::Console { follow: false, .. } => {
                client.operation_output(&host, id, Upload::from_bytes("boot\nlogin:")).await
            }
            OperationKind::Console { follow: true, .. } => {
                // Grows without end, faster than anybody reads.
                let endless = tokio::io::repeat(b'x');
                client.operation_output(&host, id, Upload::from_reader(endless, None)).await
            }
            OperationKind::Screenshot { .. } => {
                let result = OperationResult::Failed { message: "the screen is dark".to_owned() };
                client.operation_result(&host, id, &result).await
            }
            OperationKind::PushImage { .. } => {
                let mut input = client.operation_input(&host, id).await.expect("the image comes");
                let mut bytes = 0;
                while let Ok(Some(piece)) = input.chunk().await {
                    bytes += piece.len() as u64;
                }
                let result = OperationResult::Image {
                    bytes,
                    sha256: "0".repeat(64),
                    format: "raw".to_owned(),
                };
                client.operation_result(&host, id, &result).await
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_is_enough_for_whoever_gets_a_lease_soon() {
    let (world, _host) = world_with_host(1).await;
    let client = world.client(Role::Client, "alice").await;
    let active = client.request_lease_within(&devtest(), 20).await.unwrap();
    assert_eq!(active.state, LeaseState::Active);
    // There is no second TE: the answer comes when the time is up, and says why it waits.
    let waiting = client.request_lease_within(&devtest(), 1).await.unwrap();
    assert_eq!(waiting.state, LeaseState::Waiting);
    assert!(waiting.waiting.is_some());
    // Whoever waits hears of the grant as soon as it is there, and of the end as well.
    let patient = async { client.request_lease_within(&devtest(), 20).await.unwrap() };
    let withdraw = async {
        let third = eventually("the third request", async || {
            let leases = client.leases(false).await.map_err(|e| e.to_string())?;
            let known = [&active.id, &waiting.id];
            let third = leases.iter().find(|l| !known.contains(&&l.id)).cloned();
            third.ok_or_else(|| format!("{leases:?}"))
        })
        .await;
        client.release(&third.id, &Release::default()).await.unwrap();
    };
    let (ended, ()) = tokio::join!(patient, withdraw);
    assert!(ended.state.is_over(), "{ended:?}");
    world.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_from_request_to_the_next_grant() {
    let (world, _host) = world_with_host(1).await;
    let alice = world.client(Role::Client, "alice").await;
    let bob = world.client(Role::Client, "bob").await;

    let lease = alice.request_lease(&devtest()).await.unwrap();
    let active = until_state(&alice, &lease.id, LeaseState::Active).await;
    assert_eq!(active.testenvs[0].generation, 1);
    let tes = alice.lease_testenvs(&lease.id).await.unwrap();
    assert_eq!(tes[0].te_json["ssh-key"], format!("key of {}", lease.id));
    alice.heartbeat(&lease.id).await.unwrap();
    let longer = alice.extend(&lease.id, &Extend { for_s: 20_000 }).await.unwrap();
    assert!(longer.expires_us > active.expires_us);

    // Only the owner sees the credentials, not even an operator; and nobody else uses the lease.
    assert_eq!(code(world.admin.lease_testenvs(&lease.id).await), (403, "not_holder".into()));
    assert_eq!(code(bob.release(&lease.id, &Release::default()).await).0, 403);
    assert_eq!(code(bob.heartbeat(&lease.id).await).0, 403);
    assert_eq!(bob.lease(&lease.id).await.unwrap().owner, "alice");

    let waiting = bob.request_lease(&devtest()).await.unwrap();
    let waiting = until(&bob, &waiting.id, |l| l.waiting.is_some()).await.unwrap();
    assert_eq!(waiting.waiting.as_ref().unwrap().position, 1);

    let begun = Instant::now();
    let over = alice.release(&lease.id, &Release { reason: "done".to_owned() }).await.unwrap();
    assert_eq!(over.state, LeaseState::Released);
    let next = until_state(&bob, &waiting.id, LeaseState::Active).await;
    println!("hand-over with an immediate reset took {:?}", begun.elapsed());
    assert_eq!(next.testenvs[0].generation, 2);
    assert_eq!(code(alice.lease_testenvs(&lease.id).await).1, "not_active");
    assert_eq!(alice.release(&lease.id, &Release::default()).await.unwrap().state, over.state);

    let revoke = Revoke { reason: "needed".to_owned() };
    assert_eq!(code(bob.revoke(&waiting.id, &revoke).await), (403, "forbidden".into()));
    let revoked = world.admin.revoke(&waiting.id, &revoke).await.unwrap();
    assert_eq!((revoked.state, revoked.reason.as_str()), (LeaseState::Revoked, "needed"));
    ready(&world.admin, 1).await;
    let ids = |leases: Vec<toci_wire::api::Lease>| leases.into_iter().map(|l| l.id);
    assert_eq!(ids(bob.leases(false).await.unwrap()).count(), 0);
    assert_eq!(ids(bob.leases(true).await.unwrap()).count(), 2);
    world.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_is_listed_whole() {
    let (world, host) = world_with_host(1).await;
    let first = world.admin.request_lease(&devtest()).await.unwrap();
    let waiting: Vec<_> = (0..1_050)
        .map(|_| {
            let admin = world.admin.clone();
            async move { admin.request_lease(&devtest()).await }
        })
        .collect();
    let mut all = tokio::task::JoinSet::new();
    waiting.into_iter().for_each(|ask| drop(all.spawn(ask)));
    while let Some(asked) = all.join_next().await {
        asked.unwrap().unwrap();
    }
    let listed = world.admin.leases(false).await.unwrap();
    assert_eq!(listed.len(), 1_051);
    assert_eq!(listed.last().unwrap().id, first.id, "who has the TE is what people look for");
    assert!(listed.iter().filter_map(|l| l.waiting.as_ref()).all(|w| w.estimate_s.is_some()));
    let figures = world.admin.metrics().await.unwrap();
    assert!(figures.contains("toci_leases{state=\"waiting\"} 1050"), "{figures}");
    host.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_allow_what_they_say_and_no_more() {
    let (world, _host) = world_with_host(1).await;
    let reader = world.client(Role::ReadOnly, "eve").await;
    assert_eq!(reader.hosts().await.unwrap()[0].connection, Connection::Connected);
    assert_eq!(code(reader.request_lease(&devtest()).await), (403, "forbidden".into()));
    assert_eq!(code(reader.drain_testenv("h1-1").await).0, 403);
    assert_eq!(code(reader.tokens().await).0, 403);

    let client = world.client(Role::Client, "alice").await;
    assert_eq!(code(client.drain_host("h1").await).0, 403);
    let request = PowerRequest { machine: None, action: PowerAction::Status };
    assert_eq!(code(client.power("h1-1", &request).await), (403, "not_holder".into()));

    let other = world.enrol("h2").await;
    assert_eq!(code(other.leases(false).await).0, 403);
    let report = SimHost::new("h1", other.clone(), 1).report();
    assert_eq!(code(other.report("h1", &report).await).0, 403);
    other.report("h2", &SimHost::new("h2", other.clone(), 1).report()).await.unwrap();

    let nobody = ApiClient::new(world.endpoint(), None, None).unwrap();
    assert_eq!(code(nobody.leases(false).await), (401, "no_token".into()));
    nobody.health().await.unwrap();
    let wrong = world.admin.with_token(Token::new("toci_wrong").unwrap());
    assert_eq!(code(wrong.leases(false).await), (401, "bad_token".into()));

    let token = TokenRequest { role: Role::Client, subject: "not a name".to_owned(), ttl_s: None };
    assert_eq!(code(world.admin.create_token(&token).await), (422, "bad_request".into()));
    let token = TokenRequest { role: Role::Host, subject: "h9".to_owned(), ttl_s: None };
    assert_eq!(code(world.admin.create_token(&token).await), (404, "no_such_host".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_and_its_streams_end() {
    let (world, _host) = world_with_host(1).await;
    let alice = world.client(Role::Client, "alice").await;
    let lease = alice.request_lease(&devtest()).await.unwrap();
    until_state(&alice, &lease.id, LeaseState::Active).await;
    let mut stream = alice.lease_stream(&lease.id).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let tokens = world.admin.tokens().await.unwrap();
    let token = tokens.iter().find(|t| t.subject == "alice").unwrap();
    world.admin.delete_token(&token.id).await.unwrap();
    let end = tokio::time::timeout(LIMIT, stream.next()).await.unwrap();
    assert!(matches!(end, Ok(None)), "{end:?}");
    assert_eq!(code(alice.lease(&lease.id).await), (401, "bad_token".into()));
    assert_eq!(code(world.admin.delete_token(&token.id).await).0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_is_once_for_a_token_and_once_for_a_name() {
    let world = World::start().await;
    let admin = &world.admin;
    let any = EnrolTokenRequest { host: None, ttl_s: None };
    let token = admin.create_enrol_token(&any).await.unwrap().token;
    let enrol =
        |token: &str, host: &str| EnrolRequest { token: token.to_owned(), host: host.to_owned() };
    let nobody = ApiClient::new(world.endpoint(), None, None).unwrap();
    let first = nobody.enrol(&enrol(&token, "h1")).await.unwrap();
    let first = admin.with_token(Token::new(&first.token).unwrap());
    assert_eq!(code(nobody.enrol(&enrol(&token, "h2")).await), (403, "bad_enrol_token".into()));
    let second = admin.create_enrol_token(&any).await.unwrap().token;
    let taken = nobody.enrol(&enrol(&second, "h1")).await;
    assert!(format!("{taken:?}").contains("`toci host enrol --host h1`"), "{taken:?}");
    assert_eq!(code(taken), (409, "host_exists".into()));
    assert_eq!(code(nobody.enrol(&enrol(&second, "../h")).await), (422, "bad_name".into()));

    // A reinstalled host comes back with a token made for its name, and its old one dies.
    let bound = EnrolTokenRequest { host: Some("h1".to_owned()), ttl_s: None };
    let bound = admin.create_enrol_token(&bound).await.unwrap().token;
    assert_eq!(code(nobody.enrol(&enrol(&bound, "h3")).await).1, "bad_enrol_token");
    let report = SimHost::new("h1", first.clone(), 1).report();
    first.report("h1", &report).await.unwrap();
    let again = nobody.enrol(&enrol(&bound, "h1")).await.unwrap();
    assert_eq!(code(first.report("h1", &report).await), (401, "bad_token".into()));
    let again = admin.with_token(Token::new(&again.token).unwrap());
    again.report("h1", &report).await.unwrap();

    admin.delete_host("h1").await.unwrap();
    assert_eq!(code(again.report("h1", &report).await).0, 401);
    assert_eq!(code(admin.host("h1").await), (404, "no_such_host".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_go_to_the_host_and_back() {
    let (world, host) = world_with_host(1).await;
    let alice = world.client(Role::Client, "alice").await;
    let lease = alice.request_lease(&devtest()).await.unwrap();
    until_state(&alice, &lease.id, LeaseState::Active).await;

    let power = |machine: Option<&str>| PowerRequest {
        machine: machine.map(str::to_owned),
        action: PowerAction::On,
    };
    assert!(alice.power("h1-1", &power(None)).await.unwrap()[0].on);
    assert_eq!(
        code(alice.power("h1-1", &power(Some("missing"))).await),
        (409, "no_such_machine".into())
    );
    let console = alice.console("h1-1", "seed_1", false).await.unwrap();
    assert_eq!(console.collect(1000).await.unwrap().as_ref(), b"boot\nlogin:");
    assert_eq!(code(alice.screenshot("h1-1", "seed_1").await), (502, "host_failed".into()));

    let size = 8 << 20;
    let image =
        Upload::from_reader(tokio::io::AsyncReadExt::take(tokio::io::repeat(7), size), None);
    let pushed: ImagePushed = alice.push_image("h1-1", "seed_1", image).await.unwrap();
    assert_eq!(pushed.bytes, size);

    // A console that is followed flows, and ends with the lease.
    let mut follow = alice.console("h1-1", "seed_1", true).await.unwrap();
    assert!(!follow.chunk().await.unwrap().unwrap().is_empty());
    alice.release(&lease.id, &Release::default()).await.unwrap();
    let drained = async { while let Ok(Some(_)) = follow.chunk().await {} };
    tokio::time::timeout(LIMIT, drained).await.expect("the console ends with the lease");

    // An operator may look at a TE that nobody holds; when the host is away, that is said at once.
    ready(&world.admin, 1).await;
    world.admin.power("h1-1", &power(None)).await.unwrap();
    host.abort();
    let gone = eventually("the host is gone", async || {
        match world.admin.power("h1-1", &power(None)).await {
            Err(error) if error.code() == Some("host_cut_off") => Ok(error),
            other => Err(format!("{other:?}")),
        }
    });
    let gone = gone.await;
    assert_eq!(gone.status(), Some(503));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_of_a_host_that_goes_away_is_answered() {
    let world = World::start().await;
    let client = world.enrol("h1").await;
    let mut sim = SimHost::new("h1", client.clone(), 1);
    let mut stream = client.host_stream("h1").await.unwrap();
    sim.send_report().await.unwrap();
    let admin = world.admin.clone();
    let asked = tokio::spawn(async move {
        let request = PowerRequest { machine: None, action: PowerAction::Status };
        admin.power("h1-1", &request).await
    });
    let wait = async {
        while !matches!(
            stream.next().await.unwrap().unwrap(),
            toci_client::api::HostMessage::Operation(_)
        ) {}
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap();
    drop(stream);
    let answer = tokio::time::timeout(LIMIT, asked).await.unwrap().unwrap();
    assert_eq!(code(answer), (503, "host_cut_off".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_to_everybody_who_listens() {
    let (world, host) = world_with_host(1).await;
    let alice = world.client(Role::Client, "alice").await;
    let mut changes = alice.changes().await.unwrap();
    let lease = alice.request_lease(&devtest()).await.unwrap();
    let (mut active, mut leased) = (false, false);
    let follow = async {
        while !(active && leased) {
            match changes.next().await.unwrap().unwrap() {
                Change::Lease(l) => active |= l.id == lease.id && l.state == LeaseState::Active,
                Change::Testenv(te) => leased |= te.lease.as_ref() == Some(&lease.id),
                Change::Host(_) | Change::Gone(_) => {}
                Change::Item(_)
                | Change::ItemEnded(_)
                | Change::Report(_)
                | Change::Run(_)
                | Change::Node(_)
                | Change::Provider(_)
                | Change::JobPaused(_)
                | Change::Alert(_) => {}
                Change::Lagged(lagged) => panic!("{lagged:?}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, follow).await.unwrap();
    alice.release(&lease.id, &Release::default()).await.unwrap();
    host.abort();
    eventually("the TE is clean", async || {
        let te = world.admin.testenv("h1-1").await.map_err(|e| e.to_string())?;
        if te.lease.is_none() { Ok(()) } else { Err(format!("{te:?}")) }
    })
    .await;
    world.admin.delete_host("h1").await.unwrap();
    let follow = async {
        while !matches!(changes.next().await.unwrap().unwrap(), Change::Gone(gone) if gone.id == "h1")
        {
        }
    };
    tokio::time::timeout(LIMIT, follow).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_loses_its_lease_and_a_silent_host_its_grants() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    config.lease.heartbeat = Duration::from_millis(200);
    config.lease.lost_after = Duration::from_millis(600);
    config.lease.report_every = Duration::from_millis(500);
    let running = toci_server::start(config).await.unwrap();
    let world = World::around(running, folder);
    let client = world.enrol("h1").await;
    let host = tokio::spawn(SimHost::new("h1", client, 1).run(no_operations));
    ready(&world.admin, 1).await;
    let alice = world.client(Role::Client, "alice").await;
    let lease = alice.request_lease(&devtest()).await.unwrap();
    until_state(&alice, &lease.id, LeaseState::Active).await;
    let begun = Instant::now();
    until_state(&alice, &lease.id, LeaseState::Lost).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    ready(&world.admin, 1).await;
    host.abort();
    eventually("the host is cut off", async || {
        let host = world.admin.host("h1").await.map_err(|e| e.to_string())?;
        if host.connection == Connection::CutOff { Ok(()) } else { Err(format!("{host:?}")) }
    })
    .await;
}
