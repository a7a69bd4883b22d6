//! `toci pipeline`, `toci source`.

use clap::{Args, Subcommand};

/// Look at pipelines, and put changes in or out by hand.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Show all pipelines: how many items, what fails
    List,
    /// Show the queues of a pipeline with every item and job
    Show {
        /// The pipeline, for example gate; all of them when none is named
        pipeline: Option<String>,
        /// Go on showing it when something changes, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show what left the pipelines, the newest first, and what was told
    ///
    /// Examples:
    ///   toci pipeline history gate --result failed
    ///   toci pipeline history --change 1234 --limit 5
    #[command(verbatim_doc_comment, alias = "ended")]
    History(HistoryArgs),
    /// Put a change or a ref in, whatever triggers and requirements say
    ///
    /// Examples:
    ///   toci pipeline enqueue gate 1234,5
    ///   toci pipeline enqueue post --project org/app --ref refs/heads/master --new 5f3c…
    #[command(verbatim_doc_comment)]
    Enqueue {
        /// The pipeline
        pipeline: String,
        /// What
        #[command(flatten)]
        subject: SubjectArgs,
    },
    /// Throw a change or a ref out; nobody is told
    Dequeue {
        /// The pipeline
        pipeline: String,
        /// What
        #[command(flatten)]
        subject: SubjectArgs,
    },
    /// Move changes to the heads of their queues; what was built without them is built anew
    Promote {
        /// The pipeline
        pipeline: String,
        /// The changes, the first one first: [SOURCE:]NUMBER[,PATCHSET]
        #[arg(required = true)]
        changes: Vec<String>,
    },
}

/// Which of the items that left.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only of this pipeline
    pub pipeline: Option<String>,
    /// Only of this project
    #[arg(long)]
    pub project: Option<String>,
    /// Only of this change: [SOURCE:]NUMBER[,PATCHSET]
    #[arg(long)]
    pub change: Option<String>,
    /// Only what ended so: succeeded, failed, not_merged, needed_change_failed, no_jobs, superseded, abandoned, dequeued, unconfigured
    #[arg(long)]
    pub result: Option<String>,
    /// So many at most
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
    /// Also show each job with its result and logs
    #[arg(long)]
    pub jobs: bool,
}

/// A change, or a ref of a project.
#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// The change: [SOURCE:]NUMBER[,PATCHSET]
    #[arg(required_unless_present = "reference", conflicts_with = "reference")]
    pub change: Option<String>,
    /// The ref's project: [SOURCE:]PROJECT
    #[arg(long, requires = "reference")]
    pub project: Option<String>,
    /// A ref instead of a change, for example refs/heads/master
    #[arg(long = "ref", id = "reference", value_name = "REF", requires = "project")]
    pub reference: Option<String>,
    /// The ref's commit before
    #[arg(long, value_name = "COMMIT", requires = "reference")]
    pub old: Option<String>,
    /// The ref's commit now
    #[arg(long, value_name = "COMMIT", requires = "reference")]
    pub new: Option<String>,
}

/// Sources of changes: whether they are heard.
#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Show all sources: whether each is heard, since when, and why not
    List,
    /// Say that a source has news: it is looked at once. For a repository's post-receive hook
    Poke {
        /// The source, as in toci.toml
        source: String,
    },
}
