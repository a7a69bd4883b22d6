//! etcd's lock under load, over its JSON gateway with a kept connection for each client. No two
//! clients want the same lock, so nobody waits for another.

use crate::figures::Figures;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// TTL of the leases, seconds; none expires while measured.
const TTL_S: u64 = 600;

struct Etcd {
    address: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Etcd {
    async fn connect(address: &str) -> Result<Etcd> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Etcd { address: address.to_owned(), sender })
    }

    async fn call(&mut self, path: &str, question: &Value) -> Result<Value> {
        self.sender.ready().await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.address)
            .body(Full::from(question.to_string()))?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    async fn lease(&mut self) -> Result<String> {
        let answer = self.call("/v3/lease/grant", &json!({"TTL": TTL_S})).await?;
        Ok(answer["ID"].as_str().context("no lease id")?.to_owned())
    }

    async fn lock(&mut self, name: &str, lease: &str) -> Result<String> {
        let question = json!({"name": name, "lease": lease});
        let answer = self.call("/v3/lock/lock", &question).await?;
        Ok(answer["key"].as_str().context("no key")?.to_owned())
    }

    async fn unlock(&mut self, key: &str) -> Result<()> {
        self.call("/v3/lock/unlock", &json!({"key": key})).await.map(drop)
    }

    async fn revoke(&mut self, lease: &str) -> Result<()> {
        self.call("/v3/lease/revoke", &json!({"ID": lease})).await.map(drop)
    }
}

/// With `own`, each cycle has a lease of its own, as each job does whose death must be noticed;
/// otherwise a client keeps one lease for all its cycles.
pub(crate) async fn cycles(address: &str, clients: usize, seconds: u64, own: bool) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = tokio::task::JoinSet::new();
    let started = Instant::now();
    for n in 0..clients {
        let mut etcd = Etcd::connect(address).await?;
        let stop = stop.clone();
        // Names are base64 in the gateway's JSON: letters and digits in fours are.
        let name = format!("te{n:06}");
        running.spawn(async move {
            let mut times = vec![];
            let standing = if own { None } else { Some(etcd.lease().await?) };
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let lease = match &standing {
                    Some(lease) => lease.clone(),
                    None => etcd.lease().await?,
                };
                let key = etcd.lock(&name, &lease).await?;
                times.push(asked.elapsed());
                etcd.unlock(&key).await?;
                if own {
                    etcd.revoke(&lease).await?;
                }
            }
            Ok::<_, anyhow::Error>(times)
        });
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = vec![];
    for result in running.join_all().await {
        times.extend(result?);
    }
    Figures::of(times, started.elapsed()).print()
}
