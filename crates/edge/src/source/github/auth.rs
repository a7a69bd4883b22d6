//! Who we are at GitHub: a token, or an App that gets one for an hour at a time.

use super::config::{Auth, GithubConfig};
use super::json;
use crate::clock::wall;
use crate::http::{Http, HttpError, Request, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use std::time::Duration;
use toci_core::time::Time;
use tokio::sync::Mutex;

/// How long an App's signature is good; GitHub takes at most 10 minutes.
const SIGNATURE_LIMIT: Duration = Duration::from_secs(540);
/// A clock of ours that is this far ahead does no harm.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// A token is renewed when it is good for less than this.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// The token to be used now, and until when.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    now: Mutex<Option<(Secret, Time)>>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoToken {
    #[error("the App's private key is of no use: {0}")]
    Key(&'static str),
    #[error("ask for the App's token")]
    Ask(#[from] HttpError),
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: String,
}

impl Tokens {
    pub(super) async fn token(
        &self,
        http: &Http,
        config: &GithubConfig,
    ) -> Result<Secret, NoToken> {
        let (id, key, installation) = match &config.auth {
            Auth::Token(token) => return Ok(token.clone()),
            Auth::App { id, key, installation } => (id, key, *installation),
        };
        let mut kept = self.now.lock().await;
        let now = Time(0).after(wall());
        if let Some((token, until)) = &*kept
            && until.since(now) > RENEW_BEFORE
        {
            return Ok(token.clone());
        }
        let url = config.api.join(&format!("/app/installations/{installation}/access_tokens"));
        let signed = signed(id, key, wall())?;
        let request = Request::post(&url).bearer(&signed).header("accept", super::api::MEDIA_TYPE);
        let granted: Granted = http.send(request).await?.well()?.json()?;
        let until = json::time(&granted.expires_at).unwrap_or(now);
        let token = Secret::new(granted.token);
        *kept = Some((token.clone(), until));
        Ok(token)
    }

    /// The token was not taken: the next one is a new one.
    pub(super) async fn forget(&self) {
        *self.now.lock().await = None;
    }
}

/// A JSON web token of the App, signed RS256.
pub(super) fn signed(id: &str, key: &Secret, now: Duration) -> Result<Secret, NoToken> {
    let pair = pair(key)?;
    let claims = serde_json::json!({
        "iat": now.saturating_sub(CLOCK_SLACK).as_secs(),
        "exp": (now + SIGNATURE_LIMIT).as_secs(),
        "iss": id,
    });
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!(
        "{}.{}",
        encode(br#"{"alg":"RS256","typ":"JWT"}"#),
        encode(claims.to_string().as_bytes())
    );
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .map_err(|_| NoToken::Key("it does not sign"))?;
    Ok(Secret::new(format!("{text}.{}", encode(&signature))))
}

pub(super) fn pair(key: &Secret) -> Result<RsaKeyPair, NoToken> {
    let der = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
        .map_err(|_| NoToken::Key("it is no PEM"))?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err(NoToken::Key("it is no RSA key")),
    };
    pair.map_err(|_| NoToken::Key("it is no RSA key of 2048 to 4096 bits"))
}
