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

/// Files that a first boot reads and writes besides its configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Files {
    /// File with the user data.
    #[arg(long)]
    pub user_data: PathBuf,
    /// File with OpenStack's meta data: its keys may log in as root.
    #[arg(long)]
    pub meta_data: Option<PathBuf>,
    /// Where an SSH host key goes that is in the user data.
    #[arg(long)]
    pub ssh_host_key: Option<PathBuf>,
}

/// Writes the configuration, the operators' keys and the SSH host key, and enrols. Safe to repeat; what is there already stays.
pub async fn first_boot(config_path: &Path, files: &Files) -> Result<HostId, FirstBootError> {
    let Files { user_data, meta_data, ssh_host_key } = files;
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
    if let (Some(place), Some(key)) = (ssh_host_key, &data.toci_host.ssh_host_key) {
        give_host_key(place, key)?;
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

/// The key takes the place of the machine's own one. Its public half is no secret and is made from it again.
fn give_host_key(place: &Path, key: &str) -> Result<(), StateError> {
    if std::fs::read_to_string(place).is_ok_and(|there| there == key) {
        return Ok(());
    }
    folder_of(place)?;
    state::write_private(place, key.as_bytes())?;
    state::remove(&place.with_extension("pub"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_given_host_key_replaces_the_machines_own_once() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("ssh/ssh_host_ed25519_key");
        let public = place.with_extension("pub");
        // There is none yet.
        give_host_key(&place, "first").unwrap();
        std::fs::write(&public, "of the first").unwrap();
        give_host_key(&place, "second").unwrap();
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "second");
        assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!public.exists(), "it is the public half of another key");
        // A repeated first boot leaves what was made from it.
        std::fs::write(&public, "of the second").unwrap();
        give_host_key(&place, "second").unwrap();
        assert!(public.exists());
    }
}
