//! `lockenv` with the original's programs in small, on PyPI's gear: they get TEs of our hosts through our broker.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;
mod gearman_support;

use common::{LIMIT, SimHost, World, eventually, no_operations};
use gearman_support::python_with_gear;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::Stdio;
use std::time::{Duration, Instant};
use toci_server::LockenvOptions;
use toci_wire::api::{Lease, LeaseState, Revoke, TeState};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

/// A program and all that it starts: an original client leaves its command behind when it is killed.
struct Peer {
    group: Pid,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    heard: Vec<String>,
}

impl Peer {
    fn start(world: &World, role: &str, arguments: &[&str]) -> Peer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/testenv_peer.py");
        let mut child = Command::new(python_with_gear())
            .args([script, role, "127.0.0.1", &world.running.gearman[0].port().to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let group = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Peer { group, child, lines, heard: Vec::new() }
    }

    /// Waits for a line.
    async fn says(&mut self, wanted: &str) {
        let read = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.heard.push(line);
                if self.heard.last().is_some_and(|l| l == wanted) {
                    return true;
                }
            }
            false
        };
        let said = tokio::time::timeout(LIMIT, read).await;
        assert!(said == Ok(true), "`{wanted}` was not said; this was: {:?}", self.heard);
    }

    async fn exit_code(&mut self) -> Option<i32> {
        tokio::time::timeout(LIMIT, self.child.wait()).await.unwrap().unwrap().code()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // An error means that nothing of it is left.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

async fn world(tes: u32) -> (World, JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    config.lease.heartbeat = Duration::from_secs(1);
    config.lease.lost_after = Duration::from_secs(2);
    config.lockenv = Some(LockenvOptions {
        callback_wait: Duration::from_secs(2),
        callback_grace: Duration::from_millis(500),
    });
    let running = toci_server::start(config).await.unwrap();
    let world = World::around(running, folder);
    let host = world.enrol("h1").await;
    let host = tokio::spawn(SimHost::new("h1", host, tes).run(no_operations));
    all_ready(&world, tes as usize).await;
    (world, host)
}

async fn all_ready(world: &World, count: usize) {
    eventually("TEs ready", async || {
        let tes = world.admin.testenvs().await.map_err(|e| e.to_string())?;
        let ready = tes.iter().filter(|te| te.state == TeState::Ready).count();
        if ready == count { Ok(()) } else { Err(format!("{tes:?}")) }
    })
    .await;
}

async fn lease_in(world: &World, state: LeaseState) -> Lease {
    eventually("a lease gets there", async || {
        let leases = world.admin.leases(true).await.map_err(|e| e.to_string())?;
        leases.iter().find(|l| l.state == state).cloned().ok_or_else(|| format!("{leases:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_client_runs_its_command_in_a_te_of_ours() {
    let (world, _host) = world(1).await;
    let command = "cat $TE_DATAFILE; echo; exit 7";
    let mut peer = Peer::start(&world, "client", &["one", "60", "sh", "-c", command]);
    peer.says(r#"{"ssh-key":"key of L1"}"#).await;
    peer.says("lockenv complete").await;
    assert_eq!(peer.exit_code().await, Some(7));
    let lease = lease_in(&world, LeaseState::Released).await;
    assert_eq!((lease.owner.as_str(), lease.project.as_str()), ("lockenv:callback_one", "lockenv"));
    all_ready(&world, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_wait_for_their_turn_and_outlast_the_heartbeat_limit() {
    let (world, _host) = world(1).await;
    let mut first = Peer::start(&world, "client", &["one", "60", "sleep", "4"]);
    first.says("callback taken").await;
    let mut second = Peer::start(&world, "client", &["two", "60", "true"]);
    let waiting = lease_in(&world, LeaseState::Waiting).await;
    assert_eq!(waiting.waiting.unwrap().position, 1);
    assert_eq!(first.exit_code().await, Some(0));
    assert_eq!(second.exit_code().await, Some(0));
    all_ready(&world, 1).await;
}

/// What the broker answers to an admin command, up to its last line.
async fn admin(world: &World, command: &str) -> String {
    let stream = TcpStream::connect(world.running.gearman[0]).await.unwrap();
    let mut stream = BufReader::new(stream);
    stream.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    loop {
        let line = answer.len();
        let read = tokio::time::timeout(LIMIT, stream.read_line(&mut answer)).await.unwrap();
        assert_ne!(read.unwrap(), 0, "{command}: {answer}");
        if [".\n", "OK\n"].contains(&&answer[line..]) || answer.starts_with("ERR") {
            return answer;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_is_a_queued_job_and_can_be_cancelled() {
    let (world, _host) = world(1).await;
    let mut holder = Peer::start(&world, "client", &["one", "60", "sleep", "1000"]);
    holder.says("callback taken").await;
    let _waiter = Peer::start(&world, "client", &["two", "60", "true"]);
    let waiting = lease_in(&world, LeaseState::Waiting).await;
    let status = admin(&world, "status").await;
    assert!(status.contains("lockenv\t2\t1\t1\n"), "{status}");
    let jobs = admin(&world, "show jobs").await;
    let of = |queued: &str| {
        let job = jobs.lines().find(|j| j.ends_with(queued) && j.contains('\t')).unwrap();
        job.split('\t').next().unwrap().to_owned()
    };
    let cancelled = admin(&world, &format!("cancel job {}", of("\t1"))).await;
    assert_eq!(cancelled, "OK\n");
    eventually("the request is withdrawn", async || {
        let lease = world.admin.lease(&waiting.id).await.map_err(|e| e.to_string())?;
        if lease.state.is_over() { Ok(()) } else { Err(format!("{lease:?}")) }
    })
    .await;
    assert_eq!(lease_in(&world, LeaseState::Active).await.owner, "lockenv:callback_one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_frees_its_te_and_its_place_in_the_queue() {
    let (world, _host) = world(1).await;
    let mut holder = Peer::start(&world, "client", &["one", "60", "sleep", "1000"]);
    holder.says("callback taken").await;
    let mut waiter = Peer::start(&world, "client", &["two", "60", "true"]);
    let waiting = lease_in(&world, LeaseState::Waiting).await;
    waiter.child.kill().await.unwrap();
    eventually("the request is withdrawn", async || {
        let lease = world.admin.lease(&waiting.id).await.map_err(|e| e.to_string())?;
        if lease.state.is_over() { Ok(()) } else { Err(format!("{lease:?}")) }
    })
    .await;
    let begun = Instant::now();
    holder.child.kill().await.unwrap();
    all_ready(&world, 1).await;
    println!("a killed client's TE was ready again after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lease_ends_the_client() {
    let (world, _host) = world(2).await;
    let mut expiring = Peer::start(&world, "client", &["one", "1", "sleep", "1000"]);
    let mut revoked = Peer::start(&world, "client", &["two", "60", "sleep", "1000"]);
    revoked.says("callback taken").await;
    expiring.says("released before the command had ended").await;
    assert_eq!(expiring.exit_code().await, Some(3));
    let lease = lease_in(&world, LeaseState::Active).await;
    let revoke = Revoke { reason: "needed".to_owned() };
    world.admin.revoke(&lease.id, &revoke).await.unwrap();
    revoked.says("lockenv complete").await;
    assert_eq!(revoked.exit_code().await, Some(3));
    lease_in(&world, LeaseState::Expired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_nobody_serves_frees_the_te() {
    let (world, _host) = world(1).await;
    let mut peer = Peer::start(&world, "silent", &["one", "60"]);
    lease_in(&world, LeaseState::Active).await;
    peer.says("lockenv complete").await;
    lease_in(&world, LeaseState::Released).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_worker_serves_beside_our_hosts() {
    let (world, _host) = world(1).await;
    let datafile = world.folder.path().join("te.json");
    std::fs::write(&datafile, "{\"theirs\": 1}").unwrap();
    let mut worker = Peer::start(&world, "worker", &[datafile.to_str().unwrap()]);
    worker.says("registered").await;
    // The worker waits for a job, so who is first is open; two clients at once need both.
    let command = "cat $TE_DATAFILE > $OUT; while [ ! -e $GO ]; do sleep 0.1; done";
    let go = world.folder.path().join("go");
    let out = |n: u32| world.folder.path().join(format!("out{n}"));
    let mut clients: Vec<Peer> = (1..=2)
        .map(|n| {
            let run = format!("OUT={}; GO={}; {command}", out(n).display(), go.display());
            Peer::start(&world, "client", &[&n.to_string(), "60", "sh", "-c", &run])
        })
        .collect();
    for client in &mut clients {
        client.says("callback taken").await;
    }
    std::fs::write(&go, "").unwrap();
    for client in &mut clients {
        client.says("lockenv complete").await;
        assert_eq!(client.exit_code().await, Some(0));
    }
    let mut seen: Vec<String> = (1..=2).map(|n| std::fs::read_to_string(out(n)).unwrap()).collect();
    seen.sort();
    assert_eq!(seen, [r#"{"ssh-key":"key of L1"}"#, r#"{"theirs": 1}"#]);
}
