//! Leases: durable cycles of taking and giving back beside etcd's lock and ZooKeeper's, on the same
//! disk, each with its own default of a durable commit (fsync before the answer). The generator is
//! crates/client/examples/lease_load; every measurement starts its server afresh.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::Report;
use super::report::{Figure, Goal};
use crate::{cargo, shell};

/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Clients at once.
const CLIENTS: [usize; 4] = [1, 10, 100, 1000];
/// The number of clients that has a goal.
const GOAL_CLIENTS: usize = 100;
/// ZooKeeper's own program, from Debian's package.
const ZOOKEEPER: &str = "/usr/share/zookeeper/bin/zkServer.sh";

/// What the generators print.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Figures {
    cycles_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Toci,
    /// A lease of its own for each lock, as for a job whose death must be noticed.
    EtcdOwn,
    /// One standing lease a client.
    EtcdStanding,
    Zookeeper,
}

impl Contender {
    const ALL: [Contender; 4] =
        [Contender::Toci, Contender::EtcdOwn, Contender::EtcdStanding, Contender::Zookeeper];

    fn name(self) -> &'static str {
        match self {
            Contender::Toci => "toci",
            Contender::EtcdOwn => "etcd",
            Contender::EtcdStanding => "etcd-standing",
            Contender::Zookeeper => "zookeeper",
        }
    }
}

/// A running server with its files; both end with this value.
struct Running {
    child: Child,
    address: String,
    state: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, and its files may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.state);
    }
}

impl Running {
    fn token(&self) -> PathBuf {
        self.state.join("admin.token")
    }

    fn wait(&mut self, who: &str) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(&self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{who} ended: {status}");
            }
            ensure!(Instant::now() < end, "{who} does not listen on {}", self.address);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

struct Bench {
    generator: PathBuf,
    python: PathBuf,
    seconds: u64,
    /// How often the number of clients that has a goal is measured.
    goal_rounds: usize,
    report: Report,
}

/// The run in the middle by its cycles.
fn median(mut runs: Vec<Figures>) -> Option<Figures> {
    runs.sort_by(|a, b| a.cycles_per_s.total_cmp(&b.cycles_per_s));
    runs.get(runs.len() / 2).copied()
}

/// Measure everything.
pub(super) fn run(smoke: bool) -> Result<Report> {
    let examples = cargo::build_quick()?.join("examples");
    let mut bench = Bench {
        generator: examples.join("lease_load"),
        python: kazoo_of_pypi()?,
        seconds: if smoke { 1 } else { 8 },
        goal_rounds: if smoke { 1 } else { 3 },
        report: Report { name: "lease", setting: Vec::new(), figures: Vec::new() },
    };
    bench.describe()?;
    for clients in CLIENTS {
        // A thousand kazoo sessions are a thousand Python threads three times over: not measured.
        bench.cycles(clients)?;
    }
    bench.handover(if smoke { 20 } else { 1000 })?;
    if !smoke {
        bench.reclaim()?;
    }
    bench.restart()?;
    Ok(bench.report)
}

/// PyPI's kazoo in a virtual environment.
fn kazoo_of_pypi() -> Result<PathBuf> {
    let venv = cargo::target_dir().join("kazoo-venv");
    let python = venv.join("bin/python");
    if !venv.join("bin/pip").exists() {
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            .context("python3 -m venv: apt-get install python3-venv")?;
    }
    let arguments = ["-m", "pip", "-q", "install", "kazoo==2.10.0"];
    shell::run(Command::new(&python).args(arguments)).context("kazoo of PyPI")?;
    Ok(python)
}

impl Bench {
    fn describe(&mut self) -> Result<()> {
        let etcd = shell::read(Command::new("/usr/bin/etcd").arg("--version"))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let setting = &mut self.report.setting;
        setting.push(("cores".to_owned(), format!("{cores}, shared by server and generator")));
        setting.push(("etcd".to_owned(), etcd.lines().next().unwrap_or_default().to_owned()));
        setting.push(("zookeeper".to_owned(), "Debian's, PyPI kazoo 2.10.0".to_owned()));
        setting.push(("toci".to_owned(), "profile quick, 1000 simulated TEs".to_owned()));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        setting.push(("load before".to_owned(), load.trim().to_owned()));
        Ok(())
    }

    fn figure(
        &mut self,
        what: &str,
        who: &str,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
    ) {
        let (what, who) = (what.to_owned(), who.to_owned());
        self.report.figures.push(Figure { what, who, value, unit, goal });
    }

    /// All on the disk of the target directory.
    fn start(&self, contender: Contender) -> Result<Running> {
        let state = cargo::target_dir().join("bench").join(format!("state-{}", contender.name()));
        let _ = fs::remove_dir_all(&state);
        fs::create_dir_all(&state)?;
        self.start_on(contender, state)
    }

    fn start_on(&self, contender: Contender, state: PathBuf) -> Result<Running> {
        let port =
            || Ok::<_, anyhow::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let address = format!("127.0.0.1:{}", port()?);
        let mut command = match contender {
            Contender::Toci => {
                let mut command = Command::new(&self.generator);
                command.arg("serve").arg(&state).arg(&address);
                command
            }
            Contender::EtcdOwn | Contender::EtcdStanding => {
                let mut command = Command::new("/usr/bin/etcd");
                let peer = format!("http://127.0.0.1:{}", port()?);
                command.arg("--data-dir").arg(state.join("data"));
                let client = format!("http://{address}");
                for flag in ["--listen-client-urls", "--advertise-client-urls"] {
                    command.args([flag, &client]);
                }
                for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
                    command.args([flag, &peer]);
                }
                command.args(["--initial-cluster", &format!("default={peer}")]);
                command
            }
            Contender::Zookeeper => {
                let text = format!(
                    "tickTime=2000\ndataDir={0}\nclientPort={1}\nclientPortAddress=127.0.0.1\n\
                     forceSync=yes\nmaxClientCnxns=0\nadmin.enableServer=false\n",
                    state.display(),
                    address.rsplit(':').next().unwrap_or_default(),
                );
                fs::write(state.join("zoo.cfg"), text)?;
                let mut command = Command::new(ZOOKEEPER);
                command.arg("start-foreground").arg(state.join("zoo.cfg"));
                command.env("ZOO_LOG_DIR", &state).env("ZOO_LOG4J_PROP", "ERROR,CONSOLE");
                command
            }
        };
        let log = fs::File::create(state.join("log"))?;
        let quiet = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = quiet.spawn().with_context(|| format!("starting {}", contender.name()))?;
        let mut running = Running { child, address, state };
        running.wait(contender.name())?;
        Ok(running)
    }

    fn measure(&self, contender: Contender, clients: usize) -> Result<Figures> {
        let running = self.start(contender)?;
        let (clients, seconds) = (clients.to_string(), self.seconds.to_string());
        let mut command = Command::new(&self.generator);
        let command = match contender {
            Contender::Toci => command
                .args(["toci", &running.address])
                .arg(running.token())
                .args([&clients, &seconds]),
            Contender::EtcdOwn => {
                command.args(["etcd", &running.address, &clients, &seconds, "own"])
            }
            Contender::EtcdStanding => {
                command.args(["etcd", &running.address, &clients, &seconds, "standing"])
            }
            Contender::Zookeeper => {
                command = Command::new(&self.python);
                let script = shell::root().join("xtask/src/bench/zookeeper_load.py");
                command.arg(script).args([&running.address, &clients, &seconds])
            }
        };
        let text = shell::read(command)
            .with_context(|| format!("{}, {clients} clients", contender.name()))?;
        serde_json::from_str(&text).context("output of a generator")
    }

    fn cycles(&mut self, clients: usize) -> Result<()> {
        // One after the other, round after round, so that what disturbs the machine disturbs all of them.
        let rounds = if clients == GOAL_CLIENTS { self.goal_rounds } else { 1 };
        let in_it = |contender: &Contender| *contender != Contender::Zookeeper || clients <= 100;
        let mut runs: Vec<(Contender, Vec<Figures>)> =
            Contender::ALL.into_iter().filter(in_it).map(|c| (c, Vec::new())).collect();
        for _ in 0..rounds {
            for (contender, figures) in &mut runs {
                figures.push(self.measure(*contender, clients)?);
            }
        }
        let all: Vec<(Contender, Figures)> =
            runs.into_iter().filter_map(|(c, figures)| Some((c, median(figures)?))).collect();
        let what = |figure: &str| format!("{figure}, {clients} clients");
        for (contender, f) in &all {
            let name = contender.name();
            self.figure(&what("cycles"), name, f.cycles_per_s, "1/s", None);
            self.figure(&what("grant p50"), name, f.p50_ms, "ms", None);
            self.figure(&what("grant p99"), name, f.p99_ms, "ms", None);
            self.figure(&what("grant p99.9"), name, f.p999_ms, "ms", None);
        }
        let Some((_, toci)) = all.first().copied() else { return Ok(()) };
        for (contender, f) in &all[1..] {
            let has_goal = clients == GOAL_CLIENTS && *contender == Contender::EtcdOwn;
            let goal = has_goal.then_some(Goal::AtLeast(2.0));
            let who = format!("toci/{}", contender.name());
            self.figure(&what("cycles"), &who, toci.cycles_per_s / f.cycles_per_s, "x", goal);
        }
        Ok(())
    }

    fn toci(&self, running: &Running, mode: &str, more: &[&str]) -> Result<Figures> {
        let mut command = Command::new(&self.generator);
        command.args([mode, &running.address]).arg(running.token()).args(more);
        serde_json::from_str(&shell::read(&mut command)?).context("output of lease_load")
    }

    fn handover(&mut self, times: usize) -> Result<()> {
        let running = self.start(Contender::Toci)?;
        let f = self.toci(&running, "handover", &[&times.to_string()])?;
        self.figure("hand-over to the next waiter, p50", "toci", f.p50_ms, "ms", None);
        let goal = Some(Goal::AtMost(20.0));
        self.figure("hand-over to the next waiter, p99", "toci", f.p99_ms, "ms", goal);
        Ok(())
    }

    fn reclaim(&mut self) -> Result<()> {
        let running = self.start(Contender::Toci)?;
        let f = self.toci(&running, "reclaim", &[])?;
        let goal = Some(Goal::AtMost(15.0));
        self.figure("a dead holder's TE is the next one's", "toci", f.max_ms / 1e3, "s", goal);
        Ok(())
    }

    /// kill -9 of the server, and how long until it serves again with 1,000 TEs.
    fn restart(&mut self) -> Result<()> {
        let mut running = self.start(Contender::Toci)?;
        self.toci(&running, "toci", &["10", "1"])?;
        running.child.kill()?;
        running.child.wait()?;
        let state = running.state.clone();
        let killed = Instant::now();
        let again = self.start_on(Contender::Toci, state)?;
        let took = killed.elapsed().as_secs_f64();
        drop(again);
        let goal = Some(Goal::AtMost(1.0));
        self.figure("serving again after kill -9", "toci", took, "s", goal);
        Ok(())
    }
}
