//! The client against a server on loopback.

use super::fake::{Fake, Reply};
use super::{Http, HttpError, Method, Request, Secret, Trust, Url};
use rustls_pki_types::PrivateKeyDer;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

fn http() -> Http {
    Http::new(&Trust::System).unwrap()
}

#[tokio::test]
async fn what_is_sent_arrives_and_connections_are_kept() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => Reply::new(201, r#"{"id": 7}"#),
        _ => Reply::new(200, "hello").header("x-rate", "5"),
    })
    .await;
    let http = http();
    let url = fake.url.join("/a").query("q", "x y");
    let answer = http.send(Request::get(&url).header("accept", "text/plain")).await.unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert_eq!((answer.header("X-Rate"), answer.header("none")), (Some("5"), None));
    let question = serde_json::json!({"body": "ü"});
    let answer = http.send(Request::post(&url).json(&question)).await.unwrap().well().unwrap();
    assert_eq!(answer.json::<serde_json::Value>().unwrap()["id"], 7);
    let seen = fake.seen();
    assert_eq!(seen[0].target, "/a?q=x%20y");
    assert_eq!(seen[0].header("host"), fake.url.authority());
    assert!(seen[0].header("user-agent").starts_with("toci/"));
    assert_eq!((seen[1].json(), seen[1].header("content-type")), (question, "application/json"));
    assert_eq!((seen[0].connection, seen[1].connection), (0, 0), "the connection is kept");
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let fake = Fake::start(|_| Reply::new(401, "who\nare you?")).await;
    let request = Request::get(&fake.url.query("token", "hush"));
    let request = request.basic("jenkins", &Secret::new("hush"));
    assert!(!format!("{request:?}").contains("hush") && !format!("{request:?}").contains("Basic"));
    let error = http().send(request).await.unwrap().well().unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert_eq!(
        error.to_string(),
        format!("GET {}/: answered 401: who are you?", fake.url.server())
    );
    assert_eq!(fake.seen()[0].header("authorization"), "Basic amVua2luczpodXNo");
    let request = Request::get(&fake.url).bearer(&Secret::new("hu\nsh"));
    let error = http().send(request).await.unwrap_err().to_string();
    assert!(error.contains("authorization") && !error.contains("sh\n"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_server_only() {
    let other = Fake::start(|_| Reply::new(200, "stolen")).await;
    let elsewhere = other.url.join("/take").query("secret", "hush");
    let to = format!("{}?{}", elsewhere, elsewhere.query_text());
    let fake = Fake::start(move |seen| match seen.target.as_str() {
        "/moved" => Reply::new(301, "").header("location", "/here?x=1"),
        "/away" => Reply::new(302, "").header("location", &to),
        "/round" => Reply::new(307, "").header("location", "/round"),
        _ => Reply::new(200, "here"),
    })
    .await;
    let get = |path: &str| Request::get(&fake.url.join(path)).bearer(&Secret::new("t"));
    assert_eq!(http().send(get("/moved")).await.unwrap().text(), "here");
    assert_eq!(fake.seen()[1].target, "/here?x=1");
    for path in ["/away", "/round"] {
        let error = http().send(get(path)).await.unwrap_err();
        assert!(matches!(error, HttpError::Redirected { .. }), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
    let post = Request::post(&fake.url.join("/moved")).json(&serde_json::json!({}));
    assert!(matches!(http().send(post).await, Err(HttpError::Redirected { .. })));
    assert!(other.seen().is_empty(), "no request and no token may leave the server");
}

#[tokio::test]
async fn answers_are_limited_in_time_and_size() {
    let fake = Fake::start(|_| Reply::new(200, "x".repeat(1000))).await;
    let error = http().send(Request::get(&fake.url).answer_max(999)).await.unwrap_err();
    assert!(matches!(error, HttpError::TooLong { max: 999, .. }), "{error}");
    assert!(http().send(Request::get(&fake.url).answer_max(1000)).await.is_ok());
    // A server that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let request = Request::get(&url).within(Duration::from_millis(200));
    let error = http().send(request).await.unwrap_err();
    assert!(matches!(error, HttpError::TooSlow { .. }) && error.may_pass(), "{error}");
    drop(silent);
    let error = http().send(Request::get(&url)).await.unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }) && error.may_pass(), "{error}");
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced() {
    let fake = Fake::start(|seen| {
        let reply = Reply::new(200, "");
        if seen.connection == 0 { reply.header("connection", "close") } else { reply }
    })
    .await;
    let http = http();
    for _ in 0..3 {
        http.send(Request::get(&fake.url)).await.unwrap();
    }
    let connections: Vec<_> = fake.seen().iter().map(|s| s.connection).collect();
    assert_eq!(connections, [0, 1, 1]);
}

#[tokio::test]
async fn files_are_sent_and_fetched_piece_by_piece() {
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, &content).unwrap();
    let back = content.clone();
    let fake = Fake::start(move |seen| match seen.method.as_str() {
        "PUT" => Reply::new(200, ""),
        _ => Reply::new(200, back.clone()),
    })
    .await;
    let file = tokio::fs::File::open(&path).await.unwrap();
    let request = Request::put(&fake.url.join("/b/k")).upload("text/plain", file, 2_999_999);
    http().send(request).await.unwrap().well().unwrap();
    let seen = &fake.seen()[0];
    assert_eq!(seen.header("content-length"), "2999999");
    assert!(seen.body == content[..2_999_999], "{} bytes came", seen.body.len());
    let answering = http().open(Request::get(&fake.url)).await.unwrap().well().await.unwrap();
    let mut fetched = Vec::new();
    assert_eq!(answering.save(&mut fetched).await.unwrap(), 3_000_000);
    assert!(fetched == content);
}

#[tokio::test]
async fn a_file_that_shrank_is_an_error_and_no_short_upload() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, "short").unwrap();
    let fake = Fake::start(|_| Reply::new(200, "")).await;
    let file = tokio::fs::File::open(&path).await.unwrap();
    let request = Request::put(&fake.url).upload("text/plain", file, 4000);
    let error = http().send(request).await.unwrap_err();
    assert!(matches!(error, HttpError::Broken { .. } | HttpError::File { .. }), "{error}");
}

#[tokio::test]
async fn tls_believes_the_configured_authority_only() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let fake = Fake::start_with(Some(acceptor), |_| Reply::new(200, "safe")).await;
    let trusting = Http::new(&Trust::File(ca)).unwrap();
    assert_eq!(trusting.send(Request::get(&fake.url)).await.unwrap().text(), "safe");
    let error = http().send(Request::get(&fake.url)).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.to_lowercase().contains("certificate"), "{error}: {cause}");
    let unchecked = Http::unchecked().unwrap();
    assert_eq!(unchecked.send(Request::get(&fake.url)).await.unwrap().text(), "safe");
    let garbage = folder.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate").unwrap();
    for bad in [garbage, folder.path().join("missing")] {
        assert!(matches!(Http::new(&Trust::File(bad)), Err(HttpError::Trust { .. })));
    }
}

#[tokio::test]
async fn other_methods_pass() {
    let fake = Fake::start(|seen| Reply::new(200, seen.method.as_str().to_owned())).await;
    for method in [Method::PATCH, Method::DELETE, Method::PUT] {
        let answer = http().send(Request::new(method.clone(), &fake.url)).await.unwrap();
        assert_eq!(answer.text(), method.as_str());
    }
    let answer = http().send(Request::new(Method::HEAD, &fake.url)).await.unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, ""));
}
