//! What the server knows of a host, and waiting for it to become so.

use super::story::Story;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output::word;
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, ClientError};
use toci_core::deploy::AtServer;
use toci_wire::api::{Connection, Host, TeState, TestEnv};

/// How often the server is asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for leases to be over: twice the longest lease there is by default.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The host, if the server knows it.
pub(super) async fn host(client: &ApiClient, name: &str) -> Result<Option<Host>> {
    match client.host(name).await {
        Ok(host) => Ok(Some(host)),
        Err(ClientError::Api { status: 404, .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn testenvs(client: &ApiClient, host: &str) -> Result<Vec<TestEnv>> {
    let mut all = client.testenvs().await?;
    all.retain(|te| te.host == host);
    Ok(all)
}

fn is_used(te: &TestEnv) -> bool {
    match te.state {
        TeState::Granted | TeState::Leased | TeState::Held => true,
        TeState::Unknown
        | TeState::Ready
        | TeState::Resetting
        | TeState::BurnIn
        | TeState::Quarantined => te.lease.is_some(),
    }
}

/// What a plan wants to know.
pub(super) async fn at_server(client: &ApiClient, name: &str) -> Result<AtServer> {
    if host(client, name).await?.is_none() {
        return Ok(AtServer::default());
    }
    let all = testenvs(client, name).await?;
    let in_use = all.into_iter().filter(is_used).map(|te| te.id).collect();
    Ok(AtServer { is_enrolled: true, in_use })
}

/// Leases that use the host.
pub(super) async fn leases(client: &ApiClient, name: &str) -> Result<Vec<String>> {
    let all = testenvs(client, name).await?;
    let mut leases: Vec<String> = all.into_iter().filter_map(|te| te.lease).collect();
    leases.sort();
    leases.dedup();
    Ok(leases)
}

/// Grants nothing more on it and waits until nobody uses it; as before when that does not come. Whether it has to be
/// undrained again.
pub(super) async fn drain(client: &ApiClient, name: &str, story: &mut Story) -> Result<bool> {
    let was_draining = host(client, name).await?.is_some_and(|h| h.draining);
    client.drain_host(name).await?;
    if !was_draining {
        story.tell(&format!("draining; when this is interrupted: toci host undrain {name}"));
    }
    let free = free(client, name, DRAIN_WAIT_MAX, story).await;
    if free.is_err() && !was_draining {
        client.undrain_host(name).await?;
    }
    free.map(|()| !was_draining)
}

/// Waits until nobody uses it.
pub(super) async fn free(
    client: &ApiClient,
    name: &str,
    limit: Duration,
    story: &mut Story,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        let in_use = at_server(client, name).await?.in_use;
        if in_use.is_empty() {
            return Ok(());
        }
        let state = format!("waiting for the leases of {}", in_use.join(", "));
        story.tell(&state);
        too_long(begin, limit, name, &state)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until it is connected and every TE of it is ready or in use; how many there are.
pub(super) async fn ready(
    client: &ApiClient,
    name: &str,
    limit: Duration,
    story: &mut Story,
) -> Result<usize> {
    let begin = Instant::now();
    loop {
        let is_there =
            host(client, name).await?.is_some_and(|h| h.connection == Connection::Connected);
        let all = testenvs(client, name).await?;
        let pending: Vec<String> = all
            .iter()
            .filter(|te| te.state != TeState::Ready && !is_used(te))
            .map(|te| format!("{} {} {}", te.id, word(&te.state), te.reason).trim().to_owned())
            .collect();
        if is_there && pending.is_empty() && !all.is_empty() {
            story.tell(&format!("connected, {} test environments ready or in use", all.len()));
            return Ok(all.len());
        }
        let there = if is_there { "connected" } else { "not connected" };
        let state = match pending.is_empty() {
            true => format!("{there}, {} test environments", all.len()),
            false => format!("{there}, waiting for {}", pending.join(", ")),
        };
        story.tell(&state);
        too_long(begin, limit, name, &state)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn too_long(begin: Instant, limit: Duration, name: &str, state: &str) -> Result<()> {
    if begin.elapsed() < limit {
        return Ok(());
    }
    let message = format!("{name} is not there after {} s: {state}", limit.as_secs());
    Err(CliError::new(Exit::Failed, message, "`toci host show` and `toci te show` say more"))
}
