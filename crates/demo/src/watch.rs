//! Tells what nodes, test environments, leases and runs do, from what the API lists: pure, so that it can be tested.

use std::collections::BTreeMap;

use toci_wire::api::{Lease, Node, NodeState, Run, TestEnv};

/// Digits of a run's id that are enough to know it by.
const SHORT_ID: usize = 8;

/// What was told so far.
#[derive(Debug, Default)]
pub struct Watch {
    nodes: BTreeMap<String, (NodeState, String)>,
    testenvs: BTreeMap<String, String>,
    leases: BTreeMap<String, String>,
}

impl Watch {
    /// Whether a node has become ready since it was told: then the addresses of servers are of interest.
    pub fn has_new_server(&self, nodes: &[Node]) -> bool {
        let told =
            |node: &&Node| self.nodes.get(&node.id).is_some_and(|(state, _)| *state == node.state);
        nodes.iter().filter(|node| node.state == NodeState::Ready).any(|node| !told(&node))
    }

    /// Lines for what is new of nodes. `servers`: the addresses of each one's server, by its name.
    pub fn nodes(
        &mut self,
        nodes: &[Node],
        runs: &[Run],
        servers: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for node in nodes {
            let state = node.state;
            let told = self.nodes.insert(node.id.clone(), (state, node.name.clone()));
            if told.is_some_and(|(before, _)| before == state) {
                continue;
            }
            let name = &node.id;
            match state {
                NodeState::Building => {
                    lines.push(format!("node {name}: the cloud is asked for server {}", node.name));
                }
                NodeState::Testing => {
                    let address = node.address.as_deref().unwrap_or("its address");
                    lines.push(format!("node {name}: answers over SSH at {address}"));
                }
                NodeState::Ready => {
                    let has = servers.get(&node.name).map_or("no addresses", String::as_str);
                    lines.push(format!("node {name}: ready ({has})"));
                }
                NodeState::InUse => {
                    let run = runs.iter().find(|run| node.run.as_ref() == Some(&run.id));
                    let whose =
                        run.map_or_else(String::new, |run| format!(" by {}", run_name(run)));
                    lines.push(format!("node {name}: in use{whose}"));
                }
                NodeState::Deleting => {
                    lines.push(format!("node {name}: its server {} is deleted", node.name));
                }
                NodeState::Handing | NodeState::Held => {}
            }
        }
        let gone: Vec<String> =
            self.nodes.keys().filter(|id| !nodes.iter().any(|n| n.id == **id)).cloned().collect();
        for id in gone {
            let (_, server) =
                self.nodes.remove(&id).unwrap_or((NodeState::Deleting, String::new()));
            lines.push(format!("node {id}: server {server} is gone from the cloud"));
        }
        lines
    }

    /// Lines for what is new of test environments.
    pub fn testenvs(&mut self, testenvs: &[TestEnv]) -> Vec<String> {
        let mut lines = Vec::new();
        for te in testenvs {
            let state = word(&te.state);
            if self.testenvs.get(&te.id) != Some(&state) {
                let why =
                    if te.reason.is_empty() { String::new() } else { format!(": {}", te.reason) };
                let whose =
                    te.lease.as_ref().map_or_else(String::new, |lease| format!(" ({lease})"));
                lines.push(format!("test environment {}: {state}{whose}{why}", te.id));
                self.testenvs.insert(te.id.clone(), state);
            }
        }
        lines
    }

    /// Lines for what is new of leases.
    pub fn leases(&mut self, leases: &[Lease], runs: &[Run]) -> Vec<String> {
        let mut lines = Vec::new();
        for lease in leases {
            let state = word(&lease.state);
            if self.leases.get(&lease.id) == Some(&state) {
                continue;
            }
            let run = runs.iter().find(|run| run.lease.as_ref() == Some(&lease.id));
            let whose = run.map_or_else(String::new, |run| format!(" for {}", run_name(run)));
            let tes: Vec<&str> = lease.testenvs.iter().map(|te| te.testenv.as_str()).collect();
            let what =
                if tes.is_empty() { String::new() } else { format!(" of {}", tes.join(", ")) };
            lines.push(format!("lease {}{what}{whose}: {state}", lease.id));
            self.leases.insert(lease.id.clone(), state);
        }
        lines
    }
}

/// `devtest of 2,1 (run 0f3a…)`.
pub fn run_name(run: &Run) -> String {
    format!("{} of {} (run {})", run.job, run.subject, &run.id[..run.id.len().min(SHORT_ID)])
}

/// The word by which the API tells a state.
fn word(state: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(state).unwrap_or_default();
    value.as_str().unwrap_or_default().replace('_', " ")
}

/// What the deployment says of its progress, from a line of a console: `<time> | [  12.3 s] == seed`.
pub fn progress(line: &str) -> Option<&str> {
    let (_, said) = line.split_once(" | ")?;
    let told = said.starts_with('[').then_some(said)?;
    // Signs of life, and what is only of interest when somebody reads the whole.
    let noise = [" s left", "logs of ", " MiB  /", "under test:", "copyseed: "];
    (!noise.iter().any(|word| told.contains(word))).then(|| told.trim_end())
}

/// The address of a seed that called back, from what the deployment said.
pub fn seed_address(progress: &str) -> Option<&str> {
    let (_, rest) = progress.split_once("] seed ")?;
    let (address, _) = rest.split_once(" called back ")?;
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: NodeState) -> Node {
        Node {
            id: "N1".into(),
            name: "devtest-node-demo-cloud-1".into(),
            label: "devtest-node".into(),
            provider: "demo-cloud".into(),
            state,
            since_us: 0,
            address: Some("203.0.113.105".into()),
            run: None,
            job: String::new(),
            hold_until_us: None,
            overdue: false,
            reason: String::new(),
        }
    }

    #[test]
    fn a_node_is_told_once_for_each_state_and_when_it_is_gone() {
        let servers = BTreeMap::from([(
            "devtest-node-demo-cloud-1".to_owned(),
            "nodes 198.51.100.7 and 203.0.113.105".to_owned(),
        )]);
        let mut watch = Watch::default();
        for (states, expected) in [
            (
                vec![NodeState::Building],
                "node N1: the cloud is asked for server devtest-node-demo-cloud-1",
            ),
            (vec![NodeState::Testing], "node N1: answers over SSH at 203.0.113.105"),
            (vec![NodeState::Ready], "node N1: ready (nodes 198.51.100.7 and 203.0.113.105)"),
            (vec![], "node N1: server devtest-node-demo-cloud-1 is gone from the cloud"),
        ] {
            let nodes: Vec<Node> = states.into_iter().map(node).collect();
            assert_eq!(watch.nodes(&nodes, &[], &servers), [expected]);
            assert!(watch.nodes(&nodes, &[], &servers).is_empty());
        }
    }

    #[test]
    fn progress_of_a_deployment_is_told_from_the_rest_of_a_console() {
        let line = |text: &str| format!("2026-11-26T13:00:00.000001Z | {text}");
        let said = line("[   12.3 s] seed 198.18.1.21 called back 4.20 s after its kernel's start");
        let told = progress(&said).unwrap();
        assert_eq!(seed_address(told), Some("198.18.1.21"));
        assert_eq!(seed_address("[   12.3 s] == seed"), None);
        for other in [
            "toci: begins",
            "[  9.0 s] waiting for the seed's callback, 470 s left",
            "[  9.0 s] gateway: copyseed: 2 MiB, 1.1 MB/s",
            "[  9.0 s] base       1.1 MiB  /home/toci/workspace/cache/base.img",
        ] {
            assert_eq!(progress(&line(other)), None, "{other}");
        }
    }
}
