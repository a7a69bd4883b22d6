//! What can go wrong with a request.

use std::error::Error;
use std::io;
use std::time::Duration;

/// Most characters of an unwelcome answer that an error shows.
const ANSWER_SHOWN_MAX_CHARS: usize = 300;

/// A request without a useful answer. No variant holds a header or a query.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is none.
    #[error("`{url}` is not an address: {why}")]
    BadUrl {
        /// The text, without what may be secret in it.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A header's name or value cannot be sent.
    #[error("header {name} cannot be sent: it holds characters that may not stand there")]
    BadHeader {
        /// Which.
        name: String,
    },
    /// The file of certificate authorities is of no use.
    #[error("read certificate authorities from {path}")]
    Trust {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No connection.
    #[error("connect to {server}")]
    Unreachable {
        /// Scheme and server.
        server: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No answer, or no progress, within the limit.
    #[error("{what}: no answer within {limit:?}")]
    TooSlow {
        /// Method and address.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer is longer than allowed.
    #[error("{what}: the answer is longer than {max} bytes")]
    TooLong {
        /// Method and address.
        what: String,
        /// The limit.
        max: usize,
    },
    /// The connection broke; whether the other side has done what was asked is not known.
    #[error("{what}: the connection broke")]
    Broken {
        /// Method and address.
        what: String,
        /// How.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer is a redirect that is not followed: to another server, of a request that changes something, or too many.
    #[error(
        "{what}: redirected to {to}, which is not followed; configure that address if it is the right one"
    )]
    Redirected {
        /// Method and address.
        what: String,
        /// Where to, without its query.
        to: String,
    },
    /// The answer's status is not 2xx ([`super::Answer::well`]).
    #[error("{what}: answered {status}: {text}")]
    Status {
        /// Method and address.
        what: String,
        /// E.g. 404.
        status: u16,
        /// The beginning of the answer.
        text: String,
    },
    /// The answer is no such JSON as was expected.
    #[error("{what}: the answer is not as expected")]
    Unexpected {
        /// Method and address.
        what: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A local file could not be read or written.
    #[error("{what}: local file")]
    File {
        /// Method and address.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl HttpError {
    /// The status, when there was an answer with one that was not welcome.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            HttpError::Status { status, .. } => Some(*status),
            HttpError::BadUrl { .. }
            | HttpError::BadHeader { .. }
            | HttpError::Trust { .. }
            | HttpError::Unreachable { .. }
            | HttpError::TooSlow { .. }
            | HttpError::TooLong { .. }
            | HttpError::Broken { .. }
            | HttpError::Redirected { .. }
            | HttpError::Unexpected { .. }
            | HttpError::File { .. } => None,
        }
    }

    /// Whether the same request may go well later: the network, a time limit, a 5xx, 408 or 429.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            HttpError::Unreachable { .. }
            | HttpError::TooSlow { .. }
            | HttpError::Broken { .. } => true,
            HttpError::Status { status, .. } => *status >= 500 || matches!(*status, 408 | 429),
            HttpError::BadUrl { .. }
            | HttpError::BadHeader { .. }
            | HttpError::Trust { .. }
            | HttpError::TooLong { .. }
            | HttpError::Redirected { .. }
            | HttpError::Unexpected { .. }
            | HttpError::File { .. } => false,
        }
    }
}

/// The beginning of an unwelcome answer, as one line of text.
pub(super) fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(ANSWER_SHOWN_MAX_CHARS)
        .collect();
    line.trim().to_owned()
}
