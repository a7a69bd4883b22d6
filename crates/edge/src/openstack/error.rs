//! What a cloud may answer instead of what was asked for, told apart by what can be done about it.

use super::config::LoadCloud;
use crate::http::{Answer, HttpError};
use std::time::Duration;
use toci_core::chain::Chain;

/// Most characters of a service's own words that are told.
const SAID_MAX_CHARS: usize = 400;

/// A call that did not go well. `what` is the call: method and address.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// Credentials or token are not taken, also not a new token.
    #[error(
        "{what}: not authorised: {said}; check user, password, project and domains of the cloud's settings"
    )]
    Unauthorised {
        /// The call.
        what: String,
        /// The service's words.
        said: String,
    },
    /// The project has no room for it, or the addresses are used up. It may have room later.
    #[error("{what}: no room: {said}")]
    OverQuota {
        /// The call.
        what: String,
        /// The service's words.
        said: String,
    },
    /// It is not there.
    #[error("{what}: not there: {said}")]
    NotFound {
        /// The call.
        what: String,
        /// The service's words.
        said: String,
    },
    /// It is in a state, or in use, so that this cannot be done now.
    #[error("{what}: conflict: {said}")]
    Conflict {
        /// The call.
        what: String,
        /// The service's words.
        said: String,
    },
    /// Any other refusal (4xx), and what the cloud cannot do at all (501).
    #[error("{what}: refused with {status}: {said}{}", hint(*status))]
    Refused {
        /// The call.
        what: String,
        /// E.g. 403.
        status: u16,
        /// The service's words.
        said: String,
    },
    /// The service has too much to do, and had so after several attempts too.
    #[error("{what}: the service is busy ({status}): {said}{}", again(*retry_after))]
    Busy {
        /// The call.
        what: String,
        /// 429, 503 or 413.
        status: u16,
        /// The service's words.
        said: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The service failed (5xx). Whether it has done what was asked is not known.
    #[error("{what}: the service failed with {status}: {said}; its own log says why")]
    Failed {
        /// The call.
        what: String,
        /// E.g. 500.
        status: u16,
        /// The service's words.
        said: String,
    },
    /// There was no answer: no connection, a time limit, a connection that broke.
    #[error("{what}: no answer")]
    Unreachable {
        /// The call.
        what: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The catalogue has no address of the service.
    #[error("no address of the service {service}: {why}")]
    NoEndpoint {
        /// Its type.
        service: &'static str,
        /// What the catalogue has.
        why: String,
    },
    /// The answer is not what was expected; or something cannot be sent.
    #[error("{what}: {why}")]
    Unexpected {
        /// The call.
        what: String,
        /// What is wrong.
        why: String,
    },
}

/// Why a cloud cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenCloud {
    /// Its settings.
    #[error("find the cloud's settings")]
    Settings(#[from] LoadCloud),
    /// TLS.
    #[error("use the cloud's settings")]
    Http(#[from] HttpError),
}

impl CloudError {
    /// Whether the same may go well later without anybody doing anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            CloudError::OverQuota { .. }
            | CloudError::Conflict { .. }
            | CloudError::Busy { .. }
            | CloudError::Failed { .. }
            | CloudError::Unreachable { .. } => true,
            CloudError::Unauthorised { .. }
            | CloudError::NotFound { .. }
            | CloudError::Refused { .. }
            | CloudError::NoEndpoint { .. }
            | CloudError::Unexpected { .. } => false,
        }
    }

    /// Whether the cloud works and refuses this one thing: others may go well.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            CloudError::OverQuota { .. }
            | CloudError::NotFound { .. }
            | CloudError::Conflict { .. }
            | CloudError::Refused { .. } => true,
            CloudError::Unauthorised { .. }
            | CloudError::Busy { .. }
            | CloudError::Failed { .. }
            | CloudError::Unreachable { .. }
            | CloudError::NoEndpoint { .. }
            | CloudError::Unexpected { .. } => false,
        }
    }

    /// An error of the way there.
    pub(super) fn of_http(what: &str, source: HttpError) -> CloudError {
        let what = what.to_owned();
        match source {
            HttpError::Unreachable { .. }
            | HttpError::TooSlow { .. }
            | HttpError::Broken { .. } => CloudError::Unreachable { what, source },
            HttpError::BadUrl { .. }
            | HttpError::BadHeader { .. }
            | HttpError::Trust { .. }
            | HttpError::TooLong { .. }
            | HttpError::Redirected { .. }
            | HttpError::Status { .. }
            | HttpError::Unexpected { .. }
            | HttpError::File { .. } => {
                CloudError::Unexpected { what, why: Chain(&source).to_string() }
            }
        }
    }

    /// What an answer means that is not 2xx.
    pub(super) fn of_answer(
        what: &str,
        answer: &Answer,
        retry_after: Option<Duration>,
    ) -> CloudError {
        let (what, said, status) = (what.to_owned(), said(answer), answer.status());
        // Cinder tells of quotas that are used up with a `Retry-After` of 0; who is only too quick is told a time.
        let is_now_or_never = retry_after.is_none_or(|wait| wait.is_zero());
        if matches!(status, 400 | 403 | 409 | 413) && is_now_or_never && is_no_room(answer) {
            return CloudError::OverQuota { what, said };
        }
        match status {
            401 => CloudError::Unauthorised { what, said },
            404 => CloudError::NotFound { what, said },
            409 => CloudError::Conflict { what, said },
            429 | 503 => CloudError::Busy { what, status, said, retry_after },
            413 if retry_after.is_some() => CloudError::Busy { what, status, said, retry_after },
            500 | 502.. => CloudError::Failed { what, status, said },
            _ => CloudError::Refused { what, status, said },
        }
    }
}

/// Helps with the refusals that have one common cause.
fn hint(status: u16) -> &'static str {
    match status {
        403 => "; the user's roles do not allow it",
        501 => "; nothing in this cloud does that for such a server",
        406 => "; the service is older than what is spoken here (Train, 2019)",
        _ => "",
    }
}

fn again(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |d| format!("; it wants to be asked again in {d:?}"))
}

/// Quotas (Nova: 403, Neutron: 409, Cinder and Glance: 413) and address ranges that are used up (Neutron: 409, 400).
fn is_no_room(answer: &Answer) -> bool {
    let text = answer.text().to_ascii_lowercase();
    [
        "quota exceeded",
        "quotaexceeded",
        "overquota",
        "exceeds the quota",
        "exceeded for quota",
        "overlimit",
        "limitexceeded",
        // Nova's words when ports are used up.
        "is over the limit",
        "no more ip addresses available",
        "ipaddressgenerationfailure",
        "externalipaddressexhausted",
    ]
    .iter()
    .any(|word| text.contains(word))
}

/// The service's own words. Every service wraps them in another way: `{"badRequest": {"message": …}}` (Nova, Cinder),
/// `{"NeutronError": {"message": …}}` or a text there, `{"error": {"message": …}}` (Keystone), a page of HTML (Glance).
fn said(answer: &Answer) -> String {
    let text = match answer.json::<serde_json::Value>() {
        Ok(value) => {
            let inner = value.as_object().and_then(|map| map.values().next());
            let message = inner.map(|inner| inner.get("message").unwrap_or(inner));
            let message = value.get("message").or(message);
            message.and_then(|m| m.as_str()).map_or_else(|| value.to_string(), str::to_owned)
        }
        Err(_) => without_tags(&answer.text()),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    if line.is_empty() {
        return "it says nothing".to_owned();
    }
    line.chars().take(SAID_MAX_CHARS).collect()
}

fn without_tags(text: &str) -> String {
    let mut plain = String::new();
    let mut in_tag = false;
    for c in text.chars() {
        match c {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                plain.push(' ');
            }
            _ if !in_tag => plain.push(c),
            _ => {}
        }
    }
    plain
}
