//! `toci config`.

use clap::{Args, Subcommand, ValueEnum};
use core::time::Duration;
use std::path::PathBuf;
use toci_core::event::{Branch, EventKind, RefName, SourceName};

/// Look at configuration, without a server.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read a layout: pipelines, jobs, projects in Zuul 2's YAML
    ///
    /// Prints every error with its place, and what keys mean that have no effect. Ends with 2 when there is an error.
    /// With --project it says what an event of a change of this project would do: which pipelines it enters, which jobs
    /// run there, and why not the others. Votes are LABEL=VALUE[:USER[:AGE]].
    ///
    /// Where changes come from says --config or --source; a source that is named in the layout and is none of them is
    /// an error. Without either there may be any, and `gerrit` is meant where none is named.
    ///
    /// Examples:
    ///   toci config check examples/layouts/zuul2-full.yaml
    ///   toci config check --config /etc/toci/toci.toml
    ///   toci config check layout.yaml --source gerrit --source github --project github:org/app
    ///   toci config check layout.yaml --project org/app --files src/a.py --own .toci.yaml
    ///   toci config check layout.yaml --project org/app --event comment-added --vote workflow=1 \
    ///       --approval code-review=2:ann --approval verified=1:jenkins:3h
    #[command(verbatim_doc_comment)]
    Check {
        /// The file; without it, the one that the settings name
        #[arg(required_unless_present = "config")]
        layout: Option<PathBuf>,
        /// The server's settings: its sources and its layout are looked at, keys and passwords are not
        #[arg(long, value_name = "FILE", conflicts_with = "source")]
        config: Option<PathBuf>,
        /// A source; may be given several times. The first is meant where `source:` is left out, and by `gerrit` when
        /// none is called so
        #[arg(long, value_name = "NAME")]
        source: Vec<SourceName>,
        /// The change and the event to explain
        #[command(flatten)]
        change: Box<ChangeArgs>,
    },
}

/// The change and the event that `toci config check` explains.
#[derive(Debug, Args)]
#[command(next_help_heading = "What would run")]
pub struct ChangeArgs {
    /// The change's project, NAME or SOURCE:NAME
    #[arg(long)]
    pub project: Option<String>,
    /// The change's branch
    #[arg(long, default_value = "master", requires = "project")]
    pub branch: Branch,
    /// A file that the change touches; may be given several times. Without one, it is not known what it touches
    #[arg(long, visible_alias = "file", value_name = "FILE", requires = "project")]
    pub files: Vec<String>,
    /// What happens
    #[arg(long, default_value = "patchset-created", value_name = "EVENT", requires = "project",
        value_parser = clap::builder::PossibleValuesParser::new(EventKind::ALL.map(EventKind::word)))]
    pub event: String,
    /// Who does it
    #[arg(
        long,
        value_name = "USER",
        default_value = "",
        hide_default_value = true,
        requires = "project"
    )]
    pub by: String,
    /// Their address
    #[arg(long, default_value = "", hide_default_value = true, requires = "project")]
    pub email: String,
    /// The comment
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        requires = "project"
    )]
    pub comment: String,
    /// A vote given with the event, which stands then
    #[arg(long, value_name = "VOTE", value_parser = vote, requires = "project")]
    pub vote: Vec<VoteArg>,
    /// A vote that stands
    #[arg(long, value_name = "VOTE", value_parser = vote, requires = "project")]
    pub approval: Vec<VoteArg>,
    /// The change's topic
    #[arg(
        long,
        value_name = "TOPIC",
        default_value = "",
        hide_default_value = true,
        requires = "project"
    )]
    pub topic: String,
    /// A hashtag of the change, or a label of a pull request; may be given several times
    #[arg(long, value_name = "TAG", requires = "project")]
    pub hashtag: Vec<String>,
    /// The change's state
    #[arg(long, value_enum, default_value = "open", requires = "project")]
    pub state: StateArg,
    /// The change is a draft or work in progress
    #[arg(long, requires = "project")]
    pub wip: bool,
    /// There is a newer patchset
    #[arg(long, requires = "project")]
    pub outdated: bool,
    /// ref-updated: which ref, in full
    #[arg(long = "ref", value_name = "REF", requires = "project")]
    pub reference: Option<RefName>,
    /// timer: the trigger's `time`
    #[arg(
        long,
        value_name = "CRON",
        default_value = "",
        hide_default_value = true,
        requires = "project"
    )]
    pub time: String,
    /// parent-change-enqueued, project-change-merged: of which pipeline
    #[arg(
        long,
        value_name = "PIPELINE",
        default_value = "",
        hide_default_value = true,
        requires = "project"
    )]
    pub of: String,
    /// The project's `.toci.yaml` as it is in the change
    #[arg(long, value_name = "FILE", requires = "project")]
    pub own: Option<PathBuf>,
}

/// Where the change is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// It can be changed, voted on and merged.
    Open,
    /// It is part of its branch.
    Merged,
    /// Given up.
    Abandoned,
}

/// `LABEL=VALUE[:USER[:AGE]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteArg {
    /// The label.
    pub label: String,
    /// The value.
    pub value: i32,
    /// Who gave it; empty: whoever does what happens.
    pub user: String,
    /// How long ago.
    pub age: Duration,
}

fn vote(text: &str) -> Result<VoteArg, String> {
    let bad = || {
        format!(
            "`{text}` is no vote: write for example verified=1, verified=1:jenkins or verified=1:jenkins:3h"
        )
    };
    let (label, rest) =
        text.split_once('=').filter(|(label, _)| !label.is_empty()).ok_or_else(bad)?;
    let mut parts = rest.splitn(3, ':');
    let value = parts.next().unwrap_or_default().trim_start_matches('+');
    let value = value.parse().map_err(|_| bad())?;
    let user = parts.next().unwrap_or_default().to_owned();
    let age = parts.next().map(crate::duration::parse).transpose()?.unwrap_or_default();
    Ok(VoteArg { label: label.to_owned(), value, user, age })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_have_a_label_a_value_and_perhaps_a_voter_and_an_age() {
        let read = vote("code-review=+2:ann:3h").unwrap();
        let expected = VoteArg {
            label: "code-review".into(),
            value: 2,
            user: "ann".into(),
            age: Duration::from_secs(10_800),
        };
        assert_eq!(read, expected);
        assert_eq!(vote("verified=-1").unwrap().value, -1);
        for bad in ["", "=1", "verified", "verified=", "verified=x", "verified=1:a:soon"] {
            assert!(vote(bad).is_err(), "{bad}");
        }
    }
}
