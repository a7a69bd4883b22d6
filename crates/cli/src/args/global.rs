//! What every subcommand takes.

use clap::Args;
use std::path::PathBuf;

/// What every subcommand takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Where the server is: http://HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(
        long, global = true, env = "TOCI_SERVER", value_name = "URL",
        default_value = crate::connect::DEFAULT_SERVER, hide_env_values = true
    )]
    pub server: String,
    /// File that holds the token and nothing else; the variable TOCI_TOKEN may hold the token itself
    #[arg(
        long,
        global = true,
        env = "TOCI_TOKEN_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub token_file: Option<PathBuf>,
    /// PEM file of the CA that signed the server's certificate, for https://
    #[arg(long, global = true, env = "TOCI_CA", value_name = "FILE", hide_env_values = true)]
    pub ca: Option<PathBuf>,
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    pub json: bool,
}
