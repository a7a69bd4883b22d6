//! What stands between a contender and the cloud's API, and counts calls: the same way for all of them, whatever they
//! count themselves. The services' own logs cannot tell a contender's calls from those that services make for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// Service, where it is reached through the proxy, where it is.
const SERVICES: [(&str, u16, u16); 4] = [
    ("identity", 15000, 5000),
    ("compute", 18774, 8774),
    ("network", 19696, 9696),
    ("image", 19292, 9292),
];

/// The tenant, by the proxy.
pub(crate) const CLOUDS: &str = r#"clouds:
  ci:
    auth: {auth_url: "http://127.0.0.1:15000/v3", username: ci, password: ci, project_name: ci, user_domain_name: Default, project_domain_name: Default}
    region_name: RegionOne
    identity_endpoint_override: http://127.0.0.1:15000/v3
    compute_endpoint_override: http://127.0.0.1:18774/v2.1
    network_endpoint_override: http://127.0.0.1:19696
    image_endpoint_override: http://127.0.0.1:19292
"#;

/// Calls by service and method.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The proxy; it ends with the runtime.
#[derive(Debug)]
pub(crate) struct Proxy(Arc<Mutex<Counts>>);

impl Proxy {
    /// Listens for all services.
    pub(crate) async fn start() -> Result<Proxy> {
        let counts = Arc::default();
        for (service, here, there) in SERVICES {
            let listener = TcpListener::bind(("127.0.0.1", here)).await;
            let listener = listener.with_context(|| format!("the proxy's port {here}"))?;
            tokio::spawn(serve(listener, service, there, Arc::clone(&counts)));
        }
        Ok(Proxy(counts))
    }

    /// Calls since the last look.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
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
