//! One call: asked again where that is right, told apart by how it ended; and lists that come in pages.

use super::compute::COMPUTE_MICROVERSION;
use super::error::CloudError;
use super::identity::Token;
use super::session::{Cloud, Service};
use super::volume::VOLUME_MICROVERSION;
use crate::http::{Answer, HttpError, Method, Request, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::time::Instant;

/// Longest time for one answer.
pub const CALL_LIMIT: Duration = Duration::from_secs(60);
/// So often a call is made at most.
pub const CALL_ATTEMPTS_MAX: u32 = 5;
/// Longest wait before the next attempt; a service that wants more is told as busy.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pages of one list that are read at most.
pub const PAGES_MAX: usize = 1_000;

/// What is asked.
#[derive(Debug)]
pub struct Call<'a> {
    /// Whom.
    pub service: Service,
    /// How.
    pub method: Method,
    /// The path below the service's version, quoted, with a slash before it.
    pub path: &'a str,
    /// The query, not quoted.
    pub query: &'a [(&'a str, &'a str)],
    /// A body.
    pub body: Option<Value>,
    /// Another time limit than [`CALL_LIMIT`].
    pub limit: Duration,
}

impl<'a> Call<'a> {
    /// Without query and body.
    #[must_use]
    pub fn new(method: Method, service: Service, path: &'a str) -> Call<'a> {
        Call { service, method, path, query: &[], body: None, limit: CALL_LIMIT }
    }

    /// With a query.
    #[must_use]
    pub fn query(self, query: &'a [(&'a str, &'a str)]) -> Call<'a> {
        Call { query, ..self }
    }

    /// With a body.
    #[must_use]
    pub fn body(self, body: Value) -> Call<'a> {
        Call { body: Some(body), ..self }
    }

    /// Twice is as good as once.
    fn is_idempotent(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE)
    }
}

/// What follows from an attempt.
enum Next {
    /// It went well.
    Done(Answer),
    /// It ended.
    End(CloudError),
    /// It was not done, or may be done twice: again, after a while.
    Again(CloudError, Option<Duration>),
    /// With another token.
    NewToken(CloudError),
}

impl Cloud {
    /// Makes a call; the answer is 2xx.
    pub async fn call(&self, call: &Call<'_>) -> Result<Answer, CloudError> {
        let mut token = self.token_patiently().await?;
        let mut has_new_token = false;
        let mut attempt = 1;
        loop {
            self.wait_for_quiet(call.service).await;
            let url = self.url(call, &token)?;
            match self.attempt(call, &url, &token).await {
                Next::Done(answer) => return Ok(answer),
                Next::End(error) => return Err(error),
                Next::NewToken(error) if has_new_token => return Err(error),
                Next::NewToken(_) => {
                    has_new_token = true;
                    token = self.token_but(Some(&token)).await?;
                }
                Next::Again(error, wanted) => {
                    let wait = wanted.unwrap_or_else(|| self.pause(attempt));
                    if attempt >= CALL_ATTEMPTS_MAX || wait > RETRY_WAIT_MAX {
                        return Err(error);
                    }
                    tracing::debug!(%error, attempt, wait_ms = wait.as_millis(), "asked again");
                    attempt += 1;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// A token; Keystone is asked as patiently as the others.
    async fn token_patiently(&self) -> Result<Arc<Token>, CloudError> {
        let mut attempt = 1;
        loop {
            let error = match self.token().await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let wait = match &error {
                CloudError::Busy { retry_after, .. } => {
                    retry_after.unwrap_or_else(|| self.pause(attempt))
                }
                CloudError::Failed { .. } | CloudError::Unreachable { .. } => self.pause(attempt),
                CloudError::Unauthorised { .. }
                | CloudError::OverQuota { .. }
                | CloudError::NotFound { .. }
                | CloudError::Conflict { .. }
                | CloudError::Refused { .. }
                | CloudError::NoEndpoint { .. }
                | CloudError::Unexpected { .. } => return Err(error),
            };
            if attempt >= CALL_ATTEMPTS_MAX || wait > RETRY_WAIT_MAX {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait when the service does not say.
    fn pause(&self, attempt: u32) -> Duration {
        self.retry_wait.saturating_mul(1 << attempt.saturating_sub(1).min(10))
    }

    async fn wait_for_quiet(&self, service: Service) {
        if let Some(until) = self.pace.quiet_until(service) {
            tokio::time::sleep_until(until.min(Instant::now() + RETRY_WAIT_MAX)).await;
        }
    }

    fn url(&self, call: &Call<'_>, token: &Token) -> Result<Url, CloudError> {
        let url = self.endpoint(call.service, token)?.join(call.path);
        Ok(call.query.iter().fold(url, |url, (name, value)| url.query(name, value)))
    }

    async fn attempt(&self, call: &Call<'_>, url: &Url, token: &Token) -> Next {
        let request = Request::new(call.method.clone(), url).within(call.limit);
        let mut request = with_headers(request, call.service, token);
        if let Some(body) = &call.body {
            // Glance changes images by patches of JSON, and nothing else does anything by PATCH but Keystone.
            let kind = match (call.service, &call.method) {
                (Service::Image, &Method::PATCH) => "application/openstack-images-v2.1-json-patch",
                (_, _) => "application/json",
            };
            request = request.body(kind, body.to_string());
        }
        // It is closed with the cloud, and not before.
        let _permit = self.permits.acquire().await;
        let answer = self.http.send(request).await;
        self.pace.count(call.service, &call.method, answer.as_ref().ok().map(Answer::status));
        self.next(call, &format!("{} {url}", call.method), answer)
    }

    fn next(&self, call: &Call<'_>, what: &str, answer: Result<Answer, HttpError>) -> Next {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // Without a connection nothing was done.
                let again = match &error {
                    HttpError::Unreachable { .. } => true,
                    other => other.may_pass() && call.is_idempotent(),
                };
                let error = CloudError::of_http(what, error);
                return if again { Next::Again(error, None) } else { Next::End(error) };
            }
        };
        let wait = retry_after(&answer);
        let error = match answer.status() {
            200..=299 => return Next::Done(answer),
            _ => CloudError::of_answer(what, &answer, wait),
        };
        match (&error, answer.status()) {
            (CloudError::Unauthorised { .. }, _) => Next::NewToken(error),
            (CloudError::Busy { .. }, status) => {
                if let Some(wait) = wait.filter(|wait| *wait <= RETRY_WAIT_MAX) {
                    self.pace.quiet_for(call.service, wait);
                }
                // A 503 without a time may come from a proxy whose service broke down while it worked.
                let not_done = status != 503 || wait.is_some();
                if not_done || call.is_idempotent() {
                    Next::Again(error, wait)
                } else {
                    Next::End(error)
                }
            }
            (CloudError::Failed { .. }, 500 | 502 | 504) if call.is_idempotent() => {
                Next::Again(error, None)
            }
            (_, _) => Next::End(error),
        }
    }

    /// Makes a call and reads its answer.
    pub async fn ask<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, CloudError> {
        let answer = self.call(call).await?;
        let what = || format!("{} {} of {}", call.method, call.path, call.service.word());
        answer.json().map_err(|e| CloudError::Unexpected {
            what: what(),
            why: format!("the answer is not as expected: {}", toci_core::chain::Chain(&e)),
        })
    }

    /// GET.
    pub async fn get<T: DeserializeOwned>(
        &self,
        service: Service,
        path: &str,
    ) -> Result<T, CloudError> {
        self.ask(&Call::new(Method::GET, service, path)).await
    }

    /// POST of a JSON body.
    pub async fn post<T: DeserializeOwned>(
        &self,
        service: Service,
        path: &str,
        body: Value,
    ) -> Result<T, CloudError> {
        self.ask(&Call::new(Method::POST, service, path).body(body)).await
    }

    /// PUT of a JSON body.
    pub async fn put<T: DeserializeOwned>(
        &self,
        service: Service,
        path: &str,
        body: Value,
    ) -> Result<T, CloudError> {
        self.ask(&Call::new(Method::PUT, service, path).body(body)).await
    }

    /// PATCH with a JSON body.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        service: Service,
        path: &str,
        body: Value,
    ) -> Result<T, CloudError> {
        self.ask(&Call::new(Method::PATCH, service, path).body(body)).await
    }

    /// A call whose answer has nothing of interest: many of Keystone's PUT, actions of servers.
    pub async fn order(
        &self,
        method: Method,
        service: Service,
        path: &str,
        body: Option<Value>,
    ) -> Result<(), CloudError> {
        let call = Call::new(method, service, path);
        self.call(&Call { body, ..call }).await.map(drop)
    }

    /// DELETE; whether it was there.
    pub async fn delete(&self, service: Service, path: &str) -> Result<bool, CloudError> {
        match self.order(Method::DELETE, service, path, None).await {
            Ok(()) => Ok(true),
            Err(CloudError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All entries of a list, whatever pages it comes in. `key` is what the answer calls it.
    pub async fn list<T: DeserializeOwned>(
        &self,
        service: Service,
        path: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, CloudError> {
        let unexpected = |why: String| CloudError::Unexpected {
            what: format!("GET {path} of {}", service.word()),
            why,
        };
        let mut all = Vec::new();
        let mut next: Vec<(String, String)> =
            query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        for _ in 0..PAGES_MAX {
            let query: Vec<(&str, &str)> =
                next.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let call = Call::new(Method::GET, service, path).query(&query);
            let mut page: Value = self.ask(&call).await?;
            let link = next_link(&page, key);
            let entries = page.get_mut(key).map(Value::take).unwrap_or(Value::Null);
            let entries: Vec<T> =
                serde_json::from_value(entries).map_err(|e| unexpected(format!("{key}: {e}")))?;
            let is_last = entries.is_empty();
            all.extend(entries);
            match link {
                Some(link) if !is_last => next = query_of(&link),
                Some(_) | None => return Ok(all),
            }
        }
        Err(unexpected(format!("more than {PAGES_MAX} pages")))
    }

    /// Sends a file as a body.
    pub(super) async fn upload(
        &self,
        service: Service,
        path: &str,
        file: &std::path::Path,
    ) -> Result<(), CloudError> {
        let call = Call::new(Method::PUT, service, path);
        let token = self.token_patiently().await?;
        let url = self.url(&call, &token)?;
        let what = format!("PUT {url}");
        let local = |source| {
            CloudError::of_http(&what, HttpError::File { what: file.display().to_string(), source })
        };
        let open = File::open(file).await.map_err(local)?;
        let length = open.metadata().await.map_err(local)?.len();
        let request = Request::put(&url).upload("application/octet-stream", open, length);
        let request = with_headers(request, service, &token);
        let answer = self.http.send(request).await;
        self.pace.count(service, &Method::PUT, answer.as_ref().ok().map(Answer::status));
        let answer = answer.map_err(|e| CloudError::of_http(&what, e))?;
        match answer.status() {
            200..=299 => Ok(()),
            _ => Err(CloudError::of_answer(&what, &answer, retry_after(&answer))),
        }
    }
}

fn with_headers(request: Request, service: Service, token: &Token) -> Request {
    let request = request
        .secret_header("X-Auth-Token", token.value.reveal())
        .header("Accept", "application/json");
    match service {
        Service::Compute => {
            request.header("OpenStack-API-Version", &format!("compute {COMPUTE_MICROVERSION}"))
        }
        Service::Volume => {
            request.header("OpenStack-API-Version", &format!("volume {VOLUME_MICROVERSION}"))
        }
        Service::Identity | Service::Network | Service::Image => request,
    }
}

/// `Retry-After`: seconds or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.header("retry-after")?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    // By the service's own clock where it tells it.
    let now = answer.header("date").and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
    let now = now.map_or_else(jiff::Timestamp::now, |now| now.timestamp());
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// Where the next page is: `<key>_links` (Nova, Neutron, Cinder), `links.next` (Keystone), `next` (Glance).
fn next_link(page: &Value, key: &str) -> Option<String> {
    let of_list = page.get(format!("{key}_links")).and_then(Value::as_array).and_then(|links| {
        links.iter().find(|link| link["rel"] == "next").and_then(|link| link["href"].as_str())
    });
    let of_keystone = page.get("links").and_then(|links| links["next"].as_str());
    let of_glance = page.get("next").and_then(Value::as_str);
    of_list.or(of_keystone).or(of_glance).map(str::to_owned)
}

/// The query of a link. Its server and path are not followed: behind a proxy they are often wrong.
fn query_of(link: &str) -> Vec<(String, String)> {
    let Some((_, query)) = link.split_once('?') else { return Vec::new() };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unquoted(name), unquoted(value))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn unquoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|two| {
            let two = std::str::from_utf8(two).ok()?;
            u8::from_str_radix(two, 16).ok()
        });
        match (hex, first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (None, b'+') => {
                bytes.push(b' ');
                rest = after;
            }
            (None, byte) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
