//! The host's credential for the server: got once with a one-time token, kept in the state.

use crate::config::Config;
use crate::state::{self, StateDir, StateError};
use std::path::{Path, PathBuf};
use toci_client::api::{ApiClient, BadEndpoint, BadToken, ClientError, Endpoint, Token};
use toci_wire::api::{EnrolRequest, ErrorKind};

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The configuration names no server.
    #[error("the configuration has no [server]; add it, or use `run --standalone`")]
    NoServer,
    /// There is none and no token to get one with.
    #[error(
        "this host is not enrolled: ask an operator for a token (`toci host enrol`) and run `toci-host enrol --token-file F`, or set server.enrol_token_file"
    )]
    NotEnrolled,
    /// `server.url` is not one.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    /// The token's file does not hold one.
    #[error("token")]
    Token(#[from] BadToken),
    /// The CA cannot be read.
    #[error("read {path}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server said no.
    #[error("enrol")]
    Server(#[from] ClientError),
    /// The state folder.
    #[error("state")]
    State(#[from] StateError),
}

impl CredentialError {
    /// The server has answered, and said no for good.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            CredentialError::Server(ClientError::Api { error, .. }) if error.kind == ErrorKind::Refused
        )
    }
}

fn path(state: &StateDir) -> PathBuf {
    state.root().join("credential")
}

fn bare(config: &Config, url: Option<&str>) -> Result<ApiClient, CredentialError> {
    let server = config.server.as_ref();
    let url = url.or(server.map(|s| s.url.as_str())).ok_or(CredentialError::NoServer)?;
    let ca = server.and_then(|s| s.ca.as_ref());
    let pem = ca.map(|path| {
        std::fs::read(path).map_err(|source| CredentialError::Ca { path: path.clone(), source })
    });
    let endpoint: Endpoint = url.parse()?;
    Ok(ApiClient::new(endpoint, None, pem.transpose()?.as_deref())?)
}

/// A client with the host's credential; enrols first when there is none yet.
pub async fn client(config: &Config, state: &StateDir) -> Result<ApiClient, CredentialError> {
    let bare = bare(config, None)?;
    let path = path(state);
    if !path.exists() {
        let file = config.server.as_ref().and_then(|s| s.enrol_token_file.clone());
        enrol(config, state, None, &file.ok_or(CredentialError::NotEnrolled)?).await?;
    }
    Ok(bare.with_token(Token::from_file(&path)?))
}

/// Trades a one-time token for a credential.
pub async fn enrol(
    config: &Config,
    state: &StateDir,
    url: Option<&str>,
    token_file: &Path,
) -> Result<(), CredentialError> {
    enrol_with(config, state, url, Token::from_file(token_file)?).await
}

/// Trades this one-time token for a credential.
pub async fn enrol_with(
    config: &Config,
    state: &StateDir,
    url: Option<&str>,
    token: Token,
) -> Result<(), CredentialError> {
    let token = token.reveal().to_owned();
    let request = EnrolRequest { token, host: config.name.to_string() };
    let enrolled = bare(config, url)?.enrol(&request).await?;
    Ok(state::write_private(&path(state), enrolled.token.as_bytes())?)
}
