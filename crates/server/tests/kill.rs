//! The server is killed with -9 again and again while clients and hosts work; nothing granted is lost or granted twice.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;

use common::{LIMIT, SimHost, enrol, eventually, no_operations};
use std::collections::HashMap;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Backoff, ClientError, Endpoint, Token};
use toci_wire::api::{Lease, LeaseRequest, LeaseState, Release, Role, TeState, TokenRequest};

/// How often the server is killed.
const KILLS: u32 = 12;
/// How long a start may take here. The promise is 1 s; a debug build on a busy machine gets much more, and the printed
/// figure is to be looked at.
const START_LIMIT: Duration = Duration::from_secs(20);
const HOSTS: u32 = 3;
const TES_PER_HOST: u32 = 3;
const CLIENTS: u64 = 12;

/// Not a test: the server, when this program is started as one.
#[test]
fn the_server_process() {
    common::process::serve_if_told();
}

struct Server {
    child: Child,
}

impl Server {
    fn start(folder: &Path) -> Server {
        Server { child: common::process::server(&[], folder).spawn().unwrap() }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small generator: the same seed gives the same moments of death.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What all clients together know.
#[derive(Default)]
struct Ledger {
    /// Who has each TE now.
    holders: Mutex<HashMap<String, String>>,
    /// The newest generation seen of each TE.
    generations: Mutex<HashMap<String, u64>>,
    cycles: AtomicU64,
    stop: AtomicBool,
}

impl Ledger {
    fn take(&self, lease: &Lease) {
        for te in &lease.testenvs {
            let old = self.holders.lock().unwrap().insert(te.testenv.clone(), lease.id.clone());
            assert_eq!(old, None, "{} was granted to {} as well", te.testenv, lease.id);
            let newest = self.generations.lock().unwrap().insert(te.testenv.clone(), te.generation);
            assert!(newest < Some(te.generation), "generation {newest:?} came again: {te:?}");
        }
    }

    fn give_back(&self, lease: &Lease) {
        for te in &lease.testenvs {
            self.holders.lock().unwrap().remove(&te.testenv);
        }
    }
}

async fn patiently<T, F>(call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, ClientError>>,
{
    Backoff::new().retry(Instant::now() + LIMIT, call).await.unwrap()
}

async fn until_active(client: &ApiClient, id: &str) -> Lease {
    loop {
        let mut stream = patiently(|| client.lease_stream(id)).await;
        // A stream that broke is opened again; a lease that is gone fails the call above.
        while let Ok(Some(lease)) = stream.next().await {
            match lease.state {
                LeaseState::Active => return lease,
                LeaseState::Waiting | LeaseState::Granted => {}
                LeaseState::Held
                | LeaseState::Released
                | LeaseState::Expired
                | LeaseState::Lost
                | LeaseState::Revoked
                | LeaseState::Refused => panic!("the request was lost: {lease:?}"),
            }
        }
    }
}

async fn work(client: ApiClient, number: u64, ledger: Arc<Ledger>) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (number + 1));
    let mut turn = 0;
    while !ledger.stop.load(Ordering::Relaxed) {
        turn += 1;
        let request = LeaseRequest {
            label: Some("devtest".to_owned()),
            count: Some(1 + u32::from(dice.roll(4) == 0)),
            idempotency_key: Some(format!("{number}-{turn}")),
            ..LeaseRequest::default()
        };
        let asked = patiently(|| client.request_lease(&request)).await;
        let active = until_active(&client, &asked.id).await;
        ledger.take(&active);
        for _ in 0..dice.roll(4) {
            tokio::time::sleep(Duration::from_millis(dice.roll(60))).await;
            let now = patiently(|| client.heartbeat(&active.id)).await;
            assert_eq!((now.state, &now.testenvs), (LeaseState::Active, &active.testenvs));
        }
        for te in patiently(|| client.lease_testenvs(&active.id)).await {
            assert_eq!(te.te_json["ssh-key"], format!("key of {}", active.id));
        }
        ledger.give_back(&active);
        let done = Release::default();
        let over = patiently(|| client.release(&active.id, &done)).await;
        assert_eq!(over.state, LeaseState::Released);
        ledger.cycles.fetch_add(1, Ordering::Relaxed);
    }
}

async fn serving(client: &ApiClient, since: Instant) -> Duration {
    while client.health().await.is_err() {
        assert!(since.elapsed() < LIMIT, "the server does not come up");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let begun = Instant::now();
    let endpoint: Endpoint =
        format!("unix:{}", folder.path().join("state/toci.sock").display()).parse().unwrap();
    let nobody = ApiClient::new(endpoint, None, None).unwrap();
    let mut slowest = serving(&nobody, begun).await;
    let token = Token::from_file(&folder.path().join("state/admin.token")).unwrap();
    let admin = nobody.with_token(token);

    let mut hosts = Vec::new();
    for n in 1..=HOSTS {
        let name = format!("h{n}");
        let client = enrol(&admin, &name).await.unwrap();
        hosts.push(tokio::spawn(SimHost::new(&name, client, TES_PER_HOST).run(no_operations)));
    }
    all_ready(&admin).await;
    let ledger = Arc::new(Ledger::default());
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let request = TokenRequest { role: Role::Client, subject: format!("c{n}"), ttl_s: None };
        let token = admin.create_token(&request).await.unwrap().token;
        let client = admin.with_token(Token::new(&token).unwrap());
        clients.push(tokio::spawn(work(client, n, ledger.clone())));
    }

    let seed = 2014;
    let mut dice = Dice(seed);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(50 + dice.roll(400))).await;
        server.kill();
        server = Server::start(folder.path());
        slowest = slowest.max(serving(&nobody, Instant::now()).await);
    }
    ledger.stop.store(true, Ordering::Relaxed);
    for client in clients {
        tokio::time::timeout(LIMIT * 2, client).await.expect("a client is stuck").unwrap();
    }
    all_ready(&admin).await;
    assert_eq!(admin.leases(false).await.unwrap(), vec![]);
    assert!(hosts.iter().all(|host| !host.is_finished()), "a host saw something wrong");
    let cycles = ledger.cycles.load(Ordering::Relaxed);
    println!("seed {seed}: {KILLS} kills, {cycles} leases, slowest start {slowest:?}");
    assert!(cycles >= CLIENTS, "too little happened");
    assert!(slowest < START_LIMIT, "a start took {slowest:?}");
}

async fn all_ready(admin: &ApiClient) {
    let all = usize::try_from(HOSTS * TES_PER_HOST).unwrap();
    eventually("all TEs are ready", async || {
        let tes = admin.testenvs().await.map_err(|e| e.to_string())?;
        let ready = tes.iter().filter(|te| te.state == TeState::Ready).count();
        if ready == all { Ok(()) } else { Err(format!("{tes:?}")) }
    })
    .await;
}
