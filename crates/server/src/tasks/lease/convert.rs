//! Between the API's values and the core's.

use std::time::Duration;
use toci_core::id::{Generation, HostId, Label, LeaseId, Project, ShapeName, TeId};
use toci_core::lease::fence::Task;
use toci_core::lease::{
    Book, Demand, End, Lease, LeaseState, ReportedState, ReportedTe, Request, Te, TeState,
};
use toci_core::refused::Refused;
use toci_core::time::Time;
use toci_wire::api;

pub(super) fn bad(e: impl core::fmt::Display) -> Refused {
    Refused::new("bad_request", e.to_string(), "")
}

pub(super) fn request(owner: &str, r: api::LeaseRequest) -> Result<Request, Refused> {
    let project = match r.project {
        Some(p) => Project::new(p).map_err(bad)?,
        None => Project::new(owner).map_err(|e| {
            Refused::new("bad_request", e.to_string(), "name a project in the request")
        })?,
    };
    Ok(Request {
        owner: owner.to_owned(),
        project,
        demand: Demand {
            label: r.label.map(Label::new).transpose().map_err(bad)?,
            shape: r.shape.map(ShapeName::new).transpose().map_err(bad)?,
        },
        count: r.count.unwrap_or(1),
        priority: r.priority.unwrap_or(50),
        timeout: r.timeout_s.map(Duration::from_secs),
        wait_timeout: r.wait_timeout_s.map(Duration::from_secs),
        purpose: r.purpose.unwrap_or_default(),
        idempotency_key: r.idempotency_key,
    })
}

pub(super) fn reported(r: &api::HostReport) -> Result<Vec<ReportedTe>, Refused> {
    let bad = |e: toci_core::id::BadName| Refused::new("bad_report", e.to_string(), "");
    r.testenvs
        .iter()
        .map(|t| {
            Ok(ReportedTe {
                id: TeId::new(t.testenv.clone()).map_err(bad)?,
                number: t.number,
                shape: ShapeName::new(t.shape.clone()).map_err(bad)?,
                labels: t
                    .labels
                    .iter()
                    .map(|l| Label::new(l.clone()).map_err(bad))
                    .collect::<Result<_, _>>()?,
                generation: Generation(t.state.generation()),
                state: match &t.state {
                    api::TeReportState::Resetting { .. } => ReportedState::Resetting,
                    api::TeReportState::Clean { .. } => ReportedState::Clean,
                    api::TeReportState::Serving { .. } => ReportedState::Serving,
                    api::TeReportState::Broken { reason, .. } => {
                        ReportedState::Broken(reason.clone())
                    }
                },
            })
        })
        .collect()
}

pub(super) fn desired(book: &Book, host: &HostId) -> api::HostDesired {
    let testenvs = book
        .desired(host)
        .into_iter()
        .map(|d| api::DesiredTe {
            testenv: d.id.into(),
            generation: d.generation.0,
            task: match d.task {
                Task::Serve { lease, left } => api::TeTask::Serve {
                    lease: lease.to_string(),
                    left_s: left.as_secs() + u64::from(left.subsec_nanos() > 0),
                },
                Task::Vacate => api::TeTask::Vacate,
                Task::BurnIn => api::TeTask::BurnIn,
                Task::Quarantine => api::TeTask::Quarantine,
            },
        })
        .collect();
    api::HostDesired { testenvs, report_every_s: book.policy().report_every.as_secs() }
}

pub(super) fn lease(book: &Book, row: &Lease, now: Time) -> api::Lease {
    let (state, expires) = match row.state {
        LeaseState::Waiting => (api::LeaseState::Waiting, None),
        LeaseState::Granted { .. } => (api::LeaseState::Granted, None),
        LeaseState::Active { expires } => (api::LeaseState::Active, Some(expires)),
        LeaseState::Held { expires } => (api::LeaseState::Held, Some(expires)),
        LeaseState::Over { end, .. } => (
            match end {
                End::Released => api::LeaseState::Released,
                End::Expired => api::LeaseState::Expired,
                End::Lost => api::LeaseState::Lost,
                End::Revoked => api::LeaseState::Revoked,
                End::Refused => api::LeaseState::Refused,
            },
            None,
        ),
    };
    let ended = match row.state {
        LeaseState::Over { at, .. } => Some(at.0),
        LeaseState::Waiting
        | LeaseState::Granted { .. }
        | LeaseState::Active { .. }
        | LeaseState::Held { .. } => None,
    };
    api::Lease {
        id: row.id.to_string(),
        state,
        owner: row.owner.clone(),
        project: row.project.as_str().to_owned(),
        label: row.demand.label.as_ref().map(|l| l.as_str().to_owned()),
        shape: row.demand.shape.as_ref().map(|s| s.as_str().to_owned()),
        count: row.count,
        priority: row.priority,
        purpose: row.purpose.clone(),
        testenvs: row
            .tes
            .iter()
            .map(|(te, g)| api::LeasedTe { testenv: te.as_str().to_owned(), generation: g.0 })
            .collect(),
        waiting: waiting(book, row.id),
        reason: row.reason.clone(),
        requested_us: row.requested.0,
        active_us: row.active.map(|t| t.0),
        expires_us: expires.map(|t| t.0),
        left_s: expires.map(|t| t.since(now).as_secs()),
        heartbeat_s: book.policy().heartbeat.as_secs(),
        ended_us: ended,
    }
}

fn waiting(book: &Book, id: LeaseId) -> Option<api::Waiting> {
    book.waiting(id).map(api_waiting)
}

pub(super) fn api_waiting(w: toci_core::lease::Waiting) -> api::Waiting {
    api::Waiting {
        position: w.position,
        reason: w.reason,
        estimate_s: w.estimate.map(|d| d.as_secs()),
    }
}

pub(super) fn connection(book: &Book, host: &HostId) -> api::Connection {
    if book.is_connected(host) { api::Connection::Connected } else { api::Connection::CutOff }
}

pub(super) fn testenv(book: &Book, te: &Te, machines: Vec<api::MachineState>) -> api::TestEnv {
    let state = match &te.state {
        TeState::Unknown | TeState::Gone => api::TeState::Unknown,
        TeState::Ready => api::TeState::Ready,
        TeState::Granted(_) | TeState::Confirmed(_) => api::TeState::Granted,
        TeState::Leased(_) => api::TeState::Leased,
        TeState::Held(_) => api::TeState::Held,
        TeState::Resetting => api::TeState::Resetting,
        TeState::BurnIn => api::TeState::BurnIn,
        TeState::Quarantined => api::TeState::Quarantined,
    };
    api::TestEnv {
        id: te.id.as_str().to_owned(),
        host: te.host.as_str().to_owned(),
        number: te.number,
        state,
        host_connection: connection(book, &te.host),
        draining: te.draining,
        shape: te.shape.as_str().to_owned(),
        labels: te.labels.iter().map(|l| l.as_str().to_owned()).collect(),
        generation: te.generation.0,
        lease: te.state.lease().map(|l| l.to_string()),
        reason: te.reason.clone(),
        machines,
        since_us: te.since.0,
    }
}
