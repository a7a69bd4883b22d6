//! Nodes and providers as the API shows them.

use super::run::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use toci_core::id::{NodeId, ProviderName};
use toci_core::node::{Autohold, ImageState, Node, NodeState};
use toci_edge::provider::Provider;
use toci_wire::api;

impl State {
    pub(super) fn nodes(&self) -> Vec<api::Node> {
        self.pool.nodes().map(|node| self.shown(node)).collect()
    }

    pub(super) fn node(&self, id: NodeId) -> Option<api::Node> {
        self.pool.node(id).map(|node| self.shown(node))
    }

    pub(super) fn overdue(&self) -> Vec<api::Node> {
        self.pool.overdue().map(|node| self.shown(node)).collect()
    }

    pub(super) fn autoholds(&self) -> Vec<api::Autohold> {
        self.pool.autoholds().map(autohold).collect()
    }

    fn shown(&self, node: &Node) -> api::Node {
        let machine = self.machines.get(&node.id);
        api::Node {
            id: node.id.to_string(),
            name: node.name.clone(),
            label: node.label.to_string(),
            provider: node.provider.to_string(),
            state: word(node.state),
            since_us: node.since.0,
            address: machine.and_then(|m| m.address).map(|address| address.to_string()),
            run: node.state.run().map(|run| run.to_string()),
            job: node.job.clone(),
            hold_until_us: node.hold.as_ref().map(|hold| hold.until.0),
            reason: node.hold.as_ref().map_or(&node.reason, |hold| &hold.reason).clone(),
            overdue: self.pool.goes_too_slowly(node.id),
        }
    }

    pub(super) fn providers(&self) -> Vec<api::Provider> {
        let views = self.pool.provider_views();
        let view = |view: toci_core::node::ProviderView| api::Provider {
            kind: self.providers.get(&view.name).map_or("", |p| p.kind()).to_owned(),
            name: view.name.to_string(),
            reachable: view.reachable,
            max_servers: view.max_servers,
            nodes: view
                .nodes
                .into_iter()
                .map(|(k, n)| (k.to_owned(), n))
                .collect::<BTreeMap<_, _>>(),
            labels: view.labels,
            problems: view.problems,
            paused: view.paused.map(|pause| api::ProviderPause {
                since_us: pause.since.0,
                by: pause.by,
                reason: pause.reason,
            }),
            paused_until_us: view.paused_until.map(|t| t.0),
        };
        views.into_iter().map(view).collect()
    }
}

/// Images of all providers; their logs are looked at, so not in the task.
pub(super) fn images(providers: &BTreeMap<ProviderName, Arc<dyn Provider>>) -> Vec<api::NodeImage> {
    let of = |(name, provider): (&ProviderName, &Arc<dyn Provider>)| {
        let name = name.to_string();
        let shown = move |view: toci_edge::provider::ImageView| api::NodeImage {
            id: view.image.id,
            name: view.image.name,
            provider: name.clone(),
            state: match view.image.state {
                ImageState::Building => api::ImageState::Building,
                ImageState::Testing => api::ImageState::Testing,
                ImageState::Ready => api::ImageState::Ready,
                ImageState::Failed => api::ImageState::Failed,
                ImageState::Withdrawn => api::ImageState::Withdrawn,
                ImageState::Deleting => api::ImageState::Deleting,
            },
            serves: view.serves,
            since_us: view.image.since.0,
            made_us: view.image.made.0,
            kvm: view.image.kvm,
            failures: view.image.failures,
            told: view.told,
            log: view.log.map(|log| log.display().to_string()),
        };
        provider.images().into_iter().map(shown).collect::<Vec<_>>()
    };
    providers.iter().flat_map(of).collect()
}

pub(super) fn autohold(wish: &Autohold) -> api::Autohold {
    let meant = wish.meant.clone();
    api::Autohold {
        id: wish.id.to_string(),
        job: meant.job,
        project: meant.project,
        subject: meant.subject,
        left: meant.count,
        for_s: meant.length.as_secs(),
        reason: meant.reason,
        until_us: wish.until.0,
    }
}

fn word(state: NodeState) -> api::NodeState {
    match state {
        NodeState::Building => api::NodeState::Building,
        NodeState::Testing => api::NodeState::Testing,
        NodeState::Ready => api::NodeState::Ready,
        NodeState::Handing(_) => api::NodeState::Handing,
        NodeState::InUse(_) => api::NodeState::InUse,
        NodeState::Held => api::NodeState::Held,
        NodeState::Deleting => api::NodeState::Deleting,
    }
}
