//! What the subcommands do.

mod alerts;
mod cloud;
mod config;
mod explain;
mod host;
mod lease;
mod node;
mod paper;
mod pipeline;
mod run;
mod secret_file;
mod server;
mod te;
mod token;

use crate::args::{Cli, Command, GlobalArgs};
use crate::connect;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use clap::Parser as _;
use std::process::ExitCode;
use toci_client::api::ApiClient;
use tracing_subscriber::{EnvFilter, fmt};

/// Runs `toci` with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    log_to_stderr(matches!(&cli.command, Command::Server(args) if args.command.is_none()));
    let json = cli.global.json;
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            error.print(json);
            error.exit.into()
        }
    }
}

/// Warnings for the tools, the story for the server; `TOCI_LOG` says otherwise.
fn log_to_stderr(is_server: bool) {
    let default = if is_server { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("TOCI_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let _ = if is_server {
        builder.try_init()
    } else {
        builder.without_time().with_target(false).try_init()
    };
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Server(args) => server::dispatch(global, args),
        Command::Lease(command) => {
            ask(global, async |client| lease::dispatch(client, global, command).await)
        }
        Command::Te(command) => {
            ask(global, async |client| te::dispatch(client, global.json, command).await)
        }
        Command::Host(command) => {
            ask(global, async |client| host::dispatch(client, global.json, command).await)
        }
        Command::Alerts => ask(global, async |client| alerts::show(client, global.json).await),
        Command::Pipeline(command) => {
            ask(global, async |client| pipeline::dispatch(client, global.json, command).await)
        }
        Command::Run(command) => {
            ask(global, async |client| run::dispatch(client, global.json, command).await)
        }
        Command::Source(command) => {
            ask(global, async |client| pipeline::source(client, global.json, command).await)
        }
        Command::Reconfigure => ask(global, async |client| pipeline::reconfigure(client).await),
        Command::Node(command) => {
            ask(global, async |client| node::dispatch(client, global.json, command).await)
        }
        Command::Provider(command) => {
            ask(global, async |client| node::providers(client, global.json, command).await)
        }
        Command::Token(command) => {
            ask(global, async |client| token::dispatch(client, global.json, command).await)
        }
        Command::Cloud(command) => cloud::dispatch(global.json, command),
        Command::Config(command) => config::dispatch(global.json, command),
        Command::Demo(args) => crate::demo::main(&args),
        Command::Completion { shell } => paper::completion(shell),
        Command::Man { folder } => paper::man_pages(&folder),
    }
}

fn ask(
    global: &GlobalArgs,
    work: impl AsyncFnOnce(&ApiClient) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let client = connect::client(global)?;
    block_on(work(&client))
}

/// One thread is enough for a client, and the main thread is where commands must be started (see
/// `toci_client::command`).
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("start the runtime", &e))?
        .block_on(work)
}
