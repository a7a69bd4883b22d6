//! The cloud's API as a test sees it: through curl, so that the tests' eyes are not the code under test.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// The identity service.
const IDENTITY: &str = "http://127.0.0.1:5000/v3";
/// The region whose services are asked; a test may have made another one.
const REGION: &str = "RegionOne";
/// Longest time for one call, seconds; the machine may be busy.
const CALL_SECONDS: &str = "120";

/// A user who is logged in.
#[derive(Debug)]
pub struct Api {
    token: String,
    /// The user.
    pub user: String,
    /// The project.
    pub project: String,
    endpoints: BTreeMap<String, String>,
}

impl Api {
    /// The cloud's administrator.
    ///
    /// # Errors
    /// There is no cloud here, or its identity service does not work.
    pub fn admin() -> Result<Api> {
        Api::login("admin", "admin", "admin")
    }

    /// The tenant that CI runs as.
    ///
    /// # Errors
    /// As [`Api::admin`].
    pub fn ci() -> Result<Api> {
        Api::login("ci", "ci", "ci")
    }

    /// Any user of the default domain.
    ///
    /// # Errors
    /// As [`Api::admin`].
    pub fn login(user: &str, password: &str, project: &str) -> Result<Api> {
        let domain = json!({"id": "default"});
        let asked = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        let url = format!("{IDENTITY}/auth/tokens");
        let answer = call("POST", &url, &[], Some(&asked))
            .context("logging in; these tests run by `cargo xtask cloud test`")?;
        let token = &answer.body["token"];
        let mut endpoints = BTreeMap::new();
        for service in token["catalog"].as_array().into_iter().flatten() {
            let public = service["endpoints"].as_array().into_iter().flatten();
            let is_it = |e: &&Value| e["interface"] == "public" && e["region_id"] == REGION;
            let url = public.clone().find(is_it).map(|e| &e["url"]);
            if let (Some(kind), Some(url)) = (service["type"].as_str(), url.and_then(Value::as_str))
            {
                endpoints.insert(kind.to_owned(), url.to_owned());
            }
        }
        Ok(Api {
            token: answer.token,
            user: text(&token["user"]["id"])?,
            project: text(&token["project"]["id"])?,
            endpoints,
        })
    }

    /// Whether the catalogue has a service of this type.
    #[must_use]
    pub fn has(&self, service: &str) -> bool {
        self.endpoints.contains_key(service)
    }

    /// What is there. `service` is a type of the catalogue (`compute`), `path` begins with a slash.
    ///
    /// # Errors
    /// Any answer but success.
    pub fn get(&self, service: &str, path: &str) -> Result<Value> {
        self.call("GET", service, path, None)
    }

    /// Makes something.
    ///
    /// # Errors
    /// Any answer but success.
    pub fn post(&self, service: &str, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", service, path, Some(body))
    }

    /// Changes something.
    ///
    /// # Errors
    /// Any answer but success.
    pub fn put(&self, service: &str, path: &str, body: &Value) -> Result<Value> {
        self.call("PUT", service, path, Some(body))
    }

    /// Changes parts of something.
    ///
    /// # Errors
    /// Any answer but success.
    pub fn patch(&self, service: &str, path: &str, body: &Value) -> Result<Value> {
        self.call("PATCH", service, path, Some(body))
    }

    /// Removes something.
    ///
    /// # Errors
    /// Any answer but success.
    pub fn delete(&self, service: &str, path: &str) -> Result<()> {
        self.call("DELETE", service, path, None).map(drop)
    }

    /// The id of the only thing of this name, in the answer's list `kind`.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn id_of(&self, service: &str, path: &str, kind: &str, name: &str) -> Result<String> {
        let answer = self.get(service, path)?;
        let all = answer[kind].as_array().with_context(|| format!("{path}: no list {kind}"))?;
        let mut named = all.iter().filter(|item| item["name"] == name);
        let item = named.next().with_context(|| format!("{path}: none is called {name}"))?;
        ensure!(named.next().is_none(), "{path}: more than one is called {name}");
        text(&item["id"])
    }

    fn call(&self, method: &str, service: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let base =
            self.endpoints.get(service).with_context(|| format!("no service {service} here"))?;
        let version = match service {
            "network" => "/v2.0",
            "image" => "/v2",
            _ => "",
        };
        let url = format!("{base}{version}{path}");
        // Each service has versions of its own, and some do not take others'.
        let spoken = match service {
            "volumev3" => "OpenStack-API-Version: volume 3.27",
            "baremetal" => "X-OpenStack-Ironic-API-Version: 1.78",
            _ => "OpenStack-API-Version: compute 2.61",
        };
        let headers = [format!("X-Auth-Token: {}", self.token), spoken.to_owned()];
        Ok(call(method, &url, &headers, body)?.body)
    }
}

/// A text in an answer.
pub(crate) fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{value} is no text"))
}

struct Answer {
    body: Value,
    token: String,
}

fn call(method: &str, url: &str, headers: &[String], body: Option<&Value>) -> Result<Answer> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", CALL_SECONDS, "-X", method]);
    curl.args(["-w", "\n%header{x-subject-token} %{http_code}"]);
    for header in headers {
        curl.args(["-H", header]);
    }
    if body.is_some() {
        curl.args(["-H", "Content-Type: application/json", "--data-binary", "@-"]);
    }
    let mut child = curl
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting curl")?;
    let mut input = child.stdin.take().context("standard input was piped")?;
    input.write_all(body.map(Value::to_string).unwrap_or_default().as_bytes())?;
    drop(input);
    let output = child.wait_with_output().context("waiting for curl")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let (content, end) = said.rsplit_once('\n').unwrap_or(("", &said));
    let (token, code) = end.rsplit_once(' ').unwrap_or(("", end));
    ensure!(output.status.success(), "{method} {url}: {}", complaint.trim());
    if !code.starts_with('2') {
        bail!("{method} {url}: {code}: {content}");
    }
    let body = if content.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(content).with_context(|| format!("{method} {url}: {content}"))?
    };
    Ok(Answer { body, token: token.to_owned() })
}
