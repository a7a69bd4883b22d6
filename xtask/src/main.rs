//! What `make` and CI call. `cargo xtask help` lists the commands.
//!
//! xtask compiles without libvirt and without any Debian package beyond a C compiler,
//! because installing those packages is its own first job.

mod bench;
mod binaries;
mod cargo;
mod check;
mod cloud;
mod demo;
mod demo_cloud;
mod deny;
mod fuzz;
mod generate;
mod install;
mod limits;
mod shell;
mod sim;
mod test;
mod tidy;
mod tools;
mod walls;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What make and CI call.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// One variant a command; the doc comment is its help text.
#[derive(Debug, Subcommand)]
enum Command {
    /// Install the Debian packages of xtask/packages.txt that are missing.
    Install,
    /// Build every crate and both binaries.
    Build,
    /// Formatting, lints, licences and bans, walls between crates, tidiness of the tree.
    Check,
    /// The part of `check` that needs no compiling: formatting, tidiness, walls, shell scripts.
    Tidy,
    /// Everything that a change can break: install, check, all tests, simulation, fuzz corpora.
    Test(test::Options),
    /// A real small OpenStack in a sandbox of this machine.
    Cloud(cloud::Options),
    /// The tests that need an OpenStack: install, bring one up, test, take it down.
    TestCloud(cloud::TestOptions),
    /// The main job on this machine: two changes go through a gate that deploys them in TEs of one host.
    Demo(demo::Options),
    /// The main job on a real OpenStack: nodes are its servers, TE hosts are beside it on its test network.
    DemoCloud(demo_cloud::Options),
    /// Run seeds of the simulation.
    Sim(sim::Options),
    /// Run benchmarks; results go to target/bench/*.json.
    Bench(bench::Options),
    /// Fuzz for a while (needs a nightly toolchain and cargo-fuzz).
    Fuzz(fuzz::Options),
    /// Regenerate the checked-in OpenAPI document.
    Openapi,
    /// Regenerate docs/limits.md from the sources.
    Limits,
    /// Regenerate every checked-in page that is made from code.
    Docs,
    /// Remove everything that was built.
    Clean,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that anyhow would add: these are messages for people.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Install => install::run(),
        Command::Build => cargo::build_workspace(),
        Command::Check => check::run(),
        Command::Tidy => check::tidy(),
        Command::Test(options) => test::run(&options),
        Command::Cloud(options) => cloud::run(&options),
        Command::TestCloud(options) => cloud::test(&options),
        Command::Demo(options) => demo::run(&options),
        Command::DemoCloud(options) => demo_cloud::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Openapi => generate::openapi(),
        Command::Limits => limits::write(),
        Command::Docs => generate::all(),
        Command::Clean => cargo::clean(),
    }
}
