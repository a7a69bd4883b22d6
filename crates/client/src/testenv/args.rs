//! The flags of 2014.

use crate::gearman::{BadBrokerAddress, BrokerAddress, parse_brokers};
use clap::Parser;
use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;

/// Brokers of `--geard`.
#[derive(Clone, Debug)]
pub(super) struct Brokers(pub(super) Vec<BrokerAddress>);

fn brokers(text: &str) -> Result<Brokers, BadBrokerAddress> {
    parse_brokers(text).map(Brokers)
}

/// Get a test environment, run a command with it, give it back.
///
/// The command finds the test environment's data in the file named by TE_DATAFILE. Example:
/// echo 'cat $TE_DATAFILE' | testenv-client -- bash
#[derive(Debug, Parser)]
#[command(
    name = "testenv-client",
    version,
    max_term_width = 100,
    after_help = "Exit codes: the command's own, or 128 + the signal that ended it; 2 when the command cannot be run \
or no environment can be had; 137 when the environment was taken away before the command ended."
)]
pub(super) struct ClientArgs {
    /// Brokers, HOST:PORT, separated by commas
    #[arg(long, short = 'b', default_value = "127.0.0.1:4730", value_parser = brokers)]
    pub(super) geard: Brokers,
    /// Name of the job, part of the callback's name; otherwise made up
    #[arg(long, short = 'n', default_value_t = made_up(), hide_default_value = true)]
    pub(super) jobnum: String,
    /// How long the environment is wanted, in seconds; waiting does not count
    #[arg(long, short, default_value_t = 10_800)]
    pub(super) timeout: u64,
    /// Say more
    #[arg(long, short)]
    pub(super) debug: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<OsString>,
}

/// Offer one test environment through a broker.
///
/// SIGUSR1: take new jobs. SIGUSR2: no new jobs; the running one goes on. SIGINT: end after the running job.
#[derive(Debug, Parser)]
#[command(name = "testenv-worker", version, max_term_width = 100)]
pub(super) struct WorkerArgs {
    /// The file with the environment's data, given to its holder
    pub(super) datafile: PathBuf,
    /// How long an environment may be held at most, in seconds; a client may say otherwise
    #[arg(long, short, default_value_t = 10_800)]
    pub(super) timeout: u64,
    /// Name of the environment; otherwise made up
    #[arg(long, short = 'n', default_value_t = made_up(), hide_default_value = true)]
    pub(super) tenum: String,
    /// Brokers, HOST:PORT, separated by commas
    #[arg(long, short = 'b', default_value = "127.0.0.1:4730", value_parser = brokers)]
    pub(super) geard: Brokers,
    /// Say more
    #[arg(long, short)]
    pub(super) debug: bool,
}

/// 32 hex digits, as `uuid4().hex` gave; unique, not secret.
fn made_up() -> String {
    let half = |n: u8| RandomState::new().hash_one((n, std::process::id()));
    format!("{:016x}{:016x}", half(0), half(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_of_2014_are_read() {
        ClientArgs::command().debug_assert();
        WorkerArgs::command().debug_assert();
        let client = ClientArgs::try_parse_from([
            "testenv-client",
            "-b",
            "a:1,b",
            "-n",
            "7",
            "-t",
            "60",
            "-d",
            "--",
            "bash",
            "-x",
        ])
        .unwrap();
        assert_eq!(client.geard.0.len(), 2);
        assert_eq!((client.jobnum.as_str(), client.timeout, client.debug), ("7", 60, true));
        assert_eq!(client.command, ["bash", "-x"]);
        let worker =
            WorkerArgs::try_parse_from(["testenv-worker", "/x.json", "-t", "9", "-n", "3"])
                .unwrap();
        assert_eq!((worker.datafile, worker.timeout), (PathBuf::from("/x.json"), 9));
        let (one, two) = (made_up(), made_up());
        assert!(one != two && one.len() == 32, "{one} {two}");
        assert!(ClientArgs::try_parse_from(["testenv-client", "-t", "soon", "true"]).is_err());
    }
}
