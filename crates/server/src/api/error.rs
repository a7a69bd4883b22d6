//! Every answer that is not 2xx has a JSON body that says whose fault it is and what to do.

use axum::Json;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use toci_store::StoreError;
use toci_wire::api::{ApiError, ErrorBody, ErrorKind};

use crate::relay::RelayError;
use crate::tasks::lease::{BookError, store_failure};

/// An answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) error: ApiError,
}

impl Problem {
    /// The caller's fault.
    pub(crate) fn refused(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        Problem::new(ErrorKind::Refused, status, code, message.into(), hint.into())
    }

    /// The world's fault.
    pub(crate) fn failed(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        Problem::new(ErrorKind::Failed, status, code, message.into(), hint.into())
    }

    fn new(
        kind: ErrorKind,
        status: StatusCode,
        code: &str,
        message: String,
        hint: String,
    ) -> Problem {
        Problem { status, error: ApiError { kind, code: code.to_owned(), message, hint } }
    }

    /// No such thing.
    pub(crate) fn not_found(code: &str, message: impl Into<String>, hint: &str) -> Problem {
        Problem::refused(StatusCode::NOT_FOUND, code, message, hint)
    }

    /// The role does not suffice.
    pub(crate) fn forbidden(message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem::refused(StatusCode::FORBIDDEN, "forbidden", message, hint)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let unauthorized = self.status == StatusCode::UNAUTHORIZED;
        let mut response = (self.status, Json(ErrorBody { error: self.error })).into_response();
        if unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"toci\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<BookError> for Problem {
    fn from(error: BookError) -> Problem {
        if let BookError::Failed(_) = &error {
            tracing::error!(error = ?error, "the lease book failed");
        }
        let status =
            StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem { status, error: error.api_error() }
    }
}

impl From<RelayError> for Problem {
    fn from(error: RelayError) -> Problem {
        let message = error.to_string();
        match error {
            RelayError::HostGone(_) => Problem::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "host_cut_off",
                message,
                "try again when `toci host show` says that it is",
            ),
            RelayError::HostBusy(_) => Problem::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "host_busy",
                message,
                "try again in a moment",
            ),
            RelayError::NobodyWaits(_) => {
                let hint = "stop working on it";
                Problem::refused(StatusCode::GONE, "operation_gone", message, hint)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        tracing::error!(error = ?error, "the store failed");
        let told = store_failure(&error, error.to_string());
        Problem { status: StatusCode::SERVICE_UNAVAILABLE, error: told }
    }
}
