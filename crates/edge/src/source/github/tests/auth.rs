//! As whom.

use super::super::auth::{self, pair};
use super::super::{Auth, GithubConfig, GithubSource, MergeMethod};
use super::hub::*;
use super::reports::told;
use crate::http::{Secret, Trust};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};
use std::time::Duration;
use toci_core::event::SourceName;
use toci_core::layout::GerritVote;
use toci_core::pipeline::ReportAction;

fn rsa_key() -> Secret {
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl is missing: apt-get install openssl");
    Secret::new(String::from_utf8(made.stdout).unwrap())
}

#[tokio::test]
async fn an_app_signs_for_its_token_and_tells_check_runs() {
    let hub = Hub::start().await;
    let key = rsa_key();
    let signed = auth::signed("123", &key, Duration::from_secs(1_000_000)).unwrap();
    let (text, signature) = signed.reveal().rsplit_once('.').unwrap();
    let public = pair(&key).unwrap().public_key().as_ref().to_vec();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
    public.verify(text.as_bytes(), &decode(signature)).unwrap();
    let claims: Value = serde_json::from_slice(&decode(text.split_once('.').unwrap().1)).unwrap();
    assert_eq!(claims, json!({"iat": 999_940, "exp": 1_000_540, "iss": "123"}));
    assert!(auth::signed("1", &Secret::new("no key"), Duration::ZERO).is_err());

    let auth = Auth::App { id: "123".into(), key, installation: 42 };
    let source = GithubSource::new(GithubConfig { auth, ..hub.config(&["octo/hello"]) }).unwrap();
    hub.set(
        "POST /app/installations/42/access_tokens",
        201,
        json!({"token": "ghs_app", "expires_at": "2999-01-01T00:00:00Z"}),
    );
    assert_eq!(told(&hub, &source, ReportAction::Start, vec![], false).await, Ok(false));
    let runs = json!({"total_count": 1, "check_runs": [{"id": 8, "name": "toci/gate", "status": "in_progress",
        "conclusion": null, "app": {"slug": "toci"}}]});
    hub.set(&format!("GET /repos/octo/hello/commits/{A}/check-runs"), 200, runs);
    let quiet = vec![GerritVote::Flag("status-only".into())];
    assert_eq!(told(&hub, &source, ReportAction::Failure, quiet, false).await, Ok(false));
    let calls = hub.changes();
    let targets: Vec<_> = calls.iter().map(|c| (c.method.as_str(), c.target.as_str())).collect();
    assert_eq!(
        targets,
        [
            ("POST", "/app/installations/42/access_tokens"),
            ("POST", "/repos/octo/hello/check-runs"),
            ("PATCH", "/repos/octo/hello/check-runs/8"),
        ],
        "the token is asked for once"
    );
    assert_eq!(calls[1].header("authorization"), "Bearer ghs_app");
    assert_eq!(
        (&calls[1].json()["status"], &calls[1].json()["head_sha"]),
        (&"in_progress".into(), &A.into())
    );
    assert_eq!(
        (&calls[2].json()["status"], &calls[2].json()["conclusion"]),
        (&"completed".into(), &"failure".into())
    );
    hub.set("POST /app/installations/42/access_tokens", 500, json!({}));
}

#[test]
fn a_token_goes_to_git_by_its_environment_alone() {
    let config = GithubConfig {
        name: SourceName::new("github").unwrap(),
        api: "https://api.github.com".parse().unwrap(),
        web: "https://github.com".parse().unwrap(),
        trust: Trust::System,
        projects: Vec::new(),
        auth: Auth::Token(Secret::new("ghp_hush")),
        webhook_secret: None,
        every: Duration::from_secs(60),
        merge: MergeMethod::Rebase,
    };
    let remote = config.remote();
    assert_eq!((&remote.prefix[..], &remote.suffix[..]), ("https://github.com/", ".git"));
    assert_eq!(remote.environment[1].1, "http.https://github.com/.extraHeader");
    assert!(!format!("{config:?}").contains("ghp_hush"));
}
