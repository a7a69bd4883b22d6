//! First boot of an image for TE hosts: settings and one-time token come with the cloud's user data.

use crate::agent::{CredentialError, enrol_with};
use crate::config::{Config, ConfigError};
use crate::state::{self, StateDir, StateError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_client::api::{BadToken, Token};
use toci_core::chain::Chain;
use toci_core::id::HostId;
use toci_wire::te_host::{UserData, public_keys};

/// Attempts to enrol: the network may come up after us, and the server after the network.
const ENROL_ATTEMPTS_MAX: u32 = 120;
/// Pause between them.
const ENROL_PAUSE: Duration = Duration::from_secs(5);
/// Where keys of operators go.
const AUTHORIZED_KEYS: &str = "/root/.ssh/authorized_keys";

/// Why the machine did not become a TE host.
#[derive(Debug, thiserror::Error)]
pub enum FirstBootError {
    /// The user data cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// They are not ours.
    #[error("{path} is not what `toci host deploy` gives to a server: {source}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The settings in it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The token in it.
    #[error("token")]
    Token(#[from] BadToken),
    /// Settings, keys or state cannot be written.
    #[error("write")]
    State(#[from] StateError),
    /// No credential.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl FirstBootError {
    /// Trying again would not help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            FirstBootError::Foreign { .. }
            | FirstBootError::Config(_)
            | FirstBootError::Token(_) => true,
            FirstBootError::Credential(e) => e.is_final(),
            FirstBootError::Read { .. } | FirstBootError::State(_) => false,
        }
    }
}

fn read(path: &Path) -> Result<String, FirstBootError> {
    std::fs::read_to_string(path)
        .map_err(|source| FirstBootError::Read { path: path.to_owned(), source })
}

fn folder_of(path: &Path) -> Result<(), StateError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|source| StateError::Io {
        doing: "make folder",
        path: folder.to_owned(),
        source,
    })
}

/// Writes the configuration and the operators' keys, and enrols. Safe to repeat; what is there already stays.
pub async fn first_boot(
    config_path: &Path,
    user_data: &Path,
    meta_data: Option<&Path>,
) -> Result<HostId, FirstBootError> {
    let foreign = |path: &Path| {
        let path = path.to_owned();
        move |source| FirstBootError::Foreign { path, source }
    };
    let data: UserData = serde_json::from_str(&read(user_data)?).map_err(foreign(user_data))?;
    // Before anything may be wrong: whoever wants to know what it is has to come in.
    if let Some(path) = meta_data {
        let keys = public_keys(&read(path)?).map_err(foreign(path))?;
        let place = Path::new(AUTHORIZED_KEYS);
        if !keys.is_empty() && !place.exists() {
            folder_of(place)?;
            state::write_private(place, keys.as_bytes())?;
        }
    }
    let config = Config::parse(config_path, &data.toci_host.config)?;
    let state = StateDir::open(&config.state)?;
    if !state.root().join("credential").exists() {
        enrolled(&config, &state, &data.toci_host.token).await?;
    }
    if !config_path.exists() {
        folder_of(config_path)?;
        state::write_private(config_path, data.toci_host.config.as_bytes())?;
    }
    Ok(config.name)
}

async fn enrolled(config: &Config, state: &StateDir, token: &str) -> Result<(), FirstBootError> {
    let mut attempt = 1;
    loop {
        match enrol_with(config, state, None, Token::new(token)?).await {
            Ok(()) => return Ok(()),
            Err(e @ CredentialError::Server(_))
                if !e.is_final() && attempt < ENROL_ATTEMPTS_MAX =>
            {
                eprintln!("toci-host: not enrolled yet: {}", Chain(&e));
            }
            Err(e) => return Err(e.into()),
        }
        attempt += 1;
        tokio::time::sleep(ENROL_PAUSE).await;
    }
}
