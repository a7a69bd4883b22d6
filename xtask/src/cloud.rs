//! `cargo xtask cloud`: a real small OpenStack in a sandbox, and the tests that need one. The work is done by the scripts
//! of tests/cloud/stack, which can be called by hand as well.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::test::{Count, Parts, run_and_count};
use crate::{cargo, install, shell};

/// Options of `cargo xtask cloud`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Action,
}

/// One variant a verb.
#[derive(Debug, Subcommand)]
enum Action {
    /// Install what is missing and bring the cloud up; nothing is done when it is up.
    Up,
    /// End it with all that it started; its logs stay until the next one comes up.
    Down,
    /// Run a command in its sandbox, where its API is, for example `openstack --os-cloud ci server list`.
    Enter {
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// As `cargo xtask test-cloud`.
    Test(TestOptions),
    /// Its services and what they do.
    Status,
}

/// Options of `cargo xtask test-cloud`.
#[derive(Debug, Args)]
pub(crate) struct TestOptions {
    /// Passed on to the tests, for example a part of a test's name.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    passed_on: Vec<String>,
}

/// One verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.command {
        Action::Up => {
            packages()?;
            shell::run(&mut script("up.sh"))
        }
        Action::Down => shell::run(&mut script("down.sh")),
        Action::Enter { command } => shell::run(script("enter.sh").args(command)),
        Action::Test(options) => test(options),
        Action::Status => {
            shell::run(script("enter.sh").arg(stack().join("service.sh")).arg("status"))
        }
    }
}

/// Install, build, bring a cloud up, run the tests inside of its sandbox, take it down. One that is up already is used, and
/// stays.
pub(crate) fn test(options: &TestOptions) -> Result<()> {
    let mut parts = Parts::new();
    parts.time("install", packages)?;
    parts.time("build", cargo::build_workspace)?;
    let tests = tests()?;
    parts.time("build tests", || shell::run(test_command(&tests).arg("--no-run")))?;
    let mut count = Count::default();
    let tested = parts.time("cloud up, tests, cloud down", || {
        let mut tests = test_command(&tests);
        // A fault of the cloud is there for everybody: one test at a time.
        tests.args(["--", "--test-threads=1"]).args(&options.passed_on);
        let mut with = script("with.sh");
        with.arg(tests.get_program()).args(tests.get_args()).current_dir(shell::root());
        for (name, value) in tests.get_envs() {
            match value {
                Some(value) => with.env(name, value),
                None => with.env_remove(name),
            };
        }
        count = run_and_count(&mut with)?;
        Ok(())
    });
    parts.print();
    println!("{count}");
    tested?;
    if count.failed > 0 {
        bail!(
            "{} tests failed; logs of the cloud: {}",
            count.failed,
            state().join("log").display()
        );
    }
    if count.passed == 0 {
        bail!("no test ran: no name of one has {:?}", options.passed_on.join(" "));
    }
    Ok(())
}

/// Installs what is missing for a cloud.
pub(crate) fn packages() -> Result<()> {
    install::packages(install::PACKAGES)?;
    install::packages(install::CLOUD_PACKAGES)
}

/// Cargo, for these tests alone; with the features of the whole workspace, so that nothing is built twice.
fn test_command(tests: &[String]) -> Command {
    let enter = stack().join("enter.sh");
    let mut command = cargo::cargo();
    command.args(["test", "--workspace", "--locked", "--no-fail-fast", "--quiet"]);
    command.args([
        "--config",
        &format!("target.'cfg(unix)'.runner = [{:?}]", enter.display().to_string()),
    ]);
    for test in tests {
        command.args(["--test", test]);
    }
    command
}

/// Names of the test binaries: the files of tests/cloud/tests.
fn tests() -> Result<Vec<String>> {
    let folder = shell::root().join("tests/cloud/tests");
    let entries = folder.read_dir().with_context(|| folder.display().to_string())?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|entry| entry.path().file_stem().map(|name| name.to_string_lossy().into()))
        .collect();
    names.sort();
    // Cargo picks tests of the whole workspace by these names.
    for crates in ["crates", "tests"] {
        for entry in shell::root().join(crates).read_dir()?.flatten() {
            let is_here = entry.path().join("tests") == folder;
            let twice = |name: &&String| entry.path().join(format!("tests/{name}.rs")).exists();
            if let Some(name) = names.iter().find(twice).filter(|_| !is_here) {
                bail!("{} has a test {name} too: rename one", entry.path().display());
            }
        }
    }
    Ok(names)
}

/// The scripts that start a cloud.
pub(crate) fn stack() -> PathBuf {
    shell::root().join("tests/cloud/stack")
}

/// Where the cloud's state is; another folder is another cloud.
fn state() -> PathBuf {
    std::env::var_os("TOCI_CLOUD_STATE")
        .map_or_else(|| cargo::target_dir().join("cloud"), |folder| shell::root().join(folder))
}

/// One of its scripts, for the cloud whose state is [`state`].
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new(stack().join(name));
    command.env("TOCI_CLOUD_STATE", state());
    command
}
