//! From global options to a client of the server.

use crate::args::GlobalArgs;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use std::path::Path;
use toci_client::api::{ApiClient, BadToken, Endpoint, Token};
use toci_core::chain::Chain;

/// Where the server is when nothing says otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// A client with the token of `--token-file`, `TOCI_TOKEN_FILE` or `TOCI_TOKEN`.
///
/// # Errors
/// A bad address, an unreadable token or CA file.
pub fn client(global: &GlobalArgs) -> Result<ApiClient> {
    let endpoint = endpoint(global)?;
    let ca = global.ca.as_deref().map(read_ca).transpose()?;
    let token = token(global)?;
    Ok(ApiClient::new(endpoint, token, ca.as_deref())?)
}

/// The server's address.
///
/// # Errors
/// It is none.
pub fn endpoint(global: &GlobalArgs) -> Result<Endpoint> {
    global
        .server
        .parse::<Endpoint>()
        .map_err(|e| CliError::usage(e.to_string(), "give it with --server or TOCI_SERVER"))
}

fn read_ca(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        CliError::new(
            Exit::Failed,
            format!("read CA file {}: {e}", path.display()),
            "--ca wants the PEM file of the CA that signed the server's certificate",
        )
    })
}

fn token(global: &GlobalArgs) -> Result<Option<Token>> {
    let token = match &global.token_file {
        Some(path) => Token::from_file(path),
        // Never an option of its own: arguments can be read by everybody on the machine.
        None => match std::env::var("TOCI_TOKEN") {
            Ok(text) => Token::new(&text),
            Err(_) => return Ok(None),
        },
    };
    token.map(Some).map_err(|e| {
        let hint = match &e {
            BadToken::Malformed => "the file must hold nothing but the token",
            BadToken::Read { .. } => {
                "an operator's token is in <state>/admin.token of the server; `toci token create` makes others"
            }
        };
        CliError::new(Exit::NotAllowed, Chain(&e).to_string(), hint)
    })
}
