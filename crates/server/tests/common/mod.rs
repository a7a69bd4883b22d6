//! A real server in this process, and simulated hosts that speak to it over the real HTTP API.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]
#![expect(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod gate;
pub(crate) mod git;
pub(crate) mod job;
pub(crate) mod process;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use toci_client::api::{ApiClient, ClientError, Endpoint, HostMessage, Token};
use toci_server::{Overrides, Running, ServerConfig};
use toci_wire::api::{
    DesiredTe, EnrolRequest, EnrolTokenRequest, HostReport, HostStatus, Lease, LeaseState,
    MachineState, Operation, Role, ServingReport, TeReport, TeReportState, TeTask, TokenRequest,
};

/// Longest wait for anything in these tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A server with everything in a folder of its own.
pub(crate) struct World {
    pub running: Running,
    pub admin: ApiClient,
    pub folder: TempDir,
}

/// Settings for a server in `folder`, on ports that are free: those of its `toci.toml`, when there is one.
pub(crate) fn config(folder: &Path) -> ServerConfig {
    let any = "127.0.0.1:0".parse().unwrap();
    let flags = Overrides {
        state: Some(folder.join("state")),
        listen: Some(any),
        gearman: Some(any),
        ..Overrides::default()
    };
    let file = Some(folder.join("toci.toml")).filter(|file| file.exists());
    ServerConfig::load(file.as_deref(), flags).unwrap()
}

impl World {
    pub(crate) async fn start() -> World {
        let folder = tempfile::tempdir().unwrap();
        let running = toci_server::start(config(folder.path())).await.unwrap();
        World::around(running, folder)
    }

    pub(crate) fn around(running: Running, folder: TempDir) -> World {
        let token = Token::from_file(&running.admin_token_file).unwrap();
        let endpoint = format!("http://{}", running.api[0]).parse().unwrap();
        let admin = ApiClient::new(endpoint, Some(token), None).unwrap();
        World { running, admin, folder }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.admin.server().clone()
    }

    /// A client with a new token.
    pub(crate) async fn client(&self, role: Role, subject: &str) -> ApiClient {
        let request = TokenRequest { role, subject: subject.to_owned(), ttl_s: None };
        let token = self.admin.create_token(&request).await.unwrap();
        self.admin.with_token(Token::new(&token.token).unwrap())
    }

    /// An enrolled host's own client.
    pub(crate) async fn enrol(&self, host: &str) -> ApiClient {
        enrol(&self.admin, host).await.unwrap()
    }
}

pub(crate) async fn enrol(admin: &ApiClient, host: &str) -> Result<ApiClient, ClientError> {
    let request = EnrolTokenRequest { host: None, ttl_s: None };
    let token = admin.create_enrol_token(&request).await?.token;
    let enrolled = admin.enrol(&EnrolRequest { token, host: host.to_owned() }).await?;
    Ok(admin.with_token(Token::new(&enrolled.token).unwrap()))
}

/// A host that does as it is told at once; its machines are figures.
pub(crate) struct SimHost {
    pub name: String,
    pub client: ApiClient,
    tes: BTreeMap<String, Te>,
    sequence: u64,
    boot_id: String,
}

struct Te {
    number: u32,
    generation: u64,
    state: TeReportState,
    /// The server has confirmed that it knows that this generation is served.
    confirmed: bool,
}

impl SimHost {
    pub(crate) fn new(name: &str, client: ApiClient, tes: u32) -> SimHost {
        let te = |number| {
            let state = TeReportState::Clean { generation: 0 };
            (format!("{name}-{number}"), Te { number, generation: 0, state, confirmed: false })
        };
        let boot_id = format!("{name}-boot");
        let tes = (1..=tes).map(te).collect();
        SimHost { name: name.to_owned(), client, tes, sequence: 0, boot_id }
    }

    /// What it has told of a TE's generation.
    pub(crate) fn serving(&self) -> Vec<(String, u64)> {
        let serving = self.tes.iter().filter_map(|(id, te)| match te.state {
            TeReportState::Serving { generation } => Some((id.clone(), generation)),
            TeReportState::Clean { .. }
            | TeReportState::Resetting { .. }
            | TeReportState::Broken { .. } => None,
        });
        serving.collect()
    }

    pub(crate) fn report(&mut self) -> HostReport {
        self.sequence += 1;
        let testenvs = self.tes.iter().map(|(id, te)| TeReport {
            testenv: id.clone(),
            number: te.number,
            shape: "seed-2".to_owned(),
            labels: vec!["devtest".to_owned()],
            state: te.state.clone(),
            machines: vec![MachineState { name: format!("seed_{}", te.number), on: false }],
        });
        HostReport {
            boot_id: self.boot_id.clone(),
            sequence: self.sequence,
            status: HostStatus { version: "sim".to_owned(), ..HostStatus::default() },
            testenvs: testenvs.collect(),
        }
    }

    pub(crate) async fn send_report(&mut self) -> Result<(), ClientError> {
        let report = self.report();
        self.client.report(&self.name, &report).await
    }

    /// Does what is wanted of one TE. An older generation than seen is a bug of the server.
    pub(crate) async fn obey(&mut self, wish: &DesiredTe) -> Result<(), ClientError> {
        let te = self.tes.get_mut(&wish.testenv).unwrap();
        assert!(wish.generation >= te.generation, "an older generation was wanted: {wish:?}");
        te.generation = wish.generation;
        let generation = wish.generation;
        match &wish.task {
            TeTask::Serve { lease, .. } => {
                match te.state {
                    TeReportState::Serving { generation: old } if old == generation => {
                        if te.confirmed {
                            return Ok(());
                        }
                    }
                    TeReportState::Clean { .. } => te.confirmed = false,
                    TeReportState::Serving { .. }
                    | TeReportState::Resetting { .. }
                    | TeReportState::Broken { .. } => {
                        panic!("granted before it was clean: {wish:?}, but {:?}", te.state)
                    }
                }
                te.state = TeReportState::Serving { generation };
                let te_json = serde_json::json!({"ssh-key": format!("key of {lease}")});
                let report = ServingReport { generation, te_json };
                self.client.serving(&self.name, &wish.testenv, &report).await?;
                te.confirmed = true;
                Ok(())
            }
            TeTask::Vacate | TeTask::BurnIn => {
                te.state = TeReportState::Clean { generation };
                self.send_report().await
            }
            TeTask::Quarantine => {
                te.state = TeReportState::Broken { generation, reason: "quarantine".to_owned() };
                self.send_report().await
            }
        }
    }

    /// Lives until it is dropped: stream, reports, reconnects. Operations go to `operate`.
    pub(crate) async fn run(mut self, operate: impl AsyncFn(&ApiClient, &str, Operation)) {
        loop {
            // The server may be away; the loop is the retry.
            if let Err(error) = self.live(&operate).await {
                assert!(error.is_transient() || error.code().is_some(), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn live(
        &mut self,
        operate: &impl AsyncFn(&ApiClient, &str, Operation),
    ) -> Result<(), ClientError> {
        let mut stream = self.client.host_stream(&self.name).await?;
        self.send_report().await?;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            let message = tokio::select! {
                message = stream.next() => message?,
                _ = tick.tick() => {
                    self.send_report().await?;
                    continue;
                }
            };
            match message {
                Some(HostMessage::Desired(desired)) => {
                    for wish in &desired.testenvs {
                        match self.obey(wish).await {
                            // The grant was taken back meanwhile; the next wish says so.
                            Err(error) if error.status().is_some() => {}
                            other => other?,
                        }
                    }
                }
                Some(HostMessage::Operation(operation)) => {
                    operate(&self.client, &self.name, operation).await;
                }
                None => return Ok(()),
            }
        }
    }
}

/// Does nothing with operations.
pub(crate) async fn no_operations(_: &ApiClient, _: &str, _: Operation) {}

/// Follows a lease until `wanted`; the error tells how it stood last.
pub(crate) async fn until(
    client: &ApiClient,
    id: &str,
    wanted: impl Fn(&Lease) -> bool,
) -> Result<Lease, String> {
    let mut last = None;
    let follow = async {
        let mut stream = client.lease_stream(id).await.map_err(|e| e.to_string())?;
        while let Some(lease) = stream.next().await.map_err(|e| e.to_string())? {
            if wanted(&lease) {
                return Ok(lease);
            }
            last = Some(lease);
        }
        Err("the stream ended".to_owned())
    };
    match tokio::time::timeout(LIMIT, follow).await {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(format!("lease {id} did not get there in time; last: {last:?}")),
    }
}

pub(crate) async fn until_state(client: &ApiClient, id: &str, state: LeaseState) -> Lease {
    until(client, id, |lease| lease.state == state).await.unwrap()
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(last) => assert!(begun.elapsed() < LIMIT, "{what} did not happen; last: {last}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
