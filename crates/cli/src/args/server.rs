//! `toci server`.

use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Options of `toci server`; they win over the file.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  toci server --state /var/lib/toci --listen 0.0.0.0:8080
  toci server --config /etc/toci/toci.toml
The first start writes an operator's token to <state>/admin.token.")]
pub struct ServerArgs {
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
