//! What happens, in order, and what is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use toci_client::api::{ApiClient, ConsoleNews};
use toci_demo::{
    CHANGES, Gate, GitHost, Process, Proposed, Times, Watch, progress, run_name, seed_address,
};
use toci_wire::api::{Node, NodeState, TeState};
use tokio::sync::mpsc;

use crate::lab::Lab;
use crate::project::{Project, TePort};

/// TE hosts, with one test environment each.
const HOSTS: usize = 2;
/// Nodes, TEs and ports must be there within this.
const READY_LIMIT: Duration = Duration::from_secs(600);
/// The gate must have decided within this: three deployments on two cores without KVM, beside a cloud. A few minutes when
/// nothing else runs on the machine.
const GATE_LIMIT: Duration = Duration::from_secs(2400);
/// Everything must be gone from the cloud within this.
const CLEAN_LIMIT: Duration = Duration::from_secs(600);
/// How long a part may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often everything is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// Lines of consoles on their way to the reader.
const LINES_MAX: usize = 1024;
/// Runs that are asked for beside those that are not over.
const ENDED_RUNS: u32 = 20;

/// The whole story.
pub(crate) async fn tell(folder: &Path, keep: bool, times: &mut Times) -> Result<()> {
    let lab = Lab::open(folder)?;
    let project = zone(&lab, times)?;
    let mut stage = Stage::set(lab, project, times).await?;
    stage.fill(times).await?;
    stage.gate(times).await?;
    if keep {
        stage.go_on();
        return Ok(());
    }
    stage.clear(times).await
}

/// The zone is put into the cloud by its operator.
fn zone(lab: &Lab, times: &mut Times) -> Result<Project> {
    let began = Instant::now();
    lab.write_zone()?;
    let password = lab.write_secrets()?;
    lab.toci(times, &["cloud", "apply", "zone.yaml"], "[")?;
    times.done("zone: project, networks, image", began);
    Project::open(&password)
}

/// A line of a console, with the id of its run.
type Line = (String, String);

/// Everything that runs, and what was told of it.
struct Stage {
    lab: Lab,
    project: Project,
    operator: ApiClient,
    server: Process,
    hosts: Vec<Process>,
    git: GitHost,
    watch: Watch,
    ports: Vec<TePort>,
    /// Consoles that are followed: the run's id, and how it is told.
    consoles: BTreeMap<String, String>,
    lines: (mpsc::Sender<Line>, mpsc::Receiver<Line>),
}

impl Stage {
    /// Starts the control plane, whose pool begins to fill, and the TE hosts.
    async fn set(lab: Lab, project: Project, times: &mut Times) -> Result<Stage> {
        let began = Instant::now();
        let git = lab.git_host()?;
        times.say("$ toci server --config toci.toml &");
        let mut server = lab.start_server()?;
        let operator = lab.connect(&mut server).await?;
        times.done("control plane", began);
        lab.plug_in()?;
        let hosts = (1..=HOSTS).map(|number| lab.start_host(number, times));
        let hosts = hosts.collect::<Result<Vec<_>>>()?;
        Ok(Stage {
            lab,
            project,
            operator,
            server,
            hosts,
            git,
            watch: Watch::default(),
            ports: Vec::new(),
            consoles: BTreeMap::new(),
            lines: mpsc::channel(LINES_MAX),
        })
    }

    /// Waits until nodes, test environments and their ports are there.
    async fn fill(&mut self, times: &mut Times) -> Result<()> {
        let began = Instant::now();
        let (mut first_node, mut all_testenvs) = (false, false);
        loop {
            let nodes = self.look(times).await?;
            let ready = nodes.iter().filter(|node| node.state == NodeState::Ready).count();
            if ready > 0 && !first_node {
                times.done("first node ready", began);
                first_node = true;
            }
            let testenvs = self.operator.testenvs().await?;
            let clean = testenvs.iter().filter(|te| te.state == TeState::Ready).count();
            if clean == HOSTS && !all_testenvs {
                self.ports = self.project.te_ports()?;
                if self.ports.len() == 2 * HOSTS {
                    times.done("TE hosts ready, their ports in Neutron", began);
                    self.tell_ports(times);
                    all_testenvs = true;
                }
            }
            if ready >= 2 && all_testenvs {
                times.done("two nodes ready", began);
                return Ok(());
            }
            if began.elapsed() > READY_LIMIT {
                bail!(
                    "after {READY_LIMIT:?}: {ready} nodes and {clean} test environments are ready, {} of {} ports are there",
                    self.ports.len(),
                    2 * HOSTS
                );
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn tell_ports(&self, times: &Times) {
        times.say("  ports on the test network, by which Neutron's DHCP knows hosts and seeds:");
        for port in &self.ports {
            times.say(&format!("    {:<14} {}  {}", port.name, port.mac, port.address));
        }
    }

    /// Two developers push a change each; the gate tries them.
    async fn gate(&mut self, times: &mut Times) -> Result<()> {
        let began = Instant::now();
        let mut changes = Vec::new();
        for (number, change) in (1..).zip(&CHANGES) {
            let proposed = self.git.propose(number, change)?;
            let about = format!("{}: {}", change.project, change.title);
            times.say(&format!(
                "$ git push origin HEAD:refs/changes/{number:02}/{number}/1    # {about}"
            ));
            changes.push(proposed);
        }
        let [bad, good]: [Proposed; 2] =
            changes.try_into().ok().context("there are two changes")?;
        times.say("a reviewer approves one after the other");
        self.git.approve(&bad)?;
        let mut gate = Gate::new([bad.clone(), good.clone()], GATE_LIMIT);
        loop {
            self.look(times).await?;
            if gate
                .look(&self.operator, times, |c| self.git.approve(c).map_err(anyhow::Error::from))
                .await?
            {
                break;
            }
            tokio::time::sleep(PERIOD).await;
        }
        let merged = [self.git.has_merged(&bad)?, self.git.has_merged(&good)?];
        ensure!(merged == [false, true], "the gate merged the wrong changes: {merged:?}");
        times.done("gate: both changes decided", began);
        Ok(())
    }

    /// Tells what is new, and says which nodes there are.
    async fn look(&mut self, times: &Times) -> Result<Vec<Node>> {
        for process in [&mut self.server].into_iter().chain(&mut self.hosts) {
            process.check()?;
        }
        let runs = self.operator.runs(ENDED_RUNS).await?;
        let nodes = self.operator.nodes().await?;
        let new = self.watch.has_new_server(&nodes);
        let servers = if new { self.project.servers()? } else { BTreeMap::new() };
        let mut lines = self.watch.nodes(&nodes, &runs, &servers);
        lines.extend(self.watch.testenvs(&self.operator.testenvs().await?));
        lines.extend(self.watch.leases(&self.operator.leases(true).await?, &runs));
        for line in lines {
            times.say(&format!("  {line}"));
        }
        for run in runs.iter().filter(|run| run.started_us.is_some() && run.ended_us.is_none()) {
            if !self.consoles.contains_key(&run.id) {
                self.consoles.insert(run.id.clone(), run.subject.clone());
                times.say(&format!("$ toci run console {}    # {}", &run.id[..8], run_name(run)));
                let (operator, lines) = (self.operator.clone(), self.lines.0.clone());
                tokio::spawn(follow(operator, run.id.clone(), lines));
            }
        }
        while let Ok((run, line)) = self.lines.1.try_recv() {
            self.tell_progress(&run, &line, times)?;
        }
        Ok(nodes)
    }

    fn tell_progress(&self, run: &str, line: &str, times: &Times) -> Result<()> {
        let Some(said) = progress(line) else { return Ok(()) };
        let subject = self.consoles.get(run).map_or("", String::as_str);
        times.say(&format!("    {subject} | {said}"));
        if let Some(address) = seed_address(said) {
            let port = self.ports.iter().find(|port| port.address == address);
            let port = port.with_context(|| {
                format!("Neutron has no port with the seed's address {address}")
            })?;
            times.say(&format!(
                "  the seed has {address} from Neutron's DHCP: its port is {}",
                port.name
            ));
        }
        Ok(())
    }

    /// Gives everything back to the cloud, sees to it that nothing of ours is left there, and ends.
    async fn clear(mut self, times: &mut Times) -> Result<()> {
        let began = Instant::now();
        let why = ["provider", "pause", "demo-cloud", "--reason", "the demo is over"];
        self.lab.toci(times, &why, "")?;
        let mut told = BTreeSet::new();
        loop {
            let nodes = self.look(times).await?;
            if nodes.is_empty() {
                break;
            }
            // One that is being built becomes ready first.
            for node in nodes.iter().filter(|node| node.state == NodeState::Ready) {
                if told.insert(node.id.clone()) {
                    self.lab.toci(times, &["node", "delete", &node.id], "")?;
                }
            }
            ensure!(began.elapsed() < CLEAN_LIMIT, "there are still nodes after {CLEAN_LIMIT:?}");
            tokio::time::sleep(PERIOD).await;
        }
        for (number, host) in (1..).zip(std::mem::take(&mut self.hosts)) {
            host.stop(STOP_LIMIT).await;
            let name = format!("tehost{number}");
            self.lab.toci(times, &["host", "remove", &name, "--now", "--forget"], "")?;
        }
        loop {
            self.server.check()?;
            let left = self.project.left()?;
            if left.is_empty() {
                break;
            }
            ensure!(began.elapsed() < CLEAN_LIMIT, "left in the cloud: {}", left.join(", "));
            tokio::time::sleep(PERIOD).await;
        }
        times.say("in the cloud there is no server, no floating IP and no port of ours any more");
        self.server.stop(STOP_LIMIT).await;
        times.done("everything given back", began);
        println!(
            "\nThe demo worked: the gate tried both changes at once, threw the bad one out, tried the good one without it and \
             merged it.\nLogs and consoles of every run: {}\nThe cloud goes down now, and with it everything that runs in it.",
            self.lab.path("archive").display()
        );
        Ok(())
    }

    /// Leaves everything up.
    fn go_on(&self) {
        println!(
            "\nThe demo worked, and everything stays up. `enter` runs a command inside of the cloud's sandbox, as an operator:\n\
             \n  look:    cargo xtask demo-cloud enter toci node list\
             \n           cargo xtask demo-cloud enter toci te list\
             \n           cargo xtask demo-cloud enter toci pipeline show\
             \n           cargo xtask demo-cloud enter openstack --os-cloud admin server list --all-projects\
             \n  zone:    change {}, then\
             \n           cargo xtask demo-cloud enter toci cloud plan {}\
             \n  lease:   cargo xtask demo-cloud enter toci lease run --label devtest -- bash\
             \n  stop:    cargo xtask demo-cloud stop\n",
            self.lab.path("zone.yaml").display(),
            self.lab.path("zone.yaml").display(),
        );
    }
}

/// Sends the lines of a run's console until it is over.
async fn follow(operator: ApiClient, run: String, lines: mpsc::Sender<Line>) {
    let Ok(mut console) = operator.run_console(&run).await else { return };
    while let Ok(Some(ConsoleNews::Text(text))) = console.next().await {
        for line in text.lines() {
            if lines.send((run.clone(), line.to_owned())).await.is_err() {
                return;
            }
        }
    }
}
