//! What a run needs before its scripts can begin: nodes, a test environment, the workspace.

use super::{Drive, console_url};
use crate::tasks::lease::BookError;
use crate::tasks::node::{NodeError, NodeHandle, NodeRequest};
use crate::tasks::run::desk::Parts;
use crate::tasks::run::environment::{self, Places};
use crate::tasks::run::secret::{self, Secrets};
use crate::tasks::run::stops::Heed;
use crate::tasks::run::testenv::{self, PutError, Tenancy};
use crate::tasks::run::workspace::{self, Placed, SetUpError};
use std::sync::Arc;
use toci_core::pipeline::{RunUpdate, RunWish};
use toci_core::run::record::{RunNode, SshWay};
use toci_core::run::steps::Event;
use toci_core::run::variables::{self, Variables};
use toci_core::shell::quoted;
use toci_edge::node::console::Mask;
use toci_edge::node::{SMALL_LIMIT, Session};

impl Drive {
    pub(super) async fn take_nodes(&mut self) -> Event {
        let run = &self.wish.job.run;
        if run.pre.is_empty() && run.run.is_empty() && run.post.is_empty() {
            let why = format!("job {} says nothing that could be run", self.wish.job.name);
            return self.unpreparable(why);
        }
        match secret::read(&self.parts.config.secrets, &self.wish, &self.places.base) {
            Ok(secrets) => {
                self.console.hide(Mask::new(secrets.0.iter().map(|(_, value)| value.as_str())));
                self.secrets = secrets;
            }
            Err(why) => return self.unpreparable(why),
        }
        let request = NodeRequest {
            run: self.wish.run,
            label: run.node.clone(),
            count: run.nodes.max(1),
            precedence: self.wish.precedence,
            relative_priority: self.wish.relative_priority,
            since: self.record.queued,
            job: self.wish.job.name.to_string(),
        };
        let label = run.node.as_ref().map_or("the default label".into(), |l| format!("label {l}"));
        self.record.waits_for = format!("{} node(s) of {label}", request.count);
        self.publish();
        let deadline = self.deadline();
        let taken = self.stops.or(deadline, Heed::Waiting, self.parts.nodes.take(request)).await;
        match taken {
            Ok(Ok(nodes)) if !nodes.is_empty() => {
                self.stops.lost = nodes.iter().map(|n| n.lost.clone()).collect();
                self.record.nodes = nodes.iter().map(remembered).collect();
                self.nodes = nodes;
                Event::Node
            }
            Ok(Ok(_)) => self.infrastructure("no node was given".to_owned(), Event::NodeLost),
            Ok(Err(NodeError::Impossible(why))) => self.unpreparable(why),
            Ok(Err(error)) => self.infrastructure(error.to_string(), Event::NodeLost),
            Err(Event::TimeUp) => {
                let why = format!("there was no node of {label} within the job's wait-timeout");
                self.infrastructure(why, Event::TimeUp)
            }
            Err(event) => event,
        }
    }

    pub(super) fn unpreparable(&mut self, why: String) -> Event {
        self.say(&why);
        self.note(why);
        Event::Unpreparable
    }

    pub(super) fn infrastructure(&mut self, why: String, event: Event) -> Event {
        self.say(&why);
        self.note(why);
        event
    }

    pub(super) async fn take_testenv(&mut self) -> Event {
        let Some(wanted) = self.wish.job.run.testenv.clone() else { return Event::Testenv };
        let request = testenv::request(&self.wish, &wanted, self.parts.lease_max);
        let tenancy = match Tenancy::ask(&self.parts.book, request).await {
            Ok(tenancy) => tenancy,
            Err(BookError::Refused(refused)) => {
                let why = format!("no test environment: {}", refused.message);
                // Test environments come and go with their hosts; only a request that makes no sense is final.
                return match refused.code {
                    "bad_request" => self.unpreparable(why),
                    _ => self.infrastructure(why, Event::TestenvLost),
                };
            }
            Err(error) => {
                let why = format!("no test environment: {error}");
                return self.infrastructure(why, Event::TestenvLost);
            }
        };
        self.record.lease = Some(tenancy.id);
        let tenancy = self.tenancy.insert(tenancy);
        let (record, view) = (&mut self.record, &self.view);
        let deadline = self.state.deadline(&self.wish.job.run, record.queued);
        let settled = tenancy.settled(|lease| {
            record.waits_for = match &lease.waiting {
                Some(w) => format!("test environment, number {}: {}", w.position, w.reason),
                None => "its test environment is made ready".to_owned(),
            };
            view.show(Arc::new(record.clone()));
        });
        let settled = self.stops.or(deadline, Heed::Waiting, settled).await;
        match settled {
            Ok(Ok(())) => {
                self.stops.lease = self.tenancy.as_ref().map(|t| t.lease.clone());
                Event::Testenv
            }
            Ok(Err(why)) => self.infrastructure(why, Event::TestenvLost),
            Err(Event::TimeUp) => {
                let why = "there was no test environment within the job's wait-timeout".to_owned();
                self.infrastructure(why, Event::TimeUp)
            }
            Err(event) => event,
        }
    }

    pub(super) async fn prepare(&mut self) -> Event {
        let Some(first) = self.nodes.first() else { return Event::NodeLost };
        let session = first.session.clone();
        let on: Vec<String> = self
            .nodes
            .iter()
            .map(|n| format!("{} ({}, {})", n.name, n.label, n.provider))
            .collect();
        self.say(format!(
            "run {} of job {}, attempt {}, on {}",
            self.wish.run,
            self.wish.job.name,
            self.wish.attempt,
            on.join(", ")
        ));
        self.record.url = console_url(&self.parts, self.wish.run);
        self.publish();
        let update = RunUpdate::Started {
            at: self.record.started.unwrap_or(self.record.queued),
            url: self.record.url.clone(),
        };
        self.tell(update).await;
        let deadline = self.deadline();
        let (parts, wish, places) = (&self.parts, &self.wish, &self.places);
        let url = variables::source(wish).map(|source| parts.merger_url(source));
        let url = url.as_deref().unwrap_or(&parts.merger_url);
        let usual = environment::usual(wish, url, places, &self.nodes);
        let te = self.tenancy.as_ref();
        let work = set_up(parts, wish, places, &session, &usual, &self.secrets, te);
        match self.stops.or(deadline, Heed::All, work).await {
            Ok(Ok(ready)) => {
                self.keep_variables(&usual);
                self.prepared(ready);
                Event::Prepared
            }
            Ok(Err(SetUpError::Config(why))) => self.unpreparable(why),
            Ok(Err(error)) => {
                let why = format!("the workspace could not be set up: {error}");
                self.infrastructure(why, Event::NodeLost)
            }
            Err(event) => {
                self.interrupted(event);
                event
            }
        }
    }

    fn prepared(&mut self, ready: Ready) {
        if let Some(id) = self.record.lease {
            self.say(format!("lease {id}: its test environment is in TE_DATAFILE"));
        }
        let words = self.secrets.0.iter().map(|(_, value)| value.as_str());
        self.console.hide(Mask::new(words.chain(ready.secrets.iter().map(String::as_str))));
        for name in ready.odd {
            self.say(format!("`{name}` cannot be a variable of a shell and is left out"));
        }
        for placed in &ready.placed {
            let short: String = placed.commit.as_str().chars().take(12).collect();
            self.say(format!(
                "{} at {short} ({}) in {}",
                placed.project.name, placed.from, placed.folder
            ));
        }
        let place = |p: &Placed| (p.project.name.clone(), p.folder.clone());
        self.checked_out = ready.placed.iter().map(place).collect();
    }

    /// The variables beside the logs, without secrets.
    fn keep_variables(&self, usual: &Variables) {
        let text: String = usual.iter().map(|(k, v)| format!("{k}={}\n", quoted(v))).collect();
        let folder = self.folder.join("zuul-info");
        let kept = crate::tasks::run::console::make_folder(&folder)
            .and_then(|()| std::fs::write(folder.join("variables.txt"), text));
        if let Err(error) = kept {
            tracing::warn!(run = %self.wish.run, %error, "a run's variables cannot be kept");
        }
    }
}

fn remembered(node: &NodeHandle) -> RunNode {
    let way = match &node.session {
        Session::Namespaces { .. } => None,
        Session::Ssh { target, port, key, known_hosts } => Some(SshWay {
            target: target.clone(),
            port: *port,
            key: key.clone(),
            known_hosts: known_hosts.clone(),
        }),
    };
    RunNode {
        name: node.name.clone(),
        label: node.label.clone(),
        provider: node.provider.clone(),
        way,
    }
}

/// What setting up came to.
struct Ready {
    placed: Vec<Placed>,
    /// What must not be seen besides the job's secrets.
    secrets: Vec<String>,
    /// Names that cannot be variables.
    odd: Vec<String>,
}

async fn set_up(
    parts: &Parts,
    wish: &RunWish,
    places: &Places,
    session: &Session,
    usual: &Variables,
    secrets: &Secrets,
    tenancy: Option<&Tenancy>,
) -> Result<Ready, SetUpError> {
    let config = &parts.config;
    let plan = workspace::plan(wish, &config.default_branch)?;
    let folders = format!(
        "mkdir -p {} {} && mkdir -p -m 700 {}",
        quoted(&places.workspace),
        quoted(&places.base),
        quoted(&places.control)
    );
    session.run("make the workspace", &folders, b"", SMALL_LIMIT).await?;
    let (te, hidden) = match tenancy {
        Some(tenancy) => tenancy.put(session, places).await.map_err(|error| match error {
            PutError::Node(error) => SetUpError::Node(error),
            PutError::Book(error) => {
                SetUpError::Send { project: "the TE JSON".to_owned(), why: error.to_string() }
            }
        })?,
        None => (Variables::new(), Vec::new()),
    };
    let (text, odd) = environment::file(usual, secrets, &te);
    session.put(&format!("{}/environment", places.control), text.as_bytes(), 0o600).await?;
    let (cache, url) = (&config.git_cache, |source: &_| parts.merger_url(source));
    let placed = workspace::set_up(&parts.mirrors, session, places, cache, url, &plan).await?;
    Ok(Ready { placed, secrets: hidden, odd })
}
