//! Runs from outside: a pushed change, a real sandbox, the console over HTTP, stopping by hand.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;

use common::git::git;
use common::{LIMIT, World, config, eventually};
use toci_client::api::{Change, ClientError, ConsoleNews};
use toci_wire::api::{AutoholdRequest, Node, NodeState, Role, Run, RunState};

const LAYOUT: &str = "
pipelines:
  - name: check
    manager: independent
    trigger:
      local: [{event: patchset-created}]
    success: {local: {verified: 1}}
    failure: {local: {verified: -1}}
jobs:
  - name: unit
    run: 'echo up; sleep 1000'
projects:
  - {name: org/a, check: [unit]}
";

async fn world(layout: &str, console_head_bytes: u64) -> World {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let first = 30_000 + u16::try_from(std::process::id() % 1000).unwrap() * 8;
    let text = format!(
        "[layout]\nfile = \"{0}/layout.yaml\"\n[[source]]\nname = \"local\"\nkind = \"git\"\nroot = \"{0}/git\"\n\
         [[label]]\nname = \"sandbox\"\n[[provider]]\nname = \"here\"\nkind = \"local\"\nmax_servers = 1\n\
         first_number = {first}\n[[provider.pool]]\nlabel = \"sandbox\"\n",
        at.display()
    );
    std::fs::write(at.join("toci.toml"), text).unwrap();
    std::fs::write(at.join("layout.yaml"), layout).unwrap();
    std::fs::create_dir_all(at.join("git/org/a.git")).unwrap();
    git(&at.join("git/org/a.git"), &["init", "-q", "--bare", "--initial-branch=master"]).unwrap();
    std::fs::create_dir_all(at.join("work")).unwrap();
    let work = at.join("work");
    git(&work, &["init", "-q", "--initial-branch=master"]).unwrap();
    git(&work, &["commit", "-q", "--allow-empty", "-m", "begin"]).unwrap();
    git(&work, &["push", "-q", "../git/org/a.git", "master"]).unwrap();
    let mut config = config(at);
    config.run.console_head_bytes = console_head_bytes;
    World::around(toci_server::start(config).await.unwrap(), folder)
}

/// A change, which the server is told of.
async fn propose(world: &World) {
    propose_as(world, 1).await;
}

/// A change of this number, on top of nothing but the branch.
async fn propose_as(world: &World, number: u32) {
    let mirror = world.folder.path().join("state/mirrors/local/org/a.git/toci-mirror");
    eventually("the project is known", async || {
        if mirror.exists() { Ok(()) } else { Err(format!("no {}", mirror.display())) }
    })
    .await;
    let work = world.folder.path().join("work");
    git(&work, &["checkout", "-q", "-B", "change", "master"]).unwrap();
    git(&work, &["commit", "-q", "--allow-empty", "-m", &format!("change {number}")]).unwrap();
    let target = format!("HEAD:refs/changes/0{number}/{number}/1");
    git(&work, &["push", "-q", "../git/org/a.git", &target]).unwrap();
    world.admin.poke("local").await.unwrap();
}

#[tokio::test]
async fn a_console_is_followed_and_a_run_is_stopped() {
    let world = world(LAYOUT, 64 << 20).await;
    let reader = world.client(Role::ReadOnly, "eve").await;
    propose(&world).await;
    let mut run: Option<Run> = None;
    eventually("it runs", async || {
        let runs = reader.runs(0).await.map_err(|e| e.to_string())?;
        run = runs.iter().find(|r| r.state == RunState::Running).cloned();
        if run.is_some() { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    let run = run.unwrap();
    assert_eq!((run.job.as_str(), run.project.as_str()), ("unit", "org/a"));
    let mut console = reader.run_console(&run.id).await.unwrap();
    let mut text = String::new();
    let follow = async {
        while !text.contains("| up\n") {
            match console.next().await.unwrap() {
                Some(ConsoleNews::Text(more)) => text.push_str(&more),
                other => panic!("{other:?} after {text}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, follow).await.unwrap();
    match reader.cancel_run(&run.id).await {
        Err(ClientError::Api { status: 403, .. }) => {}
        other => panic!("{other:?}"),
    }
    world.admin.cancel_run(&run.id).await.unwrap();
    let end = async {
        loop {
            match console.next().await.unwrap() {
                Some(ConsoleNews::Text(_)) => {}
                Some(ConsoleNews::Over(run)) => return run,
                None => panic!("the stream ended without the run's end"),
            }
        }
    };
    let over = tokio::time::timeout(LIMIT, end).await.unwrap();
    assert_eq!(over.result.as_deref(), Some("ABORTED"));
    assert_eq!(reader.run(&run.id).await.unwrap(), *over);
    match world.admin.cancel_run(&run.id).await {
        Err(ClientError::Api { status: 409, error }) => assert_eq!(error.code, "run_over"),
        other => panic!("{other:?}"),
    }
    match reader.run("x").await {
        Err(ClientError::Api { status: 404, error }) => assert_eq!(error.code, "no_such_run"),
        other => panic!("{other:?}"),
    }
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_console_of_a_flood_that_is_no_text_is_followed_to_its_end() {
    let flood = "head -c 3000000 /dev/urandom; echo; yes | head -n 300000; seq 1 9; exit 3";
    let layout = LAYOUT.replace("echo up; sleep 1000", flood);
    assert_ne!(layout, LAYOUT);
    let world = world(&layout, 256 << 10).await;
    let reader = world.client(Role::ReadOnly, "eve").await;
    propose(&world).await;
    let mut console = None;
    eventually("it is there", async || {
        let runs = reader.runs(10).await.map_err(|e| e.to_string())?;
        let run = runs.first().ok_or("no run")?;
        console = Some(reader.run_console(&run.id).await.map_err(|e| e.to_string())?);
        Ok(())
    })
    .await;
    let (mut console, mut text) = (console.unwrap(), String::new());
    let follow = async {
        loop {
            match console.next().await.unwrap() {
                Some(ConsoleNews::Text(more)) => text.push_str(&more),
                Some(ConsoleNews::Over(run)) => return run,
                None => panic!("the stream ended without the run's end"),
            }
        }
    };
    let over = tokio::time::timeout(LIMIT, follow).await.unwrap();
    assert_eq!(over.result.as_deref(), Some("FAILURE"));
    assert!(text.len() < (256 << 10) + (3 << 20), "{} bytes were sent", text.len());
    let told = "toci: more than 262144 bytes of output: from here only its end is kept";
    for words in [told, "lines were left out here", " | 9\n", "run script 1 of 1 ended with 3"] {
        assert!(text.contains(words), "{words}: {}", &text[text.len().saturating_sub(500)..]);
    }
    // The archive has the same, and is reached where the server really listens.
    let url = over.url.clone();
    assert!(url.starts_with(&format!("http://{}/logs/", world.running.api[0])), "{url}");
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn the_node_of_a_failure_is_kept_when_somebody_asked_for_it() {
    let world = world(&LAYOUT.replace("echo up; sleep 1000", "false"), 64 << 20).await;
    let operator = world.client(Role::Operator, "ann").await;
    let wish = AutoholdRequest {
        job: "unit".into(),
        project: Some("org/a".into()),
        subject: Some("1".into()),
        count: 2,
        for_s: 3600,
        reason: "what is in /tmp".into(),
    };
    let client = world.client(Role::Client, "ci").await;
    match client.autohold(&wish).await {
        Err(ClientError::Api { status: 403, .. }) => {}
        other => panic!("{other:?}"),
    }
    let made = operator.autohold(&wish).await.unwrap();
    assert_eq!((made.left, made.reason.as_str()), (2, "what is in /tmp (ann)"));
    propose(&world).await;
    let mut held: Option<Node> = None;
    eventually("its node is held", async || {
        let nodes = client.nodes().await.map_err(|e| e.to_string())?;
        held = nodes.iter().find(|n| n.state == NodeState::Held).cloned();
        let runs = client.runs(5).await.map_err(|e| e.to_string())?;
        if held.is_some() { Ok(()) } else { Err(format!("{nodes:?} {runs:?}")) }
    })
    .await;
    let held = held.unwrap();
    assert!(held.hold_until_us.is_some());
    assert!(held.reason.starts_with(&format!("{}, run ", made.id)), "{}", held.reason);
    assert!(held.reason.ends_with(": what is in /tmp (ann)"), "{}", held.reason);
    let left = client.autoholds().await.unwrap();
    assert_eq!((left.len(), left[0].left), (1, 1));
    operator.delete_autohold(&made.id).await.unwrap();
    match operator.delete_autohold(&made.id).await {
        Err(ClientError::Api { status: 404, error }) => assert_eq!(error.code, "no_such_autohold"),
        other => panic!("{other:?}"),
    }
    assert!(client.autoholds().await.unwrap().is_empty());
    match operator.autohold(&AutoholdRequest { reason: " ".into(), ..wish }).await {
        Err(ClientError::Api { status: 422, .. }) => {}
        other => panic!("{other:?}"),
    }
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_paused_job_does_not_begin_until_it_is_resumed() {
    let world = world(LAYOUT, 1 << 20).await;
    let reader = world.client(Role::ReadOnly, "eve").await;
    let refused = |result: Result<(), ClientError>| match result {
        Err(ClientError::Api { status, error }) => (status, error.code),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(world.admin.pause_job("none", "").await), (404, "no_such_job".into()));
    assert_eq!(refused(world.admin.resume_job("unit").await), (409, "not_paused".into()));
    assert_eq!(refused(reader.pause_job("unit", "").await).0, 403);
    world.admin.pause_job("unit", "the mirror is down").await.unwrap();
    propose(&world).await;
    eventually("it says why it waits", async || {
        let pipelines = reader.pipelines().await.map_err(|e| e.to_string())?;
        let items = pipelines.iter().flat_map(|p| &p.queues).flat_map(|q| &q.items);
        let mut jobs = items.flat_map(|item| &item.jobs);
        let told =
            jobs.any(|job| job.run.is_some() && job.waits_for.ends_with("the mirror is down"));
        if told { Ok(()) } else { Err(format!("{pipelines:#?}")) }
    })
    .await;
    assert_eq!(reader.runs(10).await.unwrap(), []);
    let alerts = reader.alerts().await.unwrap();
    assert_eq!(alerts.paused_jobs.len(), 1, "{alerts:?}");
    world.admin.resume_job("unit").await.unwrap();
    eventually("it runs", async || {
        let runs = reader.runs(0).await.map_err(|e| e.to_string())?;
        let runs_now = runs.iter().any(|run| run.state == RunState::Running);
        if runs_now { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    assert_eq!(reader.alerts().await.unwrap().paused_jobs, []);
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_job_that_fails_again_and_again_is_paused_by_itself() {
    let bad = "run: 'false'\n    pause-after-failures: 2";
    let world = world(&LAYOUT.replace("run: 'echo up; sleep 1000'", bad), 1 << 20).await;
    let reader = world.client(Role::ReadOnly, "eve").await;
    let mut changes = reader.changes().await.unwrap();
    for number in [1, 2] {
        assert_eq!(reader.alerts().await.unwrap().paused_jobs, []);
        propose_as(&world, number).await;
        let subject = format!("{number},1");
        eventually("it fails", async || {
            let runs = reader.runs(10).await.map_err(|e| e.to_string())?;
            let failed = |run: &Run| run.subject == subject && run.result.is_some();
            if runs.iter().any(failed) { Ok(()) } else { Err(format!("{runs:?}")) }
        })
        .await;
    }
    let told = async {
        loop {
            match changes.next().await.unwrap() {
                Some(Change::JobPaused(pause)) => return pause,
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    };
    let pause = tokio::time::timeout(LIMIT, told).await.unwrap();
    assert_eq!((pause.job.as_str(), pause.by.as_str()), ("unit", "toci"));
    assert!(pause.reason.starts_with("2 failures in a row, of changes that"), "{}", pause.reason);
    assert!(pause.reason.ends_with(" of 2,1: FAILURE"), "{}", pause.reason);
    assert_eq!(reader.alerts().await.unwrap().paused_jobs, [*pause]);
    // The next one waits and says why; resumed, the row begins anew.
    propose_as(&world, 3).await;
    eventually("the next one waits", async || {
        let pipelines = reader.pipelines().await.map_err(|e| e.to_string())?;
        let items = pipelines.iter().flat_map(|p| &p.queues).flat_map(|q| &q.items);
        let mut jobs = items.flat_map(|item| &item.jobs);
        let told = jobs.any(|job| job.waits_for.contains("paused by toci: 2 failures in a row"));
        if told { Ok(()) } else { Err(format!("{pipelines:#?}")) }
    })
    .await;
    world.admin.resume_job("unit").await.unwrap();
    eventually("it fails as well", async || {
        let runs = reader.runs(10).await.map_err(|e| e.to_string())?;
        let failed = runs.iter().filter(|run| run.result.is_some()).count();
        if failed == 3 { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    assert_eq!(reader.alerts().await.unwrap().paused_jobs, []);
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_run_that_waits_for_a_node_says_what_keeps_it() {
    let world = world(LAYOUT, 1 << 20).await;
    let reader = world.client(Role::ReadOnly, "eve").await;
    world.admin.pause_provider("here", "the disk is full").await.unwrap();
    propose(&world).await;
    let expected = "1 node(s) of the default label: here is paused by admin: the disk is full";
    let run = eventually("it says why", async || {
        let runs = reader.runs(0).await.map_err(|e| e.to_string())?;
        let told = runs.iter().find(|run| run.waits_for == expected).cloned();
        told.ok_or_else(|| format!("{runs:?}"))
    })
    .await;
    assert_eq!(reader.run(&run.id).await.unwrap().waits_for, expected);
    world.admin.resume_provider("here").await.unwrap();
    eventually("it runs", async || {
        let run = reader.run(&run.id).await.map_err(|e| e.to_string())?;
        if run.state == RunState::Running { Ok(()) } else { Err(format!("{run:?}")) }
    })
    .await;
    world.running.stop().await.unwrap();
}
