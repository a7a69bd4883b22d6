//! `/nodes`, `/providers`, `/images`.

use super::error::Problem;
use super::extract::{Caller, Question};
use super::state::{Api, Shared};
use crate::tasks::node::{NodeError, NodePool};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use std::time::Duration;
use toci_core::id::{NodeId, ProviderName};
use toci_core::node::Meant;
use toci_wire::api::{
    Autohold, AutoholdRequest, ErrorBody, Node, NodeHold, NodeImage, PauseOrder, Provider,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

type Answered<T> = Result<Json<T>, Problem>;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(hold))
        .routes(routes!(delete))
        .routes(routes!(autoholds))
        .routes(routes!(autohold))
        .routes(routes!(delete_autohold))
        .routes(routes!(providers))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(images))
        .routes(routes!(rebuild))
        .routes(routes!(withdraw))
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Problem {
        match error {
            NodeError::Refused(r) => {
                let status = match r.code {
                    "no_such_node" | "no_such_image" | "no_such_autohold" | "no_such_provider" => {
                        StatusCode::NOT_FOUND
                    }
                    "bad_request" => StatusCode::UNPROCESSABLE_ENTITY,
                    _ => StatusCode::CONFLICT,
                };
                Problem::refused(status, r.code, r.message, r.hint)
            }
            NodeError::Impossible(why) => {
                Problem::refused(StatusCode::UNPROCESSABLE_ENTITY, "never_fits", why, "")
            }
            NodeError::Failed(why) => {
                let hint = "try again; the server's log has the cause";
                Problem::failed(StatusCode::SERVICE_UNAVAILABLE, "failed", why, hint)
            }
            NodeError::Stopped => {
                let message = error.to_string();
                let hint = "try again in a moment";
                Problem::failed(StatusCode::SERVICE_UNAVAILABLE, "stopping", message, hint)
            }
        }
    }
}

fn pool(api: &Api) -> Result<&NodePool, Problem> {
    api.nodes.as_ref().ok_or_else(|| {
        Problem::not_found(
            "no_nodes",
            "this server has no nodes",
            "add a [[label]] and a [[provider]] to its settings",
        )
    })
}

fn node_id(text: &str) -> Result<NodeId, Problem> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Problem::not_found(
            "no_such_node",
            format!("there is no node `{shown}`"),
            "a node is written N and a number; `toci node list` shows them",
        )
    })
}

fn provider_name(text: &str) -> Result<ProviderName, Problem> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        let message = format!("there is no provider `{shown}`");
        Problem::not_found("no_such_provider", message, "see `toci provider list`")
    })
}

/// List nodes.
#[utoipa::path(get, path = "/nodes", tag = "nodes", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<Node>), (status = "default", body = ErrorBody)))]
async fn list(State(api): State<Shared>, caller: Caller) -> Answered<Vec<Node>> {
    caller.may_look()?;
    Ok(Json(pool(&api)?.nodes().await?))
}

/// Show a node.
#[utoipa::path(get, path = "/nodes/{node}", tag = "nodes", security(("token" = ["read_only"])),
    params(("node" = String, Path, description = "`N<number>`")),
    responses((status = 200, body = Node), (status = "default", body = ErrorBody)))]
async fn show(
    State(api): State<Shared>,
    caller: Caller,
    Path(node): Path<String>,
) -> Answered<Node> {
    caller.may_look()?;
    Ok(Json(pool(&api)?.node(node_id(&node)?).await?))
}

/// Keep it for people to look at: at once when it is ready, otherwise when its run is over.
#[utoipa::path(post, path = "/nodes/{node}/hold", tag = "nodes", security(("token" = ["operator"])),
    request_body = NodeHold,
    params(("node" = String, Path, description = "`N<number>`")),
    responses((status = 200, body = Node), (status = "default", body = ErrorBody)))]
async fn hold(
    State(api): State<Shared>,
    caller: Caller,
    Path(node): Path<String>,
    Question(question): Question<NodeHold>,
) -> Answered<Node> {
    caller.may_operate()?;
    let length = Duration::from_secs(question.for_s);
    let reason = format!("{} ({})", question.reason, caller.subject());
    Ok(Json(pool(&api)?.hold(node_id(&node)?, length, reason).await?))
}

/// Delete it, also when it is held; refused while a run has it.
#[utoipa::path(post, path = "/nodes/{node}/delete", tag = "nodes",
    security(("token" = ["operator"])),
    params(("node" = String, Path, description = "`N<number>`")),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete(
    State(api): State<Shared>,
    caller: Caller,
    Path(node): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    pool(&api)?.delete(node_id(&node)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List standing wishes to keep the nodes of failures to come.
#[utoipa::path(get, path = "/autoholds", tag = "nodes", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<Autohold>), (status = "default", body = ErrorBody)))]
async fn autoholds(State(api): State<Shared>, caller: Caller) -> Answered<Vec<Autohold>> {
    caller.may_look()?;
    Ok(Json(pool(&api)?.autoholds().await?))
}

/// Keep the nodes of the next failures of a job, and the test environments that they had.
#[utoipa::path(post, path = "/autoholds", tag = "nodes", security(("token" = ["operator"])),
    request_body = AutoholdRequest,
    responses((status = 200, body = Autohold), (status = "default", body = ErrorBody)))]
async fn autohold(
    State(api): State<Shared>,
    caller: Caller,
    Question(question): Question<AutoholdRequest>,
) -> Answered<Autohold> {
    caller.may_operate()?;
    let meant = Meant {
        job: question.job,
        project: question.project,
        subject: question.subject,
        count: question.count,
        length: Duration::from_secs(question.for_s),
        reason: match question.reason.trim() {
            // It is refused.
            "" => String::new(),
            reason => format!("{reason} ({})", caller.subject()),
        },
    };
    Ok(Json(pool(&api)?.autohold(meant).await?))
}

/// Delete such a wish; what it has held already stays held.
#[utoipa::path(post, path = "/autoholds/{autohold}/delete", tag = "nodes",
    security(("token" = ["operator"])),
    params(("autohold" = String, Path, description = "`A<number>`")),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete_autohold(
    State(api): State<Shared>,
    caller: Caller,
    Path(autohold): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    let id = autohold.parse().map_err(|_| {
        let shown: String = autohold.chars().take(80).collect();
        Problem::not_found(
            "no_such_autohold",
            format!("there is no autohold `{shown}`"),
            "one is written A and a number; `toci node autohold list` shows them",
        )
    })?;
    pool(&api)?.delete_autohold(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List providers of nodes.
#[utoipa::path(get, path = "/providers", tag = "nodes", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<Provider>), (status = "default", body = ErrorBody)))]
async fn providers(State(api): State<Shared>, caller: Caller) -> Answered<Vec<Provider>> {
    caller.may_look()?;
    Ok(Json(pool(&api)?.providers().await?))
}

/// Build nothing more at a provider, until it is resumed. What is there is used and deleted as ever.
#[utoipa::path(post, path = "/providers/{provider}/pause", tag = "nodes",
    security(("token" = ["operator"])), params(("provider" = String, Path)),
    request_body = PauseOrder,
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn pause(
    State(api): State<Shared>,
    caller: Caller,
    Path(provider): Path<String>,
    Question(order): Question<PauseOrder>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    let (name, by) = (provider_name(&provider)?, caller.subject().to_owned());
    pool(&api)?.pause_provider(name, by, order.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Build there again; where builds failed before, one is tried at once.
#[utoipa::path(post, path = "/providers/{provider}/resume", tag = "nodes",
    security(("token" = ["operator"])), params(("provider" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn resume(
    State(api): State<Shared>,
    caller: Caller,
    Path(provider): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    pool(&api)?.resume_provider(provider_name(&provider)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List images that providers make their machines of.
#[utoipa::path(get, path = "/images", tag = "nodes", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<NodeImage>), (status = "default", body = ErrorBody)))]
async fn images(State(api): State<Shared>, caller: Caller) -> Answered<Vec<NodeImage>> {
    caller.may_look()?;
    Ok(Json(pool(&api)?.images().await?))
}

/// Make an image anew; the old one stays in use until a machine came up from the new one.
#[utoipa::path(post, path = "/images/{image}/rebuild", tag = "nodes",
    security(("token" = ["operator"])),
    params(("image" = String, Path, description = "the name of an `[[image]]`")),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn rebuild(
    State(api): State<Shared>,
    caller: Caller,
    Path(image): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    pool(&api)?.rebuild_image(&image).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make no node of this image any more: the one before it serves again, or a new one is made. It is deleted when no node
/// lies on it.
#[utoipa::path(post, path = "/images/{image}/withdraw", tag = "nodes",
    security(("token" = ["operator"])),
    params(("image" = String, Path, description = "the id of an image that is ready")),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn withdraw(
    State(api): State<Shared>,
    caller: Caller,
    Path(image): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    pool(&api)?.withdraw_image(&image).await?;
    Ok(StatusCode::NO_CONTENT)
}
