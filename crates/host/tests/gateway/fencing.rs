//! Whose key opens what, and until when.

use crate::world::{CUT_MAX, STEP_MAX, World, until};
use std::time::Duration;
use toci_core::id::Generation;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_generations_key_is_let_in() {
    let w = World::new().await;
    let old = w.lease(1, 1).await;
    assert_eq!(w.run(&old, "virsh list").await.code, 0);
    let new = w.lease(1, 2).await;
    let saw = w.run(&old, "virsh list").await;
    assert_eq!(saw.code, 255, "{saw:?}");
    assert!(saw.err.contains("Permission denied (publickey)"), "{saw:?}");
    assert_eq!(w.run(&new, "virsh list").await.code, 0);
    w.gateway.open(old.grant.clone()).await.expect_err("an older generation");
    w.gateway.close(&new.grant.te, Generation(2)).await;
    assert_eq!(w.run(&new, "virsh list").await.code, 255);
    w.gateway.open(new.grant.clone()).await.expect_err("a generation that was shut");
    w.gateway.close(&new.grant.te, Generation(2)).await;
    let later = w.lease(1, 3).await;
    w.gateway.close(&new.grant.te, Generation(2)).await;
    assert_eq!(w.run(&later, "virsh list").await.code, 0, "a late close shuts nothing newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_old_generation_is_cut_and_no_command_of_it_runs() {
    let w = World::new().await;
    let old = w.lease(1, 1).await;
    let control = w.path("control");
    let control = control.to_str().unwrap();
    let master = ["-n", "-N", "-M", "-S", control];
    let mut master = w.ssh(&old.key_file, &master, &[]);
    let mut master = master.stderr(std::process::Stdio::null()).spawn().unwrap();
    until(|| std::path::Path::new(control).exists(), |there| *there).await;
    let saw = w.run_with(&old, &["-n", "-S", control], &["virsh list --name"]).await;
    assert_eq!(saw.code, 0, "{saw:?}");
    let began = Instant::now();
    let new = w.lease(1, 2).await;
    assert!(began.elapsed() < CUT_MAX, "the cut took {:?}", began.elapsed());
    let gone = tokio::time::timeout(STEP_MAX, master.wait()).await.expect("master goes on");
    assert!(!gone.unwrap().success());
    assert_eq!(w.run(&new, "virsh list").await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_by_the_hosts_clock_and_can_be_extended() {
    let w = World::new().await;
    let lease = w.lease(1, 1).await;
    let mut grant = lease.grant.clone();
    grant.expires = Instant::now() + Duration::from_secs(7200);
    w.gateway.open(grant.clone()).await.unwrap();
    assert_eq!(w.run(&lease, "virsh list").await.code, 0);
    grant.expires = Instant::now();
    w.gateway.open(grant.clone()).await.unwrap();
    assert_eq!(w.run(&lease, "virsh list").await.code, 255);
    grant.expires = Instant::now() + Duration::from_secs(7200);
    // Whether the timer has shut it meanwhile or not: an expired generation does not come back by
    // accident, only by being extended in time.
    let _ = w.gateway.open(grant).await;
    w.gateway.close(&lease.grant.te, Generation(1)).await;
    assert_eq!(w.run(&lease, "virsh list").await.code, 255);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_keys_users_and_passwords_are_refused() {
    let w = World::new().await;
    let lease = w.lease(1, 1).await;
    let made = tokio::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(w.path("stranger"))
        .status()
        .await
        .expect("ssh-keygen is missing: install the Debian package openssh-client");
    assert!(made.success());
    let mut ssh = w.ssh(&w.path("stranger"), &["-n"], &["virsh list"]);
    assert_eq!(ssh.output().await.unwrap().status.code(), Some(255));
    let saw = w.run_with(&lease, &["-n", "-l", "nobody"], &["virsh list"]).await;
    assert!(saw.err.contains("Permission denied (publickey)"), "{saw:?}");
    let saw = w.run_with(&lease, &["-n", "-l", "stack"], &["virsh list"]).await;
    assert_eq!(saw.code, 0, "{saw:?}");
    // The right key comes after a wrong one.
    let wrong = w.path("stranger");
    let saw = w.run_with(&lease, &["-n", "-i", wrong.to_str().unwrap()], &["virsh list"]).await;
    assert_eq!(saw.code, 0, "{saw:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_silent_connections_delay_nobody() {
    let w = World::new().await;
    let lease = w.lease(1, 1).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut s = TcpStream::connect(w.gateway.address()).await.unwrap();
        let mut greeting = [0; 8];
        s.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"SSH-2.0-");
        silent.push(s);
    }
    let began = Instant::now();
    assert_eq!(w.run(&lease, "virsh list").await.code, 0);
    assert!(began.elapsed() < CUT_MAX, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_strangers_push_out_the_oldest_and_no_holder() {
    let w = World::new().await;
    let lease = w.lease(1, 1).await;
    let mut silent = Vec::new();
    for _ in 0..=toci_host::gateway::limits::STRANGERS_MAX {
        silent.push(TcpStream::connect(w.gateway.address()).await.unwrap());
    }
    let mut all = Vec::new();
    let first = tokio::time::timeout(STEP_MAX, silent[0].read_to_end(&mut all)).await;
    let _ = first.expect("the oldest stranger was not pushed out");
    assert_eq!(w.run(&lease, "virsh list").await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_key_is_private_and_stays() {
    use std::os::unix::fs::PermissionsExt as _;
    let w = World::new().await;
    let file = w.path("ssh_host_ed25519_key");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let address = "127.0.0.1:0".parse().unwrap();
    let config = toci_host::gateway::GatewayConfig::new(address, w.folder.path());
    let again = toci_host::gateway::Gateway::start(config).await.unwrap();
    assert_eq!(again.host_key(), w.gateway.host_key());
    again.shut_down().await;
}
