//! Nodes on a real OpenStack, the small one of tests/cloud: from demand to a node in use, the API calls of a node's life,
//! and many nodes on Nova's fake driver; beside openstacksdk and Nodepool on the same cloud. The load is
//! tests/cloud/examples/cloud_load, in the cloud's sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::Report;
use super::report::{Figure, Goal, median_of};
use crate::{cargo, cloud, shell};

/// Who else makes nodes, from PyPI. Nodepool 11 does not work with a newer openstacksdk where a cloud has no volumes, and does
/// not say itself that it needs the last one.
const PYTHON: [&str; 3] = ["nodepool==11.0.0", "openstacksdk==4.0.1", "cachetools==8.0.2"];
/// What is measured, and how much of it.
const PARTS: [&str; 3] = ["lives=3", "ready=2", "churn=200"];
/// The same for a short run.
const SMOKE_PARTS: [&str; 3] = ["lives=1", "ready=1", "churn=5"];
/// What to reach: a node that is ready is in use after so many seconds, the median.
const GOAL_READY_S: f64 = 2.0;

/// Measure everything.
pub(super) fn run(smoke: bool) -> Result<Report> {
    cloud::packages()?;
    let program = cargo::build_loads()?.join("examples/cloud_load");
    let venv = venv()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let folder = cargo::target_dir().join("bench/cloud");
    // Left over from the last one.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut with = cloud::script("with.sh");
    with.arg(cloud::stack().join("enter.sh")).arg(program).arg(&folder).arg(venv);
    shell::run(with.args(if smoke { SMOKE_PARTS } else { PARTS }))?;
    report(&read(&folder)?, load.trim())
}

/// Openstacksdk and Nodepool in a virtual environment.
fn venv() -> Result<PathBuf> {
    let venv = cargo::target_dir().join("nodepool-venv");
    if !venv.join("bin/pip").exists() {
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            .context("python3 -m venv: apt-get install python3-venv")?;
    }
    let pip = ["-m", "pip", "-q", "install"];
    shell::run(Command::new(venv.join("bin/python")).args(pip).args(PYTHON))
        .context("openstacksdk and Nodepool of PyPI")?;
    Ok(venv)
}

fn read(folder: &Path) -> Result<Value> {
    let file = folder.join("figures.json");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

/// The figures of a report, as they are found.
#[derive(Default)]
struct Rows(Vec<Figure>);

impl Rows {
    fn add(&mut self, what: &str, who: &str, value: f64, unit: &'static str, goal: Option<Goal>) {
        let (what, who) = (what.to_owned(), who.to_owned());
        self.0.push(Figure { what, who, value, unit, goal });
    }

    /// One row for each contender, and how toci stands to the others.
    fn compare(&mut self, what: &str, unit: &'static str, goal: Option<Goal>, all: &[(&str, f64)]) {
        for (who, value) in all {
            self.add(what, who, *value, unit, goal.filter(|_| *who == TOCI));
        }
        let Some((_, ours)) = all.iter().find(|(who, _)| *who == TOCI) else { return };
        for (who, theirs) in all.iter().filter(|(who, _)| *who != TOCI) {
            self.add(what, &format!("{TOCI}/{who}"), ours / theirs, "x", None);
        }
    }
}

const TOCI: &str = "toci";

fn report(told: &Value, load: &str) -> Result<Report> {
    let mut rows = Rows::default();
    lives(&mut rows, object(told, "/lives")?)?;
    let ready = object(told, "/ready")?.iter();
    let ready: Result<Vec<_>> =
        ready.map(|(who, times)| Ok((who.as_str(), median(numbers(times)?)?))).collect();
    let goal = Some(Goal::AtMost(GOAL_READY_S));
    rows.compare("demand to use, two ready, median", "s", goal, &ready?);
    churn(&mut rows, object(told, "/churn")?)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let times = |pointer: &str| told.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    let setting = [
        ("cores", format!("{cores}, shared by the cloud, its guests and the load")),
        ("cloud", "tests/cloud: OpenStack Zed of Debian 12, QEMU without KVM".to_owned()),
        ("toci", "profile dev: it waits for the cloud most of the time".to_owned()),
        ("others", PYTHON[..2].join(", ")),
        ("none ready", format!("{} nodes each, one after the other", times("/lives/toci"))),
        ("two ready", format!("{} nodes each", times("/ready/toci"))),
        (
            "churn",
            format!(
                "Nova's fake driver, {} at once; toci's answer over SSH",
                told["churn"]["at_once"]
            ),
        ),
        ("load before", load.to_owned()),
    ];
    let setting = setting.into_iter().map(|(what, value)| (what.to_owned(), value)).collect();
    Ok(Report { name: "cloud", setting, figures: rows.0 })
}

/// Nodes that nobody had prepared.
fn lives(rows: &mut Rows, contenders: &Map<String, Value>) -> Result<()> {
    for (field, what) in [
        ("in_use_s", "demand to use, none ready, median"),
        ("gone_s", "end of use to gone, median"),
    ] {
        let one = |(who, lives): (&'_ String, &Value)| {
            Ok((who.clone(), median(each(lives, |life| number(&life[field]))?)?))
        };
        let all: Result<Vec<(String, f64)>> = contenders.iter().map(one).collect();
        let all = all?;
        let all: Vec<(&str, f64)> = all.iter().map(|(who, value)| (who.as_str(), *value)).collect();
        rows.compare(what, "s", None, &all);
    }
    let mut totals = Vec::new();
    for (who, lives) in contenders {
        totals.push((who.as_str(), median(each(lives, |life| calls(&life["calls"], ""))?)?));
    }
    rows.compare("API calls of a life, median", "", None, &totals);
    for service in ["identity", "image", "compute", "network"] {
        for (who, lives) in contenders {
            let median = median(each(lives, |life| calls(&life["calls"], service))?)?;
            rows.add(&format!("API calls of a life, {service}"), who, median, "", None);
        }
    }
    Ok(())
}

fn churn(rows: &mut Rows, churn: &Map<String, Value>) -> Result<()> {
    let contenders = || churn.iter().filter(|(_, told)| told.is_object());
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for (who, told) in contenders() {
        let (nodes, took_s) = (number(&told["nodes"])?, number(&told["took_s"])?);
        rows.add("churn: nodes", who, nodes, "", None);
        rates.push((who.as_str(), nodes * 60.0 / took_s));
        costs.push((who.as_str(), calls(&told["calls"], "")? / nodes));
    }
    rows.compare("churn: nodes a minute", "1/min", None, &rates);
    rows.compare("churn: API calls a node", "", None, &costs);
    for (who, told) in contenders() {
        let goal = Some(Goal::AtMost(0.0)).filter(|_| who == TOCI);
        rows.add("churn: left behind", who, number(&told["left"])?, "", goal);
    }
    Ok(())
}

fn object<'a>(told: &'a Value, pointer: &str) -> Result<&'a Map<String, Value>> {
    let found = told.pointer(pointer).and_then(Value::as_object);
    found.with_context(|| format!("no {pointer} in {told}"))
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}

fn numbers(list: &Value) -> Result<Vec<f64>> {
    each(list, number)
}

fn each(list: &Value, of: impl Fn(&Value) -> Result<f64>) -> Result<Vec<f64>> {
    list.as_array().with_context(|| format!("{list} is no list"))?.iter().map(of).collect()
}

/// The sum of the calls of a service; of all when none is named.
fn calls(counts: &Value, service: &str) -> Result<f64> {
    let counts = counts.as_object().with_context(|| format!("{counts} counts nothing"))?;
    let of_it = counts.iter().filter(|(key, _)| key.starts_with(service));
    // The sum of nothing would be -0.
    of_it.map(|(_, count)| number(count)).try_fold(0.0, |sum, count| Ok(sum + count?))
}

fn median(values: Vec<f64>) -> Result<f64> {
    median_of(values).context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_are_compared_and_a_leak_misses_its_goal() {
        let life = |in_use_s: f64, gets: u32| serde_json::json!({"in_use_s": in_use_s, "gone_s": 1.0, "calls": {"compute GET": gets, "network GET": 1}});
        let churn = serde_json::json!({"nodes": 10, "took_s": 30.0, "calls": {"compute GET": 50}, "left": 1});
        let told = serde_json::json!({
            "lives": {"toci": [life(9.0, 3), life(1.0, 1), life(2.0, 2)], "openstacksdk": [life(4.0, 5)]},
            "ready": {"toci": [0.5]},
            "churn": {"at_once": 20, "toci": churn},
        });
        let report = report(&told, "0").unwrap();
        let of = |what: &str, who: &str| {
            report.figures.iter().find(|f| f.what == what && f.who == who).unwrap().value
        };
        let same = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        same(of("demand to use, none ready, median", "toci"), 2.0);
        same(of("demand to use, none ready, median", "toci/openstacksdk"), 0.5);
        same(of("API calls of a life, median", "toci"), 3.0);
        same(of("API calls of a life, network", "openstacksdk"), 1.0);
        same(of("churn: nodes a minute", "toci"), 20.0);
        assert_eq!(report.missed(), ["cloud: churn: left behind, toci: 1.00 , goal <= 0.00"]);
    }
}
