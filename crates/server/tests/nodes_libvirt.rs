//! The node pool and whole runs on a real libvirtd with real QEMU (TCG), in namespaces of their own: a server with a
//! provider `libvirt` in its settings, as a process that can be killed. Needs root.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;
#[path = "../../edge/tests/libvirt/host.rs"]
mod host;

use common::git::git;
use common::process::server;
use host::{Host, on_a_host};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, ClientError, Endpoint, Token};
use toci_wire::api::{Node, NodeState, Run, RunState};

/// Longest wait for one thing. A machine is up within 10 s where nothing else runs.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two questions: each costs a process or two.
const AGAIN: Duration = Duration::from_millis(200);
/// Of the server's log, so much is told when something does not come.
const LOG_TOLD_BYTES: usize = 4_000;

const SETTINGS: &str = r#"
[layout]
file = "FOLDER/layout.yaml"
[[source]]
name = "local"
kind = "git"
root = "FOLDER/git"
[[image]]
name = "small"
kind = "file"
file = "IMAGE"
[[label]]
name = "vm"
min_ready = 1
[[provider]]
name = "vms"
kind = "libvirt"
folder = "FOLDER/pool"
max_servers = 2
accelerator = "tcg"
boot_limit_s = 120
[[provider.pool]]
label = "vm"
image = "small"
memory_mib = 192
disk_gib = 1
"#;

const LAYOUT: &str = r#"
pipelines:
  - name: check
    manager: independent
    trigger:
      local: [{event: patchset-created}]
    success: {local: {verified: 1}}
    failure: {local: {verified: -1}}
jobs:
  - name: unit
    run: |
      SCRIPT
projects:
  - {name: org/a, check: [unit]}
"#;

/// Not a test: the server, when this program is started as one.
#[test]
fn the_server_process() {
    if common::process::told_to_serve().is_some() {
        tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    }
    common::process::serve_if_told();
}

/// The server; it ends with the value, without a word.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL. It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A project with one job, and the settings of its server.
struct Site<'a> {
    host: &'a Host,
    folder: PathBuf,
}

impl Site<'_> {
    fn new<'a>(host: &'a Host, script: &str) -> Site<'a> {
        let folder = host.folder().to_owned();
        let settings = SETTINGS
            .replace("FOLDER", &folder.display().to_string())
            .replace("IMAGE", &host.image("node").display().to_string());
        std::fs::write(folder.join("toci.toml"), settings).unwrap();
        let script = script.trim().replace('\n', "\n      ");
        std::fs::write(folder.join("layout.yaml"), LAYOUT.replace("SCRIPT", &script)).unwrap();
        let (bare, work) = (folder.join("git/org/a.git"), folder.join("work"));
        for at in [&bare, &work] {
            std::fs::create_dir_all(at).unwrap();
        }
        git(&bare, &["init", "-q", "--bare"]).unwrap();
        git(&work, &["init", "-q"]).unwrap();
        git(&work, &["commit", "-q", "--allow-empty", "-m", "begin"]).unwrap();
        git(&work, &["push", "-q", "../git/org/a.git", "master"]).unwrap();
        Site { host, folder }
    }

    fn start(&self) -> Server {
        let log = self.folder.join("server.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let before = ["setpriv", "--pdeathsig", "KILL", "--"];
        Server(server(&before, &self.folder).stderr(log).spawn().unwrap())
    }

    fn admin(&self) -> ApiClient {
        let state = self.folder.join("state");
        let endpoint: Endpoint =
            format!("unix:{}", state.join("toci.sock").display()).parse().unwrap();
        let token = Token::from_file(&state.join("admin.token")).ok();
        ApiClient::new(endpoint, token, None).unwrap()
    }

    /// Asks until the answer is yes.
    async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
        let begun = Instant::now();
        loop {
            let last = match ask().await {
                Ok(value) => return value,
                Err(last) => last,
            };
            if begun.elapsed() > LIMIT {
                let log = std::fs::read_to_string(self.folder.join("server.log")).unwrap();
                let from = log.ceil_char_boundary(log.len().saturating_sub(LOG_TOLD_BYTES));
                panic!("{what} did not happen; last: {last}\nthe server's log:\n{}", &log[from..]);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// A node in this state that is none of these.
    async fn node(&self, state: NodeState, but: &[&Node]) -> Node {
        self.until("a node in the state", async || {
            let nodes = self.admin().nodes().await.map_err(|e| e.to_string())?;
            let other = |node: &&Node| but.iter().all(|b| b.id != node.id);
            let found = nodes.iter().filter(other).find(|node| node.state == state);
            found.cloned().ok_or(format!("{state:?}: {nodes:?}"))
        })
        .await
    }

    /// A change, which the server is told of.
    async fn propose(&self, text: &str) {
        let mirror = self.folder.join("state/mirrors/local/org/a.git/toci-mirror");
        self.until("the project is known", async || {
            if mirror.exists() { Ok(()) } else { Err(format!("no {}", mirror.display())) }
        })
        .await;
        let work = self.folder.join("work");
        std::fs::write(work.join("greeting"), text).unwrap();
        git(&work, &["add", "greeting"]).unwrap();
        git(&work, &["commit", "-q", "-m", "change"]).unwrap();
        git(&work, &["push", "-q", "../git/org/a.git", "HEAD:refs/changes/01/1/1"]).unwrap();
        // The server may just have been started.
        let poke = async || self.admin().poke("local").await.map_err(|e| e.to_string());
        self.until("the server is told", poke).await;
    }

    /// The only run in this state.
    async fn run(&self, state: RunState) -> Run {
        self.until("a run in the state", async || {
            let runs = self.admin().runs(10).await.map_err(|e| e.to_string())?;
            let mut found = runs.iter().filter(|run| run.state == state);
            match (found.next(), found.next()) {
                (Some(run), None) => Ok(run.clone()),
                (None, _) | (_, Some(_)) => Err(format!("{state:?}: {runs:?}")),
            }
        })
        .await
    }

    /// Waits until there are no other machines, and no other volumes of machines, than those of these nodes and what
    /// is not ours.
    async fn until_there_are(&self, nodes: &[&Node], theirs: &[&str]) {
        let ours: BTreeSet<String> =
            nodes.iter().map(|node| format!("toci-node-{}", node.name)).collect();
        let expected: BTreeSet<String> =
            ours.iter().cloned().chain(theirs.iter().map(|t| (*t).to_owned())).collect();
        let pool = self.host.pool();
        self.until("only these are there", async || {
            let machines = self.host.virsh(&["list", "--all", "--name"]);
            let machines: BTreeSet<String> = words(&machines).collect();
            let volumes = self.host.virsh(&["vol-list", &pool]);
            let volumes = words(&volumes).filter(|v| v.starts_with("toci-node-"));
            let stems: BTreeSet<String> =
                volumes.map(|v| v.rsplit_once('.').unwrap().0.to_owned()).collect();
            if machines == expected && stems == ours {
                return Ok(());
            }
            Err(format!("{expected:?}, there are {machines:?} and volumes of {stems:?}"))
        })
        .await;
    }

    fn uuid(&self, node: &Node) -> String {
        self.host.virsh(&["domuuid", &format!("toci-node-{}", node.name)])
    }
}

/// The first words of lines.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned)
}

/// What is at `http://HOST:PORT/…`.
fn get(url: &str) -> String {
    let (place, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(place).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\nhost: x\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 "), "{url}: {head}");
    body.to_owned()
}

#[test]
fn a_run_has_a_ready_machine_which_is_deleted_afterwards_and_replaced() {
    let script = r#"
echo "revision $(git rev-parse HEAD) of $ZUUL_REF"
echo "on $(hostname), as $NODE_NAME"
echo "greeting: $(cat greeting)"
mkdir -p "$WORKSPACE/logs" && uname -s >"$WORKSPACE/logs/kernel.txt"
"#;
    on_a_host(async |host: &Host| {
        let site = Site::new(host, script);
        let _server = site.start();
        let first = site.node(NodeState::Ready, &[]).await;
        assert_eq!((first.label.as_str(), first.provider.as_str()), ("vm", "vms"));
        site.until_there_are(&[&first], &[]).await;

        let pushed = Instant::now();
        site.propose("hello from a change\n").await;
        let run = site.run(RunState::Over).await;
        println!("from a pushed change to the end of its run: {:?}", pushed.elapsed());
        assert_eq!(run.result.as_deref(), Some("SUCCESS"), "{run:?}");
        assert_eq!((run.attempt, &run.nodes), (1, &vec![first.name.clone()]));

        let console = get(&format!("{}console.txt", run.url));
        assert!(!console.contains("not whole"), "{console}");
        let name = &first.name;
        for words in [&format!("| on {name}, as {name}\n"), "| greeting: hello from a change\n"] {
            assert!(console.contains(words), "{words}: {console}");
        }
        // The revision is the one that the merger made.
        let (_, revision) = console.split_once("| revision ").unwrap();
        let (revision, rest) = revision.split_once(" of ").unwrap();
        let reference = rest.lines().next().unwrap();
        let mirror = site.folder.join("state/mirrors/local/org/a.git");
        assert_eq!(git(&mirror, &["rev-parse", reference]).unwrap(), revision, "{console}");
        assert_eq!(
            git(&mirror, &["show", &format!("{revision}:greeting")]).unwrap(),
            "hello from a change"
        );
        // What the job left and what the machine said of itself are archived.
        assert_eq!(get(&format!("{}kernel.txt", run.url)), "Linux\n");
        let info = get(&format!("{}node/host_info.txt", run.url));
        assert!(info.contains("===== uname -a\nLinux") && !info.contains("is not whole"), "{info}");

        let second = site.node(NodeState::Ready, &[&first]).await;
        site.until_there_are(&[&second], &[]).await;
        match site.admin().node(&first.id).await {
            Err(ClientError::Api { status: 404, .. }) => {}
            other => panic!("{other:?}"),
        }
        println!(
            "from a pushed change to a new machine in its node's place: {:?}",
            pushed.elapsed()
        );
    });
}

/// A machine that is not ours, or is not known: it has no disk and is paused.
fn plant(host: &Host, name: &str, owner: Option<&str>) {
    let mark = owner.map(|owner| {
        format!("<metadata><toci:node xmlns:toci='urn:toci:node:1' name='x' owner='{owner}'/></metadata>")
    });
    let xml = format!(
        "<domain type='qemu'><name>{name}</name>{}<memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>",
        mark.unwrap_or_default()
    );
    let file = host.folder().join(format!("{name}.xml"));
    std::fs::write(&file, xml).unwrap();
    host.virsh(&["create", "--paused", path(&file)]);
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

#[test]
fn a_server_that_is_killed_loses_no_machine_and_leaves_none_behind() {
    let script = r#"
echo "attempt $TOCI_ATTEMPT"
[ "$TOCI_ATTEMPT" != 1 ] || sleep 1000
"#;
    on_a_host(async |host: &Host| {
        let site = Site::new(host, script);

        // Killed while a machine is being made.
        let server = site.start();
        let begun = site
            .until("a machine comes up", async || {
                let nodes = site.admin().nodes().await.map_err(|e| e.to_string())?;
                let machines = host.virsh(&["list", "--name"]);
                let node = nodes.first().filter(|node| {
                    words(&machines).any(|name| name == format!("toci-node-{}", node.name))
                });
                node.cloned().ok_or(format!("{nodes:?} {machines}"))
            })
            .await;
        drop(server);
        assert_eq!(begun.state, NodeState::Building);
        let machines = host.virsh(&["list", "--name"]);
        assert!(machines.contains(&begun.name), "{machines}");
        // Meanwhile there is more: of ours that no store knows, of another toci's, of nobody's.
        let volumes = host.virsh(&["vol-list", &host.pool()]);
        let owner = words(&volumes).find_map(|v| v.strip_prefix("toci-owner-").map(str::to_owned));
        plant(host, "toci-node-stray-1", owner.as_deref());
        let theirs = ["toci-node-theirs-1", "toci-node-theirs-2", "theirs"];
        for (name, owner) in theirs.into_iter().zip([Some("0123456789abcdef"), None, None]) {
            plant(host, name, owner);
        }
        host.virsh(&["vol-create-as", &host.pool(), "toci-node-stray-2.qcow2", "1MiB"]);

        let server = site.start();
        let ready = site.node(NodeState::Ready, &[&begun]).await;
        site.until_there_are(&[&ready], &theirs).await;
        let machine = site.uuid(&ready);

        // Killed while one is ready: it is tried again, and is the same.
        drop(server);
        let server = site.start();
        site.propose("x\n").await;
        let run = site.run(RunState::Running).await;
        assert_eq!((&run.nodes, site.uuid(&ready)), (&vec![ready.name.clone()], machine));

        // Killed while a run has it: the run is tried again on another one.
        drop(server);
        let _server = site.start();
        let over = site
            .until("the run is over", async || {
                let runs = site.admin().runs(10).await.map_err(|e| e.to_string())?;
                let done = |run: &&Run| run.result.as_deref() == Some("SUCCESS");
                runs.iter().find(done).cloned().ok_or(format!("{runs:?}"))
            })
            .await;
        assert_eq!(over.attempt, 2, "{over:?}");
        assert_ne!(over.nodes, run.nodes, "{over:?}");
        let last = site.node(NodeState::Ready, &[&ready]).await;
        site.until_there_are(&[&last], &theirs).await;
        assert_ne!(vec![last.name], over.nodes);
    });
}
