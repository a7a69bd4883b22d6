//! What stands between a contender and the cloud's API, and counts calls: the same way for all of them, whatever they
//! count themselves. The services' own logs cannot tell a contender's calls from those that services make for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use cloud_tests::Api;
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

/// Type of a service, where it is reached through the proxy, where it is, what the catalogue adds.
const SERVICES: [(&str, u16, u16, &str); 4] = [
    ("identity", 15000, 5000, "/v3"),
    ("compute", 18774, 8774, "/v2.1"),
    ("network", 19696, 9696, ""),
    ("image", 19292, 9292, ""),
];

/// The region of the cloud whose endpoints are the proxy. That an endpoint is overridden in clouds.yaml changes what
/// openstacksdk asks, and some of its versions do not find images then.
const REGION: &str = "counted";

/// The tenant, by the proxy.
pub(crate) const CLOUDS: &str = r#"clouds:
  ci:
    auth: {auth_url: "http://127.0.0.1:15000/v3", username: ci, password: ci, project_name: ci, user_domain_name: Default, project_domain_name: Default}
    region_name: counted
"#;

/// Calls by service and method.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The proxy; it ends with the runtime. Its region goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    counts: Arc<Mutex<Counts>>,
    admin: Api,
}

impl Proxy {
    /// Listens for all services.
    pub(crate) async fn start() -> Result<Proxy> {
        let counts: Arc<Mutex<Counts>> = Arc::default();
        for (service, here, there, _) in SERVICES {
            let listener = TcpListener::bind(("127.0.0.1", here)).await;
            let listener = listener.with_context(|| format!("the proxy's port {here}"))?;
            tokio::spawn(serve(listener, service, there, Arc::clone(&counts)));
        }
        let admin = Api::admin()?;
        // Left over from one that was killed.
        forget(&admin)?;
        make(&admin)?;
        Ok(Proxy { counts, admin })
    }

    /// Calls since the last look.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Err(why) = forget(&self.admin) {
            eprintln!("the region {REGION} is left in the catalogue: {why:#}");
        }
    }
}

/// The region, with all services.
fn make(admin: &Api) -> Result<()> {
    admin.post("identity", "/regions", &json!({"region": {"id": REGION}}))?;
    let found = admin.get("identity", "/services")?;
    for service in found["services"].as_array().context("no list of services")? {
        let known = SERVICES.into_iter().find(|(kind, ..)| service["type"] == *kind);
        let Some((_, here, _, path)) = known else { continue };
        let url = format!("http://127.0.0.1:{here}{path}");
        let endpoint = json!({
            "service_id": service["id"], "interface": "public", "region_id": REGION, "url": url,
        });
        admin.post("identity", "/endpoints", &json!({"endpoint": endpoint}))?;
    }
    Ok(())
}

fn forget(admin: &Api) -> Result<()> {
    let found = admin.get("identity", &format!("/endpoints?region_id={REGION}"))?;
    for endpoint in found["endpoints"].as_array().context("no list of endpoints")? {
        let id = endpoint["id"].as_str().context("an endpoint without an id")?;
        admin.delete("identity", &format!("/endpoints/{id}"))?;
    }
    let found = admin.get("identity", "/regions")?;
    let regions = found["regions"].as_array().context("no list of regions")?;
    if regions.iter().any(|region| region["id"] == REGION) {
        admin.delete("identity", &format!("/regions/{REGION}"))?;
    }
    Ok(())
}

async fn serve(
    listener: TcpListener,
    service: &'static str,
    there: u16,
    counts: Arc<Mutex<Counts>>,
) {
    loop {
        // Without a free file handle others end first; the contender tries again.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let counts = Arc::clone(&counts);
        let passed = service_fn(move |request: Request<Incoming>| {
            let key = format!("{service} {}", request.method());
            *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
            pass_on(request, there)
        });
        tokio::spawn(async move {
            // A contender that hangs up has its reasons.
            let _ = server::Builder::new().serve_connection(TokioIo::new(stream), passed).await;
        });
    }
}

/// Exactly as it came: services put the `Host` that they are called by into their links.
async fn pass_on(
    request: Request<Incoming>,
    there: u16,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(("127.0.0.1", there)).await?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // The other half tells what went wrong.
        let _: Result<(), Infallible> = connection.await.or(Ok(()));
    });
    Ok(sender.send_request(request).await?)
}
