//! Our server under load.

use crate::figures::Figures;
use crate::hosts;
use anyhow::{Context as _, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Token};
use toci_wire::api::{Lease, LeaseRequest, LeaseState, Release, Role, TokenRequest};

const HOSTS: u32 = 100;
const TES: u32 = 10;
const READY_LIMIT: Duration = Duration::from_secs(60);

fn connect(address: &str, token: &str) -> Result<ApiClient> {
    let endpoint = format!("http://{address}").parse()?;
    Ok(ApiClient::new(endpoint, Some(Token::from_file(Path::new(token))?), None)?)
}

async fn client_of(operator: &ApiClient, subject: &str) -> Result<Token> {
    let question =
        TokenRequest { role: Role::Client, subject: subject.to_owned(), ttl_s: Some(3600) };
    Ok(Token::new(&operator.create_token(&question).await?.token)?)
}

async fn until_known(operator: &ApiClient, tes: usize) -> Result<()> {
    let end = Instant::now() + READY_LIMIT;
    while operator.testenvs().await?.len() < tes {
        anyhow::ensure!(Instant::now() < end, "the simulated hosts did not come up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How long one call may wait for its lease, as etcd's lock call does; later it is followed by its stream.
const WAIT_S: u64 = 20;

/// Asks and waits until it has it.
async fn take(client: &ApiClient, label: &str) -> Result<Lease> {
    let request = LeaseRequest {
        label: Some(label.to_owned()),
        project: Some("bench".to_owned()),
        ..LeaseRequest::default()
    };
    let lease = client.request_lease_within(&request, WAIT_S).await?;
    if lease.state == LeaseState::Active {
        return Ok(lease);
    }
    let mut stream = client.lease_stream(&lease.id).await?;
    while let Some(lease) = stream.next().await? {
        if lease.state == LeaseState::Active {
            return Ok(lease);
        }
        anyhow::ensure!(!lease.state.is_over(), "{} ended: {}", lease.id, lease.reason);
    }
    anyhow::bail!("the stream of {} ended", lease.id)
}

/// Clients that take and give back, on 1,000 TEs.
pub(crate) async fn cycles(address: &str, token: &str, clients: usize, seconds: u64) -> Result<()> {
    let operator = connect(address, token)?;
    for n in 0..HOSTS {
        hosts::start(&operator, &format!("bench{n}"), "bench", TES).await?;
    }
    until_known(&operator, (HOSTS * TES) as usize).await?;
    let token = client_of(&operator, "bench").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = tokio::task::JoinSet::new();
    let started = Instant::now();
    for _ in 0..clients {
        // Each its own connections, as separate programs would have.
        let client = operator.with_token(token.clone());
        let stop = stop.clone();
        running.spawn(async move {
            let mut times = vec![];
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let lease = take(&client, "bench").await?;
                times.push(asked.elapsed());
                client.release(&lease.id, &Release::default()).await?;
            }
            Ok::<_, anyhow::Error>(times)
        });
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = vec![];
    for result in running.join_all().await {
        times.extend(result?);
    }
    Figures::of(times, started.elapsed()).print()
}

/// One TE that many want: from a holder's giving back to the next one's having.
pub(crate) async fn handover(address: &str, token: &str, times: usize) -> Result<()> {
    const WAITERS: usize = 10;
    let operator = connect(address, token)?;
    hosts::start(&operator, "solo", "solo", 1).await?;
    until_known(&operator, 1).await?;
    let token = client_of(&operator, "solo").await?;
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    for _ in 0..WAITERS {
        let (client, tell) = (operator.with_token(token.clone()), tell.clone());
        tokio::spawn(async move {
            loop {
                let lease = take(&client, "solo").await?;
                let had = Instant::now();
                let given_back = Instant::now();
                client.release(&lease.id, &Release::default()).await?;
                let generation = lease.testenvs.first().map_or(0, |te| te.generation);
                if tell.send((generation, had, given_back)).await.is_err() {
                    return Ok::<_, anyhow::Error>(());
                }
            }
        });
    }
    let started = Instant::now();
    let mut turns = vec![];
    while turns.len() <= times {
        turns.push(told.recv().await.context("the clients ended")?);
    }
    // They tell after giving back, so perhaps not in the order of their turns.
    turns.sort_by_key(|(generation, _, _)| *generation);
    let gaps = turns
        .windows(2)
        .filter(|pair| pair[0].0 + 1 == pair[1].0)
        .map(|pair| pair[1].1.duration_since(pair[0].2))
        .collect();
    Figures::of(gaps, started.elapsed()).print()
}

/// A holder that dies: from its last sign of life to the next one's having.
pub(crate) async fn reclaim(address: &str, token: &str) -> Result<()> {
    let operator = connect(address, token)?;
    hosts::start(&operator, "solo", "solo", 1).await?;
    until_known(&operator, 1).await?;
    let token = client_of(&operator, "solo").await?;
    let holder = operator.with_token(token.clone());
    let lease = take(&holder, "solo").await?;
    let next = operator.with_token(token);
    let waiting = tokio::spawn(async move { take(&next, "solo").await });
    holder.heartbeat(&lease.id).await?;
    let died = Instant::now();
    drop(holder);
    waiting.await??;
    let took = died.elapsed();
    Figures::of(vec![took], took).print()
}
