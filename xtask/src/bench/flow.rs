//! The way through the house on one machine: from an event to the first line of its job on a ready sandbox, from a line
//! to its reader, and what a burst of changes does. The load is crates/client/examples/flow_load; the server is a
//! process of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Report;
use super::report::{Figure, Goal};
use crate::{cargo, shell};

/// How long the server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Sandboxes that are kept ready.
const NODES: &str = "4";
/// What to reach: the event to its job's first line, the median.
const GOAL_FIRST_LINE_MS: f64 = 1000.0;
/// What to reach: a line to its reader, the median.
const GOAL_LINE_MS: f64 = 100.0;
/// What others wait for by their design alone, for orientation, ms.
const ZUUL_LOOP_MS: f64 = 1000.0;
const OPENQA_TICK_MS: f64 = 20_000.0;

/// The server; it ends with this value.
struct Server {
    child: Child,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and its files may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Measure everything.
pub(super) fn run(smoke: bool) -> Result<Report> {
    let program = cargo::build_quick()?.join("examples/flow_load");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let (times, changes) = if smoke { ("3", "10") } else { ("40", "100") };
    let lines = measured(&program, &["lines"], times)?;
    let burst = measured(&program, &["burst"], changes)?;
    report(&lines.0, &burst, load.trim())
}

/// What the load prints, and the CPU time of the server with all that it started, seconds.
fn measured(program: &Path, mode: &[&str], size: &str) -> Result<(Value, f64)> {
    let address = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let folder = cargo::target_dir().join("bench/flow");
    // Left over from one that was killed.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let log = fs::File::create(cargo::target_dir().join("bench/flow.log"))?;
    let child = Command::new(program)
        .arg("serve")
        .arg(&folder)
        .args([&address, NODES])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the server")?;
    let mut server = Server { child, folder };
    let end = Instant::now() + START_LIMIT;
    while TcpStream::connect(&address).is_err() {
        if let Some(status) = server.child.try_wait()? {
            bail!("the server ended: {status}; see target/bench/flow.log");
        }
        ensure!(Instant::now() < end, "the server does not listen on {address}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut command = Command::new(program);
    command.args(mode).arg(&address).arg(&server.folder).arg(size);
    let text = shell::read(&mut command)?;
    let value = serde_json::from_str(&text).with_context(|| format!("flow_load printed {text}"))?;
    let cpu_s = cpu_s(server.child.id())?;
    Ok((value, cpu_s))
}

/// CPU time of a process and of its children that have ended, seconds.
fn cpu_s(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything; state is the first field after it, utime the twelfth.
    let (_, rest) = stat.rsplit_once(')').context("fields of /proc/<pid>/stat")?;
    let ticks: f64 =
        rest.split_whitespace().skip(11).take(4).filter_map(|t| t.parse::<f64>().ok()).sum();
    // USER_HZ is 100 on every Linux that this runs on.
    Ok(ticks / 100.0)
}

/// Where a figure stands, what it is, its unit, what to reach.
type Row = (&'static str, &'static str, &'static str, Option<Goal>);

const LINES: [Row; 8] = [
    ("/job_line_ms/p50", "event to the job's first line, median", "ms", GOAL_FIRST),
    ("/job_line_ms/p95", "event to the job's first line, p95", "ms", None),
    ("/job_line_ms/max", "event to the job's first line, slowest", "ms", None),
    ("/queued_ms/p50", "event to its run's wish, median", "ms", None),
    ("/started_ms/p50", "event to its node's hand-over, median", "ms", None),
    ("/line_ms/p50", "a line to its reader, median", "ms", Some(Goal::AtMost(GOAL_LINE_MS))),
    ("/line_ms/max", "a line to its reader, slowest", "ms", None),
    ("/ended_ms/p50", "event to the archived end, median", "ms", None),
];
const GOAL_FIRST: Option<Goal> = Some(Goal::AtMost(GOAL_FIRST_LINE_MS));

const BURST: [Row; 6] = [
    ("/per_minute", "burst: changes through", "1/min", None),
    ("/took_s", "burst: all through after", "s", None),
    ("/started_ms/p50", "burst: event to begin of its run, median", "ms", None),
    ("/started_ms/max", "burst: event to begin of its run, slowest", "ms", None),
    ("/run_ms/p50", "burst: a run, median", "ms", None),
    ("/first_project_done_s", "burst: the first project's last one", "s", None),
];

fn report(lines: &Value, (burst, cpu_s): &(Value, f64), load: &str) -> Result<Report> {
    let number = |value: &Value, path: &str| {
        let found = value.pointer(path).and_then(Value::as_f64);
        found.with_context(|| format!("no figure at {path} in {value}"))
    };
    let figure = |what: &str, who: &str, value, unit, goal| Figure {
        what: what.to_owned(),
        who: who.to_owned(),
        value,
        unit,
        goal,
    };
    let mut figures = Vec::new();
    for (rows, value) in [(&LINES[..], lines), (&BURST[..], burst)] {
        for (path, what, unit, goal) in rows {
            figures.push(figure(what, "toci", number(value, path)?, unit, *goal));
        }
    }
    let (took_s, changes) = (number(burst, "/took_s")?, number(burst, "/changes")?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    figures.push(figure("burst: CPU a change", "toci", cpu_s * 1e3 / changes, "ms", None));
    figures.push(figure("burst: cores in use", "toci", cpu_s / took_s, "", None));
    figures.push(figure("its launcher's loop alone", "zuul", ZUUL_LOOP_MS, "ms", None));
    figures.push(figure("its scheduler's tick alone", "openqa", OPENQA_TICK_MS, "ms", None));
    Ok(Report {
        name: "flow",
        setting: vec![
            ("cores".to_owned(), format!("{cores}, shared by server, jobs and load")),
            ("nodes".to_owned(), format!("{NODES} sandboxes of the provider `local`")),
            ("measured".to_owned(), format!("{} single changes", lines["job_line_ms"]["count"])),
            ("burst".to_owned(), format!("{changes} changes over 5 projects at once")),
            ("zuul, openqa".to_owned(), "by their documents, not measured".to_owned()),
            ("load before".to_owned(), load.to_owned()),
        ],
        figures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_first_line_misses_its_goal() {
        let spread = |p50: f64| serde_json::json!({"p50": p50, "p95": p50, "max": p50, "count": 3});
        let lines = serde_json::json!({
            "job_line_ms": spread(1001.0), "queued_ms": spread(1.0), "started_ms": spread(1.0),
            "line_ms": spread(2.0), "ended_ms": spread(1.0),
        });
        let burst = serde_json::json!({
            "per_minute": 1.0, "took_s": 10.0, "changes": 100, "started_ms": spread(1.0),
            "run_ms": spread(1.0), "first_project_done_s": 9.0,
        });
        let report = report(&lines, &(burst, 5.0), "0").unwrap();
        let goal = "flow: event to the job's first line, median, toci: 1001.00 ms, goal <= 1000.00";
        assert_eq!(report.missed(), [goal]);
        let cores = report.figures.iter().find(|f| f.what == "burst: cores in use").unwrap();
        assert!((cores.value - 0.5).abs() < 1e-9);
    }

    #[test]
    fn cpu_time_of_this_process_can_be_read() {
        assert!(cpu_s(std::process::id()).unwrap() < 1e6);
    }
}
