//! The stages of the gate, put together: sources, mirrors, the pipeline task and those that carry out what it wants.

mod runs;

use crate::config::{GateConfig, RunConfig, SourceConfig};
use crate::tasks::event::{self, Sources};
use crate::tasks::lease::LeaseBook;
use crate::tasks::log::LogStore;
use crate::tasks::node::NodePool;
use crate::tasks::pipeline::{GateError, GateHandle, merge};
use crate::tasks::report::{self, Tellers};
use crate::tasks::run::{Collection, Parts as RunParts, RunDesk};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toci_core::event::SourceName;
use toci_core::layout::Layout;
use toci_core::pipeline::{Input, Policy};
use toci_edge::git::{Merger, Mirrors, Remotes};
use toci_edge::http::{Http, HttpError, Trust};
use toci_edge::source::Source;
use toci_edge::source::gerrit::GerritSource;
use toci_edge::source::git::GitSource;
use toci_edge::source::github::GithubSource;
use toci_edge::tell::smtp::SmtpConfig;
use toci_edge::tell::webhook::WebhookConfig;
use toci_store::{Store, StoreError};
use toci_wire::layout::{OWN_FILE, read_own};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// News of runs that wait for the gate at most; beyond that the runs wait.
const NEWS_MAX: usize = 256;
/// Largest layout, in bytes.
const LAYOUT_MAX_BYTES: u64 = 4 << 20;

/// Why the gate did not start, or did not take a new layout.
#[derive(Debug, thiserror::Error)]
pub enum GateStartError {
    /// The layout's file.
    #[error("read the layout {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The layout is wrong: every error with its place, one a line.
    #[error("the layout is wrong:\n{0}")]
    Wrong(String),
    /// The store.
    #[error("read the gate")]
    Store(#[from] StoreError),
    /// The certificates of this machine, for web hooks.
    #[error("make an HTTP client")]
    Http(#[from] HttpError),
    /// The gate did not take it.
    #[error("change the layout")]
    Gate(#[from] GateError),
}

/// The gate as it runs. When it goes, its tasks end.
#[derive(Debug)]
pub struct GateParts {
    /// The pipeline task.
    pub gate: GateHandle,
    /// Where changes come from.
    pub sources: Sources,
    /// The merger's repositories.
    pub mirrors: Arc<Mirrors>,
    /// Those of them that web hooks come for.
    pub github: BTreeMap<SourceName, Arc<GithubSource>>,
    /// The runs.
    pub runs: RunDesk,
    /// What it was started with.
    pub config: GateConfig,
    _tasks: JoinSet<()>,
}

/// The stages that the gate's runs use.
#[derive(Debug)]
pub struct Neighbours {
    /// Test environments.
    pub book: LeaseBook,
    /// Longest lease.
    pub lease_max: Duration,
    /// Longest hold of a lease.
    pub hold_max: Duration,
    /// Nodes, if there are any.
    pub nodes: Option<NodePool>,
    /// Where logs go.
    pub logs: LogStore,
    /// What is collected of runs.
    pub collection: Collection,
    /// Settings of runs.
    pub run: RunConfig,
    /// Mail.
    pub smtp: SmtpConfig,
    /// Web hooks.
    pub webhook: WebhookConfig,
}

impl GateParts {
    /// Starts everything. The store's book must be claimed.
    pub async fn start(
        store: Store,
        config: GateConfig,
        neighbours: Neighbours,
    ) -> Result<GateParts, GateStartError> {
        let layout = read_layout(&config)?;
        let mirrors = Arc::new(Mirrors::new(&config.merger.folder, remotes(&config.sources)));
        let (sources, github) = sources(&config.sources, &mirrors)?;
        let mut heard = store.read_cursors().await?;
        let policy = Policy {
            status_url: config.status_url.clone(),
            files: vec![OWN_FILE.to_owned()],
            read: read_own,
            job_names: true,
            ..Policy::default()
        };
        sources.watch(&layout);
        let gate = GateHandle::start(store.clone(), Arc::new(layout), policy).await?;
        let (name, email) = &config.merger.identity;
        let merger = Arc::new(Merger::new(Arc::clone(&mirrors), name, email));
        let mut tasks = JoinSet::new();
        let tellers = Tellers {
            smtp: neighbours.smtp.clone(),
            webhook: neighbours.webhook.clone(),
            http: Http::new(&Trust::System)?,
        };
        let runs = start_runs(store, &config, neighbours, &mirrors, &gate, &mut tasks).await?;
        tasks.spawn(merge::run(gate.clone(), merger));
        tasks.spawn(merge::sweep(gate.clone(), Arc::clone(&mirrors)));
        tasks.spawn(report::run(gate.clone(), sources.clone(), tellers));
        tasks.spawn(gate.clone().forget_ended());
        tasks.spawn(event::run_timers(gate.clone()));
        tasks.spawn(event::follow_merges(gate.clone(), sources.clone()));
        tasks.spawn(event::follow_waiting(gate.clone(), sources.clone()));
        for source in sources.iter() {
            let since = heard.remove(source.name()).unwrap_or_default();
            tasks.spawn(event::follow(gate.clone(), sources.clone(), Arc::clone(source), since));
        }
        Ok(GateParts { gate, sources, github, mirrors, runs, config, _tasks: tasks })
    }

    /// Reads the layout anew. Queues are kept; a layout that is wrong changes nothing.
    pub async fn reconfigure(&self) -> Result<(), GateStartError> {
        let layout = read_layout(&self.config)?;
        let layout = Arc::new(layout);
        self.gate.submit(Input::Layout(Arc::clone(&layout))).await?;
        self.sources.watch(&layout);
        tracing::info!(file = %self.config.layout.display(), "the layout is read anew");
        Ok(())
    }
}

fn remotes(configs: &[SourceConfig]) -> Remotes {
    let remote = |source: &SourceConfig| match source {
        SourceConfig::Git(git) => (git.name.clone(), git.remote()),
        SourceConfig::Gerrit(gerrit) => (gerrit.name.clone(), gerrit.remote()),
        SourceConfig::Github(github) => (github.name.clone(), github.remote()),
    };
    configs.iter().map(remote).collect()
}

/// All sources, and those among them that web hooks come for.
fn sources(
    configs: &[SourceConfig],
    mirrors: &Arc<Mirrors>,
) -> Result<(Sources, BTreeMap<SourceName, Arc<GithubSource>>), HttpError> {
    let mut all: Vec<Arc<dyn Source>> = Vec::new();
    let mut github = BTreeMap::new();
    for config in configs {
        match config {
            SourceConfig::Git(git) => {
                all.push(Arc::new(GitSource::new(git.clone(), Arc::clone(mirrors))));
            }
            SourceConfig::Gerrit(gerrit) => all.push(Arc::new(GerritSource::new(gerrit.clone()))),
            SourceConfig::Github(one) => {
                let source = Arc::new(GithubSource::new(one.clone())?);
                github.insert(one.name.clone(), Arc::clone(&source));
                all.push(source);
            }
        }
    }
    Ok((Sources::new(all), github))
}

/// The run stage, whose news go to the gate.
async fn start_runs(
    store: Store,
    config: &GateConfig,
    neighbours: Neighbours,
    mirrors: &Arc<Mirrors>,
    gate: &GateHandle,
    tasks: &mut JoinSet<()>,
) -> Result<RunDesk, StoreError> {
    let (news, mut heard) = mpsc::channel(NEWS_MAX);
    // Where people reach the API, the mirrors are too.
    let merger_url = config.merger.url.clone();
    let merger_url = merger_url.unwrap_or_else(|| format!("{}/p", neighbours.run.url));
    let parts = RunParts {
        store,
        book: neighbours.book,
        lease_max: neighbours.lease_max,
        hold_max: neighbours.hold_max,
        mirrors: Arc::clone(mirrors),
        merger_url,
        first_source: config.sources.first().map(|source| source.name().clone()),
        nodes: Arc::new(neighbours.nodes),
        archive: Arc::new(neighbours.logs),
        collection: neighbours.collection,
        config: neighbours.run,
    };
    let runs = RunDesk::start(parts, gate.wanted(), news).await?;
    let gate = gate.clone();
    tasks.spawn(async move {
        while let Some(input) = heard.recv().await {
            if gate.deliver(input, None).await.is_none() {
                return;
            }
        }
    });
    Ok(runs)
}

fn read_layout(config: &GateConfig) -> Result<Layout, GateStartError> {
    use std::io::Read;
    let path = &config.layout;
    let failed = |source| GateStartError::Read { path: path.clone(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LAYOUT_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    let name = path.display().to_string();
    let sources: Vec<SourceName> = config.sources.iter().map(|s| s.name().clone()).collect();
    if sources.is_empty() {
        return Err(GateStartError::Wrong("there is no source".to_owned()));
    }
    let read = toci_wire::layout::read_for(&name, &text, &sources);
    for note in &read.notes {
        tracing::info!("{note}");
    }
    read.layout.ok_or_else(|| {
        let errors: Vec<String> = read.errors.iter().map(ToString::to_string).collect();
        GateStartError::Wrong(errors.join("\n"))
    })
}
