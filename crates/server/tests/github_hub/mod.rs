//! GitHub for tests: REST as far as toci uses it, with check runs and pull requests that are remembered, and repositories
//! that can be fetched (as plain files: git's dumb protocol needs no more).

use crate::common::git::git;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Longest body that is read, in bytes.
const BODY_MAX_BYTES: usize = 1 << 20;

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
}

#[derive(Debug, Default)]
struct Known {
    calls: Vec<Call>,
    /// By name, with their ids.
    projects: Vec<(String, u64)>,
    /// Project, number, pull request.
    pulls: Vec<(String, u64, Value)>,
    /// Project, check run.
    runs: Vec<(String, Value)>,
}

#[derive(Clone, Debug)]
struct Shelf {
    known: Arc<Mutex<Known>>,
    folder: PathBuf,
}

/// The server; it ends when this value goes.
pub(crate) struct Hub {
    pub(crate) url: String,
    shelf: Shelf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A pull request as REST and webhooks show it.
pub(crate) fn pull(project: &str, number: u64, head: &str) -> Value {
    json!({
        "url": format!("https://api.github.com/repos/{project}/pulls/{number}"),
        "id": 9_000 + number,
        "number": number,
        "state": "open",
        "locked": false,
        "title": format!("Change {number}"),
        "user": {"login": "mona", "id": 1, "type": "User", "site_admin": false},
        "body": null,
        "html_url": format!("https://github.com/{project}/pull/{number}"),
        "labels": [],
        "draft": false,
        "head": {"label": "mona:topic", "ref": "topic", "sha": head, "user": null, "repo": null},
        "base": {"label": "octo:main", "ref": "main", "sha": head, "repo": {"full_name": project}},
        "author_association": "OWNER",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-02T00:00:00Z",
        "closed_at": null,
        "merged_at": null,
        "merged": false,
        "mergeable": true,
        "changed_files": 1,
    })
}

impl Hub {
    pub(crate) async fn start(folder: &Path, projects: &[(&str, u64)]) -> Hub {
        let folder = folder.join("hub");
        for (name, _) in projects {
            let bare = folder.join(format!("web/{name}.git"));
            let work = folder.join("work").join(name);
            std::fs::create_dir_all(&work).unwrap();
            git(
                &folder,
                &["init", "-q", "--bare", "--initial-branch=main", bare.to_str().unwrap()],
            )
            .unwrap();
            git(&work, &["init", "-q", "--initial-branch=main"]).unwrap();
            git(&work, &["commit", "-q", "--allow-empty", "-m", "begin"]).unwrap();
            git(&work, &["push", "-q", bare.to_str().unwrap(), "main"]).unwrap();
            git(&bare, &["update-server-info"]).unwrap();
        }
        let projects = projects.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect();
        let known = Arc::new(Mutex::new(Known { projects, ..Known::default() }));
        let shelf = Shelf { known, folder };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(shelf.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Hub { url, shelf, task }
    }

    /// A pull request of one commit; its head.
    pub(crate) fn propose(&self, project: &str, number: u64, text: &str) -> String {
        let work = self.shelf.folder.join("work").join(project);
        let bare = self.shelf.folder.join(format!("web/{project}.git"));
        std::fs::write(work.join("file"), text).unwrap();
        git(&work, &["add", "."]).unwrap();
        git(&work, &["commit", "-q", "-m", text]).unwrap();
        let target = format!("HEAD:refs/pull/{number}/head");
        git(&work, &["push", "-q", bare.to_str().unwrap(), &target]).unwrap();
        git(&bare, &["update-server-info"]).unwrap();
        let head = git(&work, &["rev-parse", "HEAD"]).unwrap();
        let found = pull(project, number, &head);
        self.known().pulls.push((project.to_owned(), number, found));
        head
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.shelf.known.lock().unwrap()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.known().calls.clone()
    }

    /// The check runs of a project.
    pub(crate) fn runs(&self, project: &str) -> Vec<Value> {
        let known = self.known();
        let own = known.runs.iter().filter(|(of, _)| of == project);
        own.map(|(_, run)| run.clone()).collect()
    }
}

async fn answer(State(shelf): State<Shelf>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path.starts_with("/web/") {
        let file = std::fs::read(shelf.folder.join(path.trim_start_matches('/')));
        let status = if file.is_ok() { 200 } else { 404 };
        return Response::builder()
            .status(status)
            .body(Body::from(file.unwrap_or_default()))
            .unwrap();
    }
    let body = to_bytes(body, BODY_MAX_BYTES).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let call = Call { method: head.method.to_string(), path, body };
    let mut known = shelf.known.lock().unwrap();
    known.calls.push(call.clone());
    let (status, answer) = known.answer(&call);
    Response::builder().status(status).body(Body::from(answer.to_string())).unwrap()
}

impl Known {
    fn answer(&mut self, call: &Call) -> (u16, Value) {
        let parts: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
        let (owner, name, rest) = match parts[..] {
            ["app", "installations", _, "access_tokens"] => {
                return (201, json!({"token": "ghs_app", "expires_at": "2999-01-01T00:00:00Z"}));
            }
            ["repos", owner, name, ref rest @ ..] => (owner, name, rest.to_vec()),
            _ => return nothing(),
        };
        let project = format!("{owner}/{name}");
        let Some((_, id)) = self.projects.iter().find(|(known, _)| *known == project) else {
            return nothing();
        };
        match (call.method.as_str(), &rest[..]) {
            ("GET", []) => (200, json!({"id": id, "full_name": project})),
            ("GET", ["pulls"]) => {
                let own = self.pulls.iter().filter(|(of, ..)| *of == project);
                (200, own.map(|(.., found)| found.clone()).collect())
            }
            ("GET", ["pulls", number]) => match self.pull(&project, number) {
                Some(found) => (200, found.clone()),
                None => nothing(),
            },
            ("GET", ["pulls", _, "files"]) => {
                (200, json!([{"sha": "x", "filename": "file", "status": "modified"}]))
            }
            ("GET", ["pulls", _, "reviews"] | ["issues", "comments"]) => (200, json!([])),
            ("PUT", ["pulls", number, "merge"]) => {
                let Some(found) = self.pull(&project, number) else { return nothing() };
                found["state"] = "closed".into();
                found["merged_at"] = "2026-01-03T00:00:00Z".into();
                let sha = found["head"]["sha"].clone();
                (
                    200,
                    json!({"sha": sha, "merged": true, "message": "Pull Request successfully merged"}),
                )
            }
            ("GET", ["commits", head, "check-runs"]) => {
                let is_it = |run: &&Value| run["head_sha"] == *head;
                let own = self.runs.iter().filter(|(of, _)| *of == project).map(|(_, run)| run);
                let runs: Vec<&Value> = own.filter(is_it).collect();
                (200, json!({"total_count": runs.len(), "check_runs": runs}))
            }
            ("POST", ["check-runs"]) => {
                let mut run = call.body.clone();
                run["id"] = (100 + self.runs.len()).into();
                run["app"] = json!({"id": 123, "slug": "toci"});
                if run["conclusion"].is_null() {
                    run["conclusion"] = Value::Null;
                }
                self.runs.push((project, run.clone()));
                (201, run)
            }
            ("PATCH", ["check-runs", id]) => {
                let id: Option<u64> = id.parse().ok();
                let is_it = |run: &Value| run["id"].as_u64() == id;
                let Some((_, run)) = self.runs.iter_mut().find(|(_, run)| is_it(run)) else {
                    return nothing();
                };
                for (name, value) in call.body.as_object().unwrap() {
                    run[name] = value.clone();
                }
                (200, run.clone())
            }
            ("POST", ["issues", _, "comments"]) => (201, json!({"id": 1})),
            _ => nothing(),
        }
    }

    fn pull(&mut self, project: &str, number: &str) -> Option<&mut Value> {
        let is_it = |of: &str, n: u64| of == project && n.to_string() == number;
        self.pulls.iter_mut().find(|(of, n, _)| is_it(of, *n)).map(|(.., found)| found)
    }
}

fn nothing() -> (u16, Value) {
    (
        404,
        json!({"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"}),
    )
}
