//! Event streams. What they follow is dropped together with the connection, never later.

use super::error::Problem;
use super::state::{Shared, StreamGuard};
use crate::auth::Identity;
use crate::relay::HostLink;
use crate::tasks::lease::Change;
use crate::tasks::node::{NodeNews, NodePool};
use crate::tasks::pipeline::News;
use crate::tasks::run::{Alert, ConsoleReader, RunDesk};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{LeaseId, RunId};
use toci_core::pipeline::ItemView;
use toci_core::run::record::Record;
use toci_wire::api::{
    ConsoleText, EVENT_ALERT, EVENT_CONSOLE, EVENT_DESIRED, EVENT_GONE, EVENT_HOST, EVENT_ITEM,
    EVENT_ITEM_ENDED, EVENT_JOB_PAUSED, EVENT_LAGGED, EVENT_LEASE, EVENT_NODE, EVENT_OPERATION,
    EVENT_PROVIDER, EVENT_REPORT, EVENT_RUN, EVENT_TESTENV, Gone, HostDesired, Lagged, Lease,
    STREAM_KEEPALIVE_S,
};
use tokio::sync::{broadcast, watch};

/// Something that yields events until it is over.
trait Source: Send + 'static {
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;
}

fn respond(source: impl Source) -> Response {
    let events = stream::unfold(source, |mut source| async move {
        let event = source.next().await?;
        Some((Ok::<_, Infallible>(event), source))
    });
    sse(events)
}

fn sse(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let alive = KeepAlive::new().interval(Duration::from_secs(STREAM_KEEPALIVE_S));
    Sse::new(events).keep_alive(alive).into_response()
}

fn event(name: &str, data: &impl Serialize) -> Option<Event> {
    match Event::default().event(name).json_data(data) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!(%error, name, "an event cannot be written as JSON");
            None
        }
    }
}

struct LeaseSource {
    lease: watch::Receiver<Arc<Lease>>,
    begun: bool,
    over: bool,
    guard: StreamGuard,
}

impl Source for LeaseSource {
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        if self.begun {
            self.guard.while_good(self.lease.changed()).await?.ok()?;
        }
        self.begun = true;
        let lease = self.lease.borrow_and_update().clone();
        self.over = lease.state.is_over();
        event(EVENT_LEASE, &*lease)
    }
}

/// A lease now and after each change.
pub(crate) async fn lease_stream(
    api: &Shared,
    caller: Identity,
    id: LeaseId,
) -> Result<Response, Problem> {
    let lease = api.book.watch_lease(id).await?;
    let guard = StreamGuard::new(api, caller);
    Ok(respond(LeaseSource { lease, begun: false, over: false, guard }))
}

/// Everything that changes; what is `None` is not there on a server that only has leases.
struct Changes {
    leases: broadcast::Receiver<Change>,
    gate: Option<broadcast::Receiver<News>>,
    runs: Option<broadcast::Receiver<Arc<Record>>>,
    alerts: Option<broadcast::Receiver<Alert>>,
    nodes: Option<broadcast::Receiver<NodeNews>>,
}

impl Changes {
    /// The next one, if it is one that is told. Cancel-safe.
    async fn next(&mut self) -> Result<Option<Event>, broadcast::error::RecvError> {
        tokio::select! {
            change = self.leases.recv() => change.map(of_leases),
            news = of(&mut self.gate) => news.map(of_gate),
            run = of(&mut self.runs) => run.map(|run| event(EVENT_RUN, &super::runs::run(&run))),
            alert = of(&mut self.alerts) => alert.map(of_alerts),
            node = of(&mut self.nodes) => node.map(of_nodes),
        }
    }
}

struct ChangeSource {
    changes: Changes,
    api: Shared,
    over: bool,
    guard: StreamGuard,
}

impl Source for ChangeSource {
    async fn next(&mut self) -> Option<Event> {
        while !self.over {
            match self.guard.while_good(self.changes.next()).await? {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.over = true;
                    self.api.metrics.streams_lagged.add(1);
                    let hint = "open the stream again and read the lists".to_owned();
                    return event(EVENT_LAGGED, &Lagged { missed, hint });
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
        None
    }
}

/// The next one; never, where there are none.
async fn of<T: Clone>(
    news: &mut Option<broadcast::Receiver<T>>,
) -> Result<T, broadcast::error::RecvError> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
    }
}

fn of_leases(change: Change) -> Option<Event> {
    match change {
        Change::Lease(lease) => event(EVENT_LEASE, &*lease),
        Change::TestEnv(te) => event(EVENT_TESTENV, &*te),
        Change::Host(host) => event(EVENT_HOST, &*host),
        Change::Gone(gone) => event(EVENT_GONE, &*gone),
    }
}

fn of_gate(news: News) -> Option<Event> {
    match news {
        News::Entered(item) => {
            event(EVENT_ITEM, &super::pipelines::item_of(ItemView::clone(&item)))
        }
        News::Left(ended) => event(EVENT_ITEM_ENDED, &super::pipelines::ended_item(&ended)),
        News::Told(report) => event(EVENT_REPORT, &super::pipelines::told(&report)),
        News::MergedIn(..) => None,
    }
}

fn of_alerts(alert: Alert) -> Option<Event> {
    match alert {
        Alert::Trouble(trouble) => event(EVENT_ALERT, &super::runs::trouble(trouble)),
        Alert::Paused(pause) => event(EVENT_JOB_PAUSED, &super::alerts::shown(pause)),
        Alert::Resumed(job) => event(EVENT_GONE, &Gone { what: "job_pause".to_owned(), id: job }),
    }
}

fn of_nodes(news: NodeNews) -> Option<Event> {
    match news {
        NodeNews::Changed(node) => event(EVENT_NODE, &*node),
        NodeNews::Gone(id) => {
            event(EVENT_GONE, &Gone { what: "node".to_owned(), id: id.to_string() })
        }
        NodeNews::Provider(provider) => event(EVENT_PROVIDER, &*provider),
    }
}

/// Every change from now on.
pub(crate) fn change_stream(api: &Shared, caller: Identity) -> Response {
    let changes = Changes {
        leases: api.book.subscribe(),
        gate: api.gate.as_ref().map(|gate| gate.gate.news()),
        runs: api.gate.as_ref().map(|gate| gate.runs.steps()),
        alerts: api.gate.as_ref().map(|gate| gate.runs.alerts()),
        nodes: api.nodes.as_ref().map(NodePool::news),
    };
    let guard = StreamGuard::new(api, caller);
    respond(ChangeSource { changes, api: api.clone(), over: false, guard })
}

struct HostSource {
    desired: watch::Receiver<Arc<HostDesired>>,
    link: HostLink,
    begun: bool,
    guard: StreamGuard,
}

impl Source for HostSource {
    async fn next(&mut self) -> Option<Event> {
        if self.begun {
            tokio::select! {
                // The wish goes first, so that an operation never comes before the grant it belongs to.
                biased;
                changed = self.desired.changed() => changed.ok()?,
                // None: a newer stream of the same host has taken over.
                order = self.link.orders.recv() => return event(EVENT_OPERATION, &order?),
                () = self.guard.ended() => return None,
            }
        }
        self.begun = true;
        let desired = self.desired.borrow_and_update().clone();
        event(EVENT_DESIRED, &*desired)
    }
}

/// What is wanted of a host.
pub(crate) fn host_stream(
    api: &Shared,
    caller: Identity,
    desired: watch::Receiver<Arc<HostDesired>>,
    link: HostLink,
) -> Response {
    let guard = StreamGuard::new(api, caller);
    respond(HostSource { desired, link, begun: false, guard })
}

struct ConsoleSource {
    desk: RunDesk,
    run: RunId,
    reader: ConsoleReader,
    over: bool,
    guard: StreamGuard,
}

impl Source for ConsoleSource {
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        match self.guard.while_good(self.reader.next()).await? {
            Ok(Some(text)) => return event(EVENT_CONSOLE, &ConsoleText { text }),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(run = %self.run, %error, "a console cannot be read");
                return None;
            }
        }
        // The console ends a little before the run: its logs are archived meanwhile.
        self.over = true;
        if let Some(mut view) = self.desk.watch(self.run) {
            let _ = self.guard.while_good(view.wait_for(|r| r.result().is_some())).await?;
        }
        let record = self.desk.get(self.run).await.ok()??;
        event(EVENT_RUN, &super::runs::run(&record))
    }
}

/// A run's console from its start, then as it comes, then the run.
pub(crate) fn console_stream(
    api: &Shared,
    caller: Identity,
    desk: RunDesk,
    run: RunId,
    reader: ConsoleReader,
) -> Response {
    let guard = StreamGuard::new(api, caller);
    respond(ConsoleSource { desk, run, reader, over: false, guard })
}
