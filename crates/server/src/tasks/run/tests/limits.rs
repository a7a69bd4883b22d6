//! Time limits, cancelling, and jobs without measure.

use super::world::*;
use crate::tasks::run::{HEAD_MAX_BYTES, TAIL_MAX_BYTES};
use std::time::Duration;
use toci_core::pipeline::{Input, RunResult, RunUpdate, Wanted};
use toci_edge::node::bounds::Bounds;

#[tokio::test]
async fn at_its_limit_a_job_is_told_to_end_and_post_still_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.timeout = Duration::from_secs(3);
        job.run = inline("trap 'echo told; exit 0' TERM; echo up; sleep 1000 & wait");
        job.post = inline("echo post sees $TOCI_RESULT; pgrep -c sleep || true");
    });
    let (result, kept, record) = world.whole(&wish).await;
    let lines = said(&kept["console.txt"]);
    assert_eq!(result, RunResult::TimedOut);
    for line in ["toci: the time limit is reached", "told", "post sees TIMED_OUT", "0"] {
        assert!(lines.contains(&line), "{line:?}: {lines:?}");
    }
    assert_eq!(record.note, "the time limit is reached");
}

#[tokio::test]
async fn who_does_not_listen_is_killed_and_post_has_its_own_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.timeout = Duration::from_secs(2);
        job.post_timeout = Duration::from_secs(2);
        job.run = inline("trap '' TERM; echo up; while :; do sleep 1; done");
        job.post = inline("echo post is up; sleep 1000");
    });
    let (result, kept, _) = world.whole(&wish).await;
    let lines = said(&kept["console.txt"]);
    assert_eq!(result, RunResult::TimedOut);
    for line in ["toci: it did not end when told to: killed", "post is up"] {
        assert!(lines.contains(&line), "{line:?}: {lines:?}");
    }
}

#[tokio::test]
async fn a_job_that_forks_for_ever_is_ended_and_its_logs_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.timeout = Duration::from_secs(4);
        job.run = inline(
            "mkdir -p $WORKSPACE/logs; echo here >$WORKSPACE/logs/x; ulimit -u 300; echo bomb; f() { f | f & }; f >/dev/null 2>&1; sleep 1000",
        );
        job.post = inline("echo post has room");
    });
    let (result, kept, _) = world.whole(&wish).await;
    let console = &kept["console.txt"];
    assert_eq!(result, RunResult::TimedOut, "{console}");
    assert!(said(console).contains(&"post has room"), "{console}");
    assert_eq!(kept["logs/x"], "here\n");
}

#[tokio::test]
async fn a_console_of_a_gigabyte_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.timeout = Duration::from_secs(300);
        job.run = inline("echo begin; yes 'a line of output that says nothing new at all, again and again and again' | head -c 1000000000; echo; echo end");
    });
    world.want(&[&wish]);
    let deadline = std::time::Instant::now() + Duration::from_secs(240);
    while let Input::Run { update: RunUpdate::Started { .. }, .. } =
        tokio::time::timeout_at(deadline.into(), world.news.recv()).await.expect("an end").unwrap()
    {
    }
    let (result, kept) = world.shelf.0.lock().unwrap().remove(&wish.run).unwrap();
    assert_eq!(result, RunResult::Success);
    let console = &kept["console.txt"];
    let most = HEAD_MAX_BYTES + 2 * TAIL_MAX_BYTES as u64;
    assert!(console.len() as u64 <= most, "{} bytes", console.len());
    let lines = said(console);
    for line in ["begin", "end", "toci: result: SUCCESS"] {
        assert!(lines.contains(&line), "{line:?}");
    }
    assert!(lines.iter().any(|l| l.ends_with("lines were left out here")));
}

/// Memory that this process has, MiB.
fn resident_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    (text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096) >> 20
}

#[tokio::test]
async fn a_line_without_an_end_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let before = resident_mib();
    let wish = world.wish(|job| {
        job.run = inline("head -c 400000000 /dev/zero | tr '\\0' x; echo; echo end");
    });
    let (result, kept, _) = world.whole(&wish).await;
    assert_eq!(result, RunResult::Success);
    let console = &kept["console.txt"];
    assert!(console.len() as u64 <= HEAD_MAX_BYTES + 2 * TAIL_MAX_BYTES as u64);
    assert!(said(console).contains(&"end"));
    // Other tests of this process run beside it, and the archive of the tests keeps the console in memory: less than
    // the line itself, which nobody has held.
    let more = resident_mib().saturating_sub(before);
    assert!(more < 380, "{more} MiB");
}

#[tokio::test]
async fn a_job_that_fills_its_disk_fails_and_its_logs_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    *world.nodes.bounds.lock().unwrap() = Bounds { disk_mib: Some(30), ..Bounds::default() };
    let wish = world.wish(|job| {
        job.run = inline(
            "mkdir -p $WORKSPACE/logs; echo here >$WORKSPACE/logs/x; head -c 100M /dev/zero >$WORKSPACE/logs/y",
        );
        job.post = inline("echo never");
    });
    let (result, kept, _) = world.whole(&wish).await;
    let console = &kept["console.txt"];
    assert_eq!(result, RunResult::Failure, "{console}");
    let told = "toci: post script 1 of 1 could not be started: write ";
    let line = said(console).into_iter().find(|l| l.starts_with(told)).unwrap_or_default();
    assert!(line.contains("No space left on device"), "{console}");
    assert_eq!(kept["logs/x"], "here\n");
}

#[tokio::test]
async fn a_job_that_takes_all_memory_fails_and_post_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    *world.nodes.bounds.lock().unwrap() = Bounds { memory_mib: Some(256), ..Bounds::default() };
    let wish = world.wish(|job| {
        job.run = inline("head -c 900M /dev/zero | tail -c 900M | wc -c; exit ${PIPESTATUS[1]}");
        job.post = inline("echo post has room");
    });
    let (result, kept, _) = world.whole(&wish).await;
    let console = &kept["console.txt"];
    assert_eq!(result, RunResult::Failure, "{console}");
    assert!(console.contains("memory exhausted"), "{console}");
    assert!(said(console).contains(&"post has room"), "{console}");
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_cancelled_and_its_logs_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.run = inline("echo up; sleep 1000");
        job.post = inline("echo never");
    });
    world.want(&[&wish]);
    world.console_until(wish.run, "| up\n").await;
    world.wanted.send_replace(Wanted { stopping: vec![wish.run], ..Wanted::default() }.into());
    let (result, kept, _) = world.end(&wish).await;
    assert_eq!(result, RunResult::Canceled);
    let lines = said(&kept["console.txt"]);
    assert!(lines.contains(&"toci: the run is not needed any more") && !lines.contains(&"never"));
    assert!(world.nodes.live.lock().unwrap().is_empty());
}

#[tokio::test]
async fn somebody_may_stop_a_run_also_while_it_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    world.nodes.none.send_replace(true);
    let waiting = world.wish(|job| job.run = inline("echo never"));
    world.want(&[&waiting]);
    within("it waits", async {
        while world.desk.list(0).await.unwrap().first().is_none_or(|r| r.waits_for.is_empty()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(world.desk.list(0).await.unwrap()[0].waits_for, "1 node(s) of the default label");
    assert!(world.desk.abort(waiting.run));
    assert_eq!(world.end(&waiting).await.0, RunResult::Aborted);
    assert!(!world.desk.abort(waiting.run), "it is over");
    world.nodes.none.send_replace(false);
    let running = world.wish(|job| job.run = inline("echo up; sleep 1000"));
    world.want(&[&running]);
    world.console_until(running.run, "| up\n").await;
    assert!(world.desk.abort(running.run));
    assert_eq!(world.end(&running).await.0, RunResult::Aborted);
}

#[tokio::test]
async fn waiting_has_its_own_limit_and_what_never_began_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    world.nodes.none.send_replace(true);
    let wish = world.wish(|job| {
        job.wait_timeout = Some(Duration::from_millis(200));
        job.run = inline("echo never");
    });
    let (result, _, record) = world.whole(&wish).await;
    assert_eq!(result, RunResult::NodeFailure);
    assert!(record.note.contains("wait-timeout"), "{}", record.note);
    let never = world.wish(|_| ());
    world.wanted.send_replace(Wanted { stopping: vec![never.run], ..Wanted::default() }.into());
    let update = world.hear(never.run).await;
    assert!(
        matches!(update, RunUpdate::Finished { result: RunResult::Canceled, .. }),
        "{update:?}"
    );
}
