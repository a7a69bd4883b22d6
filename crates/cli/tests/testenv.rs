//! `testenv-client` and `testenv-worker` with every broker (ours, PyPI's geard, Debian's gearmand) and mixed with
//! peers that behave as those of 2014 do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../server/tests/gearman_support/mod.rs"]
mod gearman_support;

use gearman_support::{Process, program, python_with_gear, wait_for};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Lines of all logs that a failing test shows.
const LOG_LINES_SHOWN: usize = 60;

/// What a TE JSON holds; must never be in a log.
const DATA: &str = "{\"ssh-key\": \"-----BEGIN PRIVATE KEY----- secret\"}\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    Geard,
    Gearmand,
}

const BROKERS: [Kind; 3] = [Kind::Ours, Kind::Geard, Kind::Gearmand];

/// One test's folder, broker and port.
struct Lab {
    folder: TempDir,
    port: u16,
    kind: Kind,
    broker: Option<Process>,
}

fn called(folder: &Path, name: &str) -> Command {
    let link = folder.join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_toci"), &link).unwrap();
    }
    Command::new(link)
}

impl Lab {
    fn start(kind: Kind) -> Lab {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("te.json"), DATA).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut lab = Lab { folder, port, kind, broker: None };
        lab.start_broker();
        lab
    }

    fn start_broker(&mut self) {
        let mut command = match self.kind {
            Kind::Ours => {
                let mut command = called(self.folder.path(), "geard");
                command.args(["-d", "--listen-address", "127.0.0.1", "-p"]);
                command
            }
            Kind::Geard => {
                let mut command = Command::new(python_with_gear().with_file_name("geard"));
                command.args(["-d", "--listen-address", "127.0.0.1", "-p"]);
                command
            }
            Kind::Gearmand => {
                let mut command = program("gearmand", "gearman-job-server");
                command.args(["-L", "127.0.0.1", "-l", "stderr", "-p"]);
                command
            }
        };
        let log = fs::File::create(self.path("broker.out")).unwrap();
        let command = command.arg(self.port.to_string()).stdin(Stdio::null());
        let command = command.stdout(log.try_clone().unwrap()).stderr(log);
        self.broker = Some(Process(command.spawn().unwrap()));
        let address = ("127.0.0.1", self.port);
        wait_for("the broker to listen", || TcpStream::connect(address).is_ok(), |up| *up);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn broker_address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn spawn(&self, mut command: Command, log: &str) -> Process {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path(log)).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // As a shell starts it: a signal to its group does not reach the test.
        Process(command.process_group(0).spawn().unwrap())
    }

    fn worker(&self, python: bool) -> Process {
        let mut command = if python {
            peer("testenv_worker.py")
        } else {
            called(self.folder.path(), "testenv-worker")
        };
        command.args(["-b", &self.broker_address(), "-n", "1"]).arg(self.path("te.json"));
        self.spawn(command, "worker.log")
    }

    fn client(&self, python: bool, name: &str, options: &[&str], script: &str) -> Process {
        let mut command = if python {
            peer("testenv_client.py")
        } else {
            called(self.folder.path(), "testenv-client")
        };
        command.args(["-b", &self.broker_address(), "-n", name]).args(options);
        command.args(["--", "bash", "-c", script]).env("OUT", self.path(name));
        self.spawn(command, &format!("{name}.log"))
    }

    /// What a client's command wrote, once it is there.
    fn out(&self, name: &str) -> String {
        let path = self.path(name);
        let text = || fs::read_to_string(&path).unwrap_or_default();
        wait_for(&format!("{:?}: {}", self.kind, path.display()), text, |t| t.ends_with('\n'))
    }

    fn logs(&self) -> String {
        let logs = fs::read_dir(self.folder.path()).unwrap().flatten();
        let logs = logs.filter(|entry| entry.path().extension().is_some_and(|e| e == "log"));
        let all: String = logs.map(|e| fs::read_to_string(e.path()).unwrap_or_default()).collect();
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

fn peer(script: &str) -> Command {
    let mut command = Command::new(python_with_gear());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script));
    command
}

fn end_of(what: &str, lab: &Lab, child: &mut Child) -> i32 {
    let ended = wait_for(
        &format!("{:?}: the end of {what}", lab.kind),
        || (child.try_wait().unwrap(), lab.logs()),
        |(status, _)| status.is_some(),
    );
    let status = ended.0.unwrap();
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

fn signal(name: &str, child: &Child) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn is_running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// Prints its process id, then goes on for long.
const LONG: &str = "echo $$ >$OUT; sleep 600; echo never";

#[test]
fn a_command_gets_the_data_and_its_code_comes_back() {
    for kind in BROKERS {
        for (python_client, python_worker) in [(false, false), (true, false), (false, true)] {
            let lab = Lab::start(kind);
            let _worker = lab.worker(python_worker);
            let script = "[ $(stat -c %a $TE_DATAFILE) = 600 ] && cat $TE_DATAFILE >$OUT.new && \
                          echo $TE_DATAFILE >>$OUT.new && mv $OUT.new $OUT; exit 7";
            let mut client = lab.client(python_client, "a", &["-t", "60"], script);
            let code = end_of("the client", &lab, &mut client.0);
            assert_eq!(code, 7, "{kind:?} {python_client} {python_worker}: {}", lab.logs());
            let out = lab.out("a");
            let file = out.strip_prefix(DATA).unwrap_or_else(|| panic!("{out}")).trim();
            assert!(!Path::new(file).exists(), "{file} is left behind");
            // The environment is back: the next one gets it.
            let mut next = lab.client(python_client, "b", &[], "true");
            assert_eq!(end_of("the next client", &lab, &mut next.0), 0, "{}", lab.logs());
            assert!(!lab.logs().contains("PRIVATE KEY"), "a key is in a log:\n{}", lab.logs());
        }
    }
}

#[test]
fn a_second_client_waits_and_a_killed_one_frees_the_environment_soon() {
    for kind in BROKERS {
        let lab = Lab::start(kind);
        let _worker = lab.worker(false);
        let mut first = lab.client(false, "a", &[], LONG);
        let command = lab.out("a");
        let mut second = lab.client(false, "b", &[], "echo done >$OUT");
        let killed = Instant::now();
        first.0.kill().unwrap();
        end_of("the first client", &lab, &mut first.0);
        wait_for("the command to die with its client", || is_running(&command), |runs| !runs);
        assert_eq!(end_of("the second client", &lab, &mut second.0), 0, "{}", lab.logs());
        assert!(killed.elapsed() < Duration::from_secs(30), "{kind:?}: {:?}", killed.elapsed());
    }
}

#[test]
fn a_client_that_dies_when_its_command_starts_frees_the_environment_soon() {
    for kind in BROKERS {
        let lab = Lab::start(kind);
        let _worker = lab.worker(false);
        // The first thing that the command does.
        let script = "kill -9 $PPID; echo $$ >$OUT; sleep 600";
        let mut first = lab.client(false, "a", &[], script);
        assert_eq!(end_of("the first client", &lab, &mut first.0), 128 + 9);
        let killed = Instant::now();
        let mut second = lab.client(false, "b", &[], "true");
        assert_eq!(end_of("the second client", &lab, &mut second.0), 0, "{}", lab.logs());
        assert!(killed.elapsed() < Duration::from_secs(30), "{kind:?}: {:?}", killed.elapsed());
    }
}

#[test]
fn the_environment_is_taken_away_when_its_time_is_over() {
    for kind in BROKERS {
        let lab = Lab::start(kind);
        let _worker = lab.worker(false);
        let started = Instant::now();
        // What the command started goes too, and nothing else: this test would not survive 2014's kill.
        let script = "sleep 600 & echo $! >$OUT; wait";
        let mut client = lab.client(false, "a", &["-t", "2"], script);
        let inner = lab.out("a");
        assert_eq!(end_of("the client", &lab, &mut client.0), 137, "{}", lab.logs());
        assert!(started.elapsed() < Duration::from_secs(30), "{kind:?}: {:?}", started.elapsed());
        wait_for("the rest of the group to end", || is_running(&inner), |runs| !runs);
        let mut next = lab.client(false, "b", &[], "true");
        assert_eq!(end_of("the next client", &lab, &mut next.0), 0, "{}", lab.logs());
    }
}

#[test]
fn a_worker_that_dies_takes_the_environment_with_it() {
    // gearmand gives the request to the next worker instead and tells the client nothing.
    for kind in [Kind::Ours, Kind::Geard] {
        let lab = Lab::start(kind);
        let mut worker = lab.worker(false);
        let mut client = lab.client(false, "a", &[], LONG);
        let command = lab.out("a");
        worker.0.kill().unwrap();
        assert_eq!(end_of("the client", &lab, &mut client.0), 137, "{}", lab.logs());
        assert!(!is_running(&command));
    }
}

#[test]
fn signals_reach_the_command_and_a_wait_can_be_ended() {
    for kind in BROKERS {
        let lab = Lab::start(kind);
        let mut waiting = lab.client(false, "w", &[], "true");
        let submitted = || {
            let status =
                gearman_support::Peer::connect(([127, 0, 0, 1], lab.port).into()).list("status");
            status.iter().any(|line| line.starts_with("lockenv\t1\t"))
        };
        wait_for("the request to be queued", submitted, |queued| *queued);
        signal("-TERM", &waiting.0);
        assert_eq!(end_of("the waiting client", &lab, &mut waiting.0), 143);

        let _worker = lab.worker(false);
        let script = "trap 'exit 9' TERM; echo $$ >$OUT; while :; do sleep 0.1; done";
        let mut client = lab.client(false, "a", &[], script);
        lab.out("a");
        signal("-TERM", &client.0);
        assert_eq!(end_of("the client", &lab, &mut client.0), 9, "{}", lab.logs());
    }
}

#[test]
fn a_worker_goes_out_of_service_and_back_and_ends_after_its_job() {
    for kind in BROKERS {
        let lab = Lab::start(kind);
        let mut worker = lab.worker(false);
        let first =
            lab.client(false, "a", &[], "echo $$ >$OUT; until [ -e $OUT.go ]; do sleep 0.05; done");
        lab.out("a");
        signal("-USR2", &worker.0);
        fs::write(lab.path("a.go"), "").unwrap();
        let mut first = first;
        assert_eq!(end_of("the first client", &lab, &mut first.0), 0, "{}", lab.logs());
        wait_for("no more jobs", || lab.logs(), |l| l.contains("no new jobs are taken"));
        let mut second = lab.client(false, "b", &[], LONG);
        signal("-USR1", &worker.0);
        lab.out("b");
        signal("-INT", &worker.0);
        assert!(worker.0.try_wait().unwrap().is_none(), "{kind:?}: the running job goes on");
        signal("-TERM", &second.0);
        assert_eq!(end_of("the second client", &lab, &mut second.0), 143, "{}", lab.logs());
        assert_eq!(end_of("the worker", &lab, &mut worker.0), 0, "{}", lab.logs());
    }
}

#[test]
fn a_broker_may_restart_while_a_client_waits_but_not_while_its_command_runs() {
    for kind in BROKERS {
        let mut lab = Lab::start(kind);
        let mut client = lab.client(false, "a", &[], LONG);
        let queued = |port| {
            move || {
                let mut peer = gearman_support::Peer::connect(([127, 0, 0, 1], port).into());
                peer.list("status").iter().any(|line| line.starts_with("lockenv\t1\t"))
            }
        };
        wait_for("the request to be queued", queued(lab.port), |queued| *queued);
        lab.broker = None;
        lab.start_broker();
        let _worker = lab.worker(false);
        let command = lab.out("a");
        lab.broker = None;
        assert_eq!(end_of("the client", &lab, &mut client.0), 137, "{}", lab.logs());
        assert!(!is_running(&command));
    }
}

#[test]
fn what_cannot_run_and_what_is_refused_ends_with_2() {
    let lab = Lab::start(Kind::Ours);
    let _worker = lab.worker(false);
    let mut command = called(lab.folder.path(), "testenv-client");
    command.args(["-b", &lab.broker_address(), "--", "/no/such/command"]);
    let mut client = lab.spawn(command, "c.log");
    assert_eq!(end_of("the client", &lab, &mut client.0), 2);
    assert!(lab.logs().contains("Error calling command"), "{}", lab.logs());
    let mut command = called(lab.folder.path(), "testenv-client");
    command.args(["-b", "a:x", "true"]);
    let mut client = lab.spawn(command, "d.log");
    assert_eq!(end_of("the client", &lab, &mut client.0), 2);
}
