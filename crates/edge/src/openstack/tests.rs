//! Token, retries and pages, against a server on loopback that answers as OpenStack does. The services themselves are
//! met in tests/cloud.

use super::*;
use crate::http::fake::{Fake, Reply, Seen};
use crate::http::{Method, Secret};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use toci_wire::clouds::{Auth, CloudSettings, Interface, Named, Scope, TlsSettings, UserRef};

fn settings(url: &str) -> CloudSettings {
    let domain = Named::Id("default".into());
    CloudSettings {
        name: "c".into(),
        auth_url: url.to_owned(),
        auth: Auth::Password {
            user: UserRef::Name { name: "ci".into(), domain: domain.clone() },
            password: Secret::new("hush"),
            scope: Scope::Project(UserRef::Name { name: "p".into(), domain }),
        },
        region: Some("R1".into()),
        interface: Interface::Public,
        tls: TlsSettings::System,
        overrides: [("image".to_owned(), format!("{url}/image"))].into(),
    }
}

/// One that does not wait.
fn client(url: &str) -> Cloud {
    let mut cloud = Cloud::new(settings(url)).unwrap();
    cloud.retry_wait = Duration::ZERO;
    cloud
}

/// A token that lasts so many seconds, with a catalogue that leads back here.
fn token(seen: &Seen, number: usize, seconds: u32) -> Reply {
    let here = format!("http://{}/compute", seen.header("host"));
    let endpoint = |interface: &str, region: &str, url: &str| json!({"interface": interface, "region": region, "region_id": region, "url": url});
    let token = json!({"token": {
        "issued_at": "2026-11-26T10:00:00.000000Z",
        "expires_at": format!("2026-11-26T10:{:02}:{:02}.000000Z", seconds / 60, seconds % 60),
        "user": {"id": "u1", "name": "ci"},
        "project": {"id": "p1", "name": "p"},
        "roles": [{"id": "r1", "name": "member"}],
        "catalog": [{"type": "compute", "endpoints": [
            endpoint("internal", "R1", "http://192.0.2.1"),
            endpoint("public", "R2", "http://192.0.2.1"),
            endpoint("public", "R1", &here),
        ]}, {"type": "network", "endpoints": [endpoint("public", "R2", "http://192.0.2.1")]}],
    }});
    Reply::new(201, token.to_string()).header("x-subject-token", &format!("token-{number}"))
}

/// A cloud whose Nova answers by a function of the call's number.
async fn cloud(
    seconds: u32,
    nova: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
) -> (Fake, Cloud) {
    let (tokens, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fake = Fake::start(move |seen| match seen.target.as_str() {
        "/v3/auth/tokens" => token(seen, tokens.fetch_add(1, Ordering::SeqCst), seconds),
        _ => nova(calls.fetch_add(1, Ordering::SeqCst), seen),
    })
    .await;
    let session = client(&fake.url.server());
    (fake, session)
}

fn targets(fake: &Fake) -> Vec<String> {
    fake.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
}

const FLAVORS: &str =
    r#"{"flavors": [{"id": "1", "name": "tiny", "vcpus": 1, "ram": 64, "disk": 1}]}"#;

#[tokio::test]
async fn a_token_is_got_once_and_used() {
    let (fake, session) = cloud(3600, |_, _| Reply::new(200, FLAVORS)).await;
    let many = (0..8).map(|_| session.flavors());
    for flavors in futures_util::future::join_all(many).await {
        assert_eq!(flavors.unwrap()[0].name, "tiny");
    }
    let seen = fake.seen();
    assert_eq!(seen.iter().filter(|s| s.target == "/v3/auth/tokens").count(), 1);
    let asked = seen[0].json();
    assert_eq!(asked["auth"]["identity"]["password"]["user"]["domain"]["id"], "default");
    assert_eq!(asked["auth"]["scope"]["project"]["name"], "p");
    assert_eq!(seen[1].target, "/compute/v2.1/flavors/detail");
    assert_eq!(seen[1].header("x-auth-token"), "token-0");
    assert_eq!(seen[1].header("openstack-api-version"), "compute 2.79");
    let facts = session.whoami().await.unwrap();
    assert_eq!((facts.project_id.as_deref(), facts.roles), (Some("p1"), vec!["member".to_owned()]));
    let counts = session.counts();
    assert_eq!((counts.len(), counts[1].count, counts[1].status), (2, 8, Some(200)));
    assert_eq!(counts[1].method, Method::GET);
    assert!(
        !format!("{session:?}").contains("hush") && !format!("{session:?}").contains("token-0")
    );
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_once_when_it_is_not_taken() {
    // Shorter than what is kept in reserve: each call gets a new one.
    let (fake, session) = cloud(60, |_, _| Reply::new(200, FLAVORS)).await;
    session.flavors().await.unwrap();
    session.flavors().await.unwrap();
    assert_eq!(fake.seen()[3].header("x-auth-token"), "token-1");
    let (fake, session) = cloud(3600, |_, seen| match seen.header("x-auth-token") {
        "token-0" => Reply::new(401, r#"{"error": {"message": "who?", "code": 401}}"#),
        _ => Reply::new(200, FLAVORS),
    })
    .await;
    session.flavors().await.unwrap();
    session.flavors().await.unwrap();
    assert_eq!(targets(&fake).iter().filter(|t| t.ends_with("tokens")).count(), 2);
    let (fake, session) = cloud(3600, |_, _| Reply::new(401, "")).await;
    let error = session.flavors().await.unwrap_err();
    assert!(matches!(error, CloudError::Unauthorised { .. }), "{error}");
    assert_eq!(fake.seen().len(), 4, "two tokens, two attempts");
}

#[tokio::test]
async fn wrong_credentials_are_told_at_once() {
    let fake = Fake::start(|_| {
        Reply::new(401, r#"{"error": {"message": "The request you have made requires authentication.", "code": 401}}"#)
    })
    .await;
    let session = client(&fake.url.server());
    let error = session.flavors().await.unwrap_err();
    assert!(matches!(error, CloudError::Unauthorised { .. }), "{error}");
    assert!(error.to_string().contains("requires authentication.; check user"), "{error}");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_busy_service_is_asked_again_when_it_says() {
    let (fake, session) = cloud(3600, |call, _| match call {
        0 => Reply::new(429, "").header("retry-after", "0"),
        1 => Reply::new(503, "")
            .header("date", "Thu, 26 Nov 2026 09:00:00 GMT")
            .header("retry-after", "Thu, 26 Nov 2026 09:00:00 GMT"),
        2 => Reply::new(413, "").header("retry-after", "0"),
        _ => Reply::new(202, r#"{"server": {"id": "s1"}}"#),
    })
    .await;
    let id: Value = session.post(Service::Compute, "/servers", json!({})).await.unwrap();
    assert_eq!((id["server"]["id"].as_str(), fake.seen().len()), (Some("s1"), 5));
    // More than we wait.
    let (fake, session) =
        cloud(3600, |_, _| Reply::new(429, "{}").header("retry-after", "3600")).await;
    let error = session.flavors().await.unwrap_err();
    assert!(matches!(error, CloudError::Busy { status: 429, .. }), "{error}");
    assert!(error.to_string().contains("asked again in 3600s"), "{error}");
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn only_what_may_be_done_twice_is_tried_again_after_a_failure() {
    let (fake, session) = cloud(3600, |_, _| Reply::new(500, "<h1>oops</h1>")).await;
    let made = session.post::<Value>(Service::Compute, "/servers", json!({})).await;
    let error = made.unwrap_err();
    assert!(matches!(error, CloudError::Failed { status: 500, .. }), "{error}");
    assert!(error.to_string().contains("500: oops;"), "{error}");
    assert_eq!(fake.seen().len(), 2);
    session.delete_server("s1").await.unwrap_err();
    let attempts = usize::try_from(CALL_ATTEMPTS_MAX).unwrap();
    assert_eq!(fake.seen().len(), 2 + attempts);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let (_fake, session) = cloud(3600, |call, _| match call {
        0 => Reply::new(403, r#"{"forbidden": {"message": "Quota exceeded for instances: Requested 1, but already used 1 of 1", "code": 403}}"#),
        1 => Reply::new(409, r#"{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['floatingip'].", "detail": ""}}"#),
        2 => Reply::new(409, r#"{"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more IP addresses available on network n1.", "detail": ""}}"#),
        3 => Reply::new(403, r#"{"forbidden": {"message": "Policy doesn't allow it", "code": 403}}"#),
        4 => Reply::new(409, r#"{"conflictingRequest": {"message": "it is being built", "code": 409}}"#),
        5 => Reply::new(400, r#"{"badRequest": {"message": "no such flavor", "code": 400}}"#),
        6 => Reply::new(404, ""),
        7 => Reply::new(413, r#"{"overLimit": {"code": 413, "message": "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. Requested 2G, quota is 1G and 1G has been consumed.", "retryAfter": "0"}}"#).header("retry-after", "0"),
        // Nova on Ironic, asked for a console.
        8 => Reply::new(501, r#"{"notImplemented": {"message": "The requested functionality is not supported.", "code": 501}}"#),
        _ => Reply::new(200, "[]"),
    })
    .await;
    let post = || session.post::<Value>(Service::Compute, "/servers", json!({}));
    let mut told = Vec::new();
    for _ in 0..9 {
        let error = post().await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("POST http://127.0.0.1:") && text.contains("/compute/v2.1/servers: "),
            "{text}"
        );
        told.push(match error {
            CloudError::OverQuota { .. } => "no room",
            CloudError::Refused { status: 403, .. } => "forbidden",
            CloudError::Refused { status: 400, .. } => "bad",
            CloudError::Refused { status: 501, .. } => "never",
            CloudError::Conflict { .. } => "conflict",
            CloudError::NotFound { .. } => "not there",
            other => panic!("{other}"),
        });
    }
    assert_eq!(
        told,
        [
            "no room",
            "no room",
            "no room",
            "forbidden",
            "conflict",
            "bad",
            "not there",
            "no room",
            "never"
        ]
    );
    let odd = session.servers(&[]).await.unwrap_err();
    assert!(matches!(odd, CloudError::Unexpected { .. }), "{odd}");
    let none = session.networks(&[]).await.unwrap_err().to_string();
    assert_eq!(
        none,
        "no address of the service network: wanted is public in R1, there is public in R2"
    );
    let none = session.volumes(&[]).await.unwrap_err().to_string();
    assert_eq!(none, "no address of the service block-storage: the cloud has compute, network");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let image = |id: &str| json!({"id": id, "status": "active", "toci": "mine"});
    let (fake, session) = cloud(3600, move |_, seen| {
        let page = match seen.target.as_str() {
            "/compute/v2.1/flavors/detail" => json!({"flavors": [{"id": "1", "name": "a", "vcpus": 1, "ram": 1, "disk": 0}],
                "flavors_links": [{"rel": "next", "href": "https://wrong.example/v2.1/flavors/detail?limit=1&marker=a%2Fb+c"}]}),
            "/compute/v2.1/flavors/detail?limit=1&marker=a%2Fb%20c" => json!({"flavors": []}),
            "/image/v2/images?name=x%20y" => {
                json!({"images": [image("1")], "next": "/v2/images?name=x+y&marker=1"})
            }
            "/image/v2/images?name=x%20y&marker=1" => json!({"images": [image("2")]}),
            other => panic!("{other}"),
        };
        Reply::new(200, page.to_string())
    })
    .await;
    assert_eq!(session.flavors().await.unwrap().len(), 1);
    let images = session.images(&[("name", "x y")]).await.unwrap();
    assert_eq!((images.len(), images[1].property("toci")), (2, Some("mine")));
    assert_eq!(fake.seen().len(), 5);
}

#[tokio::test]
async fn a_cloud_that_is_not_there_is_told_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let session = client(&url);
    let error = session.flavors().await.unwrap_err();
    assert!(matches!(error, CloudError::Unreachable { .. }) && error.may_pass(), "{error}");
}
