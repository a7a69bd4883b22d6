//! Puts the parts together.

use super::credential::{self, CredentialError};
use super::operations::{OPERATIONS_MAX, Operations};
use super::reporter::Reporter;
use super::well::Well;
use super::{keeper, link, standalone};
use crate::gateway::GatewayError;
use crate::gateway_port::start_gateway;
use crate::host::{Host, HostError};
use crate::state::{self, StateError};
use crate::te::{TeTaskHandle, incarnation, start_te};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use toci_core::chain::Chain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::sleep;

/// Attempts to get everything in place at the start before the agent gives up (and is started again).
const START_ATTEMPTS: u32 = 5;
const START_PAUSE: Duration = Duration::from_secs(1);
/// Pause between attempts to enrol.
const ENROL_PAUSE: Duration = Duration::from_secs(2);

/// How long commands that leases run on the gateway are waited for before the agent is replaced; then they are cut, and
/// their callers connect anew.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(60);

/// Why the agent could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The host cannot be put in order.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The state folder.
    #[error("state")]
    State(#[from] StateError),
    /// The gateway cannot listen.
    #[error("gateway")]
    Gateway(#[from] GatewayError),
    /// No way to the server.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The runtime.
    #[error("signals")]
    Signals(#[source] std::io::Error),
}

impl AgentError {
    /// The caller's fault: starting again will not help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            AgentError::Host(e) => e.is_refusal(),
            AgentError::Credential(
                CredentialError::NoServer
                | CredentialError::NotEnrolled
                | CredentialError::Endpoint(_),
            ) => true,
            AgentError::State(_)
            | AgentError::Gateway(_)
            | AgentError::Credential(_)
            | AgentError::Signals(_) => false,
        }
    }
}

/// Why a healthy agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM.
    Terminated,
    /// SIGUSR2: the program that is installed now goes on in its place.
    HandOver,
}

/// Runs the agent until SIGTERM or SIGUSR2. Machines go on running when it ends.
pub async fn run_agent(host: Host, alone: bool) -> Result<Ended, AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut hand_over = signal(SignalKind::user_defined2()).map_err(AgentError::Signals)?;
    let well = Arc::new(Well::begin(&host.state)?);
    let host = Arc::new(host);
    if !alone && host.config.server.is_none() {
        return Err(CredentialError::NoServer.into());
    }
    in_place(&host).await?;
    let gateway = start_gateway(&host).await?;
    let incarnation = incarnation()?;
    let mut tes = Vec::new();
    for te in &host.tes {
        tes.push(start_te(&host, &Arc::new(te.clone()), &gateway, &incarnation).await?);
    }
    let (problems_out, problems) = watch::channel(Vec::new());
    tokio::spawn(keeper::keep(Arc::clone(&host), problems_out));
    tracing::info!(host = %host.config.name, tes = tes.len(), "in place");
    if alone {
        for te in tes {
            tokio::spawn(standalone::serve(Arc::clone(&host), te));
        }
        well.tell();
    } else {
        tokio::select! {
            connected = connect(&host, tes, problems, Arc::clone(&well)) => connected?,
            _ = terminate.recv() => return Ok(Ended::Terminated),
            _ = hand_over.recv() => {
                well.makes_way();
                return Ok(Ended::HandOver);
            }
        }
    }
    tokio::select! {
        _ = terminate.recv() => return Ok(Ended::Terminated),
        _ = hand_over.recv() => tracing::info!("making way for the program that is installed now"),
    }
    tokio::select! {
        _ = terminate.recv() => return Ok(Ended::Terminated),
        () = gateway.quiet() => {}
        () = sleep(QUIET_WAIT_MAX) => tracing::warn!("commands of leases still run; they are cut"),
    }
    well.makes_way();
    Ok(Ended::HandOver)
}

async fn in_place(host: &Host) -> Result<(), HostError> {
    host.ready().await?;
    host.prepare_folders()?;
    for _ in 1..START_ATTEMPTS {
        match host.converge().await {
            Ok(_) => return Ok(()),
            Err(e @ HostError::Conflicts(_)) => return Err(e),
            Err(e) => tracing::warn!(error = %Chain(&e), "not in place yet"),
        }
        sleep(START_PAUSE).await;
    }
    host.converge().await.map(drop)
}

async fn connect(
    host: &Arc<Host>,
    tes: Vec<TeTaskHandle>,
    problems: watch::Receiver<Vec<String>>,
    well: Arc<Well>,
) -> Result<(), AgentError> {
    let client = loop {
        match credential::client(&host.config, &host.state).await {
            Ok(client) => break client,
            // The server may be started after us.
            Err(CredentialError::Server(e)) => {
                tracing::warn!(error = %Chain(&e), "cannot enrol yet");
                sleep(ENROL_PAUSE).await;
            }
            Err(e) => return Err(e.into()),
        }
    };
    let reporter = Arc::new(Reporter {
        host: Arc::clone(host),
        tes,
        client,
        problems,
        boot_id: state::random_hex(8)?,
        sequence: AtomicU64::new(0),
        every_s: AtomicU64::new(0),
        news: Notify::new(),
    });
    let operations = Arc::new(Operations {
        reporter: Arc::clone(&reporter),
        running: Semaphore::new(OPERATIONS_MAX),
    });
    reporter.watch();
    tokio::spawn(Arc::clone(&reporter).run(well));
    tokio::spawn(link::listen(reporter, operations));
    Ok(())
}
