//! Operations that only a host can do: the way of a request to its host and of the answer back.
//!
//! ```text
//! caller ──request──▶ Relay::start ──Operation on the host's stream──▶ host
//! caller ◀─answer─── Ticket ◀── POST result | POST output (bytes) | GET input (bytes) ──┘
//! ```
//!
//! Bytes are never kept here: the body of the one's request becomes the body of the other's answer, so whoever
//! reads slowly slows the sender. A ticket that is dropped (its caller left) forgets the operation.

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use toci_core::id::{HostId, TeId};
use toci_wire::api::{Operation, OperationKind, OperationResult};
use tokio::sync::{mpsc, oneshot};

/// Most operations of one host under way.
pub(crate) const OPERATIONS_PER_HOST_MAX: usize = 64;

/// Why an operation does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RelayError {
    /// The host is not there.
    #[error("the host {0} is not connected")]
    HostGone(HostId),
    /// The host has enough to do.
    #[error("{OPERATIONS_PER_HOST_MAX} operations are under way on the host {0}")]
    HostBusy(HostId),
    /// Its caller has left, or has its answer already.
    #[error("nobody waits for the operation {0}")]
    NobodyWaits(String),
}

/// How an operation is answered.
pub(crate) enum Answer {
    /// With a result.
    Result(OperationResult),
    /// With bytes.
    Output(Body),
    /// Not at all: the host's stream was lost.
    HostGone,
}

struct Pending {
    host: HostId,
    answer: oneshot::Sender<Answer>,
    input: Option<Body>,
}

struct Link {
    number: u64,
    orders: mpsc::Sender<Operation>,
}

#[derive(Default)]
struct State {
    links_made: u64,
    links: HashMap<HostId, Link>,
    pending: HashMap<String, Pending>,
}

/// The operations under way and the hosts' streams.
#[derive(Default)]
pub(crate) struct Relay {
    state: Mutex<State>,
}

/// A host's side of the relay; dropping it tells waiting callers that the host is gone.
pub(crate) struct HostLink {
    relay: Arc<Relay>,
    host: HostId,
    number: u64,
    pub(crate) orders: mpsc::Receiver<Operation>,
}

/// A caller's side of one operation.
pub(crate) struct Ticket {
    relay: Arc<Relay>,
    id: String,
    pub(crate) answer: oneshot::Receiver<Answer>,
}

impl Relay {
    /// A host's stream is open. An older one of the same host gets nothing any more and ends.
    pub(crate) fn connect(self: &Arc<Self>, host: &HostId) -> HostLink {
        let (orders, receiver) = mpsc::channel(OPERATIONS_PER_HOST_MAX);
        let mut state = self.lock();
        state.links_made += 1;
        let number = state.links_made;
        state.links.insert(host.clone(), Link { number, orders });
        HostLink { relay: self.clone(), host: host.clone(), number, orders: receiver }
    }

    /// Sends an operation to its host.
    pub(crate) fn start(
        self: &Arc<Self>,
        host: &HostId,
        te: &TeId,
        generation: u64,
        kind: OperationKind,
        input: Option<Body>,
    ) -> Result<Ticket, RelayError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (sender, answer) = oneshot::channel();
        let operation = Operation { id: id.clone(), testenv: te.to_string(), generation, kind };
        let mut state = self.lock();
        if state.pending.values().filter(|p| p.host == *host).count() >= OPERATIONS_PER_HOST_MAX {
            return Err(RelayError::HostBusy(host.clone()));
        }
        let gone = || RelayError::HostGone(host.clone());
        let link = state.links.get(host).ok_or_else(gone)?;
        match link.orders.try_send(operation) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(RelayError::HostBusy(host.clone()));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(gone()),
        }
        let pending = Pending { host: host.clone(), answer: sender, input };
        state.pending.insert(id.clone(), pending);
        Ok(Ticket { relay: self.clone(), id, answer })
    }

    /// The host answers.
    pub(crate) fn answer(&self, host: &HostId, id: &str, answer: Answer) -> Result<(), RelayError> {
        let pending = {
            let mut state = self.lock();
            match state.pending.get(id) {
                Some(pending) if pending.host == *host => state.pending.remove(id),
                Some(_) | None => None,
            }
        };
        match pending {
            Some(pending) => pending.answer.send(answer).map_err(|_| nobody_waits(id)),
            None => Err(nobody_waits(id)),
        }
    }

    /// The host fetches the bytes that belong to an operation; once only.
    pub(crate) fn input(&self, host: &HostId, id: &str) -> Result<Body, RelayError> {
        let mut state = self.lock();
        let pending = state.pending.get_mut(id).filter(|p| p.host == *host);
        pending.and_then(|p| p.input.take()).ok_or_else(|| nobody_waits(id))
    }

    /// Operations under way.
    pub(crate) fn under_way(&self) -> usize {
        self.lock().pending.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        let mut state = self.relay.lock();
        if state.links.get(&self.host).is_none_or(|link| link.number != self.number) {
            // A newer stream of the host is there already and goes on with the operations.
            return;
        }
        state.links.remove(&self.host);
        let gone: Vec<String> = state
            .pending
            .iter()
            .filter(|(_, p)| p.host == self.host)
            .map(|(id, _)| id.clone())
            .collect();
        for pending in gone.iter().filter_map(|id| state.pending.remove(id)) {
            // A caller that left needs no answer.
            let _ = pending.answer.send(Answer::HostGone);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.relay.lock().pending.remove(&self.id);
    }
}

fn nobody_waits(id: &str) -> RelayError {
    RelayError::NobodyWaits(id.chars().take(64).collect())
}

/// Bytes on their way through, which tell their sender whether all of them went.
pub(crate) struct Passage<S> {
    bytes: S,
    done: Option<oneshot::Sender<()>>,
}

impl<S> Passage<S> {
    /// The receiver gets a word when all bytes are through, and an error when the reader left before.
    pub(crate) fn new(bytes: S) -> (Passage<S>, oneshot::Receiver<()>) {
        let (done, passed) = oneshot::channel();
        (Passage { bytes, done: Some(done) }, passed)
    }
}

impl<S, E> Stream for Passage<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.bytes).poll_next(cx);
        if let Poll::Ready(None) = &polled
            && let Some(done) = self.done.take()
        {
            // The sender may have left by now.
            let _ = done.send(());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (HostId, TeId) {
        (HostId::new("h").unwrap(), TeId::new("h-1").unwrap())
    }

    fn start(relay: &Arc<Relay>) -> Result<Ticket, RelayError> {
        let (host, te) = names();
        let kind = OperationKind::Screenshot { machine: "seed_1".to_owned() };
        relay.start(&host, &te, 1, kind, None)
    }

    #[tokio::test]
    async fn an_operation_goes_to_the_newest_stream_and_its_answer_to_the_caller() {
        let relay = Arc::new(Relay::default());
        let (host, _) = names();
        assert_eq!(start(&relay).err(), Some(RelayError::HostGone(host.clone())));
        let mut old = relay.connect(&host);
        let mut new = relay.connect(&host);
        assert!(old.orders.recv().await.is_none());
        let mut ticket = start(&relay).unwrap();
        let order = new.orders.recv().await.unwrap();
        drop(old);
        let result = || Answer::Result(OperationResult::Machines { machines: vec![] });
        let stranger = HostId::new("other").unwrap();
        let refused = relay.answer(&stranger, &order.id, result()).unwrap_err();
        assert_eq!(refused, RelayError::NobodyWaits(order.id.clone()));
        relay.answer(&host, &order.id, result()).unwrap();
        assert!(matches!((&mut ticket.answer).await, Ok(Answer::Result(_))));
        assert!(relay.answer(&host, &order.id, result()).is_err());
        assert_eq!(relay.under_way(), 0);
    }

    #[tokio::test]
    async fn a_lost_host_and_a_lost_caller_leave_nothing_behind() {
        let relay = Arc::new(Relay::default());
        let (host, _) = names();
        let link = relay.connect(&host);
        let mut ticket = start(&relay).unwrap();
        drop(start(&relay).unwrap());
        assert_eq!(relay.under_way(), 1);
        drop(link);
        assert!(matches!((&mut ticket.answer).await, Ok(Answer::HostGone)));
        assert_eq!(relay.under_way(), 0);
    }

    #[tokio::test]
    async fn operations_of_a_host_are_bounded() {
        let relay = Arc::new(Relay::default());
        let (host, _) = names();
        let _link = relay.connect(&host);
        let tickets: Vec<_> =
            (0..OPERATIONS_PER_HOST_MAX).map(|_| start(&relay).unwrap()).collect();
        assert_eq!(start(&relay).err(), Some(RelayError::HostBusy(host)));
        drop(tickets);
    }
}
