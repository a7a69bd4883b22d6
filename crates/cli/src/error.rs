//! Errors as people see them: what happened, and what to do next.

use crate::exit::Exit;
use crate::output::complain;
use core::fmt;
use toci_client::api::ClientError;
use toci_core::chain::Chain;
use toci_demo::DemoError;
use toci_wire::api::ErrorKind;

/// An error with its exit code and what to do next.
#[derive(Debug)]
pub struct CliError {
    /// How the program ends.
    pub exit: Exit,
    /// What happened: a lowercase fragment.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
    /// A stable word for programs.
    pub code: String,
}

/// What most functions here give.
pub type Result<T, E = CliError> = core::result::Result<T, E>;

impl CliError {
    /// An error.
    pub fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> CliError {
        let code = match exit {
            Exit::Usage => "usage",
            Exit::Unreachable => "unreachable",
            Exit::NotAllowed => "not_allowed",
            _ => "failed",
        };
        CliError { exit, message: message.into(), hint: hint.into(), code: code.into() }
    }

    /// The caller's fault, found before anything was sent.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> CliError {
        CliError::new(Exit::Usage, message, hint)
    }

    /// The world's fault, with its causes.
    pub fn failed(what: impl fmt::Display, source: &dyn std::error::Error) -> CliError {
        CliError::new(Exit::Failed, format!("{what}: {}", Chain(source)), "")
    }

    /// As `error: …` and `hint: …`, or as one JSON object in the API's own form.
    pub fn print(&self, json: bool) {
        if json {
            let error = serde_json::json!({
                "message": self.message, "hint": self.hint, "code": self.code, "exit": self.exit.code(),
            });
            complain(&serde_json::json!({ "error": error }).to_string());
            return;
        }
        complain(&format!("error: {}", self.message));
        if !self.hint.is_empty() {
            complain(&format!("hint: {}", self.hint));
        }
    }
}

impl From<DemoError> for CliError {
    fn from(error: DemoError) -> CliError {
        CliError::new(Exit::Failed, error.message, error.hint)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        match &error {
            ClientError::Api { status, error } => CliError {
                exit: match (*status, error.kind) {
                    (401 | 403, _) => Exit::NotAllowed,
                    (_, ErrorKind::Refused) => Exit::Refused,
                    (_, ErrorKind::Failed) => Exit::Failed,
                },
                message: error.message.clone(),
                hint: if error.hint.is_empty() && *status == 401 {
                    "give a token with --token-file or TOCI_TOKEN_FILE; `toci token create` makes one".into()
                } else {
                    error.hint.clone()
                },
                code: error.code.clone(),
            },
            ClientError::Unreachable { server, reason, hint, .. } => {
                CliError::new(Exit::Unreachable, format!("cannot reach {server}: {reason}"), *hint)
            }
            ClientError::Broken { .. } | ClientError::TooSlow { .. } => CliError::new(
                Exit::Unreachable,
                Chain(&error).to_string(),
                "the server may be restarting; try again",
            ),
            ClientError::Protocol { .. } => {
                CliError::new(Exit::Failed, Chain(&error).to_string(), "check --server")
            }
            ClientError::Source(_) => CliError::new(Exit::Failed, Chain(&error).to_string(), ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toci_wire::api::ApiError;

    fn api(status: u16, kind: ErrorKind) -> CliError {
        let error = ApiError { kind, code: "c".into(), message: "m".into(), hint: String::new() };
        ClientError::Api { status, error }.into()
    }

    #[test]
    fn exit_codes_follow_whose_fault_it_is() {
        assert_eq!(api(422, ErrorKind::Refused).exit, Exit::Refused);
        assert_eq!(api(503, ErrorKind::Failed).exit, Exit::Failed);
        assert_eq!(api(403, ErrorKind::Refused).exit, Exit::NotAllowed);
        let no_token = api(401, ErrorKind::Refused);
        assert!(no_token.hint.contains("--token-file"), "{no_token:?}");
    }
}
