//! `/healthz`, `/metrics`, `/openapi.json`, `/system/exit`.

use super::error::Problem;
use super::extract::Caller;
use super::state::Shared;
use crate::metrics::Page;
use crate::testnet::TestnetHealth;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use toci_edge::openstack::CallCount;
use toci_store::LeaseFilter;
use toci_wire::api::ErrorBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
        .routes(routes!(exit))
}

/// Whether the server serves: it answers only when the lease book does.
#[utoipa::path(get, path = "/healthz", tag = "system", security(()),
    responses((status = 200, body = String), (status = "default", body = ErrorBody)))]
pub(crate) async fn healthz(State(api): State<Shared>) -> Result<&'static str, Problem> {
    api.book.hosts().await?;
    Ok("serving\n")
}

/// Figures in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "system", security(("token" = ["read_only"])),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = ErrorBody)))]
pub(crate) async fn metrics(
    State(api): State<Shared>,
    caller: Caller,
) -> Result<Response, Problem> {
    caller.may_look()?;
    let mut page = Page::default();
    api.metrics.print(&mut page);
    page.family("toci_operations", "Operations under way on hosts.", "gauge");
    page.sample("toci_operations", &[], api.relay.under_way());
    let leases = api.book.leases(LeaseFilter::default()).await?;
    let words = leases.iter().map(|lease| word(&lease.state));
    page.counted("toci_leases", "Leases that are not over.", "state", words);
    let testenvs = api.book.testenvs().await?;
    let words = testenvs.iter().map(|te| word(&te.state));
    page.counted("toci_testenvs", "Test environments.", "state", words);
    let hosts = api.book.hosts().await?;
    let words = hosts.iter().map(|host| word(&host.connection));
    page.counted("toci_hosts", "TE hosts.", "connection", words);
    let alerts = super::alerts::alerts(&api).await?;
    page.family(
        "toci_failures_in_a_row",
        "Jobs and providers that fail by the infrastructure again and again.",
        "gauge",
    );
    for trouble in &alerts.troubles {
        page.sample("toci_failures_in_a_row", &[("of", &trouble.of)], trouble.failures);
    }
    page.family("toci_jobs_paused", "Jobs that are paused.", "gauge");
    page.sample("toci_jobs_paused", &[], alerts.paused_jobs.len());
    page.family(
        "toci_providers_unwell",
        "Providers that are paused, not reached, or give no nodes.",
        "gauge",
    );
    page.sample("toci_providers_unwell", &[], alerts.providers.len());
    page.family(
        "toci_testnet_unwell",
        "The test network's ports are not as they should be.",
        "gauge",
    );
    page.sample("toci_testnet_unwell", &[], usize::from(alerts.testnet.is_some()));
    page.family("toci_nodes_overdue", "Nodes that cannot be deleted.", "gauge");
    page.sample("toci_nodes_overdue", &[], alerts.nodes.len());
    cloud_calls(&api, &mut page).await?;
    if let Some(gate) = &api.gate {
        let status = gate.gate.status().await?;
        let items = status.iter().flat_map(|p| &p.queues).flat_map(|q| q.heads.iter().flatten());
        let words = items.map(|item| item.pipeline.0.clone());
        page.counted("toci_items", "Items in pipelines.", "pipeline", words);
        let words = status.iter().flat_map(|p| p.waiting.iter().map(|_| p.name.0.clone()));
        let help = "Changes that another queue keeps out of a pipeline.";
        page.counted("toci_items_kept_out", help, "pipeline", words);
    }
    if let Ok(figures) = api.broker.figures().await {
        gearman(&mut page, &figures);
    }
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, page.into_text()).into_response())
}

/// How often clouds were called, by providers and for the test network.
async fn cloud_calls(api: &Shared, page: &mut Page) -> Result<(), Problem> {
    let name = "toci_cloud_calls_total";
    page.family(name, "Calls of OpenStack services; status `none`: no answer.", "counter");
    let mut all: Vec<(String, CallCount)> = Vec::new();
    if let Some(nodes) = &api.nodes {
        let calls = nodes.cloud_calls().await?;
        all.extend(calls.into_iter().map(|(name, call)| (format!("provider {name}"), call)));
    }
    let testnet = api.testnet.iter().flat_map(TestnetHealth::calls);
    all.extend(testnet.map(|call| ("testnet".to_owned(), call)));
    for (of, call) in all {
        let status = call.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let labels = [
            ("of", of.as_str()),
            ("service", call.service.word()),
            ("method", call.method.as_str()),
            ("status", &status),
        ];
        page.sample(name, &labels, call.count);
    }
    Ok(())
}

/// A state's spelling in JSON.
fn word(state: &impl serde::Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "system", security(()),
    responses((status = 200, body = Object)))]
pub(crate) async fn openapi() -> Response {
    Json(super::openapi::document()).into_response()
}

/// Exit gracefully, as on SIGUSR1: no run begins any more, and the server exits when those that have begun are over.
/// Again is no harm; there is no way back but a new start, which goes on with what waits.
#[utoipa::path(post, path = "/system/exit", tag = "system", security(("token" = ["operator"])),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn exit(State(api): State<Shared>, caller: Caller) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    tracing::warn!(by = caller.subject(), "somebody has the server exit when what runs is over");
    api.exit.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

fn gearman(page: &mut Page, figures: &toci_core::broker::Figures) {
    for (name, help, value) in [
        ("toci_gearman_jobs_waiting", "Gearman jobs without a worker.", figures.waiting),
        ("toci_gearman_jobs_running", "Gearman jobs with a worker.", figures.running),
        ("toci_gearman_workers", "Connections that registered a function.", figures.workers),
    ] {
        page.family(name, help, "gauge");
        page.sample(name, &[], value);
    }
}
