//! Who calls: bearer tokens, of which only the SHA-256 is kept.
//!
//! A token is looked up in the store once and then remembered for [`REMEMBER_FOR`], so that a heartbeat costs no
//! read. Revoking goes through here too, so a revoked token is forgotten at once and its open streams end.

use crate::clock::wall;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use toci_core::hex::hex;
use toci_core::time::Time;
use toci_store::{Store, StoreError, TokenRow};
use toci_wire::api::{NewToken, Role, TokenInfo};
use tokio::sync::watch;

/// How long a token is believed without asking the store (another server might have revoked it).
const REMEMBER_FOR: Duration = Duration::from_secs(10);
/// Most tokens remembered; more only cost reads.
const REMEMBERED_MAX: usize = 10_000;
/// Random bytes in a token.
const TOKEN_RANDOM_BYTES: usize = 24;
/// Longest token that is looked at.
const TOKEN_MAX_BYTES: usize = 512;
/// Digits of the hash that name a token.
const ID_DIGITS: usize = 16;
/// Subject of the token that the first start makes.
const ADMIN: &str = "admin";

/// Whoever has a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) role: Role,
    pub(crate) subject: String,
    /// Lower-case hex SHA-256 of the token.
    hash: String,
    expires: Option<Time>,
}

/// The tokens.
pub(crate) struct Auth {
    store: Store,
    remembered: Mutex<HashMap<String, (Identity, Instant)>>,
    /// Counts revocations.
    revocations: watch::Sender<u64>,
}

/// The operator's token of the first start could not be left behind.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error("write the operator's token to {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The store.
    #[error("keep the operator's token")]
    Store(#[from] StoreError),
    /// The system has no random numbers.
    #[error("make a token: {0}")]
    Random(String),
}

impl Auth {
    pub(crate) fn new(store: Store) -> Auth {
        let remembered = Mutex::new(HashMap::new());
        Auth { store, remembered, revocations: watch::Sender::new(0) }
    }

    /// Who has this token; none when it is no good (any more).
    pub(crate) async fn identify(&self, token: &str) -> Result<Option<Identity>, StoreError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Ok(None);
        }
        self.identify_hash(&hash_of(token)).await
    }

    async fn identify_hash(&self, hash: &str) -> Result<Option<Identity>, StoreError> {
        let remembered = self.remember().get(hash).cloned();
        if let Some((identity, since)) = remembered
            && since.elapsed() < REMEMBER_FOR
        {
            return Ok(Some(identity).filter(Identity::is_fresh));
        }
        let seen = *self.revocations.borrow();
        let row = self.store.token(hash).await?;
        let identity = row.and_then(|row| Identity::of(row, hash)).filter(Identity::is_fresh);
        let mut remembered = self.remember();
        match &identity {
            // A revocation while the store was asked may not be undone by an older answer.
            Some(identity) if *self.revocations.borrow() == seen => {
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.clear();
                }
                remembered.insert(hash.to_owned(), (identity.clone(), Instant::now()));
            }
            Some(_) => {}
            None => {
                remembered.remove(hash);
            }
        }
        Ok(identity)
    }

    /// For [`Auth::until_revoked`]; it tells of revocations since then.
    pub(crate) fn revocations(&self) -> watch::Receiver<u64> {
        let mut revocations = self.revocations.subscribe();
        // The token may have been revoked after it was looked up: look again.
        revocations.mark_changed();
        revocations
    }

    /// Returns when the token is no longer good. Cancel-safe.
    pub(crate) async fn until_revoked(
        &self,
        identity: &Identity,
        revocations: &mut watch::Receiver<u64>,
    ) {
        loop {
            let expiry = async {
                match identity.expires {
                    Some(expires) => tokio::time::sleep(expires.since(wall())).await,
                    None => std::future::pending().await,
                }
            };
            // Seen only when it was looked into: whoever drops this while the store answers asks again.
            let mut news = revocations.clone();
            tokio::select! {
                () = expiry => return,
                changed = news.changed() => {
                    let good = match changed {
                        Ok(()) => self.identify_hash(&identity.hash).await,
                        Err(_) => return,
                    };
                    // A store that does not answer is no reason to cut anybody off.
                    if matches!(good, Ok(None)) {
                        return;
                    }
                    *revocations = news;
                }
            }
        }
    }

    /// A new token; the answer is the only place where it can be read.
    pub(crate) async fn create(
        &self,
        role: Role,
        subject: &str,
        ttl: Option<Duration>,
    ) -> Result<NewToken, TokenError> {
        let token = random_token()?;
        let hash = hash_of(&token);
        let created = wall();
        let expires = ttl.map(|ttl| created.after(ttl));
        self.store.add_token(&row(&hash, role, subject, created, expires)).await?;
        Ok(NewToken {
            id: id_of(&hash),
            token,
            role,
            subject: subject.to_owned(),
            expires_us: expires.map(|e| e.0),
        })
    }

    /// Every token that is good.
    pub(crate) async fn list(&self) -> Result<Vec<TokenInfo>, StoreError> {
        let rows = self.store.tokens().await?;
        let infos = rows.into_iter().filter_map(|row| {
            let identity = Identity::of(row.clone(), &row.hash).filter(Identity::is_fresh)?;
            Some(TokenInfo {
                id: id_of(&row.hash),
                role: identity.role,
                subject: identity.subject,
                created_us: row.created.0,
                expires_us: row.expires.map(|e| e.0),
            })
        });
        Ok(infos.collect())
    }

    /// Makes a token worthless; false when there is none of that id.
    pub(crate) async fn revoke(&self, id: &str) -> Result<bool, StoreError> {
        let rows = self.store.tokens().await?;
        let found = rows.iter().find(|r| r.revoked.is_none() && id_of(&r.hash) == id);
        let Some(found) = found else { return Ok(false) };
        self.store.revoke_token(&found.hash, wall()).await?;
        self.forget_all();
        Ok(true)
    }

    /// Makes the tokens of a host worthless.
    pub(crate) async fn revoke_host(&self, host: &str) -> Result<(), StoreError> {
        for row in self.store.tokens().await? {
            if row.role == Role::Host.as_str() && row.subject == host && row.revoked.is_none() {
                self.store.revoke_token(&row.hash, wall()).await?;
            }
        }
        self.forget_all();
        Ok(())
    }

    /// Something was revoked: ask the store again for everybody.
    pub(crate) fn forget_all(&self) {
        // Counted first: an answer that is under way then finds the count changed and is not kept.
        self.revocations.send_modify(|count| *count += 1);
        self.remember().clear();
        self.revocations.send_modify(|count| *count += 1);
    }

    fn remember(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Identity, Instant)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that an operator can get in: when no operator's token is good, one is made and left in `file`
    /// (0600). Crash anywhere, start again: the file is written before the token counts.
    pub(crate) async fn ensure_admin(&self, file: &Path) -> Result<(), TokenError> {
        let operators = self.list().await?.into_iter().filter(|t| t.role == Role::Operator).count();
        if operators > 0 {
            return Ok(());
        }
        let token = random_token()?;
        write_secret(file, &token)
            .map_err(|source| TokenError::Write { path: file.to_owned(), source })?;
        self.store.add_token(&row(&hash_of(&token), Role::Operator, ADMIN, wall(), None)).await?;
        tracing::info!(file = %file.display(), "wrote a new operator's token");
        Ok(())
    }
}

impl Identity {
    fn of(row: TokenRow, hash: &str) -> Option<Identity> {
        let same: bool = row.hash.as_bytes().ct_eq(hash.as_bytes()).into();
        if !same || row.revoked.is_some() {
            return None;
        }
        let role = row.role.parse().ok()?;
        Some(Identity { role, subject: row.subject, hash: row.hash, expires: row.expires })
    }

    fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|expires| expires > wall())
    }
}

fn row(hash: &str, role: Role, subject: &str, created: Time, expires: Option<Time>) -> TokenRow {
    TokenRow {
        hash: hash.to_owned(),
        role: role.as_str().to_owned(),
        subject: subject.to_owned(),
        created,
        expires,
        revoked: None,
    }
}

/// Lower-case hex SHA-256.
pub(crate) fn hash_of(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// A new secret.
pub(crate) fn random_token() -> Result<String, TokenError> {
    let mut bytes = [0u8; TOKEN_RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| TokenError::Random(e.to_string()))?;
    Ok(format!("toci_{}", hex(&bytes)))
}

fn id_of(hash: &str) -> String {
    hash.chars().take(ID_DIGITS).collect()
}

/// Written under another name first, so that a reader sees all of it or nothing.
fn write_secret(file: &Path, secret: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    match std::fs::remove_file(&draft) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut out =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(out, "{secret}")?;
    out.sync_all()?;
    std::fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn auth() -> Auth {
        Auth::new(Store::open("sqlite::memory:").await.unwrap())
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_is_revoked_or_expired() {
        let auth = auth().await;
        let token = auth.create(Role::Client, "ci", None).await.unwrap();
        let found = auth.identify(&token.token).await.unwrap().unwrap();
        assert_eq!((found.role, found.subject.as_str()), (Role::Client, "ci"));
        assert_eq!(auth.identify("toci_wrong").await.unwrap(), None);
        assert!(!format!("{token:?}").contains(&token.token));

        let mut revocations = auth.revocations();
        let watched = auth.until_revoked(&found, &mut revocations);
        tokio::pin!(watched);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut watched).await.is_err());
        assert!(auth.revoke(&token.id).await.unwrap());
        assert!(!auth.revoke(&token.id).await.unwrap());
        tokio::time::timeout(Duration::from_secs(5), watched).await.unwrap();
        assert_eq!(auth.identify(&token.token).await.unwrap(), None);

        let brief = auth.create(Role::Client, "ci", Some(Duration::ZERO)).await.unwrap();
        assert_eq!(auth.identify(&brief.token).await.unwrap(), None);
        assert_eq!(auth.list().await.unwrap(), vec![]);
    }

    #[tokio::test]
    async fn the_first_start_leaves_one_operator_token_and_later_ones_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin.token");
        let auth = auth().await;
        auth.ensure_admin(&file).await.unwrap();
        let token = std::fs::read_to_string(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let found = auth.identify(token.trim()).await.unwrap().unwrap();
        assert_eq!((found.role, found.subject.as_str()), (Role::Operator, "admin"));
        auth.ensure_admin(&file).await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
        auth.revoke(&auth.list().await.unwrap()[0].id).await.unwrap();
        auth.ensure_admin(&file).await.unwrap();
        assert_ne!(std::fs::read_to_string(&file).unwrap(), token);
    }
}
