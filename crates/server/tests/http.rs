//! The API below the client: bad input, TLS, the unix socket, slow and greedy peers.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;

use common::{LIMIT, SimHost, World, eventually, no_operations};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, ClientError, Token};
use toci_server::TlsPair;
use toci_wire::api::{
    BODY_MAX_BYTES, LeaseRequest, Release, Role, STREAM_SILENCE_S, TeState, TokenRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Says something and reads the whole answer.
async fn talk(world: &World, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(world.running.api[0]).await.unwrap();
    // The server may hang up before it has read everything.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = String::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap();
    assert!(read.is_ok() || !answer.is_empty(), "{read:?}");
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status.unwrap_or_else(|| panic!("no status in {answer:?}")), body.unwrap_or_default())
}

fn request(world: &World, method: &str, path: &str, body: &str) -> String {
    let token = std::fs::read_to_string(&world.running.admin_token_file).unwrap();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_is_said_as_json_with_what_to_do() {
    let world = World::start().await;
    let huge = format!("{{\"purpose\": \"{}\"}}", "x".repeat(BODY_MAX_BYTES));
    let deep = "[".repeat(100_000);
    let deep_inside = format!("{{\"purpose\": {deep}");
    for (method, path, body, status, code, words) in [
        ("GET", "/", "", 404, "no_such_route", "openapi.json"),
        ("GET", "/api/v1/nothing", "", 404, "no_such_route", "/api/v1/nothing"),
        ("PATCH", "/api/v1/leases", "", 405, "no_such_method", "PATCH"),
        ("GET", "/api/v1/leases/12", "", 404, "no_such_lease", "L and a number"),
        ("GET", "/api/v1/leases/L99", "", 404, "no_such_lease", "L99"),
        ("GET", "/api/v1/leases?ended=maybe", "", 400, "bad_request", "ended"),
        ("GET", "/api/v1/leases?owners=x", "", 400, "bad_request", "unknown field"),
        ("GET", "/api/v1/testenvs/..%2Fx", "", 404, "no_such_testenv", "toci te list"),
        ("GET", "/api/v1/hosts/%ff", "", 400, "bad_request", "UTF-8"),
        ("POST", "/api/v1/leases", "{\n \"lable\": 1}", 400, "bad_json", "line 2 column 8"),
        ("POST", "/api/v1/leases", "{\"count\": -1}", 400, "bad_json", "line 1 column 12"),
        ("POST", "/api/v1/leases", "not json", 400, "bad_json", "line 1"),
        ("POST", "/api/v1/leases", &deep, 400, "bad_json", "an object is expected"),
        ("POST", "/api/v1/hosts/enrol-tokens", "[null, null]", 400, "bad_json", "an object"),
        ("POST", "/api/v1/leases", &deep_inside, 400, "bad_json", "line 1"),
        ("POST", "/api/v1/leases", &huge, 413, "too_large", "bytes"),
        ("POST", "/api/v1/leases", "{\"label\": \"a b\"}", 422, "bad_request", "not a valid name"),
        ("POST", "/api/v1/leases", "", 422, "never_fits", "enrol a host"),
        ("POST", "/api/v1/leases", "null", 422, "never_fits", "enrol a host"),
        ("POST", "/api/v1/hosts/enrol-tokens", "{\"ttl_s\": 0}", 422, "bad_request", "seconds"),
    ] {
        let (got, body) = talk(&world, &request(&world, method, path, body)).await;
        let error: serde_json::Value = serde_json::from_str(&body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e} in {body:?}"));
        assert_eq!((got, error["error"]["code"].as_str()), (status, Some(code)), "{path}: {body}");
        assert!(body.contains(words), "{method} {path}: `{words}` is not in {body}");
    }
    let (status, text) = talk(&world, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!((status, text.as_str()), (200, "serving\n"));
    assert_eq!(talk(&world, "HELLO\r\n\r\n").await.0, 400);
    let figures = world.admin.metrics().await.unwrap();
    assert!(figures.contains("route=\"/api/v1/leases\",status=\"413\"} 1"), "{figures}");
    assert!(figures.contains("toci_gearman_workers 1"), "{figures}");
}

/// The status and the error's code of an answer; of one that is not an error, however long it goes on, the status.
async fn verdict(
    world: &World,
    token: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(world.running.api[0]).await.unwrap();
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let mut filled = 0;
    let read = async {
        loop {
            let status = std::str::from_utf8(&answer[..filled]).unwrap().split(' ').nth(1);
            let status = status.and_then(|s| s.parse::<u16>().ok()).unwrap_or(0);
            if (100..400).contains(&status) {
                return (status, String::new());
            }
            match stream.read(&mut answer[filled..]).await.unwrap() {
                0 => break (status, String::from_utf8_lossy(&answer[..filled]).into_owned()),
                n => filled += n,
            }
        }
    };
    let (status, text) = tokio::time::timeout(LIMIT, read).await.unwrap();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let error: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    (status, error["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A body that each call takes.
fn sample(path: &str, host: &mut SimHost) -> String {
    match path.rsplit('/').next().unwrap_or_default() {
        "extend" => r#"{"for_s": 1}"#.into(),
        "hold" => r#"{"for_s": 1, "reason": "r"}"#.into(),
        "revoke" | "quarantine" | "pause" => r#"{"reason": "r"}"#.into(),
        "autoholds" => r#"{"job": "j", "count": 1, "for_s": 1, "reason": "r"}"#.into(),
        "power" => r#"{"action": "status"}"#.into(),
        "promote" => r#"{"changes": []}"#.into(),
        "tokens" => r#"{"role": "client", "subject": "x"}"#.into(),
        "serving" => r#"{"generation": 1, "te_json": {}}"#.into(),
        "result" => r#"{"result": "machines", "machines": []}"#.into(),
        "report" => serde_json::to_string(&host.report()).unwrap(),
        _ => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_document_wants_the_role_that_it_names_and_no_other() {
    let world = World::start().await;
    let (own, other) = (world.enrol("h1").await, world.enrol("h2").await);
    let mut host = SimHost::new("h1", own.clone(), 1);
    let mut tokens = vec![];
    for (role, may) in [
        (Role::ReadOnly, &["read_only"][..]),
        (Role::Client, &["read_only", "client"]),
        (Role::Operator, &["read_only", "client", "operator"]),
    ] {
        let request = TokenRequest { role, subject: "someone".into(), ttl_s: None };
        tokens.push((world.admin.create_token(&request).await.unwrap().token, may));
    }
    for (name, may) in [("h1", &["host"][..]), ("h2", &[])] {
        let request = TokenRequest { role: Role::Host, subject: name.into(), ttl_s: None };
        tokens.push((world.admin.create_token(&request).await.unwrap().token, may));
    }
    drop((own, other));
    let document = world.admin.openapi().await.unwrap();
    let mut calls = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let needed = operation["security"][0]["token"][0].as_str();
            let gone = if method == "delete" { "nobody" } else { "h1" };
            let filled = path.replace("{host}", gone).replace("{te}", "h1-1");
            let filled = filled.replace("{lease}", "L1").replace("{machine}", "seed_1");
            let filled = filled.replace("{operation}", "o").replace("{token}", "t");
            let (method, body) = (method.to_uppercase(), sample(path, &mut host));
            let (status, code) = verdict(&world, "", &method, &filled, &body).await;
            let open = (status, code.as_str()) != (401, "no_token");
            assert_eq!(open, needed.is_none(), "{method} {path}: {status} {code}");
            let Some(needed) = needed else { continue };
            for (token, may) in &tokens {
                let header = format!("authorization: Bearer {token}\r\n");
                let (status, code) = verdict(&world, &header, &method, &filled, &body).await;
                let allowed = !matches!((status, code.as_str()), (401, _) | (403, "forbidden"));
                let as_said = may.contains(&needed);
                assert_eq!(allowed, as_said, "{method} {path} with {may:?}: {status} {code}");
            }
            calls += 1;
        }
    }
    assert!(calls > 30, "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_peers_delay_nobody() {
    let world = World::start().await;
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(world.running.api[0]).await.unwrap();
        let whole = request(&world, "POST", "/api/v1/leases", "{}");
        stream.write_all(&whole.as_bytes()[..n % whole.len()]).await.unwrap();
        silent.push(stream);
    }
    let begun = Instant::now();
    world.admin.leases(false).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_told_so_and_the_socket_stays_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    config.api.connections_max = 3;
    let world = World::around(toci_server::start(config).await.unwrap(), folder);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(world.running.api[0]).await.unwrap());
    }
    eventually("the places are taken", async || {
        let (status, body) = talk(&world, "GET /healthz HTTP/1.0\r\n\r\n").await;
        if status == 503 && body.contains("too_many_connections") { Ok(()) } else { Err(body) }
    })
    .await;
    let socket = format!("unix:{}", world.running.socket.display()).parse().unwrap();
    let token = Token::from_file(&world.running.admin_token_file).unwrap();
    let local = ApiClient::new(socket, Some(token), None).unwrap();
    assert_eq!(local.hosts().await.unwrap(), vec![]);
    drop(held);
    eventually("there is room again", async || {
        world.admin.hosts().await.map_err(|e| e.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unix_socket_is_private_and_survives_a_crash() {
    let world = World::start().await;
    let socket = world.running.socket.clone();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut second = common::config(world.folder.path());
    second.state = world.folder.path().join("other");
    second.database = format!("sqlite:{}", second.state.join("toci.db").display());
    let refused = toci_server::start(second.clone()).await.err().unwrap();
    assert!(format!("{refused:?}").contains("InUse"), "{refused:?}");
    world.running.stop().await.unwrap();
    assert!(!socket.exists());
    // What a killed server leaves behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let running = toci_server::start(second).await.unwrap();
    UnixStream::connect(&running.socket).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_the_right_ca_only() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let pair =
        TlsPair { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    std::fs::write(&pair.certificate, made.cert.pem()).unwrap();
    std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
    let mut config = common::config(folder.path());
    config.api.tls = Some(pair);
    let running = toci_server::start(config).await.unwrap();
    let endpoint = || format!("https://{}", running.api[0]).parse().unwrap();
    let token = Token::from_file(&running.admin_token_file).unwrap();
    let client = |ca: &[u8]| ApiClient::new(endpoint(), Some(token.clone()), Some(ca));
    client(made.cert.pem().as_bytes()).unwrap().hosts().await.unwrap();

    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let wrong = client(other.cert.pem().as_bytes()).unwrap().hosts().await;
    assert!(matches!(wrong, Err(ClientError::Unreachable { .. })), "{wrong:?}");
    assert!(matches!(client(b"no PEM"), Err(ClientError::Unreachable { .. })));
    assert!(ApiClient::new(endpoint(), None, None).is_err());
    let plain = format!("http://{}", running.api[0]).parse().unwrap();
    let plain = ApiClient::new(plain, Some(token.clone()), None).unwrap().hosts().await;
    assert!(plain.is_err_and(|e| e.is_transient()));
    running.stop().await.unwrap();
}

const WORKERS: usize = 16;
/// More than the server keeps for a reader and the kernel takes on its way.
const CHANGES: usize = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_told_so_and_holds_up_nobody() {
    let world = World::start().await;
    let host = world.enrol("h1").await;
    let _host = tokio::spawn(SimHost::new("h1", host, 1).run(no_operations));
    eventually("the TE is ready", async || {
        let tes = world.admin.testenvs().await.map_err(|e| e.to_string())?;
        if tes.iter().any(|te| te.state == TeState::Ready) {
            Ok(())
        } else {
            Err(format!("{tes:?}"))
        }
    })
    .await;
    // A raw reader of all events over the unix socket that does not read.
    let mut slow = UnixStream::connect(&world.running.socket).await.unwrap();
    slow.write_all(request(&world, "GET", "/api/v1/events", "").as_bytes()).await.unwrap();
    let mut first = [0; 15];
    slow.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");

    // Each worker asks and withdraws on a connection of its own: two changes of a lease of its own each time.
    let busy = (0..WORKERS).map(|n| {
        let world = &world;
        async move {
            let client = world.client(Role::Client, &format!("c{n}")).await;
            for _ in 0..CHANGES / WORKERS / 2 {
                let lease = client.request_lease(&LeaseRequest::default()).await.unwrap();
                client.release(&lease.id, &Release::default()).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(busy).await;
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(STREAM_SILENCE_S), slow.read_to_end(&mut rest))
        .await
        .expect("the stream ends")
        .unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("event: lagged"), "{}", &rest[rest.len().saturating_sub(500)..]);
}
