//! Gearman: our broker beside Debian's gearmand and PyPI's geard, one after the other through the
//! same load generator (crates/server/examples/gearman_load.rs), each started afresh before every
//! measurement. The server has core 0; the generator core 0 too for one pair, as no second core
//! must wake then, and core 1 for many.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::Report;
use super::report::{Figure, Goal, median_of};
use crate::{cargo, shell};

/// Workers that sleep beside a broker.
const IDLE_CONNECTIONS: usize = 10_000;
/// Workers that come at once.
const STORM_CONNECTIONS: usize = 1000;
/// How long a storm may take, in seconds; PyPI's geard needs minutes.
const STORM_LIMIT_S: usize = 30;
/// How long a broker may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A kind of broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broker {
    Toci,
    Gearmand,
    Geard,
}

impl Broker {
    const ALL: [Broker; 3] = [Broker::Toci, Broker::Gearmand, Broker::Geard];

    fn name(self) -> &'static str {
        match self {
            Broker::Toci => "toci",
            Broker::Gearmand => "gearmand",
            Broker::Geard => "geard",
        }
    }
}

/// A running broker; ends with this value.
struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the generator prints for pairs of workers and clients.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Pairs {
    jobs_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_job: f64,
    generator_cpu_percent: f64,
}

/// What the generator prints for sleeping workers.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Idle {
    seconds: f64,
    rss: f64,
    bytes_per_connection: f64,
    idle_cpu_percent: f64,
}

/// What the generator prints for workers that come at once.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Storm {
    served: usize,
    seconds: f64,
}

struct Bench {
    examples: PathBuf,
    geard: PathBuf,
    runs: usize,
    seconds: usize,
    report: Report,
}

/// Measure everything.
pub(super) fn run(smoke: bool) -> Result<Report> {
    let mut bench = Bench {
        examples: cargo::build_quick()?.join("examples"),
        geard: geard_of_pypi()?,
        runs: if smoke { 1 } else { 5 },
        seconds: if smoke { 1 } else { 4 },
        report: Report { name: "gearman", setting: Vec::new(), figures: Vec::new() },
    };
    bench.describe()?;
    bench.pairs("1 worker, 1 client", 1, 0, 1.2)?;
    bench.pairs("100 workers, 100 clients", 100, 1, 1.0)?;
    bench.idle(if smoke { IDLE_CONNECTIONS / 10 } else { IDLE_CONNECTIONS })?;
    bench.storm()?;
    Ok(bench.report)
}

/// PyPI's geard in a virtual environment that the tests share.
fn geard_of_pypi() -> Result<PathBuf> {
    let venv = cargo::target_dir().join("gear-venv");
    let (python, geard) = (venv.join("bin/python"), venv.join("bin/geard"));
    if !geard.exists() {
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            .context("python3 -m venv: apt-get install python3-venv")?;
        let arguments = ["-m", "pip", "-q", "install", "gear==0.16.0"];
        shell::run(Command::new(python).args(arguments)).context("gear of PyPI")?;
    }
    Ok(geard)
}

fn median(values: Vec<f64>) -> f64 {
    median_of(values).unwrap_or(0.0)
}

impl Bench {
    fn describe(&mut self) -> Result<()> {
        let gearmand = shell::read(Command::new("/usr/sbin/gearmand").arg("--version"))
            .context("gearmand is missing: apt-get install gearman-job-server")?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let setting = &mut self.report.setting;
        setting.push(("cores".to_owned(), cores.to_string()));
        setting.push(("gearmand".to_owned(), gearmand.trim().to_owned()));
        setting.push(("geard".to_owned(), "PyPI gear 0.16.0".to_owned()));
        setting.push(("toci".to_owned(), "profile quick".to_owned()));
        let runs = format!("{} runs of {} s, medians; geard one", self.runs, self.seconds);
        setting.push(("runs".to_owned(), runs));
        Ok(())
    }

    fn figure(
        &mut self,
        what: String,
        who: &str,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
    ) {
        self.report.figures.push(Figure { what, who: who.to_owned(), value, unit, goal });
    }

    /// Start a broker on core 0 and wait until it listens.
    fn start(&self, broker: Broker) -> Result<Running> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        match broker {
            Broker::Toci => command.arg(self.examples.join("geard")).args(["-d", "-p", &port]),
            Broker::Gearmand => command.args([
                "/usr/sbin/gearmand",
                "-L",
                "127.0.0.1",
                "-l",
                "/dev/null",
                "-p",
                &port,
            ]),
            Broker::Geard => {
                command.arg(&self.geard).args(["-d", "--listen-address", "127.0.0.1", "-p", &port])
            }
        };
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().context("taskset: apt-get install util-linux")?;
        let mut running = Running { child, address: format!("127.0.0.1:{port}") };
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(&running.address).is_err() {
            if let Some(status) = running.child.try_wait()? {
                bail!("{} ended: {status}", broker.name());
            }
            ensure!(Instant::now() < end, "{} does not listen", broker.name());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }

    fn generator(&self, core: usize, mode: &str, running: &Running, numbers: &[usize]) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]).arg(self.examples.join("gearman_load"));
        command.arg(mode).arg(&running.address).arg(running.child.id().to_string());
        command.args(numbers.iter().map(usize::to_string));
        command
    }

    /// Round trips; `core` is the generator's.
    fn pairs(&mut self, what: &str, pairs: usize, core: usize, wanted: f64) -> Result<()> {
        let mut all: [Vec<Pairs>; 3] = [Vec::new(), Vec::new(), Vec::new()];
        // Brokers take turns, so that a slow minute of the machine hits all of them.
        for round in 0..self.runs {
            for (broker, results) in Broker::ALL.into_iter().zip(&mut all) {
                // It takes the better part of a minute to start 200 connections, and has no goal.
                if broker == Broker::Geard && round > 0 {
                    continue;
                }
                let running = self.start(broker)?;
                let numbers = [pairs, pairs, self.seconds, 16];
                let text = shell::read(&mut self.generator(core, "pairs", &running, &numbers))?;
                results.push(serde_json::from_str(&text).context("output of gearman_load")?);
            }
        }
        let medians = all.map(|results| {
            let of = |f: fn(&Pairs) -> f64| median(results.iter().map(f).collect());
            Pairs {
                jobs_per_s: of(|p| p.jobs_per_s),
                p50_us: of(|p| p.p50_us),
                p99_us: of(|p| p.p99_us),
                cpu_us_per_job: of(|p| p.cpu_us_per_job),
                generator_cpu_percent: of(|p| p.generator_cpu_percent),
            }
        });
        let [toci, gearmand, _] = medians;
        for (broker, m) in Broker::ALL.into_iter().zip(medians) {
            let name = broker.name();
            let goal = |goal| (broker == Broker::Toci).then_some(goal);
            let least = goal(Goal::AtLeast(wanted * gearmand.jobs_per_s));
            self.figure(format!("round trips, {what}"), name, m.jobs_per_s, "1/s", least);
            self.figure(format!("p50, {what}"), name, m.p50_us, "us", None);
            let most = goal(Goal::AtMost(gearmand.p99_us));
            self.figure(format!("p99, {what}"), name, m.p99_us, "us", most);
            let most = goal(Goal::AtMost(gearmand.cpu_us_per_job));
            self.figure(format!("server CPU a job, {what}"), name, m.cpu_us_per_job, "us", most);
            let busy = m.generator_cpu_percent;
            self.figure(format!("generator CPU, {what}"), name, busy, "%", None);
        }
        let ratio = toci.jobs_per_s / gearmand.jobs_per_s;
        let goal = Some(Goal::AtLeast(wanted));
        self.figure(format!("round trips, {what}"), "toci/gearmand", ratio, "x", goal);
        Ok(())
    }

    fn idle(&mut self, connections: usize) -> Result<()> {
        for broker in Broker::ALL {
            let running = self.start(broker)?;
            let mut command = self.generator(1, "idle", &running, &[connections]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let mut line = String::new();
            let mut output = BufReader::new(child.stdout.take().context("no stdout")?);
            output.read_line(&mut line)?;
            drop(child.stdin.take());
            output.read_to_string(&mut String::new())?;
            ensure!(child.wait()?.success(), "gearman_load idle failed with {}", broker.name());
            let idle: Idle = serde_json::from_str(&line).context("output of gearman_load")?;
            let name = broker.name();
            let what = |figure: &str| format!("{figure}, {connections} idle workers");
            let goal = (broker == Broker::Toci).then_some(Goal::AtMost(8192.0));
            self.figure(what("resident a connection"), name, idle.bytes_per_connection, "B", goal);
            self.figure(what("resident"), name, idle.rss / 1048576.0, "MiB", None);
            self.figure(what("CPU"), name, idle.idle_cpu_percent, "%", None);
            self.figure(what("to connect one by one"), name, idle.seconds, "s", None);
        }
        Ok(())
    }

    fn storm(&mut self) -> Result<()> {
        for broker in Broker::ALL {
            let running = self.start(broker)?;
            let numbers = [STORM_CONNECTIONS, STORM_LIMIT_S];
            let text = shell::read(&mut self.generator(1, "storm", &running, &numbers))?;
            let storm: Storm = serde_json::from_str(&text).context("output of gearman_load")?;
            let name = broker.name();
            let goal = (broker == Broker::Toci).then_some(Goal::AtMost(1.5));
            let what = format!("{STORM_CONNECTIONS} workers at once");
            let served = f64::from(u32::try_from(storm.served)?);
            self.figure(format!("{what}: all served after"), name, storm.seconds, "s", goal);
            self.figure(format!("{what}: served"), name, served, "", None);
        }
        Ok(())
    }
}
