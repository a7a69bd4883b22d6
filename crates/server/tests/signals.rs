//! Signals to a real server process that runs jobs in real sandboxes: SIGUSR1 (and an operator's word) lets what runs
//! end, SIGHUP reads the layout anew, SIGTERM ends at once; whatever stands in queues is there after each start.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;

use common::eventually;
use common::git::git;
use common::process::server;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Change, Endpoint};
use toci_wire::api::{EndedItem, Run, RunState};

/// Longest time until a server that was told to end has ended.
const END_LIMIT: Duration = Duration::from_secs(60);

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
    run: 'echo up; sleep 8'
projects:
  - {name: org/a, check: [unit]}
";

/// Not a test: the server, when this program is started as one.
#[test]
fn the_server_process() {
    common::process::serve_if_told();
}

struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    client: ApiClient,
}

impl Server {
    /// It serves when this returns.
    fn start(folder: &Path) -> Server {
        let mut child = server(&[], folder).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let line = until(&mut stderr, "toci server: serving ");
        let address = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        let endpoint: Endpoint = address.parse().unwrap();
        let token = folder.join("state/admin.token");
        let token = toci_client::api::Token::from_file(&token).unwrap();
        let client = ApiClient::new(endpoint, Some(token), None).unwrap();
        Server { child, stderr, client }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill runs (Debian package procps)").success());
    }

    /// How it ended, and after how long.
    fn ended(mut self) -> Duration {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return begun.elapsed();
            }
            assert!(begun.elapsed() < END_LIMIT, "the server goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn runs(&self) -> Result<Vec<Run>, String> {
        self.client.runs(100).await.map_err(|e| e.to_string())
    }

    /// A run of this change, once it is as it should be.
    async fn run(&self, subject: &str, right: impl Fn(&Run) -> bool) -> Run {
        eventually(subject, async || {
            let runs = self.runs().await?;
            let found = runs.iter().find(|run| run.subject == subject && right(run));
            found.cloned().ok_or_else(|| format!("{runs:#?}"))
        })
        .await
    }

    async fn ends(&self, count: usize) -> Vec<EndedItem> {
        eventually("items ended", async || {
            let ended = self.client.ended_items().await.map_err(|e| e.to_string())?;
            if ended.len() >= count { Ok(ended) } else { Err(format!("{ended:#?}")) }
        })
        .await
    }

    async fn queued(&self) -> Vec<String> {
        let pipelines = self.client.pipelines().await.unwrap();
        let items = pipelines.iter().flat_map(|p| &p.queues).flat_map(|q| &q.items);
        items.map(|item| item.subject.clone()).collect()
    }
}

/// The next line that begins so.
fn until(stderr: &mut BufReader<ChildStderr>, head: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "no {head} in\n{seen}");
        if let Some(at) = line.find(head) {
            return line[at..].trim_end().to_owned();
        }
        seen.push_str(&line);
    }
}

fn furnish(folder: &Path) {
    // Apart from the numbers of other tests' sandboxes.
    let first = 40_000 + std::process::id() % 1000 * 8;
    let text = format!(
        "[layout]\nfile = \"{0}/layout.yaml\"\n[[source]]\nname = \"local\"\nkind = \"git\"\nroot = \"{0}/git\"\n\
         look_every_s = 1\n[[label]]\nname = \"sandbox\"\n[[provider]]\nname = \"here\"\nkind = \"local\"\nmax_servers = 1\n\
         first_number = {first}\n[[provider.pool]]\nlabel = \"sandbox\"\n",
        folder.display()
    );
    std::fs::write(folder.join("toci.toml"), text).unwrap();
    std::fs::write(folder.join("layout.yaml"), LAYOUT).unwrap();
    std::fs::create_dir_all(folder.join("git/org/a.git")).unwrap();
    git(&folder.join("git/org/a.git"), &["init", "-q", "--bare", "--initial-branch=master"])
        .unwrap();
    let work = folder.join("work");
    std::fs::create_dir_all(&work).unwrap();
    git(&work, &["init", "-q", "--initial-branch=master"]).unwrap();
    git(&work, &["commit", "-q", "--allow-empty", "-m", "begin"]).unwrap();
    git(&work, &["push", "-q", "../git/org/a.git", "master"]).unwrap();
}

fn propose(folder: &Path, number: u32) {
    let work = folder.join("work");
    git(&work, &["checkout", "-q", "-B", "change", "master"]).unwrap();
    git(&work, &["commit", "-q", "--allow-empty", "-m", &format!("change {number}")]).unwrap();
    let target = format!("HEAD:refs/changes/0{number}/{number}/1");
    git(&work, &["push", "-q", "../git/org/a.git", &target]).unwrap();
}

fn has_begun(run: &Run) -> bool {
    run.state == RunState::Running
}

#[tokio::test]
async fn what_runs_ends_and_what_waits_goes_on_under_the_next_server() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    furnish(folder);
    let mut server = Server::start(folder);
    let mirror = folder.join("state/mirrors/local/org/a.git/toci-mirror");
    eventually("the project is known", async || {
        if mirror.exists() { Ok(()) } else { Err(format!("no {}", mirror.display())) }
    })
    .await;
    let mut changes = server.client.changes().await.unwrap();
    propose(folder, 1);
    let first = server.run("1,1", has_begun).await;
    propose(folder, 2);
    server.run("2,1", |run| run.state == RunState::WaitingNode).await;

    // Gracefully: the first one ends, the second one does not begin.
    server.signal("USR1");
    let told = until(&mut server.stderr, "toci server: exiting when ");
    assert_eq!(told, "toci server: exiting when 1 runs are over");
    let over = async {
        loop {
            match changes.next().await.unwrap() {
                Some(Change::Run(run)) if run.state == RunState::Over => return run,
                Some(_) => {}
                None => panic!("the stream ended before the run"),
            }
        }
    };
    let over = tokio::time::timeout(END_LIMIT, over).await.unwrap();
    assert_eq!((&over.id, over.result.as_deref()), (&first.id, Some("SUCCESS")));
    until(&mut server.stderr, "toci server: no run is left; exiting");
    server.ended();

    // The next one goes on: nothing runs twice, nothing is lost.
    let server = Server::start(folder);
    let second = server.run("2,1", has_begun).await;
    assert_eq!(second.attempt, 1);
    let ended = server.ends(1).await;
    assert_eq!((ended[0].subject.as_str(), ended[0].end.as_str()), ("local:1,1", "succeeded"));
    let runs = server.runs().await.unwrap();
    assert_eq!(runs.iter().filter(|run| run.subject == "1,1").count(), 1, "{runs:#?}");

    // A layout that is wrong changes nothing, a right one counts at once; what runs goes on.
    std::fs::write(folder.join("layout.yaml"), "pipelines: [{name: a/b}]").unwrap();
    server.signal("HUP");
    std::fs::write(folder.join("layout.yaml"), format!("{LAYOUT}\n# the same\n")).unwrap();
    server.signal("HUP");
    let more = LAYOUT.replace("jobs:", "  - {name: later, manager: independent}\njobs:");
    std::fs::write(folder.join("layout.yaml"), more).unwrap();
    server.signal("HUP");
    eventually("the new pipeline", async || {
        let pipelines = server.client.pipelines().await.map_err(|e| e.to_string())?;
        let names: Vec<String> = pipelines.into_iter().map(|p| p.name).collect();
        if names == ["check", "later"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    assert_eq!(server.queued().await, ["local:2,1"]);

    // At once: the queue is kept, and the run is tried again.
    server.signal("TERM");
    let took = server.ended();
    println!("SIGTERM to exit: {} ms", took.as_millis());
    let server = Server::start(folder);
    assert_eq!(server.queued().await, ["local:2,1"]);
    server.run("2,1", |run| run.attempt == 2 && has_begun(run)).await;

    // An operator's word is as good as SIGUSR1.
    let mut server = server;
    server.client.exit().await.unwrap();
    server.client.exit().await.unwrap();
    let told = until(&mut server.stderr, "toci server: exiting when ");
    assert_eq!(told, "toci server: exiting when 1 runs are over");
    until(&mut server.stderr, "toci server: no run is left; exiting");
    server.ended();
    let server = Server::start(folder);
    server.run("2,1", |run| run.attempt == 2 && run.result.as_deref() == Some("SUCCESS")).await;
    let ended = server.ends(2).await;
    assert_eq!((ended[0].subject.as_str(), ended[0].end.as_str()), ("local:2,1", "succeeded"));
    server.signal("TERM");
    server.ended();
}
