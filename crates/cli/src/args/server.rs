//! `toci server`.

use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Options of `toci server`; they win over the file.
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  toci server --state /var/lib/toci --listen 0.0.0.0:8080
  toci server --config /etc/toci/toci.toml
The first start writes an operator's token to <state>/admin.token."
)]
pub struct ServerArgs {
    /// Instead of running one.
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
    /// Settings; absent: defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of everything the server keeps
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Address of the API
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Unix socket of the API
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Address of the Gearman broker
    #[arg(long, value_name = "ADDR:PORT")]
    pub gearman: Option<SocketAddr>,
}

/// What else there is to do with a server: look after one that runs.
#[derive(Clone, Debug, Subcommand)]
pub enum ServerCommand {
    /// Have the server that runs exit when what it runs is over; what waits goes on under the next one
    ///
    /// No run begins any more. The same as sending it SIGUSR1.
    Exit,
}
