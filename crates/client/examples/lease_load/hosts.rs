//! Simulated TE hosts over the real host link: they confirm a grant at once and are clean at once,
//! so that the server is measured and not a reset.

use anyhow::{Context as _, Result};
use std::time::Duration;
use toci_client::api::{ApiClient, HostMessage, Token};
use toci_wire::api::{
    DesiredTe, EnrolRequest, EnrolTokenRequest, HostReport, HostStatus, ServingReport, TeReport,
    TeReportState, TeTask,
};

/// As long as a real TE JSON with five machines.
const TE_JSON_BYTES: usize = 2_500;
const REPORT_EVERY: Duration = Duration::from_secs(4);

/// Enrols a host and serves it from a task of its own.
pub(crate) async fn start(operator: &ApiClient, name: &str, label: &str, tes: u32) -> Result<()> {
    let question = EnrolTokenRequest { host: Some(name.to_owned()), ttl_s: None };
    let token = operator.create_enrol_token(&question).await?.token;
    let enrolled = operator.enrol(&EnrolRequest { token, host: name.to_owned() }).await?;
    let client = operator.with_token(Token::new(&enrolled.token)?);
    let host = Host {
        client,
        name: name.to_owned(),
        label: label.to_owned(),
        states: (0..tes).map(|_| TeReportState::Clean { generation: 0 }).collect(),
        sequence: 0,
    };
    tokio::spawn(async move {
        if let Err(e) = host.run().await {
            eprintln!("a simulated host ended: {e:#}");
        }
    });
    Ok(())
}

struct Host {
    client: ApiClient,
    name: String,
    label: String,
    states: Vec<TeReportState>,
    sequence: u64,
}

impl Host {
    async fn run(mut self) -> Result<()> {
        let mut stream = self.client.host_stream(&self.name).await?;
        let mut tick = tokio::time::interval(REPORT_EVERY);
        loop {
            tokio::select! {
                message = stream.next() => match message?.context("the stream ended")? {
                    HostMessage::Desired(wish) => {
                        let before = self.states.clone();
                        let grants: Vec<DesiredTe> =
                            wish.testenvs.into_iter().filter(|te| self.take_up(te)).collect();
                        let confirms = grants.iter().map(|te| self.confirm(te));
                        futures_util::future::join_all(confirms).await;
                        // A grant is told by its confirmation; what else became of a TE needs a report.
                        let other = |(old, new): (&TeReportState, &TeReportState)| {
                            old != new && !matches!(new, TeReportState::Serving { .. })
                        };
                        if before.iter().zip(&self.states).any(other) {
                            self.report().await?;
                        }
                    }
                    HostMessage::Operation(_) => {}
                },
                _ = tick.tick() => self.report().await?,
            }
        }
    }

    /// Does what is wanted of one TE; says whether it is a new grant.
    fn take_up(&mut self, te: &DesiredTe) -> bool {
        let number = te.testenv.rsplit_once('-').and_then(|(_, n)| n.parse::<usize>().ok());
        let Some(state) = number.and_then(|n| self.states.get_mut(n.wrapping_sub(1))) else {
            return false;
        };
        let generation = te.generation;
        let before = state.clone();
        *state = match te.task {
            TeTask::Serve { .. } => TeReportState::Serving { generation },
            TeTask::Vacate | TeTask::BurnIn | TeTask::Quarantine => {
                TeReportState::Clean { generation }
            }
        };
        matches!(state, TeReportState::Serving { .. }) && *state != before
    }

    async fn confirm(&self, te: &DesiredTe) {
        let te_json =
            serde_json::json!({"env-num": te.testenv, "ssh-key": "k".repeat(TE_JSON_BYTES)});
        let report = ServingReport { generation: te.generation, te_json };
        // A grant whose client has gone already is refused; the next wish says so.
        let _ = self.client.serving(&self.name, &te.testenv, &report).await;
    }

    async fn report(&mut self) -> Result<()> {
        self.sequence += 1;
        let testenvs = self.states.iter().zip(1..).map(|(state, number)| TeReport {
            testenv: format!("{}-{number}", self.name),
            number,
            shape: "seed-2".to_owned(),
            labels: vec![self.label.clone()],
            state: state.clone(),
            machines: vec![],
        });
        let report = HostReport {
            boot_id: self.name.clone(),
            sequence: self.sequence,
            status: HostStatus::default(),
            testenvs: testenvs.collect(),
        };
        self.client.report(&self.name, &report).await?;
        Ok(())
    }
}
