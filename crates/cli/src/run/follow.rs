//! What the server says of a lease, and the heartbeats; both go on while the server is away.

use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Backoff, ClientError};
use toci_wire::api::{Lease, LeaseState};
use tokio::sync::mpsc::Sender;

/// News that may wait to be looked at. Only the newest matters, so a small number is enough.
pub(super) const NEWS_QUEUE: usize = 16;

/// Longest wait for the answer to a heartbeat; the next one is due soon.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(3);

/// What a follower tells.
#[derive(Debug)]
pub(super) enum News {
    /// The lease as it is now.
    Lease(Box<Lease>),
    /// The server does not answer since.
    Away(Instant, String),
    /// The server answers, and says no.
    Disowned(ClientError),
}

/// Follows the lease's stream until it is over or nobody listens.
pub(super) async fn stream(client: ApiClient, id: String, news: Sender<News>) {
    let mut backoff = Backoff::new();
    let mut away_since = None;
    loop {
        let error = match follow_once(&client, &id, &news, &mut backoff, &mut away_since).await {
            Ok(true) => return,
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            if !error.is_transient() {
                let _ = news.send(News::Disowned(error)).await;
                return;
            }
            let since = *away_since.get_or_insert_with(Instant::now);
            if news.send(News::Away(since, error.to_string())).await.is_err() {
                return;
            }
        }
        backoff.wait().await;
    }
}

/// One connection's worth; true when there is nothing more to follow.
async fn follow_once(
    client: &ApiClient,
    id: &str,
    news: &Sender<News>,
    backoff: &mut Backoff,
    away_since: &mut Option<Instant>,
) -> Result<bool, ClientError> {
    let mut stream = client.lease_stream(id).await?;
    while let Some(lease) = stream.next().await? {
        backoff.reset();
        *away_since = None;
        let over = lease.state.is_over();
        if news.send(News::Lease(Box::new(lease))).await.is_err() || over {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sends heartbeats until the lease is over or nobody listens. They are sent while waiting too, so that nothing is
/// granted to a client that has died.
pub(super) async fn heartbeats(
    client: ApiClient,
    id: String,
    period: Duration,
    news: Sender<News>,
) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !news.is_closed() {
        ticks.tick().await;
        match tokio::time::timeout(HEARTBEAT_LIMIT, client.heartbeat(&id)).await {
            Ok(Ok(lease)) => {
                let over = lease.state.is_over();
                // A full queue means that newer news waits already.
                if news.try_send(News::Lease(Box::new(lease))).is_err() && news.is_closed() || over
                {
                    return;
                }
            }
            // The stream tells how the lease ended, and whether the server is away.
            Ok(Err(error)) => tracing::debug!(error = %error, "heartbeat"),
            Err(_) => tracing::debug!("no answer to a heartbeat"),
        }
    }
}

/// When a lease ends by our own clock: `left_s` counted from now. None while it waits, and after its end.
pub(super) fn own_deadline(lease: &Lease, now: Instant) -> Option<Instant> {
    match lease.state {
        LeaseState::Active | LeaseState::Held => {
            lease.left_s.map(|left| now + Duration::from_secs(left.saturating_add(1)))
        }
        LeaseState::Waiting
        | LeaseState::Granted
        | LeaseState::Released
        | LeaseState::Expired
        | LeaseState::Lost
        | LeaseState::Revoked
        | LeaseState::Refused => None,
    }
}
