//! `cargo xtask test`: everything that a change can break, with a time for each part.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::cargo::cargo;
use crate::{binaries, check, install, shell, sim};

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Skip installing, formatting, lints and licences: only run tests.
    #[arg(long)]
    only_tests: bool,
}

/// Install, check, test; print what each part took and how many tests passed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut parts = Parts::new();
    if !options.only_tests {
        parts.time("install", install::run)?;
        check::all(&mut parts)?;
    }
    // The end-to-end tests run the real binaries, so these come first.
    parts.time("build", crate::cargo::build_workspace)?;
    let mut count = Count::default();
    let tested = parts.time("tests", || {
        // They need a cloud: `cargo xtask test-cloud`.
        count = binaries::run(&["cloud-tests"])?;
        let doc = ["test", "--doc", "--workspace", "--locked", "--no-fail-fast", "--quiet"];
        count.merge(&run_and_count(cargo().args(doc))?);
        Ok(())
    });
    let scripts = parts.time("example scripts", || {
        for example in ["devtest", "tripleo"] {
            let script = shell::root().join("examples").join(example).join("tests/run");
            count.merge(&run_and_count(&mut Command::new(script))?);
        }
        Ok(())
    });
    let simulated = parts.time("simulation", sim::run_built);
    match &simulated {
        Ok(()) => count.passed += 1,
        Err(_) => count.failed += 1,
    }
    parts.print();
    println!("{count}");
    tested?;
    scripts?;
    simulated?;
    if count.failed > 0 {
        bail!("{} tests failed", count.failed);
    }
    Ok(())
}

/// What parts of a run took.
#[derive(Debug)]
pub(crate) struct Parts {
    started: Instant,
    took: Vec<(&'static str, Duration)>,
}

impl Parts {
    /// No part has run yet.
    pub(crate) fn new() -> Self {
        Parts { started: Instant::now(), took: Vec::new() }
    }

    /// Run one part under its name and keep its time; the name goes with its error.
    pub(crate) fn time(
        &mut self,
        name: &'static str,
        part: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        eprintln!("== {name}");
        let start = Instant::now();
        let result = part();
        self.took.push((name, start.elapsed()));
        result.with_context(|| format!("part {name} failed"))
    }

    /// A line for each part, and the whole.
    pub(crate) fn print(&self) {
        for (name, took) in &self.took {
            println!("{:>8.1} s  {name}", took.as_secs_f64());
        }
        println!("{:>8.1} s  in all", self.started.elapsed().as_secs_f64());
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Count {
    /// Adds what another one has counted.
    pub(crate) fn merge(&mut self, other: &Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Adds a line like `test result: ok. 5 passed; 0 failed; …` of cargo, or `ok - …` and `FAILED - …` of a
    /// script; other lines count nothing.
    pub(crate) fn add(&mut self, line: &str) {
        self.passed += u64::from(line.starts_with("ok - "));
        self.failed += u64::from(line.starts_with("FAILED - "));
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            match (words.next().and_then(|word| word.parse::<u64>().ok()), words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

/// Runs a test command, passes its output on and counts what it reports. A failing test is in the
/// count; an error is a command that could not do its work, such as a crate that does not compile.
pub(crate) fn run_and_count(command: &mut Command) -> Result<Count> {
    let line = shell::describe(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting `{line}`"))?;
    let mut count = Count::default();
    let output = child.stdout.take().context("standard output was piped")?;
    for text in BufReader::new(output).lines() {
        let text = text.with_context(|| format!("output of `{line}`"))?;
        count.add(&text);
        // Binaries without tests say much about nothing.
        let says_nothing = text.is_empty()
            || text == "running 0 tests"
            || text.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored");
        if !says_nothing {
            println!("{text}");
        }
    }
    let status = child.wait().with_context(|| format!("waiting for `{line}`"))?;
    if !status.success() && count.failed == 0 {
        bail!("`{line}`: {status}");
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut count = Count::default();
        count.add("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        count.add("5 passed, says a test");
        count.add("ok - a script's check");
        count.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; finished in 0.00s");
        assert_eq!(count, Count { passed: 7, failed: 2 });
    }
}
