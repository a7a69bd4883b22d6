//! The binary `toci` as a client of a real `toci server`, with a simulated host.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

#[path = "../../server/tests/common/mod.rs"]
mod common;

use common::{LIMIT, SimHost, enrol, eventually};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;
use toci_client::api::{ApiClient, Token, Upload};
use toci_wire::api::{
    MachineState, Operation, OperationKind, OperationResult, Revoke, Role, TokenRequest,
};
use tokio::task::JoinHandle;

const TOCI: &str = env!("CARGO_BIN_EXE_toci");

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server process, a host with TEs, and the token of a client.
struct World {
    folder: TempDir,
    url: String,
    ports: [u16; 2],
    server: Option<Process>,
    admin: ApiClient,
    host: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.host.abort();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start_server(folder: &Path, ports: [u16; 2]) -> Process {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("server.log"));
    let log = log.unwrap();
    let child = Command::new(TOCI)
        .arg("server")
        .arg("--state")
        .arg(folder.join("state"))
        .arg("--socket")
        .arg(folder.join("toci.sock"))
        .args(["--listen", &format!("127.0.0.1:{}", ports[0])])
        .args(["--gearman", &format!("127.0.0.1:{}", ports[1])])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    Process(child)
}

async fn connect(folder: &Path, url: &str) -> ApiClient {
    let token_file = folder.join("state/admin.token");
    eventually("the server serves", async || {
        let token = Token::from_file(&token_file).map_err(|e| e.to_string())?;
        let client = ApiClient::new(url.parse().unwrap(), Some(token), None).unwrap();
        client.health().await.map_err(|e| e.to_string())?;
        Ok(client)
    })
    .await
}

/// What the host does for people.
async fn operate(client: &ApiClient, host: &str, operation: Operation) {
    let machines = vec![MachineState { name: "seed_1".into(), on: true }];
    let id = operation.id;
    let done = match operation.kind {
        OperationKind::Power { .. } => {
            client.operation_result(host, &id, &OperationResult::Machines { machines }).await
        }
        OperationKind::View => {
            client.operation_output(host, &id, Upload::from_bytes("seed_1 on\n")).await
        }
        OperationKind::Console { .. } => {
            client.operation_output(host, &id, Upload::from_bytes("login:\n")).await
        }
        OperationKind::Screenshot { .. } => {
            client.operation_output(host, &id, Upload::from_bytes("\u{89}PNG")).await
        }
        OperationKind::PushImage { .. } => {
            // Whoever pushes may leave in the middle (a folder cannot be read): the host goes on, as a real one does.
            let Ok(input) = client.operation_input(host, &id).await else { return };
            let Ok(image) = input.collect(1 << 20).await else { return };
            let sha256 = match image.as_ref() {
                b"image" => "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
                _ => "damaged",
            };
            let bytes = u64::try_from(image.len()).unwrap();
            let result =
                OperationResult::Image { bytes, sha256: sha256.into(), format: "raw".into() };
            client.operation_result(host, &id, &result).await
        }
    };
    done.unwrap();
}

impl World {
    async fn start(tes: u32) -> World {
        let folder = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port()];
        let url = format!("http://127.0.0.1:{}", ports[0]);
        let server = Some(start_server(folder.path(), ports));
        let admin = connect(folder.path(), &url).await;
        let host = SimHost::new("h", enrol(&admin, "h").await.unwrap(), tes);
        let host = tokio::spawn(host.run(operate));
        let request = TokenRequest { role: Role::Client, subject: "ci".into(), ttl_s: None };
        let token = admin.create_token(&request).await.unwrap();
        fs::write(folder.path().join("client.token"), &token.token).unwrap();
        eventually("the TEs are ready", async || {
            let found = admin.testenvs().await.map_err(|e| e.to_string())?;
            let count = u32::try_from(found.len()).unwrap();
            if count == tes { Ok(()) } else { Err(format!("{count} TEs")) }
        })
        .await;
        World { folder, url, ports, server, admin, host }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `toci` as the client.
    fn toci(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TOCI);
        command
            .args(arguments)
            .env("TOCI_SERVER", &self.url)
            .env("TOCI_TOKEN_FILE", self.path("client.token"))
            .env("OUT", self.path("out"))
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env_remove("TOCI_TOKEN")
            .stdin(Stdio::null());
        command
    }

    /// As the operator.
    fn operator(&self, arguments: &[&str]) -> Command {
        let mut command = self.toci(arguments);
        command.env("TOCI_TOKEN_FILE", self.path("state/admin.token"));
        command
    }

    /// `toci lease run` that goes on; what it says is in the file `said`.
    fn start_run(&self, options: &[&str], script: &str) -> Process {
        let said = fs::File::create(self.path("said")).unwrap();
        let mut command = self.toci(&["lease", "run"]);
        let command = command.args(options).args(["--", "bash", "-c", script]);
        let command = command.stdout(said.try_clone().unwrap()).stderr(said).process_group(0);
        Process(command.spawn().unwrap())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap_or_default()
    }

    /// The line that a command wrote to $OUT.
    async fn out(&self) -> String {
        eventually("the command writes", async || {
            let text = fs::read_to_string(self.path("out")).unwrap_or_default();
            if text.ends_with('\n') { Ok(text.trim().to_owned()) } else { Err(self.said()) }
        })
        .await
    }

    async fn code_of(&self, run: &mut Process) -> i32 {
        eventually("the run ends", async || match run.0.try_wait().unwrap() {
            Some(status) => Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap())),
            None => Err(self.said()),
        })
        .await
    }

    /// Data files that lie about.
    fn data_files(&self) -> usize {
        let entries = fs::read_dir(self.folder.path()).unwrap().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().ends_with(".json")).count()
    }
}

/// Runs `toci` to its end without holding up the simulated host.
async fn output(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(LIMIT, run).await.unwrap().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

async fn gone(pid: &str) {
    eventually("the process ends", async || {
        if is_running(pid) { Err(format!("{pid} still runs")) } else { Ok(()) }
    })
    .await;
}

fn signal(name: &str, process: &Process) {
    let sent = Command::new("kill").args([name, &process.0.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

const LONG: &str = "echo $$ >$OUT; sleep 600; true";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_gets_its_environment_and_its_code_comes_back() {
    let world = World::start(2).await;
    let script = "set -e; [ $(stat -c %a $TE_DATAFILE) = 600 ]; grep -q 'key of L1' $TE_DATAFILE; \
                  [ $TE_DATAFILES = $TE_DATAFILE ]; echo $TOCI_LEASE $TOCI_SERVER; exit 7";
    let run =
        output(world.toci(&["lease", "run", "--label", "devtest", "--", "bash", "-c", script]));
    let run = run.await;
    assert_eq!(run.status.code(), Some(7), "{}", text(&run.stderr));
    assert_eq!(text(&run.stdout).trim(), format!("L1 {}", world.url));
    assert!(text(&run.stderr).contains("lease L1 is released"), "{}", text(&run.stderr));
    assert_eq!(world.data_files(), 0);

    let script = "echo $TE_DATAFILES | tr : '\\n' | wc -l";
    let both =
        output(world.toci(&["lease", "run", "-q", "--count", "2", "--", "bash", "-c", script]));
    let both = both.await;
    assert_eq!((text(&both.stdout).trim(), both.stderr.len()), ("2", 0), "{}", text(&both.stderr));

    for (command, code) in [("/no/such/thing", 127), ("/etc/passwd", 126)] {
        let run = output(world.toci(&["lease", "run", "--", command])).await;
        assert_eq!(run.status.code(), Some(code), "{}", text(&run.stderr));
    }
    let leases = world.admin.leases(true).await.unwrap();
    assert!(leases.len() == 4 && leases.iter().all(|l| l.state.is_over()), "{leases:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_waited_too_long_unreachable_and_not_allowed_differ() {
    let world = World::start(1).await;
    let refused = output(world.toci(&["lease", "run", "--label", "nope", "--", "true"])).await;
    assert_eq!(refused.status.code(), Some(110), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("hint: "), "{}", text(&refused.stderr));

    let _holder = world.start_run(&[], LONG);
    world.out().await;
    let wait = ["lease", "run", "--wait-timeout", "1s", "--", "true"];
    let waited = output(world.toci(&wait)).await;
    assert_eq!(waited.status.code(), Some(111), "{}", text(&waited.stderr));
    assert!(text(&waited.stderr).contains("waits as number 1"), "{}", text(&waited.stderr));

    let nowhere = ["--server", "unix:/no/such/socket", "te", "list"];
    let unreachable = output(world.toci(&nowhere)).await;
    assert_eq!(unreachable.status.code(), Some(115), "{}", text(&unreachable.stderr));
    let mut nobody = world.toci(&["te", "list", "--json"]);
    nobody.env("TOCI_TOKEN_FILE", world.path("other.token"));
    fs::write(world.path("other.token"), "wrong").unwrap();
    let nobody = output(nobody).await;
    assert_eq!(nobody.status.code(), Some(116), "{}", text(&nobody.stderr));
    let error: Value = serde_json::from_slice(&nobody.stderr).unwrap();
    assert_eq!(error["error"]["exit"], 116);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_also_quietly_and_codes_do_not_need_a_reader() {
    let world = World::start(1).await;
    let quiet = output(world.toci(&["lease", "run", "-q", "--", "/no/such/thing"])).await;
    assert_eq!(quiet.status.code(), Some(127));
    assert!(text(&quiet.stderr).contains("/no/such/thing"), "{}", text(&quiet.stderr));
    let json = output(world.toci(&["lease", "run", "--json", "--", "/no/such/thing"])).await;
    let last = text(&json.stderr);
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["exit"], 127, "{last}");
    let short = ["lease", "run", "-q", "--timeout", "1s", "--", "sleep", "600"];
    let short = output(world.toci(&short)).await;
    assert_eq!(short.status.code(), Some(112));
    assert!(text(&short.stderr).contains("is expired"), "{}", text(&short.stderr));

    // Standard error that cannot be written to: a log on a full disk.
    for (arguments, code) in [
        (&["lease", "show", "L999"][..], 110),
        (&["lease", "run", "--", "/no/such/thing"], 127),
        (&["lease", "run", "--", "true"], 0),
    ] {
        let mut command = world.toci(arguments);
        command.stderr(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        let status = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_lease_ends_the_whole_command() {
    let mut world = World::start(1).await;
    // Expired: what the command started goes too, though it ignores TERM.
    let script = "(trap '' TERM; echo $BASHPID >$OUT; exec sleep 600) & wait";
    let mut run = world.start_run(&["--timeout", "2s", "--grace", "1s"], script);
    let inner = world.out().await;
    assert_eq!(world.code_of(&mut run).await, 112, "{}", world.said());
    gone(&inner).await;
    fs::remove_file(world.path("out")).unwrap();

    let mut run = world.start_run(&[], LONG);
    let command = world.out().await;
    let id = world.admin.leases(false).await.unwrap()[0].id.clone();
    world.admin.revoke(&id, &Revoke { reason: "needed elsewhere".into() }).await.unwrap();
    assert_eq!(world.code_of(&mut run).await, 114, "{}", world.said());
    assert!(world.said().contains("needed elsewhere"), "{}", world.said());
    gone(&command).await;
    fs::remove_file(world.path("out")).unwrap();

    // Expired while the server is away: our own clock says so.
    let mut run = world.start_run(&["-q", "--timeout", "2s"], LONG);
    let command = world.out().await;
    world.server = None;
    assert_eq!(world.code_of(&mut run).await, 112, "{}", world.said());
    assert!(world.said().contains("by the clock of this machine"), "{}", world.said());
    gone(&command).await;
    assert_eq!(world.data_files(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_are_passed_on_and_kill_9_leaves_neither_process_nor_key() {
    let world = World::start(1).await;
    let script = "trap 'exit 9' TERM; echo $$ >$OUT; while :; do sleep 0.1; done";
    let mut run = world.start_run(&[], script);
    world.out().await;
    signal("-TERM", &run);
    assert_eq!(world.code_of(&mut run).await, 9, "{}", world.said());
    assert!(world.said().contains("is released"), "{}", world.said());
    fs::remove_file(world.path("out")).unwrap();

    let script = "sleep 600 & echo $! >$OUT; wait";
    let mut run = world.start_run(&[], script);
    let inner = world.out().await;
    assert_eq!(world.data_files(), 1);
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    gone(&inner).await;
    assert_eq!(world.data_files(), 0);
    eventually("the lease is lost", async || {
        let leases = world.admin.leases(false).await.map_err(|e| e.to_string())?;
        if leases.is_empty() { Ok(()) } else { Err(format!("{leases:?}")) }
    })
    .await;

    fs::remove_file(world.path("out")).unwrap();
    let _holder = world.start_run(&[], LONG);
    world.out().await;
    let mut waiting = world.toci(&["lease", "run", "--", "true"]);
    let mut waiting = Process(waiting.stderr(Stdio::null()).spawn().unwrap());
    eventually("it waits", async || {
        let leases = world.admin.leases(false).await.map_err(|e| e.to_string())?;
        if leases.iter().any(|l| l.waiting.is_some()) { Ok(()) } else { Err(format!("{leases:?}")) }
    })
    .await;
    signal("-INT", &waiting);
    assert_eq!(world.code_of(&mut waiting).await, 130);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_goes_on_while_the_server_is_killed_and_restarted() {
    let mut world = World::start(1).await;
    let script = "echo $$ >$OUT; until [ -e $OUT.go ]; do sleep 0.05; done; exit 5";
    let mut run = world.start_run(&[], script);
    world.out().await;
    world.server = None;
    eventually("the run notices", async || {
        if world.said().contains("the command goes on") { Ok(()) } else { Err(world.said()) }
    })
    .await;
    world.server = Some(start_server(world.folder.path(), world.ports));
    eventually("the run notices", async || {
        if world.said().contains("answers again") { Ok(()) } else { Err(world.said()) }
    })
    .await;
    fs::write(world.path("out.go"), "").unwrap();
    assert_eq!(world.code_of(&mut run).await, 5, "{}", world.said());
    assert!(world.said().contains("lease L1 is released"), "{}", world.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_held_when_asked_for() {
    let world = World::start(1).await;
    let mut run = world.start_run(&["--hold-on-failure", "1h"], "exit 3");
    assert_eq!(world.code_of(&mut run).await, 3, "{}", world.said());
    let show = output(world.toci(&["lease", "show", "L1", "--json"])).await;
    let lease: Value = serde_json::from_slice(&show.stdout).unwrap();
    assert_eq!(lease["state"], "held", "{lease}");
    let released = output(world.toci(&["lease", "release", "L1"])).await;
    assert!(text(&released.stdout).contains("released"), "{}", text(&released.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_look_after_test_environments_hosts_and_tokens() {
    let world = World::start(1).await;
    for (arguments, expected) in [
        (&["te", "list"][..], "h-1  ready"),
        (&["te", "show", "h-1"], "seed_1"),
        (&["te", "drain", "h-1"], "draining"),
        (&["te", "undrain", "h-1"], "ready"),
        (&["te", "power", "h-1", "on"], "seed_1   on"),
        (&["te", "console", "h-1"], "login:"),
        (&["host", "list"], "connected"),
        (&["host", "show", "h"], "version:"),
        (&["host", "drain", "h"], "draining"),
        (&["host", "undrain", "h"], "connected"),
        (&["lease", "list"], "LEASE"),
        (&["token", "list"], "operator"),
        (&["te", "quarantine", "h-1", "--reason", "smoke"], "smoke"),
    ] {
        let run = output(world.operator(arguments)).await;
        let said = text(&run.stdout);
        assert!(run.status.success(), "{arguments:?}: {}", text(&run.stderr));
        assert!(said.contains(expected), "{arguments:?}: {said}");
        let json = output(world.operator(&[arguments, &["--json"]].concat())).await;
        let is_json = serde_json::from_slice::<Value>(&json.stdout).is_ok();
        assert!(is_json || arguments[1] == "console", "{arguments:?}: {}", text(&json.stdout));
    }
    let refused = output(world.toci(&["te", "drain", "h-1"])).await;
    assert_eq!(refused.status.code(), Some(116), "{}", text(&refused.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_screenshots_and_secrets_go_to_files() {
    let world = World::start(1).await;
    let path = |name: &str| world.path(name).display().to_string();
    fs::write(world.path("good.img"), "image").unwrap();
    fs::write(world.path("bad.img"), "other").unwrap();
    let good = output(world.operator(&["te", "push-image", "h-1", &path("good.img")])).await;
    assert!(text(&good.stdout).contains("(compared)"), "{good:?}");
    let bad = output(world.operator(&["te", "push-image", "h-1", &path("bad.img")])).await;
    assert_eq!(bad.status.code(), Some(1), "{}", text(&bad.stderr));
    let folder = output(world.operator(&["te", "push-image", "h-1", &path("")])).await;
    assert_eq!(folder.status.code(), Some(1), "not the server's fault: {}", text(&folder.stderr));
    assert!(text(&folder.stderr).contains("Is a directory"), "{}", text(&folder.stderr));
    let mut pipe = world.operator(&["te", "push-image", "h-1", "/dev/stdin"]);
    let mut echo = Command::new("printf").arg("image").stdout(Stdio::piped()).spawn().unwrap();
    pipe.stdin(echo.stdout.take().unwrap());
    let pipe = output(pipe).await;
    assert!(text(&pipe.stdout).contains("5 bytes"), "{pipe:?}");
    echo.wait().unwrap();
    let shot = output(world.operator(&["te", "screenshot", "h-1", "-o", &path("s.png")])).await;
    assert!(shot.status.success(), "{}", text(&shot.stderr));
    assert_eq!(fs::read_to_string(world.path("s.png")).unwrap(), "\u{89}PNG");

    let file = path("new.token");
    let make = ["token", "create", "--role", "client", "--subject", "x", "-o", &file];
    let made = output(world.operator(&make)).await;
    assert!(made.status.success() && made.stdout.is_empty(), "{made:?}");
    let mut with_it = world.toci(&["lease", "list"]);
    assert!(
        output({
            with_it.env("TOCI_TOKEN_FILE", &file);
            with_it
        })
        .await
        .status
        .success()
    );
    let again = output(world.operator(&make)).await;
    assert_eq!(again.status.code(), Some(1), "a file is never overwritten");
    let enrol = output(world.operator(&["host", "enrol", "--host", "h2"])).await;
    assert!(text(&enrol.stdout).trim().len() > 20, "{enrol:?}");
}

#[test]
fn papers_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(TOCI).arg("man").arg(folder.path()).status().unwrap();
    assert!(made.success());
    let page = fs::read_to_string(folder.path().join("toci-lease-run.1")).unwrap();
    assert!(page.contains("TE_DATAFILE"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(TOCI).args(["completion", shell]).output().unwrap();
        assert!(text(&script.stdout).contains("push-image"), "{shell}");
    }
    let usage = Command::new(TOCI).args(["te", "power", "x", "explode"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
