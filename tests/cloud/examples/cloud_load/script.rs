//! Contenders in Python: a script that does what it is told, a line at a time, and answers each with a line of JSON. So that
//! starting Python and loading its libraries counts for nobody.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Bench;
use crate::life::{Contender, LIMIT};

/// A running script; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Script {
    name: &'static str,
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    log: std::path::PathBuf,
}

impl Script {
    /// Starts `tests/cloud/bench/<name>.py`; it has said that it is there. What it logs is in `<name>.log`.
    pub(crate) async fn start(
        bench: &Bench,
        name: &'static str,
        arguments: &[&str],
    ) -> Result<Script> {
        let file = format!("{}/bench/{name}.py", env!("CARGO_MANIFEST_DIR"));
        let log = bench.folder.join(format!("{name}.log"));
        let mut child = Command::new(bench.venv.join("bin/python"))
            .args(["-u", &file])
            .arg(&bench.folder)
            .args(arguments)
            .env("OS_CLIENT_CONFIG_FILE", &bench.clouds)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {file}"))?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let mut script = Script { name, _child: child, input, output, log };
        script.answer().await?;
        Ok(script)
    }

    /// Has it do something; its answer.
    pub(crate) async fn told(&mut self, order: &str) -> Result<Value> {
        self.input.write_all(format!("{order}\n").as_bytes()).await?;
        self.answer().await.with_context(|| format!("{}: {order}", self.name))
    }

    async fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = tokio::time::timeout(LIMIT * 4, self.output.read_line(&mut line)).await;
        read.with_context(|| format!("{} does not answer; {}", self.name, self.tail()))??;
        ensure!(!line.is_empty(), "it ended; {}", self.tail());
        serde_json::from_str(&line).with_context(|| format!("it said {line}"))
    }

    fn tail(&self) -> String {
        tail(&self.log)
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}:\n{}", log.display(), lines[lines.len().saturating_sub(20)..].join("\n"))
}

/// openstacksdk, as a program without a pool uses it.
#[derive(Debug)]
pub(crate) struct Sdk(Script);

impl Sdk {
    /// It is logged in and has a key pair.
    pub(crate) async fn start(bench: &Bench) -> Result<Sdk> {
        Ok(Sdk(Script::start(bench, "sdk", &[]).await?))
    }

    /// So many nodes come and go, so many at once.
    pub(crate) async fn churn(&mut self, nodes: u32, at_once: u32) -> Result<Value> {
        self.0.told(&format!("churn {nodes} {at_once}")).await
    }

    /// Its key pair goes too.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.0.told("end").await.map(drop)
    }
}

impl Contender for Sdk {
    async fn demand(&mut self) -> Result<()> {
        self.0.told("demand").await.map(drop)
    }

    async fn give_back(&mut self) -> Result<()> {
        self.0.told("give-back").await.map(drop)
    }

    async fn ready(&mut self) -> Result<u32> {
        anyhow::bail!("openstacksdk keeps no nodes ready")
    }
}
