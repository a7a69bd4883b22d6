//! What scripts find, do and leave.

use super::world::*;
use std::time::Duration;
use toci_core::layout::Script;
use toci_core::pipeline::{RunResult, RunUpdate};

#[tokio::test]
async fn a_success_finds_its_workspace_and_leaves_its_logs() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.pre = inline("mkdir -p $WORKSPACE/logs; echo from pre >$WORKSPACE/logs/pre.log");
        job.run = vec![
            Script::File("test.sh --all 'a b'".into()),
            Script::File("org/lib/test.sh".into()),
            Script::Inline(
                "echo $PWD; git rev-parse HEAD; git describe --tags; git status --porcelain; env | sort >$WORKSPACE/env.txt; mkdir $WORKSPACE/dist; echo wheel >$WORKSPACE/dist/a.whl"
                    .into(),
            ),
        ];
        job.post = inline("echo post sees $TOCI_RESULT; ln -s /etc/passwd $WORKSPACE/logs/link");
        job.artifacts = vec!["dist/*.whl".into(), "env.txt".into(), "../.toci/**".into()];
        job.env = vec![("MINE".into(), "1".into())];
        job.projects = vec!["org/lib".into()];
    });
    world.want(&[&wish]);
    let started = world.hear(wish.run).await;
    let url = format!("http://ci/api/v1/runs/{}/console", wish.run);
    assert!(matches!(&started, RunUpdate::Started { url: u, .. } if *u == url), "{started:?}");
    let (result, kept, record) = world.end(&wish).await;
    let console = &kept["console.txt"];
    assert_eq!(result, RunResult::Success, "{console}");
    let lines = said(console);
    let tested = world.tested.as_str();
    for line in [
        "toci: org/lib at ",
        "toci: run script 1 of 3: test.sh --all 'a b'",
        "app is tested --all a b",
        "app is base",
        "/opt/stack/new/app",
        tested,
        "1.0-1-g",
        "post sees SUCCESS",
        "toci: result: SUCCESS",
    ] {
        assert!(lines.iter().any(|l| l.starts_with(line)), "{line:?} is not in {console}");
    }
    assert_eq!(kept["logs/pre.log"], "from pre\n");
    assert_eq!(kept["artifacts/dist/a.whl"], "wheel\n");
    let environment = &kept["artifacts/env.txt"];
    for variable in [
        "MINE=1",
        "PARAMETER=it's one",
        "ZUUL_CHANGES=org/app:master:refs/changes/01/1/1",
        "ZUUL_REF=refs/zuul/master/Z0123456789abcdef0123456789abcdef",
        "ZUUL_URL=http://zm/p",
        "WORKSPACE=/home/toci/workspace",
        "HOME=/root",
        "NODE_NAME=node1",
        "NODE_MIRROR=http://mirror.example",
    ] {
        assert!(environment.lines().any(|l| l == variable), "{variable}: {environment}");
    }
    assert!(kept["zuul-info/variables.txt"].contains("ZUUL_PIPELINE='check'"));
    assert!(!kept.keys().any(|k| k.contains("link") || k.contains(".toci")), "{:?}", kept.keys());
    assert_eq!(record.url, format!("http://logs/{}", wish.run));
    assert_eq!(world.nodes.given_back.lock().unwrap()[..], [wish.run]);
    // The archive has the rest; the console stays at hand.
    let left = std::fs::read_dir(world.dir.join("runs").join(wish.run.to_string())).unwrap();
    assert_eq!(left.count(), 1);
    world.console_until(wish.run, "result: SUCCESS").await;
}

#[tokio::test]
async fn a_failure_is_a_failure_and_post_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.run = vec![
            Script::Inline("echo out; echo err >&2; false; echo never".into()),
            Script::Inline("echo never".into()),
        ];
        job.post = inline("echo post sees $TOCI_RESULT");
    });
    let (result, kept, _) = world.whole(&wish).await;
    let lines = said(&kept["console.txt"]);
    assert_eq!(result, RunResult::Failure);
    for line in ["out", "err", "toci: run script 1 of 2 ended with 1", "post sees FAILURE"] {
        assert!(lines.contains(&line), "{line:?}: {lines:?}");
    }
    assert!(!lines.contains(&"never"));
    assert_eq!(world.nodes.given_back.lock().unwrap()[..], [wish.run]);
}

#[tokio::test]
async fn a_script_that_is_not_there_and_odd_ends_are_failures() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    for (script, line) in [
        (
            Script::File("tools/none.sh".into()),
            "toci: there is no script /opt/stack/new/app/tools/none.sh",
        ),
        (Script::Inline("exit 255".into()), "toci: run script 1 of 1 ended with 255"),
        (Script::Inline("kill -KILL $$".into()), "toci: run script 1 of 1 ended with 137"),
    ] {
        let wish = world.wish(|job| job.run = vec![script]);
        let (result, kept, _) = world.whole(&wish).await;
        let lines = said(&kept["console.txt"]);
        assert!(lines.contains(&line), "{line:?}: {lines:?}");
        assert_eq!(result, RunResult::Failure);
    }
    // Post spoils a success.
    let wish = world.wish(|job| {
        job.run = inline("true");
        job.post = inline("exit 3");
    });
    assert_eq!(world.whole(&wish).await.0, RunResult::PostFailure);
}

#[tokio::test]
async fn what_cannot_run_as_it_is_configured_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    type Change = fn(&mut toci_core::layout::JobRun);
    let cases: [(Change, &str); 6] = [
        (|job| job.run.clear(), "says nothing that could be run"),
        (|job| job.node = Some("huge".parse().unwrap()), "no provider has label huge"),
        (|job| job.secrets = vec![("other".into(), "X".into())], "may not have a secret `other`"),
        (
            |job| {
                job.secrets = vec![("password".into(), "PASSWORD".into())];
                job.run = vec![Script::File("test.sh".into())];
            },
            "job unit takes secrets and runs test.sh, a file of the project under test",
        ),
        (|job| job.projects = vec!["org/ app".into()], "projects: "),
        (
            |job| job.projects = vec!["other/app".into()],
            "local:org/app and local:other/app would both be in the folder `app` of the workspace: ",
        ),
    ];
    for (change, why) in cases {
        let wish = world.wish(|job| {
            job.run = inline("echo never");
            change(job);
        });
        let (result, _, record) = world.whole(&wish).await;
        assert_eq!(result, RunResult::ConfigError, "{why}");
        assert!(record.note.contains(why), "{:?} is not {why:?}", record.note);
    }
    // A source that does not answer is no fault of the job's, and never "no such branch".
    let wish = world.wish(|job| {
        job.run = inline("echo never");
        job.projects = vec!["org/none".into()];
    });
    let (result, _, record) = world.whole(&wish).await;
    assert_eq!(result, RunResult::NodeFailure);
    assert!(record.note.contains("the workspace could not be set up"), "{}", record.note);
}

/// One series of two sources whose projects are called alike.
#[tokio::test]
async fn repositories_that_would_be_in_one_folder_are_told_by_their_sources() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let mut wish = world.wish(|job| job.run = inline("echo never"));
    let mut context = wish.context.as_ref().clone();
    let mut ahead = context.series[0].clone();
    ahead.project.source = "gerrit".parse().unwrap();
    context.series.insert(0, ahead);
    wish.context = context.into();
    let (result, kept, record) = world.whole(&wish).await;
    assert_eq!(result, RunResult::ConfigError);
    let why = "local:org/app and gerrit:org/app would both be in the folder `app` of the workspace: \
               test changes of them apart, or leave one out of the job's `projects`";
    assert_eq!(record.note, why);
    assert!(said(&kept["console.txt"]).contains(&format!("toci: {why}").as_str()));
}

#[tokio::test]
async fn secrets_are_seen_by_the_job_and_by_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.secrets = vec![("password".into(), "PASSWORD".into())];
        job.run = inline(
            "echo it is $PASSWORD; [ $PASSWORD = hunter2-hunter2 ]; cat /proc/*/cmdline | tr '\\0' ' ' | grep -c hunter2-hunter || true; \
             printf %s ann:$PASSWORD | base64; head -c 16380 /dev/zero | tr '\\0' x; echo $PASSWORD; echo up; until [ -e /tmp/go ]; do sleep 0.01; done",
        );
        job.artifacts = vec!["**".into()];
    });
    world.want(&[&wish]);
    world.console_until(wish.run, "| up\n").await;
    // Everybody on the machine can read what everybody's arguments are.
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&arguments).into_owned();
        assert!(!text.contains("hunter2-hunter2"), "{text}");
    }
    let session = world.nodes.live.lock().unwrap()[&wish.run].0.session();
    session.put("/tmp/go", b"", 0o600).await.unwrap();
    let (result, kept, _) = world.end(&wish).await;
    let lines = said(&kept["console.txt"]);
    assert_eq!(result, RunResult::Success, "{lines:?}");
    assert!(lines.contains(&"it is ********"), "{lines:?}");
    assert!(!format!("{kept:?}").contains("hunter2"), "{kept:?}");
    let encoded = "YW5uOmh1bnRlcjItaHVudGVyMg";
    assert!(!format!("{kept:?}").contains(&encoded[8..]), "{kept:?}");
}

#[tokio::test]
async fn binary_output_and_what_a_script_leaves_behind_disturb_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        job.run = inline(
            "head -c 300000 /dev/urandom; echo; printf '\\0\\377\\r\\n'; echo after; (sleep 1000 &) ; setsid sleep 1000 & echo end",
        );
    });
    let begun = std::time::Instant::now();
    let (result, kept, _) = world.whole(&wish).await;
    let lines = said(&kept["console.txt"]);
    assert_eq!(result, RunResult::Success);
    assert!(lines.contains(&"after") && lines.contains(&"end"));
    assert!(begun.elapsed() < Duration::from_secs(40), "what was left behind was waited for");
}

#[tokio::test]
async fn a_script_that_closes_its_output_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = world.wish(|job| {
        let script = "echo up; exec >&- 2>&-; until [ -e /tmp/go ]; do sleep 0.01; done; exit 3";
        job.run = inline(script);
    });
    world.want(&[&wish]);
    world.console_until(wish.run, "| up\n").await;
    let session = world.nodes.live.lock().unwrap()[&wish.run].0.session();
    session.put("/tmp/go", b"", 0o600).await.unwrap();
    let (result, kept, _) = world.end(&wish).await;
    assert_eq!(result, RunResult::Failure);
    let lines = said(&kept["console.txt"]);
    assert!(lines.contains(&"toci: run script 1 of 1 ended with 3"), "{lines:?}");
}

#[tokio::test]
async fn a_line_reaches_its_follower_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    // It goes on only when somebody who has seen the first line says so.
    let wish = world.wish(|job| {
        job.run = inline("echo first; until [ -e /tmp/go ]; do sleep 0.01; done; date +%s.%N");
    });
    world.want(&[&wish]);
    world.hear(wish.run).await;
    world.console_until(wish.run, "| first\n").await;
    let session = world.nodes.live.lock().unwrap()[&wish.run].0.session();
    session.put("/tmp/go", b"", 0o600).await.unwrap();
    let (result, ..) = world.end(&wish).await;
    assert_eq!(result, RunResult::Success);
}
