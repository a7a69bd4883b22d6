//! `/p/<project>`: the merger's repositories, read only, by git's own `http-backend` (what jobs know as ZUUL_URL). Whoever
//! reaches the API can fetch; branches, tags and `refs/zuul/` are shown, changes are not. `/p/@<source>/<project>` is one
//! source's; without it, it is the first source's, or of whichever other one has such a project.

use super::error::Problem;
use super::pipelines::gate;
use super::state::Shared;
use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::StreamExt;
use std::path::PathBuf;
use std::time::Duration;
use toci_core::event::{ProjectKey, ProjectName};
use toci_edge::program::Call;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// One fetch, however large.
const FETCH_LIMIT: Duration = Duration::from_secs(1800);
/// Longest head of git's answer, in bytes.
const HEAD_MAX_BYTES: u64 = 16 << 10;
/// What a fetch asks for at most, in bytes.
const ASK_MAX_BYTES: usize = 8 << 20;

pub(super) async fn serve(
    State(api): State<Shared>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Result<Response, Problem> {
    let path = uri.path().strip_prefix("/p/").unwrap_or_default();
    let Some(Asked { source, project, service }) = parted(path) else { return Err(nothing()) };
    let parts = gate(&api)?;
    let first = parts.sources.first().into_iter();
    let mut sources = first.chain(parts.sources.iter()).map(|known| known.name());
    let repository = sources.find_map(|known| {
        let key = ProjectKey { source: known.clone(), name: project.clone() };
        let path = parts.mirrors.path(&key);
        let is_meant = source.is_none_or(|source| source == known.as_str());
        (is_meant && path.exists()).then_some(path)
    });
    let repository: PathBuf = repository.ok_or_else(nothing)?;
    let query = uri.query().unwrap_or_default();
    let (method, content_type, packed) = described(&request);
    match (&method, service) {
        (&Method::GET, "/info/refs") if query == "service=git-upload-pack" => {}
        (&Method::POST, "/git-upload-pack") => {}
        _ => return Err(only_fetching()),
    }
    let mut call = Call::new("git", FETCH_LIMIT)
        .args(["-c", "safe.directory=*", "-c", "http.receivepack=false", "http-backend"])
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_TRANSLATED", format!("{}{service}", repository.display()))
        .env("REQUEST_METHOD", method.as_str())
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", content_type);
    if packed {
        call = call.env("HTTP_CONTENT_ENCODING", "gzip");
    }
    if let Some(protocol) = request.headers().get("git-protocol").and_then(|v| v.to_str().ok()) {
        call = call.env("GIT_PROTOCOL", protocol);
    }
    let body = axum::body::to_bytes(request.into_body(), ASK_MAX_BYTES).await.map_err(|_| {
        let why = "what is asked for is too long";
        Problem::refused(StatusCode::PAYLOAD_TOO_LARGE, "too_long", why, "fetch fewer refs at once")
    })?;
    answer(call, body).await
}

fn described(request: &Request) -> (Method, String, bool) {
    let header = |name: HeaderName| {
        let value = request.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    (request.method().clone(), header(CONTENT_TYPE), header(CONTENT_ENCODING) == "gzip")
}

/// What is asked for.
struct Asked<'a> {
    source: Option<&'a str>,
    project: ProjectName,
    service: &'a str,
}

/// `[@source/]org/name[.git]` and what follows.
fn parted(path: &str) -> Option<Asked<'_>> {
    let at = ["/info/refs", "/git-upload-pack", "/git-receive-pack"]
        .iter()
        .find_map(|service| path.strip_suffix(service).map(|p| (p, &path[p.len()..])))?;
    let name = at.0.strip_suffix(".git").unwrap_or(at.0);
    let (source, name) = match name.strip_prefix('@') {
        Some(rest) => rest.split_once('/').map(|(source, name)| (Some(source), name))?,
        None => (None, name),
    };
    Some(Asked { source, project: ProjectName::new(name).ok()?, service: at.1 })
}

fn nothing() -> Problem {
    Problem::not_found(
        "no_such_repository",
        "there is no such repository",
        "git fetch <url>/p/<project>",
    )
}

fn only_fetching() -> Problem {
    Problem::forbidden("the merger's repositories are read only", "push to the source itself")
}

/// Runs git and passes its answer on while it comes.
async fn answer(call: Call, body: Bytes) -> Result<Response, Problem> {
    let failed = |why: String| {
        tracing::warn!(why, "git http-backend");
        Problem::failed(StatusCode::BAD_GATEWAY, "git_failed", why, "see the server's log")
    };
    let mut group = call.start().map_err(|e| failed(e.to_string()))?;
    let (Some(mut input), Some(output)) = (group.child.stdin.take(), group.child.stdout.take())
    else {
        return Err(failed("git has no pipes".to_owned()));
    };
    tokio::spawn(async move {
        // git may end before it has read everything.
        let _ = input.write_all(&body).await;
    });
    let mut output = BufReader::new(output);
    let mut response = Response::builder();
    let mut head = (&mut output).take(HEAD_MAX_BYTES);
    loop {
        let mut line = String::new();
        let read = head.read_line(&mut line).await.map_err(|e| failed(e.to_string()))?;
        let line = line.trim_end();
        if read == 0 {
            return Err(failed("git gave no answer".to_owned()));
        }
        match line.split_once(": ") {
            Some(("Status", status)) => {
                let code = status.split(' ').next().and_then(|c| c.parse::<u16>().ok());
                response = response.status(code.unwrap_or(500));
            }
            Some((name, value)) => {
                let value = HeaderValue::from_str(value);
                let value = value.map_err(|e| failed(e.to_string()))?;
                response = response.header(name, value);
            }
            None => break,
        }
    }
    let stream = futures_util::stream::unfold((output, group), |(mut output, group)| async {
        // The group's end is the stream's: a client that goes away ends git.
        let mut buffer = vec![0; 64 << 10];
        match output.read(&mut buffer).await {
            Ok(0) => None,
            Ok(n) => {
                buffer.truncate(n);
                Some((Ok::<Bytes, std::io::Error>(buffer.into()), (output, group)))
            }
            Err(error) => Some((Err(error), (output, group))),
        }
    });
    let stream = stream.boxed();
    response.body(Body::from_stream(stream)).map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{Asked, parted};

    #[test]
    fn a_path_is_a_project_and_a_service() {
        let Asked { source, project: name, service } = parted("org/a.git/info/refs").unwrap();
        assert_eq!(source, None);
        let other = parted("@other/org/a/info/refs").unwrap();
        assert_eq!((other.source, other.project.as_str()), (Some("other"), "org/a"));
        assert!(parted("@other/info/refs").is_none());
        assert_eq!((name.as_str(), service), ("org/a", "/info/refs"));
        assert_eq!(parted("org/a/git-upload-pack").unwrap().service, "/git-upload-pack");
        for bad in ["../a/info/refs", "a/HEAD", "info/refs", "a/../b/info/refs"] {
            assert!(parted(bad).is_none(), "{bad}");
        }
    }
}
