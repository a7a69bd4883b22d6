//! The test environment of a run: asked for before anything runs, kept with heartbeats, given back before logs are
//! archived.

use super::LEASE_OWNER;
use super::environment::Places;
use crate::tasks::lease::{BookError, LeaseBook};
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{LeaseId, Project};
use toci_core::layout::{Precedence, TestenvWish};
use toci_core::pipeline::RunWish;
use toci_core::run::variables::{Variables, project};
use toci_edge::node::{Session, SessionError};
use toci_wire::api::{Lease, LeaseRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a lease lasts longer than the job and its post scripts may.
const MARGIN: Duration = Duration::from_secs(120);
/// Longest purpose, as the book takes it, in characters.
const PURPOSE_MAX_CHARS: usize = 200;

/// A lease that this run has asked for. It is given back by [`Tenancy::release`]; if that never comes, its missing
/// heartbeats end it.
#[derive(Debug)]
pub(super) struct Tenancy {
    pub(super) id: LeaseId,
    pub(super) lease: watch::Receiver<Arc<Lease>>,
    book: LeaseBook,
    heartbeats: JoinHandle<()>,
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.heartbeats.abort();
    }
}

/// The request of a run.
pub(super) fn request(wish: &RunWish, te: &TestenvWish, lease_max: Duration) -> LeaseRequest {
    let run = &wish.job.run;
    let length = (run.timeout + run.post_timeout + MARGIN).min(lease_max);
    let mut purpose = format!("run {} of {}", wish.run, wish.job.name);
    if purpose.chars().count() > PURPOSE_MAX_CHARS {
        purpose = purpose.chars().take(PURPOSE_MAX_CHARS).collect();
    }
    purpose.retain(|c| !c.is_control());
    LeaseRequest {
        label: te.label.as_ref().map(ToString::to_string),
        shape: te.shape.as_ref().map(ToString::to_string),
        count: Some(te.count),
        project: Some(fairness(wish)),
        priority: Some(match wish.precedence {
            Precedence::High => 70,
            Precedence::Normal => 50,
            Precedence::Low => 30,
        }),
        timeout_s: Some(length.as_secs().max(1)),
        wait_timeout_s: None,
        purpose: Some(purpose),
        // A run that was put back asks anew, for another lease.
        idempotency_key: None,
    }
}

/// The project by which leases are shared fairly; its name there is stricter than git's.
fn fairness(wish: &RunWish) -> String {
    let name = project(wish).map_or("none", |p| p.short());
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .take(toci_core::id::NAME_MAX_BYTES)
        .collect();
    if Project::new(plain.as_str()).is_ok() { plain } else { format!("p{plain}") }
}

impl Tenancy {
    /// Asks; the answer may have to be waited for.
    pub(super) async fn ask(book: &LeaseBook, request: LeaseRequest) -> Result<Tenancy, BookError> {
        let lease = book.request_and_follow(LEASE_OWNER, request).await?;
        let (text, every) = {
            let lease = lease.borrow();
            (lease.id.clone(), Duration::from_secs(lease.heartbeat_s.max(1)))
        };
        let id: LeaseId = text.parse().map_err(|_| BookError::Stopped)?;
        let heartbeats = tokio::spawn(beat(book.clone(), id, lease.clone(), every));
        Ok(Tenancy { id, lease, book: book.clone(), heartbeats })
    }

    /// Returns when it is there, or will never be. Safe to cancel.
    pub(super) async fn settled(&mut self, mut waits: impl FnMut(&Lease)) -> Result<(), String> {
        loop {
            {
                let lease = self.lease.borrow_and_update();
                if lease.state == toci_wire::api::LeaseState::Active {
                    return Ok(());
                }
                if lease.state.is_over() {
                    return Err(self::end(&lease));
                }
                waits(&lease);
            }
            if self.lease.changed().await.is_err() {
                return Err("the lease task has ended".to_owned());
            }
        }
    }

    /// Writes the TE JSON to the node; the variables that say where, and what must not be seen.
    pub(super) async fn put(
        &self,
        session: &Session,
        places: &Places,
    ) -> Result<(Variables, Vec<String>), PutError> {
        let mut paths = Vec::new();
        let mut secrets = Vec::new();
        for te in self.book.lease_testenvs(self.id).await? {
            let path = format!("{}/te-{}.json", places.control, te.testenv);
            let mut text = serde_json::to_vec_pretty(&te.te_json).unwrap_or_default();
            text.push(b'\n');
            session.put(&path, &text, 0o600).await?;
            paths.push(path);
            if let Some(key) = te.te_json.get("ssh-key").and_then(|k| k.as_str()) {
                secrets.push(key.to_owned());
            }
        }
        let mut out = Variables::new();
        if let Some(first) = paths.first() {
            out.push(("TE_DATAFILE".to_owned(), first.clone()));
        }
        out.push(("TE_DATAFILES".to_owned(), paths.join(":")));
        out.push(("TOCI_LEASE".to_owned(), self.id.to_string()));
        Ok((out, secrets))
    }

    /// Gives it back.
    pub(super) async fn release(self, why: &str) {
        release(&self.book, self.id, why).await;
    }

    /// Keeps it for people to look at: it needs no signs of life any more.
    pub(super) async fn hold(&self, length: Duration, why: &str) -> Result<(), BookError> {
        self.book.hold(self.id, length.as_secs(), why.to_owned()).await.map(drop)
    }

    /// How it stands, for people.
    pub(super) fn end(&self) -> String {
        end(&self.lease.borrow())
    }
}

/// The TE's data could not be put on the node.
#[derive(Debug, thiserror::Error)]
pub(super) enum PutError {
    /// The lease is over, or the book does not answer.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The node.
    #[error(transparent)]
    Node(#[from] SessionError),
}

/// Gives a lease back, whoever asked for it, unless it is held.
pub(super) async fn release(book: &LeaseBook, id: LeaseId, why: &str) {
    if let Ok(lease) = book.lease(id).await
        && lease.state == toci_wire::api::LeaseState::Held
    {
        // Somebody looks at it; its end is known.
        return;
    }
    if let Err(error) = book.release(id, why.to_owned()).await {
        // Without heartbeats it ends by itself.
        tracing::warn!(lease = %id, %error, "a run's lease could not be given back");
    }
}

fn end(lease: &Lease) -> String {
    let state = serde_json::to_value(lease.state).ok();
    let state = state.as_ref().and_then(|s| s.as_str()).unwrap_or("over").to_owned();
    format!("lease {} is {state}: {}", lease.id, lease.reason)
}

/// Signs of life, from the moment it is there: one who waits needs none.
async fn beat(book: LeaseBook, id: LeaseId, lease: watch::Receiver<Arc<Lease>>, every: Duration) {
    let mut seen = lease.clone();
    let begun =
        seen.wait_for(|l| l.state == toci_wire::api::LeaseState::Active || l.state.is_over());
    if begun.await.is_err() {
        return;
    }
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if lease.borrow().state.is_over() {
            return;
        }
        match book.heartbeat(id).await {
            Ok(_) => {}
            Err(BookError::Refused(_) | BookError::Stopped) => return,
            Err(error @ BookError::Failed(_)) => {
                tracing::warn!(lease = %id, %error, "a heartbeat was not taken");
            }
        }
    }
}
