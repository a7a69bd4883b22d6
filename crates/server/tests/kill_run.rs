//! A real server is killed with -9 in each state of a run, with real sandboxes, a real git source and a web hook: what had
//! begun runs once more and never twice at once, what had not begun begins once, each change is told of once, and of what
//! was killed nothing stays.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;

use axum::extract::State;
use axum::http::HeaderMap;
use common::git::git;
use common::{SimHost, enrol, eventually};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Endpoint, Token};
use toci_wire::api::{LeaseRequest, Operation, OperationResult, Release, Run, RunState};

/// The first user of sandboxes (docs/nodes.md).
const FIRST_USER: u32 = 200_000;

/// `/media` is one folder for the server, its sandboxes and this test: steps write there what they do, and wait there as
/// long as they are held.
const STEP: &str = "#!/bin/bash
exec 9>/media/lock-$ZUUL_CHANGE
flock -n 9 || echo \"$ZUUL_CHANGE runs twice at once\" >>/media/log
echo \"$ZUUL_CHANGE $TOCI_ATTEMPT $1\" >>/media/log
while [ -e /media/hold-$1 ]; do sleep 0.02; done
";

/// Not a test: the server, when this program is started as one.
#[test]
fn the_server_process() {
    common::process::serve_if_told();
}

/// What web hooks brought: the change's number and the report's id, in their order.
#[derive(Default)]
struct Hooks(Mutex<Vec<(u64, String)>>);

struct World {
    folder: tempfile::TempDir,
    /// Of the sandbox, of which there is one at a time.
    user: u32,
    hooks: Arc<Hooks>,
    server: Option<Child>,
    admin: ApiClient,
    begun: Instant,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may be dead already.
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("server.log"));
            eprintln!("the servers said: {}", log.unwrap_or_default());
        }
    }
}

impl World {
    /// With a server that serves. Each world of this process has its own number.
    async fn start(own: u32) -> World {
        let begun = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let hooks = Arc::new(Hooks::default());
        let url = listen(folder.path(), &hooks).await;
        // Apart from the numbers of other tests' sandboxes.
        let number = 50_000 + std::process::id() % 1000 * 2 + own;
        furnish(folder.path(), &url, number);
        let socket = folder.path().join("state/toci.sock");
        let endpoint: Endpoint = format!("unix:{}", socket.display()).parse().unwrap();
        let nobody = ApiClient::new(endpoint, None, None).unwrap();
        let user = FIRST_USER + number;
        let mut world = World { folder, user, hooks, server: None, admin: nobody, begun };
        world.serve().await;
        let token = Token::from_file(&world.at("state/admin.token")).unwrap();
        world.admin = world.admin.with_token(token);
        eventually("the projects are known", async || {
            let known = |name| world.at(&format!("state/mirrors/local/org/{name}.git/toci-mirror"));
            if known("a").exists() && known("te").exists() { Ok(()) } else { Err(String::new()) }
        })
        .await;
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn serve(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.at("server.log"));
        let path = std::env::var("PATH").unwrap();
        let shared = self.at("shared").display().to_string();
        let bound = "mount --bind \"$0\" /media && exec \"$@\"";
        let before = ["unshare", "--mount", "--propagation", "private", "sh", "-c", bound, &shared];
        let child = common::process::server(&before, self.folder.path())
            .env("PATH", format!("/media/bin:{path}"))
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.server = Some(child);
        let health = async || self.admin.health().await.map_err(|e| e.to_string());
        eventually("the server serves", health).await;
    }

    /// SIGKILL, and what was held goes on under the next server, if anything of it is left.
    async fn kill_and_serve(&mut self, held: Option<&str>) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        eventually("the sandbox goes with its server", async || none(of_user(self.user))).await;
        if let Some(place) = held {
            std::fs::remove_file(self.at(&format!("shared/hold-{place}"))).unwrap();
        }
        self.serve().await;
    }

    /// From now on everybody who comes there waits.
    fn hold(&self, place: &str) {
        std::fs::write(self.at(&format!("shared/hold-{place}")), "").unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("shared/log")).unwrap()
    }

    /// Until somebody waits there.
    async fn reached(&self, line: &str) {
        let log = async || match self.log() {
            log if log.lines().any(|l| l == line) => Ok(()),
            log => Err(log),
        };
        eventually(line, log).await;
    }

    async fn propose(&self, project: &str, number: u64) {
        let work = self.at("work");
        let bare = self.at(&format!("git/org/{project}.git")).display().to_string();
        git(&work, &["checkout", "-q", "-B", "change", "master"]).unwrap();
        git(&work, &["commit", "-q", "--allow-empty", "-m", &format!("{number}")]).unwrap();
        let target = format!("HEAD:refs/changes/{:02}/{number}/1", number % 100);
        git(&work, &["push", "-q", &bare, &target]).unwrap();
        self.admin.poke("local").await.unwrap();
    }

    /// The run of a change that is in this state.
    async fn run(&self, number: u64, state: RunState) -> Run {
        eventually("a run", async || {
            let runs = self.admin.runs(100).await.map_err(|e| e.to_string())?;
            let of = |run: &&Run| run.subject == format!("{number},1") && run.state == state;
            runs.iter().rev().find(of).cloned().ok_or_else(|| format!("{state:?}: {runs:#?}"))
        })
        .await
    }

    /// Its item has left, successfully; says what its runs came to, in their order.
    async fn succeeded(&self, number: u64) -> Vec<String> {
        eventually("an item leaves", async || {
            let ended = self.admin.ended_items().await.map_err(|e| e.to_string())?;
            let subject = format!("local:{number},1");
            match ended.iter().find(|item| item.subject == subject) {
                Some(item) if item.end == "succeeded" => Ok(()),
                _ => {
                    let runs = self.admin.runs(3).await.map_err(|e| e.to_string())?;
                    Err(format!("{subject}: {runs:#?} {ended:#?}"))
                }
            }
        })
        .await;
        let mut runs = self.admin.runs(100).await.unwrap();
        runs.retain(|run| run.subject == format!("{number},1"));
        runs.sort_by_key(|run| run.attempt);
        assert!(runs.iter().zip(1..).all(|(run, n)| run.attempt == n), "{runs:#?}");
        runs.into_iter().filter_map(|run| run.result).collect()
    }

    /// What its scripts did: attempt and part, as they were begun.
    fn did(&self, number: u64) -> String {
        let head = format!("{number} ");
        let log = self.log();
        log.lines().filter_map(|l| l.strip_prefix(&head)).collect::<Vec<_>>().join(", ")
    }

    /// The source has one vote and one note of it, and the web hook came so often, with the same report.
    fn told(&self, number: u64, hooks: usize) -> Result<(), String> {
        let bare = self.at(&format!("git/org/{}.git", if number < 10 { "a" } else { "te" }));
        let votes = ["for-each-ref", "--format=%(refname)", &format!("refs/approvals/{number}/")];
        let votes = git(&bare, &votes)?;
        let of = format!("refs/changes/{:02}/{number}/1", number % 100);
        let note = git(&bare, &["notes", "--ref=toci", "show", &of])?;
        let ids: Vec<&str> = note.lines().filter_map(|l| l.strip_prefix("Report: ")).collect();
        let hooked = self.hooks.0.lock().unwrap().clone();
        let hooked: Vec<&str> =
            hooked.iter().filter(|(of, _)| *of == number).map(|(_, id)| id.as_str()).collect();
        let once = votes == format!("refs/approvals/{number}/1/verified/toci/1")
            && ids.len() == 1
            && hooked == vec![ids[0]; hooks];
        if once { Ok(()) } else { Err(format!("{number}: {votes:?} {note:?} {hooked:?}")) }
    }

    async fn is_told(&self, number: u64, hooks: usize) {
        eventually("it is told", async || self.told(number, hooks)).await;
    }
}

/// Answers web hooks, as soon as they are not held.
async fn listen(folder: &Path, hooks: &Arc<Hooks>) -> String {
    let answer = async |State((folder, hooks)): State<(PathBuf, Arc<Hooks>)>,
                        headers: HeaderMap,
                        axum::Json(body): axum::Json<serde_json::Value>| {
        let number = body["subject"]["change"]["number"].as_u64().unwrap();
        let id = headers["x-toci-delivery"].to_str().unwrap().to_owned();
        hooks.0.lock().unwrap().push((number, id));
        let log = std::fs::File::options().append(true).open(folder.join("shared/log"));
        std::io::Write::write_all(&mut log.unwrap(), format!("hook {number}\n").as_bytes())
            .unwrap();
        while folder.join("shared/hold-hook").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let state = (folder.to_owned(), Arc::clone(hooks));
    let router = axum::Router::new().route("/", axum::routing::post(answer)).with_state(state);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn layout(hook: &str) -> String {
    format!(
        "
pipelines:
  - name: check
    manager: independent
    trigger: {{local: [{{event: patchset-created}}]}}
    success: {{local: {{verified: 1}}, webhook: {{url: '{hook}'}}}}
    failure: {{local: {{verified: -1}}}}
jobs:
  - &unit
    name: unit
    pre-run: /media/step.sh pre
    run: /media/step.sh run
    post-run: /media/step.sh post
  - {{<<: *unit, name: deploy, testenv: devtest}}
projects:
  - {{name: org/a, check: [unit]}}
  - {{name: org/te, check: [deploy]}}
"
    )
}

fn program(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn furnish(folder: &Path, hook: &str, number: u32) {
    let at = folder.display();
    let text = format!(
        "[layout]\nfile = \"{at}/layout.yaml\"\n[[source]]\nname = \"local\"\nkind = \"git\"\nroot = \"{at}/git\"\n\
         look_every_s = 1\n[[label]]\nname = \"sandbox\"\n[[provider]]\nname = \"here\"\nkind = \"local\"\nmax_servers = 1\n\
         first_number = {number}\n[[provider.pool]]\nlabel = \"sandbox\"\n"
    );
    std::fs::write(folder.join("toci.toml"), text).unwrap();
    std::fs::write(folder.join("layout.yaml"), layout(hook)).unwrap();
    let (shared, work) = (folder.join("shared"), folder.join("work"));
    let bin = shared.join("bin");
    for folder in [&shared, &bin, &work] {
        std::fs::create_dir_all(folder).unwrap();
    }
    program(&shared.join("step.sh"), STEP);
    std::fs::write(shared.join("log"), "").unwrap();
    for (path, mode) in [(shared.join("log"), 0o666), (shared.clone(), 0o777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // Whoever comes this way is held: git before it sends a repository to a node, df when a node is looked at.
    let wait = |place: &str| {
        format!(
            "[ ! -e /media/hold-{place} ] || echo {place} >>/media/log\n\
             while [ -e /media/hold-{place} ]; do sleep 0.02; done\n"
        )
    };
    let sends = "case \" $* \" in *' pack-objects --revs --stdout --thin '*)";
    let path = std::env::var("PATH").unwrap();
    let real = |name: &str| format!("PATH='{path}' exec {name} \"$@\"\n");
    let git_text = format!("#!/bin/sh\n{sends}\n{};; esac\n{}", wait("sends"), real("git"));
    program(&bin.join("git"), &git_text);
    program(&bin.join("df"), &format!("#!/bin/sh\n{}{}", wait("looks"), real("df")));
    git(&work, &["init", "-q"]).unwrap();
    git(&work, &["commit", "-q", "--allow-empty", "-m", "begin"]).unwrap();
    for name in ["a", "te"] {
        let bare = folder.join(format!("git/org/{name}.git"));
        std::fs::create_dir_all(&bare).unwrap();
        git(&bare, &["init", "-q", "--bare"]).unwrap();
        git(&work, &["push", "-q", bare.to_str().unwrap(), "master"]).unwrap();
        let hook = format!("#!/bin/sh\n[ \"$1\" = refs/notes/toci ] || exit 0\n{}", wait("note"));
        program(&bare.join("hooks/update"), &hook);
    }
}

/// Living processes, by what `/proc` says of them.
fn processes(of: impl Fn(&Path) -> bool) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let paths = entries.filter_map(|e| Some(e.ok()?.path()));
    let found = paths.filter(|path| path.join("stat").exists() && of(path));
    let line = |path: PathBuf| std::fs::read_to_string(path.join("cmdline")).unwrap_or_default();
    // What is dead and not buried yet has no command line.
    found.map(line).filter(|line| !line.is_empty()).collect()
}

fn of_user(user: u32) -> Vec<String> {
    let head = format!("Uid:\t{user}\t");
    processes(|path| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with(&head))
    })
}

fn of_folder(folder: &Path) -> Vec<String> {
    let name = folder.display().to_string();
    processes(|path| std::fs::read_to_string(path.join("cmdline")).is_ok_and(|l| l.contains(&name)))
}

fn none(found: Vec<String>) -> Result<(), String> {
    if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
}

const ONCE: &str = "1 pre, 1 run, 1 post";

/// While its scripts run, its logs are fetched, its workspace is set up.
async fn with_a_node(world: &mut World) {
    for (number, place, line, state, first) in [
        (1, "sends", "sends", RunState::Preparing, ""),
        (2, "pre", "2 1 pre", RunState::Pre, "1 pre, "),
        (3, "run", "3 1 run", RunState::Running, "1 pre, 1 run, "),
        (4, "post", "4 1 post", RunState::Post, "1 pre, 1 run, 1 post, "),
        (5, "looks", "looks", RunState::Collecting, "1 pre, 1 run, 1 post, "),
    ] {
        world.hold(place);
        world.propose("a", number).await;
        world.reached(line).await;
        let run = world.run(number, state).await;
        world.kill_and_serve(Some(place)).await;
        assert_eq!(world.succeeded(number).await, ["LOST", "SUCCESS"], "{place}");
        assert_eq!(world.did(number), format!("{first}2 pre, 2 run, 2 post"), "{place}");
        world.is_told(number, 1).await;
        let lost = world.admin.run(&run.id).await.unwrap();
        assert_eq!(lost.note, "the server was started anew while this ran", "{lost:?}");
        assert!(lost.url.contains("/logs/"), "its logs are kept: {lost:?}");
    }
}

/// What is told of it is under way: half of it is there, or all of it and nobody knows.
async fn while_it_is_told(world: &mut World) {
    for (number, place, line, hooks) in [(6, "note", "note", 1), (7, "hook", "hook 7", 2)] {
        world.hold(place);
        world.propose("a", number).await;
        world.reached(line).await;
        world.run(number, RunState::Over).await;
        world.kill_and_serve(Some(place)).await;
        assert_eq!(world.succeeded(number).await, ["SUCCESS"], "{place}");
        assert_eq!(world.did(number), ONCE, "{place}");
        world.is_told(number, hooks).await;
    }
}

/// There is one node, which another run has.
async fn without_a_node(world: &mut World) {
    world.hold("run");
    world.propose("a", 8).await;
    world.reached("8 1 run").await;
    world.propose("a", 9).await;
    world.run(9, RunState::WaitingNode).await;
    world.kill_and_serve(Some("run")).await;
    assert_eq!(world.succeeded(9).await, ["SUCCESS"]);
    assert_eq!(world.did(9), ONCE);
    assert_eq!(world.succeeded(8).await, ["LOST", "SUCCESS"]);
    assert_eq!(world.did(8), "1 pre, 1 run, 2 pre, 2 run, 2 post");
    world.is_told(8, 1).await;
    world.is_told(9, 1).await;
}

/// There is one test environment, which somebody else has; then it is the run's own.
async fn with_and_without_a_testenv(world: &mut World) {
    let host = enrol(&world.admin, "h1").await.unwrap();
    let dark = async |client: &ApiClient, host: &str, order: Operation| {
        let result = OperationResult::Failed { message: "it shows nothing".into() };
        client.operation_result(host, &order.id, &result).await.unwrap();
    };
    let host = tokio::spawn(SimHost::new("h1", host, 1).run(dark));
    eventually("a test environment", async || match world.admin.testenvs().await {
        Ok(found) if !found.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let request = LeaseRequest { label: Some("devtest".into()), ..LeaseRequest::default() };
    let other = world.admin.request_lease(&request).await.unwrap();
    world.propose("te", 10).await;
    for restarted in [false, true] {
        eventually("it waits for the test environment", async || {
            let run = world.run(10, RunState::WaitingTestenv).await;
            if run.waits_for.starts_with("test environment, number 1") {
                return Ok(());
            }
            Err(format!("{run:?}"))
        })
        .await;
        if !restarted {
            world.kill_and_serve(None).await;
        }
    }
    world.admin.release(&other.id, &Release::default()).await.unwrap();
    assert_eq!(world.succeeded(10).await, ["SUCCESS"]);
    assert_eq!(world.did(10), ONCE);
    world.is_told(10, 1).await;

    world.hold("run");
    world.propose("te", 11).await;
    world.reached("11 1 run").await;
    world.run(11, RunState::Running).await;
    world.kill_and_serve(Some("run")).await;
    assert_eq!(world.succeeded(11).await, ["LOST", "SUCCESS"]);
    assert_eq!(world.did(11), "1 pre, 1 run, 2 pre, 2 run, 2 post");
    world.is_told(11, 1).await;
    let leases = world.admin.leases(true).await.unwrap();
    assert!(leases.iter().all(|lease| lease.state.is_over()), "{leases:#?}");
    // Somebody's, two of the run that waited, two of the run that was lost.
    assert_eq!(leases.len(), 5, "{leases:#?}");
    assert!(!host.is_finished(), "the host saw something wrong");
    host.abort();
}

/// Of all these changes: nothing ran twice at once, each was told of once, and of the server nothing is left.
async fn is_well(mut world: World, changes: std::ops::RangeInclusive<u64>) {
    assert!(!world.log().contains("twice"), "{}", world.log());
    eventually("no node is left", async || {
        let nodes = world.admin.nodes().await.map_err(|e| e.to_string())?;
        if nodes.is_empty() { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    let mut server = world.server.take().unwrap();
    let pid = server.id().to_string();
    let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.expect("kill runs (Debian package procps)").success());
    assert!(server.wait().unwrap().success());
    eventually("no sandbox", async || none(of_user(world.user))).await;
    eventually("no program", async || none(of_folder(world.folder.path()))).await;
    for number in changes {
        // What was killed between the web hook and its end comes again, under the same name.
        let hooks = if number == 7 { 2 } else { 1 };
        world.told(number, hooks).unwrap();
    }
    println!("{} ms", world.begun.elapsed().as_millis());
}

#[tokio::test]
async fn killed_while_it_has_a_node_a_run_is_lost_and_runs_once_more() {
    let mut world = World::start(0).await;
    with_a_node(&mut world).await;
    is_well(world, 1..=5).await;
}

#[tokio::test]
async fn killed_while_it_waits_or_is_told_of_a_run_is_not_repeated() {
    let mut world = World::start(1).await;
    while_it_is_told(&mut world).await;
    without_a_node(&mut world).await;
    with_and_without_a_testenv(&mut world).await;
    is_well(world, 6..=11).await;
}
