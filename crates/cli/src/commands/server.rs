//! `toci server`.

use crate::args::ServerArgs;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use std::process::ExitCode;
use toci_core::chain::Chain;
use toci_server::{Overrides, ServerConfig};

/// Runs the control plane until a signal ends it.
pub(super) fn run(args: ServerArgs) -> Result<ExitCode> {
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
