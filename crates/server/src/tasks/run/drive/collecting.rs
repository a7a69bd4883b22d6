//! What a run leaves is fetched, the test environment's part first: it is given back as soon as that is done.

use super::super::collect::{self, look};
use super::super::stops::Heed;
use super::Drive;
use futures_util::future::join_all;
use toci_core::log::collect::{Plan, Scene, TestenvView, plan};
use toci_core::pipeline::RunResult;
use toci_core::run::steps::Event;
use toci_edge::node::Session;

impl Drive {
    pub(super) async fn collect(&mut self, verdict: RunResult) -> Event {
        let plan = self.plan(verdict);
        if !self.stops.is_node_lost() {
            self.end_all().await;
        }
        if let Some(view) = plan.testenvs {
            self.look_at_testenvs(view).await;
        }
        self.keep_what_failed().await;
        self.release_testenv("the run is over").await;
        if self.stops.is_node_lost() {
            return Event::NodeLost;
        }
        for note in &plan.notes {
            self.say(note);
        }
        match self.fetch(&plan).await {
            Ok(()) => Event::Collected,
            Err(event) => {
                self.say("the logs could not be fetched from the node in time");
                event
            }
        }
    }

    fn plan(&self, verdict: RunResult) -> Plan {
        let is_over = |tenancy: &super::Tenancy| tenancy.lease.borrow().state.is_over();
        let scene = Scene {
            verdict,
            nodes: self.nodes.iter().map(|node| node.session.is_machine()).collect(),
            holds_testenv: self.tenancy.as_ref().is_some_and(|tenancy| !is_over(tenancy)),
        };
        plan(&self.parts.collection.rules, &scene)
    }

    async fn look_at_testenvs(&mut self, view: TestenvView) {
        let (Some(logs), Some(tenancy)) = (&self.parts.collection.testenvs, &self.tenancy) else {
            return;
        };
        let (logs, lease) = (logs.clone(), tenancy.id);
        for line in logs.collect(lease, &self.folder, view.screens).await {
            self.say(line);
        }
    }

    /// The job's own logs first: they matter most.
    async fn fetch(&mut self, plan: &Plan) -> Result<(), Event> {
        let Some(node) = self.nodes.first() else { return Ok(()) };
        let session = node.session.clone();
        let deadline = self.deadline();
        let work =
            collect::collect(&session, &self.places, &self.wish.job.run.artifacts, &self.folder);
        let mut told = self.stops.or(deadline, Heed::Least, work).await?;
        let sessions: Vec<Session> = self.nodes.iter().map(|node| node.session.clone()).collect();
        let looks = sessions.iter().zip(&plan.nodes).map(|(s, view)| look(s, view, &self.folder));
        let looks = self.stops.or(deadline, Heed::Least, join_all(looks)).await;
        let result = looks.map(|notes| told.extend(notes.into_iter().flatten()));
        for line in told {
            self.say(line);
        }
        result
    }
}
