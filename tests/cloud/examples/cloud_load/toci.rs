//! toci: the server's node pool with the provider `openstack`, as runs of the gate use it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use toci_core::id::{Label, ProviderName, RunId};
use toci_core::layout::Precedence;
use toci_core::node::{Amount, LabelSpec, Policy, PoolSpec, ProviderSpec, Settings};
use toci_core::time::Time;
use toci_edge::openstack::{Cloud, config};
use toci_edge::provider::Provider;
use toci_edge::provider::openstack::{
    FlavorChoice, HostKeySource, ImageChoice, ImageFormat, OpenStack, OpenStackConfig, Shape,
};
use toci_server::tasks::node::{NodeHandle, NodePool, NodeRequest, PoolParts};
use toci_store::Store;
use toci_wire::api::NodeState;

use crate::Bench;
use crate::life::{Contender, LIMIT, until};

/// Whose mark nodes carry.
const OWNER: &str = "bench";
/// Longest time for a command on a node.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A node pool, and what was taken from it.
#[derive(Debug)]
pub(crate) struct Toci {
    pool: NodePool,
    cloud: Arc<Cloud>,
    provider: ProviderName,
    runs: u128,
    taken: VecDeque<(RunId, NodeHandle)>,
}

impl Toci {
    /// A pool of its own, that keeps so many nodes ready.
    pub(crate) async fn start(bench: &Bench, name: &str, min_ready: u32) -> Result<Toci> {
        Toci::start_with(bench, name, min_ready, u64::MAX, HostKeySource::Console).await
    }

    /// The same, of at most so many nodes, whose host keys are known in this way.
    pub(crate) async fn start_with(
        bench: &Bench,
        name: &str,
        min_ready: u32,
        most: u64,
        host_key: HostKeySource,
    ) -> Result<Toci> {
        let state = bench.folder.join(name);
        std::fs::create_dir_all(&state)?;
        let mut place = config::Place::here();
        let clouds = bench.clouds.display().to_string();
        place.variables.insert("OS_CLIENT_CONFIG_FILE".to_owned(), clouds);
        let cloud = Arc::new(Cloud::new(config::load(&place, Some("ci"), None)?)?);
        let label = Label::new("tiny").context("a label")?;
        let provider = ProviderName::new("stack").context("a name")?;
        let settings = settings(Arc::clone(&cloud), &state, host_key, label.clone());
        let made: Arc<dyn Provider> = Arc::new(OpenStack::new(settings, Arc::default()));
        let any = Amount { servers: most, cpus: u64::MAX, memory_mib: u64::MAX };
        let cost = Amount { servers: 1, cpus: 0, memory_mib: 0 };
        let pools = BTreeMap::from([(label.clone(), PoolSpec { max: u64::MAX, cost })]);
        let spec = ProviderSpec { name: provider.clone(), quota: any, pools };
        let parts = PoolParts {
            settings: Settings {
                labels: vec![LabelSpec { name: label, min_ready }],
                providers: vec![spec],
            },
            policy: Policy::default(),
            providers: BTreeMap::from([(provider.clone(), made)]),
            environments: BTreeMap::new(),
        };
        let store = Store::open(&format!("sqlite:{}", state.join("db").display())).await?;
        store.claim_book(1).await?;
        let pool = NodePool::start(store, parts).await?;
        Ok(Toci { pool, cloud, provider, runs: 0, taken: VecDeque::new() })
    }

    /// The pool.
    pub(crate) fn pool(&self) -> &NodePool {
        &self.pool
    }

    /// Nothing is left, and nothing more is made.
    pub(crate) async fn end(self) -> Result<()> {
        let (by, why) = ("bench".to_owned(), "it is over".to_owned());
        self.pool.pause_provider(self.provider.clone(), by, why).await?;
        until("all nodes to be gone", async || {
            let nodes = self.pool.nodes().await?;
            // Those that are being made cannot be deleted yet.
            for node in nodes.iter().filter(|node| node.state == NodeState::Ready) {
                self.pool.delete(node.id.parse().context("the number of a node")?).await?;
            }
            Ok(if nodes.is_empty() { Ok(()) } else { Err(format!("{nodes:?}")) })
        })
        .await?;
        for pair in self.cloud.key_pairs().await? {
            if pair.name.starts_with(&format!("toci_{OWNER}_")) {
                self.cloud.delete_key_pair(&pair.name).await?;
            }
        }
        Ok(())
    }
}

/// Demands a node for a run, and has a first command run on it.
pub(crate) async fn taken(pool: &NodePool, run: RunId) -> Result<NodeHandle> {
    let request = NodeRequest {
        run,
        label: None,
        count: 1,
        precedence: Precedence::Normal,
        relative_priority: 0,
        since: Time(1),
        job: "bench".to_owned(),
    };
    let node = pool.take(request).await?.pop().context("no node was given")?;
    node.session.run("a first command", "true", b"", COMMAND_LIMIT).await?;
    Ok(node)
}

/// Gives a run's node back, and waits until it is gone.
pub(crate) async fn given_back(pool: &NodePool, run: RunId, node: &NodeHandle) -> Result<()> {
    pool.give_back(run).await;
    until(&format!("{} to be gone", node.name), async || {
        let id = node.id.to_string();
        let found = pool.nodes().await?.into_iter().find(|node| node.id == id);
        Ok(found.map_or(Ok(()), |node| Err(format!("{node:?}"))))
    })
    .await
}

impl Contender for Toci {
    async fn demand(&mut self) -> Result<()> {
        self.runs += 1;
        let run = RunId(self.runs);
        let node = taken(&self.pool, run).await?;
        self.taken.push_back((run, node));
        Ok(())
    }

    async fn give_back(&mut self) -> Result<()> {
        let (run, node) = self.taken.pop_front().context("no node is taken")?;
        given_back(&self.pool, run, &node).await
    }

    async fn ready(&mut self) -> Result<u32> {
        let nodes = self.pool.nodes().await?;
        let ready = nodes.iter().filter(|node| node.state == NodeState::Ready).count();
        Ok(u32::try_from(ready)?)
    }
}

fn settings(
    cloud: Arc<Cloud>,
    state: &std::path::Path,
    host_key: HostKeySource,
    label: Label,
) -> OpenStackConfig {
    let shape = Shape {
        image: ImageChoice::Clouds("tiny".to_owned()),
        flavor: FlavorChoice::Named("tiny".to_owned()),
        networks: vec!["private".to_owned()],
        volume_gib: None,
    };
    OpenStackConfig {
        name: "stack".to_owned(),
        cloud,
        owner: Some(OWNER.to_owned()),
        state: state.join("state"),
        built: state.join("built"),
        user: "root".to_owned(),
        key: None,
        host_key,
        floating_network: Some("public".to_owned()),
        security_groups: Vec::new(),
        zones: Vec::new(),
        config_drive: false,
        user_data: None,
        image_format: ImageFormat::Qcow2,
        launch_limit: LIMIT,
        boot_limit: LIMIT,
        shapes: BTreeMap::from([(label, shape)]),
        images: BTreeMap::new(),
    }
}
