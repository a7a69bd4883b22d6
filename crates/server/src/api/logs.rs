//! `/logs/…`: the archive for people. Nothing of it can run a script, whatever a job wrote.

use super::error::Problem;
use super::state::{Api, Shared};
use crate::tasks::log::{Listing, LogError, PAGE_LINES, Unzipped, folder_page, lines_page};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use toci_core::log::LogPath;
use toci_core::log::first_error::Rank;
use toci_edge::archive::{Found, Object};
use toci_wire::api::Role;
use tokio_util::io::ReaderStream;

/// Where the archive is.
const PREFIX: &str = "/logs";
/// The page of a run, made when it was archived.
const INDEX: &str = "index.html";
/// The console of a run as a page.
const CONSOLE_PAGE: &str = "console.html";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/logs", get(root))
        .route("/logs/", get(root))
        .route("/logs/{*path}", get(place))
}

/// How to see a text.
#[derive(Debug, Default, Deserialize)]
struct How {
    /// As a page with numbered lines.
    lines: Option<String>,
    /// From this line on.
    from: Option<usize>,
    /// `error`: only lines that look like one.
    level: Option<String>,
}

async fn root(
    state: State<Shared>,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> Result<Response, Problem> {
    let slash = if uri.path().ends_with('/') { "/" } else { "" };
    place(state, Path(slash.to_owned()), Query(How::default()), headers).await
}

async fn place(
    State(api): State<Shared>,
    Path(path): Path<String>,
    Query(how): Query<How>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(refused) = stranger(&api, &headers).await? {
        return Ok(refused);
    }
    let at = LogPath::new(&path).map_err(|_| nothing(&path))?;
    if let Some(console) = console_of(&at)
        && let Some(Found::File(object)) = api.logs.find(&console).await?
    {
        return lines(&console, object, &how).await;
    }
    match api.logs.find(&at).await? {
        None => Err(nothing(&path)),
        Some(Found::Folder(..)) if !path.ends_with('/') => {
            Ok(moved(&format!("{PREFIX}/{}/", at.encoded()).replace("//", "/")))
        }
        Some(Found::Folder(entries, is_cut)) => match own_page(&api, &at).await? {
            Some(page) => Ok(raw(page, HTML)),
            None => Ok(html(folder_page(&Listing { at: &at, entries: &entries, is_cut }))),
        },
        Some(Found::File(object)) if object.is_text && how.lines.is_some() => {
            lines(&at, object, &how).await
        }
        Some(Found::File(object)) if object.is_text => Ok(text(object, &headers)),
        Some(Found::File(object)) => Ok(raw(object, kind_of(&at))),
    }
}

/// Whoever may not read logs, unless all may: what to tell them. A browser asks its user for a password, the token.
async fn stranger(api: &Api, headers: &HeaderMap) -> Result<Option<Response>, Problem> {
    if api.logs.is_public() {
        return Ok(None);
    }
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(token_in);
    if let Some(token) = token
        && let Some(identity) = api.auth.identify(&token).await?
    {
        return match identity.role {
            Role::ReadOnly | Role::Client | Role::Operator => Ok(None),
            Role::Host => Err(Problem::forbidden(
                "a host's token is not for reading logs",
                "use one of role read_only",
            )),
        };
    }
    let problem = Problem::refused(
        StatusCode::UNAUTHORIZED,
        "no_token",
        "a token is needed to read logs here",
        "send `Authorization: Bearer TOKEN`; in a browser: any name, and the token as the password",
    );
    let mut response = problem.into_response();
    let challenge = HeaderValue::from_static("Basic realm=\"toci logs\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    Ok(Some(response))
}

/// The token of `Bearer TOKEN`, or the password of `Basic …`.
fn token_in(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

fn nothing(path: &str) -> Problem {
    Problem::not_found(
        "no_such_log",
        format!("there are no logs at {}", path.chars().take(200).collect::<String>()),
        "they may have expired: see `keep_days` in the server's settings",
    )
}

/// `…/console.html` shows `…/console.txt`.
fn console_of(at: &LogPath) -> Option<LogPath> {
    let run = at.parent().filter(|_| at.as_str().rsplit('/').next() == Some(CONSOLE_PAGE))?;
    run.join("console.txt").ok()
}

/// The page that lies in a run's folder. No job's file can have this name uncompressed.
async fn own_page(api: &Api, at: &LogPath) -> Result<Option<Object>, Problem> {
    let Ok(index) = at.join(INDEX) else { return Ok(None) };
    match api.logs.find(&index).await? {
        Some(Found::File(object)) if !object.is_text => Ok(Some(object)),
        Some(_) | None => Ok(None),
    }
}

async fn lines(at: &LogPath, object: Object, how: &How) -> Result<Response, Problem> {
    let errors_only = how.level.as_deref().is_some_and(|level| level.eq_ignore_ascii_case("error"));
    let from = how.from.unwrap_or(1).max(1);
    let least = errors_only.then_some(Rank::Hint);
    let read = Unzipped::new(object.body).lines(from, PAGE_LINES, least).await;
    let (lines, more) = read.map_err(|error| broken(at, &error))?;
    Ok(html(lines_page(at, from, &lines, more, errors_only)))
}

fn broken(at: &LogPath, error: &std::io::Error) -> Problem {
    Problem::failed(
        StatusCode::INTERNAL_SERVER_ERROR,
        "broken_log",
        format!("{at} cannot be read: {error}"),
        "look at the archive's disk",
    )
}

fn text(object: Object, headers: &HeaderMap) -> Response {
    if accepts_gzip(headers) {
        let mut response = raw(object, TEXT);
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return response;
    }
    let pieces =
        futures_util::stream::try_unfold(Unzipped::new(object.body), async |mut unzipped| {
            let piece = unzipped.next().await?;
            Ok::<_, std::io::Error>(piece.map(|piece| (piece, unzipped)))
        });
    dressed(Body::from_stream(pieces), TEXT)
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let header =
        headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(',').any(|part| {
        let (name, weight) = part.split_once(';').unwrap_or((part, ""));
        let is_off =
            matches!(weight.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        matches!(name.trim(), "gzip" | "x-gzip" | "*") && !is_off
    })
}

/// Only pictures are shown as what they are; nothing else that a job wrote is more than text or bytes.
fn kind_of(at: &LogPath) -> &'static str {
    match at.as_str().rsplit('.').next().unwrap_or_default() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gz" | "tgz" => "application/gzip",
        _ => "application/octet-stream",
    }
}

fn raw(object: Object, kind: &'static str) -> Response {
    let length = object.bytes;
    let mut response = dressed(Body::from_stream(ReaderStream::new(object.body)), kind);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn html(page: String) -> Response {
    dressed(Body::from(page), HTML)
}

fn moved(to: &str) -> Response {
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

fn dressed(body: Body, kind: &'static str) -> Response {
    const RULES: [(HeaderName, &str); 5] = [
        (
            CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
        (VARY, "accept-encoding"),
    ];
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in RULES {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Problem {
        tracing::error!(error = ?error, "the log archive failed");
        Problem::failed(
            StatusCode::SERVICE_UNAVAILABLE,
            "archive_failed",
            format!("failed to {error}"),
            "the server's log says why; try again",
        )
    }
}
