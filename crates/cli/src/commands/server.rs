//! `toci server`.

use crate::args::{GlobalArgs, ServerArgs, ServerCommand};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output;
use std::process::ExitCode;
use toci_client::api::ApiClient;
use toci_core::chain::Chain;
use toci_server::{Overrides, ServerConfig};

pub(super) fn dispatch(global: &GlobalArgs, args: ServerArgs) -> Result<ExitCode> {
    match args.command {
        None => run(args),
        Some(ServerCommand::Exit) => {
            super::ask(global, async |client| exit(client, global.json).await)
        }
    }
}

/// Has the server that runs exit when what it runs is over.
async fn exit(client: &ApiClient, json: bool) -> Result<ExitCode> {
    client.exit().await?;
    if !json {
        output::text_line(
            "no run begins any more; the server exits when those that have begun are over",
        )?;
    }
    Ok(Exit::Ok.into())
}

/// Runs the control plane until a signal ends it.
fn run(args: ServerArgs) -> Result<ExitCode> {
    let flags = Overrides {
        state: args.state,
        listen: args.listen,
        socket: args.socket,
        gearman: args.gearman,
    };
    let config = ServerConfig::load(args.config.as_deref(), flags).map_err(|e| {
        CliError::new(
            Exit::Usage,
            Chain(&e).to_string(),
            "correct the settings; see `toci server --help`",
        )
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::failed("start the runtime", &e))?;
    runtime
        .block_on(toci_server::run(config))
        .map_err(|e| CliError::new(Exit::Failed, Chain(&e).to_string(), e.hint()))?;
    Ok(Exit::Ok.into())
}
