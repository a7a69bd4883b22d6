//! `cargo xtask demo-cloud`: installs, builds, then becomes the demo inside of a cloud of its own.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::{cargo, cloud, shell};

/// Options of `cargo xtask demo-cloud`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// What to do with a demo that is up; absent: run it.
    #[command(subcommand)]
    command: Option<Action>,
    /// Leave everything up and say how to go on.
    #[arg(long)]
    keep: bool,
}

/// One variant a verb.
#[derive(Debug, Subcommand)]
enum Action {
    /// Run a command in the sandbox of the demo that is up, as its operator.
    Enter {
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// End a demo that was started with --keep.
    Stop,
}

/// Installs and builds what is missing, then replaces this process, so that Ctrl-C reaches the demo alone.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.command {
        None => start(options.keep),
        Some(Action::Enter { command }) => shell::run(
            script("enter.sh")
                .arg("env")
                .arg(format!("TOCI_SERVER=unix:{}", folder().join("toci.sock").display()))
                .arg(format!("TOCI_TOKEN_FILE={}", folder().join("server/admin.token").display()))
                .args(command),
        ),
        Some(Action::Stop) => shell::run(&mut script("down.sh")),
    }
}

fn start(keep: bool) -> Result<()> {
    let is_up = script("enter.sh").arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if is_up.context("starting enter.sh")?.success() {
        bail!("a demo is up already; end it with: cargo xtask demo-cloud stop");
    }
    cloud::packages()?;
    cargo::build_workspace()?;
    fs::create_dir_all(folder()).with_context(|| folder().display().to_string())?;
    let began = Instant::now();
    println!("[    0.0 s] image of the nodes, from Debian packages (cached for the next run)");
    let image = shell::root().join("tests/cloud/guest/image.sh");
    shell::run(Command::new(image).arg("devtest").arg(folder().join("devtest-node.qcow2")))?;
    let mut with = script("with.sh");
    with.args(keep.then_some("--keep"))
        .arg(cloud::stack().join("enter.sh"))
        .arg(cargo::binary("demo-cloud"))
        .arg(folder())
        .args(keep.then_some("--keep"))
        .env("TOCI_DEMO_IMAGE_MS", began.elapsed().as_millis().to_string())
        .current_dir(shell::root());
    Err(with.exec()).context("starting with.sh")
}

/// State, images and logs.
fn folder() -> PathBuf {
    shell::root().join(".demo-cloud")
}

/// A script of the stack, for a cloud that is the demo's alone.
fn script(name: &str) -> Command {
    let mut command = Command::new(cloud::stack().join(name));
    let beside = cargo::binary("toci").parent().map(PathBuf::from).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [beside].into_iter().chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    command.env("TOCI_CLOUD_STATE", folder().join("cloud"));
    command
}
