//! The command line of `toci`.

mod cloud;
mod config;
mod demo;
mod global;
mod host;
mod host_deploy;
mod lease;
mod node;
mod pipeline;
mod run;
mod server;
mod te;
mod token;

pub use cloud::{CloudCommand, ZoneArgs};
pub use config::{ChangeArgs, ConfigCommand, StateArg, VoteArg};
pub use demo::{DemoArgs, DemoCommand, DemoRun, DemoStage};
pub use global::GlobalArgs;
pub use host::HostCommand;
pub use host_deploy::*;
pub use lease::{LeaseCommand, RunArgs};
pub use node::{AutoholdCommand, NodeCommand, ProviderCommand};
pub use pipeline::{HistoryArgs, PipelineCommand, SourceCommand, SubjectArgs};
pub use run::RunCommand;
pub use server::{ServerArgs, ServerCommand};
pub use te::{PowerWord, TeCommand};
pub use token::TokenCommand;

use clap::{CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;

/// CI for software that can only be tested by deploying it onto machines.
///
/// toci leases test environments (a seed and blank machines on a private switch), runs a command in one, and gets it
/// back clean. This one program is the control plane, the client and the operator's tool.
#[derive(Debug, Parser)]
#[command(
    name = "toci",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_long_help = crate::exit::help_section(),
)]
pub struct Cli {
    /// What every subcommand takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane, or have the one that runs exit
    Server(ServerArgs),
    /// Use test environments: run a command in one, or look after leases
    #[command(subcommand, visible_alias = "leases")]
    Lease(LeaseCommand),
    /// Look after test environments and their machines
    #[command(subcommand, visible_alias = "testenv")]
    Te(TeCommand),
    /// Look after TE hosts
    #[command(subcommand)]
    Host(HostCommand),
    /// Show what somebody has to look at: what fails again and again, what is paused
    Alerts,
    /// Look at pipelines, and put changes in or out by hand
    #[command(subcommand, visible_alias = "pipelines")]
    Pipeline(PipelineCommand),
    /// Look at runs of jobs, follow their consoles, stop them
    #[command(subcommand, visible_alias = "runs")]
    Run(RunCommand),
    /// Look at sources of changes, and tell them that there is news
    #[command(subcommand)]
    Source(SourceCommand),
    /// Have the server read its layout anew; queues are kept
    Reconfigure,
    /// Look after nodes: machines that jobs run on
    #[command(subcommand, visible_alias = "nodes")]
    Node(NodeCommand),
    /// Look after providers of nodes
    #[command(subcommand, visible_alias = "providers")]
    Provider(ProviderCommand),
    /// Set up the cloud of a zone: projects, quotas, networks, images, servers
    #[command(subcommand)]
    Cloud(CloudCommand),
    /// Say who may use the API
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look at configuration, without a server
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the whole thing on this machine: a gate that tries two changes, each with a deployment, and merges the good one
    Demo(DemoArgs),
    /// Print the completion script for a shell
    ///
    /// For bash: toci completion bash > /etc/bash_completion.d/toci
    #[command(verbatim_doc_comment, visible_alias = "completions")]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    Man {
        /// Where to; made if need be
        folder: PathBuf,
    },
}

/// The whole tree, for completion scripts, man pages and tests.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_server_is_run_or_one_that_runs_is_told_to_exit() {
        let parse = |line: &[&str]| Cli::try_parse_from(line).unwrap().command;
        let Command::Server(run) = parse(&["toci", "server", "--state", "s"]) else { panic!() };
        assert!(run.command.is_none() && run.state.is_some());
        for line in
            [&["toci", "--json", "server", "exit"][..], &["toci", "server", "exit", "--json"]]
        {
            let Command::Server(exit) = parse(line) else { panic!() };
            assert!(matches!(exit.command, Some(ServerCommand::Exit)), "{exit:?}");
        }
        assert!(Cli::try_parse_from(["toci", "server", "--state", "s", "exit"]).is_err());
    }

    fn long_help(path: &[&str]) -> String {
        let mut node = command();
        node.build();
        for name in path {
            node = node.find_subcommand(name).expect(name).clone();
        }
        node.render_long_help().to_string()
    }

    #[test]
    fn every_subcommand_explains_itself_and_the_main_ones_give_examples() {
        fn visit(node: &clap::Command, path: &str) {
            assert!(node.get_about().is_some(), "{path} has no description");
            for argument in node.get_arguments().filter(|a| !a.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{path} {} has no help", argument.get_id());
            }
            for sub in node.get_subcommands().filter(|s| !s.is_hide_set()) {
                visit(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        visit(&command(), "toci");
        for path in [
            &["lease", "run"][..],
            &["te", "push-image"],
            &["host", "enrol"],
            &["host", "deploy"],
            &["demo"],
        ] {
            assert!(long_help(path).contains("Examples:"), "{path:?}");
        }
        assert!(long_help(&[]).contains("Exit codes:"));
    }

    #[test]
    fn a_command_after_two_dashes_keeps_its_own_options() {
        let line = ["toci", "lease", "run", "--timeout", "3h", "--", "make", "--json", "-j2"];
        let cli = Cli::try_parse_from(line).unwrap();
        let Command::Lease(LeaseCommand::Run(run)) = cli.command else { panic!("{cli:?}") };
        assert_eq!(run.command, ["make", "--json", "-j2"]);
        assert!(!cli.global.json);
        assert_eq!(run.timeout, Some(core::time::Duration::from_secs(10_800)));
    }
}
