//! What a request brings: who calls, its JSON body, the names in its path.

use super::error::Problem;
use super::state::{Api, Shared};
use crate::auth::Identity;
use crate::tasks::lease::{BookError, LeaseBook, is_holder};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::time::Duration;
use toci_core::id::{HostId, LeaseId, TeId};
use toci_wire::api::{BODY_MAX_BYTES, Lease, Role};

/// Longest time that a JSON body may take to arrive.
pub(crate) const BODY_LIMIT: Duration = Duration::from_secs(20);

/// Whoever calls, with a token that is good.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Identity);

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        match api.auth.identify(token).await? {
            Some(identity) => Ok(Caller(identity)),
            None => {
                api.metrics.auth_refused.add(1);
                Err(Problem::refused(
                    StatusCode::UNAUTHORIZED,
                    "bad_token",
                    "this token is unknown, revoked or expired",
                    "ask an operator for a new one (`toci token create`)",
                ))
            }
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = |message| {
        Problem::refused(
            StatusCode::UNAUTHORIZED,
            "no_token",
            message,
            "send `Authorization: Bearer TOKEN` (toci: TOCI_TOKEN_FILE or --token-file)",
        )
    };
    let header = headers.get(AUTHORIZATION).ok_or_else(|| missing("a token is needed"))?;
    let text = header.to_str().map_err(|_| missing("the token is not plain text"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        Some(_) | None => {
            Err(missing("the Authorization header is not of the form `Bearer TOKEN`"))
        }
    }
}

impl Caller {
    pub(crate) fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Everybody but hosts may look.
    pub(crate) fn may_look(&self) -> Result<(), Problem> {
        match self.0.role {
            Role::ReadOnly | Role::Client | Role::Operator => Ok(()),
            Role::Host => Err(self.lacks("looking", "read_only")),
        }
    }

    /// Asking for leases.
    pub(crate) fn may_lease(&self) -> Result<(), Problem> {
        match self.0.role {
            Role::Client | Role::Operator => Ok(()),
            Role::ReadOnly | Role::Host => Err(self.lacks("asking for leases", "client")),
        }
    }

    /// What only operators do.
    pub(crate) fn may_operate(&self) -> Result<(), Problem> {
        match self.0.role {
            Role::Operator => Ok(()),
            Role::Client | Role::ReadOnly | Role::Host => Err(self.lacks("this", "operator")),
        }
    }

    /// Using a lease: its owner, or an operator.
    pub(crate) fn may_use(&self, lease: &Lease) -> Result<(), Problem> {
        match self.0.role {
            Role::Operator => Ok(()),
            Role::Client => self.owns(lease),
            Role::ReadOnly | Role::Host => Err(self.lacks("using a lease", "client")),
        }
    }

    /// Credentials and signs of life: its owner alone, whatever the role.
    pub(crate) fn owns(&self, lease: &Lease) -> Result<(), Problem> {
        self.may_lease()?;
        is_holder(&self.0.subject, &lease.id, &lease.owner).map_err(BookError::from)?;
        Ok(())
    }

    /// The book for using leases: an operator any, a client its own.
    pub(crate) fn book_for_use(&self, api: &Api) -> Result<LeaseBook, Problem> {
        match self.0.role {
            Role::Operator => Ok(api.book.clone()),
            Role::Client => Ok(api.book.of_owner(&self.0.subject)),
            Role::ReadOnly | Role::Host => Err(self.lacks("using a lease", "client")),
        }
    }

    /// The book for what is the owner's alone, whatever the role.
    pub(crate) fn own_book(&self, api: &Api) -> Result<LeaseBook, Problem> {
        self.may_lease()?;
        Ok(api.book.of_owner(&self.0.subject))
    }

    /// The host of this name, and nobody else.
    pub(crate) fn is_host(&self, host: &HostId) -> Result<(), Problem> {
        if self.0.role == Role::Host && self.0.subject == host.as_str() {
            return Ok(());
        }
        Err(Problem::forbidden(
            format!("only the host {host} itself may do this, and you are {}", self.0.subject),
            "enrol the host and use the token it got",
        ))
    }

    fn lacks(&self, what: &str, needed: &str) -> Problem {
        Problem::forbidden(
            format!("a token of role {} is not enough for {what}", self.0.role),
            format!("use one of role {needed}"),
        )
    }
}

/// A JSON body. None, or `null`, is taken for `{}`.
#[derive(Debug)]
pub(crate) struct Question<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Question<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Shared) -> Result<Self, Problem> {
        let bytes = read_body(request.into_body()).await?;
        let text: &[u8] = match bytes.trim_ascii() {
            b"" | b"null" => b"{}",
            text => text,
        };
        let bad = |error: String| {
            Problem::refused(
                StatusCode::BAD_REQUEST,
                "bad_json",
                format!("the request's body is not what this call takes: {error}"),
                "the fields of every call are in /api/v1/openapi.json",
            )
        };
        // serde would take the values of an array for the fields, in their order.
        if text.starts_with(b"[") {
            return Err(bad("it is an array, an object is expected".to_owned()));
        }
        serde_json::from_slice(text).map(Question).map_err(|error| bad(error.to_string()))
    }
}

async fn read_body(body: Body) -> Result<bytes::Bytes, Problem> {
    let limited = Limited::new(body, BODY_MAX_BYTES);
    match tokio::time::timeout(BODY_LIMIT, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the request's body is longer than {BODY_MAX_BYTES} bytes"),
            "images go to PUT /testenvs/{te}/machines/{machine}/image",
        )),
        Ok(Err(error)) => Err(Problem::refused(
            StatusCode::BAD_REQUEST,
            "broken_body",
            format!("the request's body did not arrive whole: {error}"),
            "send it again",
        )),
        Err(_) => Err(Problem::refused(
            StatusCode::REQUEST_TIMEOUT,
            "slow_body",
            format!("the request's body did not arrive within {} s", BODY_LIMIT.as_secs()),
            "send it again",
        )),
    }
}

/// A lease's number from a path.
pub(crate) fn lease_id(text: &str) -> Result<LeaseId, Problem> {
    text.parse().map_err(|_| {
        let message = format!("there is no lease `{}`", shortened(text));
        Problem::not_found(
            "no_such_lease",
            message,
            "a lease is written L and a number; `toci lease list` shows them",
        )
    })
}

/// A TE's name from a path.
pub(crate) fn te_id(text: &str) -> Result<TeId, Problem> {
    TeId::new(text).map_err(|_| {
        let message = format!("there is no TE `{}`", shortened(text));
        Problem::not_found("no_such_testenv", message, "`toci te list` shows them")
    })
}

/// A host's name from a path.
pub(crate) fn host_id(text: &str) -> Result<HostId, Problem> {
    HostId::new(text).map_err(|_| {
        let message = format!("there is no host `{}`", shortened(text));
        Problem::not_found("no_such_host", message, "`toci host list` shows them")
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
