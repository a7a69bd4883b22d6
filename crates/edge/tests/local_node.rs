//! Sandboxed nodes, real ones. Needs root, as the server that makes them does.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};
use toci_edge::node::bounds::Bounds;
use toci_edge::node::console::{Lines, Mask};
use toci_edge::node::local::LocalNode;
use toci_edge::node::{SessionError, Step};

const LIMIT: Duration = Duration::from_secs(60);

/// A number for each test of this process, so that their users differ.
fn number() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 600).unwrap();
    process * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn node() -> LocalNode {
    bounded(Bounds::default()).await
}

async fn bounded(bounds: Bounds) -> LocalNode {
    LocalNode::start("node1", number(), None, &bounds).await.unwrap()
}

fn step(script: &str) -> Step {
    Step {
        control: "/tmp/control".into(),
        folder: "/tmp".into(),
        environment: "/dev/null".into(),
        script: script.into(),
    }
}

#[tokio::test]
async fn root_inside_is_nobody_outside() {
    let node = node().await;
    let session = node.session();
    let text =
        "id -u; hostname; ls /root | wc -l; touch /etc/x /usr/x 2>&1; ls /proc | grep -c '^[0-9]'";
    let ended = session.try_run("look", text, b"", LIMIT).await.unwrap();
    let said = ended.text();
    let mut lines = said.lines();
    assert_eq!((lines.next(), lines.next(), lines.next()), (Some("0"), Some("node1"), Some("0")));
    assert_eq!(said.matches("Permission denied").count(), 2, "{said}");
    // Only its own processes: the first one, the shell and what it runs.
    let processes: u32 = said.lines().last().unwrap().parse().unwrap();
    assert!(processes < 10, "{said}");
    assert!(!std::path::Path::new("/etc/x").exists());
}

#[tokio::test]
async fn it_has_no_network_but_its_own() {
    let node = node().await;
    let ended = node.session().run("look", "ip -o link | wc -l", b"", LIMIT).await.unwrap();
    assert_eq!(ended.text().trim(), "1");
}

#[tokio::test]
async fn files_go_in_and_come_out() {
    let folder = tempfile::tempdir().unwrap();
    let node = node().await;
    let session = node.session();
    session.put("/opt/stack/new/a dir/it's", b"hello\0world", 0o600).await.unwrap();
    let text = "stat -c %a \"/opt/stack/new/a dir/it's\"";
    assert_eq!(session.run("look", text, b"", LIMIT).await.unwrap().text().trim(), "600");
    let tar = folder.path().join("x.tar");
    session.fetch("/opt/stack/new", &tar, 1 << 20, LIMIT).await.unwrap();
    assert!(std::fs::read(&tar).unwrap().windows(11).any(|w| w == b"hello\0world"));
    let too_much = session.fetch("/opt/stack/new", &tar, 100, LIMIT).await;
    assert!(matches!(too_much, Err(SessionError::TooMuch { .. })), "{too_much:?}");
    let none = session.fetch("/nowhere", &tar, 100, LIMIT).await;
    assert!(matches!(none, Err(SessionError::Failed { .. })), "{none:?}");
}

#[tokio::test]
async fn a_step_streams_its_lines_while_they_are_written() {
    let node = node().await;
    let session = node.session();
    // It goes on only when somebody who has seen the first line says so.
    let step = step(
        "echo one; echo two >&2; until [ -e /tmp/go ]; do sleep 0.01; done; echo three; exit 7",
    );
    let mut group = session.start(&step).unwrap();
    let mut lines = Lines::new(group.child.stdout.take().unwrap(), Mask::default());
    assert_eq!(lines.next().await.as_deref(), Some("one"));
    assert_eq!(lines.next().await.as_deref(), Some("two"));
    session.put("/tmp/go", b"", 0o600).await.unwrap();
    assert_eq!(lines.next().await.as_deref(), Some("three"));
    assert_eq!(lines.next().await, None);
    let code = group.child.wait().await.unwrap().code();
    assert_eq!(code, Some(7));
    assert!(!session.is_lost(code));
}

#[tokio::test]
async fn a_step_and_its_children_can_be_ended() {
    let node = node().await;
    let session = node.session();
    let step = step("trap 'echo told; exit 3' TERM; sleep 1000 & echo up; wait");
    let mut group = session.start(&step).unwrap();
    let mut lines = Lines::new(group.child.stdout.take().unwrap(), Mask::default());
    assert_eq!(lines.next().await.as_deref(), Some("up"));
    session.signal(&step, "TERM").await.unwrap();
    assert_eq!(lines.next().await.as_deref(), Some("told"));
    assert_eq!(lines.next().await, None, "a child holds the output open");
    assert_eq!(group.child.wait().await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn everything_ends_with_the_node() {
    let mut node = node().await;
    let session = node.session();
    assert!(node.is_alive());
    session
        .run("fork", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &", b"", LIMIT)
        .await
        .unwrap();
    let bomb = "ulimit -u 200; f() { f | f & }; (f) >/dev/null 2>&1 </dev/null &";
    session.run("fork for ever", bomb, b"", LIMIT).await.unwrap();
    drop(node);
    let end = Instant::now() + LIMIT;
    loop {
        match session.try_run("look", "true", b"", LIMIT).await {
            Err(SessionError::Unreachable { .. }) => break,
            other => assert!(Instant::now() < end, "still there: {other:?}"),
        }
    }
}

#[tokio::test]
async fn orphans_are_cleared_away() {
    let node = node().await;
    let session = node.session();
    let text = "for n in 1 2 3; do (setsid true &); done; until ! pgrep -x true; do sleep 0.01; done; ps -e | grep -c defunct";
    let ended = session.try_run("leave orphans", text, b"", LIMIT).await.unwrap();
    assert_eq!(ended.text().lines().last(), Some("0"), "{}", ended.text());
}

#[tokio::test]
async fn all_that_runs_can_be_ended_and_the_node_stays() {
    let mut node = node().await;
    let session = node.session();
    let bomb = "ulimit -u 300; f() { f | f & }; (f) >/dev/null 2>&1 </dev/null & setsid sleep 1000 >/dev/null 2>&1 </dev/null &";
    session.run("fork for ever", bomb, b"", LIMIT).await.unwrap();
    session.end_all("ZUUL_UUID=x").await.unwrap();
    let count = "ls -d /proc/[0-9]* | wc -l";
    let left = session.run("count", count, b"", LIMIT).await.unwrap().text();
    assert!(left.trim().parse::<u32>().unwrap() < 10, "{left}");
    assert!(node.is_alive());
}

#[tokio::test]
async fn one_that_forks_for_ever_has_no_more_processes_than_it_may() {
    let node = bounded(Bounds { processes: 150, ..Bounds::default() }).await;
    let session = node.session();
    let bomb = "f() { f | f & }; (f) >/dev/null 2>&1 </dev/null &";
    session.run("fork for ever", bomb, b"", LIMIT).await.unwrap();
    // Until it cannot fork any more, as a shell in it says. Not bash, which would try again for half a minute.
    let end = Instant::now() + LIMIT;
    loop {
        let ended =
            session.try_run("look", "exec sh -c '(true) && (true)'", b"", LIMIT).await.unwrap();
        let refused = ["Resource temporarily unavailable", "Cannot fork"];
        if refused.iter().any(|words| ended.complaint.contains(words)) {
            break;
        }
        assert!(Instant::now() < end, "it forks and forks: {ended:?}");
    }
    let other = self::node().await;
    other.session().run("fork elsewhere", "(true) && (true)", b"", LIMIT).await.unwrap();
    session.end_all("ZUUL_UUID=x").await.unwrap();
    session.run("fork again", "(true) && (true)", b"", LIMIT).await.unwrap();
}

#[tokio::test]
async fn one_that_takes_all_memory_is_refused_and_the_rest_goes_on() {
    let node = bounded(Bounds { memory_mib: Some(256), ..Bounds::default() }).await;
    let session = node.session();
    let take = |mib: u32| format!("head -c {mib}M /dev/zero | tail -c {mib}M | wc -c");
    let little = session.try_run("take", &take(50), b"", LIMIT).await.unwrap();
    assert_eq!(little.text().trim(), (50 << 20).to_string(), "{}", little.complaint);
    let much = session.try_run("take", &take(600), b"", LIMIT).await.unwrap();
    assert_eq!(much.text().trim(), "0");
    assert!(much.complaint.contains("memory exhausted"), "{}", much.complaint);
    session.run("look", "true", b"", LIMIT).await.unwrap();
}

#[tokio::test]
async fn one_that_fills_its_disk_fills_no_other() {
    let node = bounded(Bounds { disk_mib: Some(40), ..Bounds::default() }).await;
    let session = node.session();
    let fill = "set +e; for d in /tmp /home /opt /dev/shm /run; do head -c 20M /dev/zero >$d/filled; done; du -scm /tmp /home /opt /dev/shm /run | tail -1";
    let ended = session.try_run("fill", fill, b"", LIMIT).await.unwrap();
    assert!(ended.complaint.contains("No space left on device"), "{}", ended.complaint);
    let mib: u64 = ended.text().split_whitespace().next().unwrap().parse().unwrap();
    assert!((30..=40).contains(&mib), "{mib} MiB");
    assert!(!std::path::Path::new("/dev/shm/filled").exists());
    let put = session.put("/home/toci/x", &[b'x'; 100_000], 0o600).await;
    assert!(
        matches!(&put, Err(SessionError::Failed { why, .. }) if why.contains("No space")),
        "{put:?}"
    );
    self::node().await.session().put("/home/toci/x", b"x", 0o600).await.unwrap();
}
