//! Steps of a plan, one after the other.

use super::api::{Api, ApiError, Service};
use super::body::Keys;
use super::prepare::BadZone;
use super::read::Reading;
use core::fmt;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use toci_core::cloud::{Kind, Plan, Step, Thing, ThingId, Value, Zone};

/// Longest time until a new server runs.
pub const SERVER_BOOT_LIMIT: Duration = Duration::from_secs(600);
/// Longest time until a deleted server is gone.
pub const SERVER_DELETE_LIMIT: Duration = Duration::from_secs(300);
/// How often a server is looked at.
const SERVER_LOOK_PERIOD: Duration = Duration::from_secs(1);

/// What is told while a plan is applied.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'p> {
    /// A step begins.
    Begins {
        /// Counted from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Which.
        step: &'p Step,
    },
    /// A step is done.
    Done {
        /// How long it took.
        took: Duration,
    },
}

/// A plan that was not carried out to its end.
#[derive(Debug, thiserror::Error)]
pub struct Stopped {
    /// The step that failed.
    pub step: Step,
    /// Steps before it; they are done.
    pub done: usize,
    /// How many there were.
    pub of: usize,
    /// Why.
    #[source]
    pub source: StepFailed,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stopped { step, done, of, .. } = self;
        let verb = match step {
            Step::Create { .. } => "create",
            Step::Change { .. } => "change",
            Step::Upload { .. } => "upload",
            Step::Delete { .. } => "delete",
        };
        write!(f, "{verb} {} (step {} of {of})", step.thing(), done + 1)
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepFailed {
    /// The cloud.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A file of this machine.
    #[error(transparent)]
    Local(#[from] BadZone),
    /// A password.
    #[error("find the password of {user}: {why}")]
    Password {
        /// Whose.
        user: String,
        /// What is wrong with it.
        why: String,
    },
    /// A server does not get there.
    #[error("wait for {server}: {why}")]
    Server {
        /// Which.
        server: String,
        /// What happens instead.
        why: String,
    },
}

/// Carries out steps; knows what the cloud calls things, also those that were just made.
#[derive(Debug)]
pub(super) struct Executor<'a> {
    pub(super) api: &'a Api,
    pub(super) zone: &'a Zone,
    pub(super) keys: Keys,
    reading: &'a Reading,
}

impl<'a> Executor<'a> {
    pub(super) fn new(api: &'a Api, zone: &'a Zone, reading: &'a Reading) -> Executor<'a> {
        let keys = Keys::of(&reading.found, &zone.mark);
        Executor { api, zone, keys, reading }
    }

    pub(super) async fn run(
        mut self,
        plan: &Plan,
        tell: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Stopped> {
        let of = plan.steps.len();
        for (done, step) in plan.steps.iter().enumerate() {
            tell(Progress::Begins { number: done + 1, of, step });
            let begun = Instant::now();
            if let Err(source) = self.step(step).await {
                return Err(Stopped { step: step.clone(), done, of, source });
            }
            tell(Progress::Done { took: begun.elapsed() });
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), StepFailed> {
        match step {
            Step::Create { thing, fields } => {
                let key = self.create(thing, fields).await?;
                self.keys.add(thing, &key);
                if thing.kind == Kind::Server {
                    self.wait_for_server(thing, &key).await?;
                }
                if thing.kind == Kind::Image {
                    self.upload(thing).await?;
                }
                Ok(())
            }
            Step::Change { thing, fields, .. } => self.change(thing, fields).await,
            Step::Upload { thing } => self.upload(thing).await,
            Step::Delete { thing } => self.delete(thing).await,
        }
    }

    /// The thing as the zone wishes it.
    pub(super) fn wished(&self, id: &ThingId) -> Option<&'a Thing> {
        self.zone.things.iter().find(|thing| thing.id == *id)
    }

    /// The fields of a thing as it was found.
    pub(super) fn found_fields(&self, id: &ThingId) -> Option<&'a BTreeMap<String, Value>> {
        self.reading.found.things.iter().find(|thing| thing.id == *id).map(|thing| &thing.fields)
    }

    /// The domain of projects and users.
    pub(super) fn domain(&self) -> &'a str {
        &self.reading.domain
    }

    /// The key of a thing's project.
    pub(super) fn project(&self, id: &ThingId) -> Result<&str, ApiError> {
        self.keys.of_thing(&ThingId::global(Kind::Project, &id.project))
    }

    async fn wait_for_server(&self, id: &ThingId, key: &str) -> Result<(), StepFailed> {
        let begun = Instant::now();
        loop {
            let json = self.api.get(Service::Compute, &format!("servers/{key}")).await?;
            let server = &json["server"];
            let status = server["status"].as_str().unwrap_or_default();
            let failed = |why: String| StepFailed::Server { server: id.to_string(), why };
            match status {
                "ACTIVE" => return Ok(()),
                "ERROR" => {
                    let fault =
                        server["fault"]["message"].as_str().unwrap_or("the cloud does not say why");
                    return Err(failed(format!("it is in ERROR: {fault}")));
                }
                _ if begun.elapsed() > SERVER_BOOT_LIMIT => {
                    return Err(failed(format!(
                        "it is {status} after {} s",
                        SERVER_BOOT_LIMIT.as_secs()
                    )));
                }
                _ => tokio::time::sleep(SERVER_LOOK_PERIOD).await,
            }
        }
    }

    pub(super) async fn wait_until_gone(&self, id: &ThingId, key: &str) -> Result<(), StepFailed> {
        let begun = Instant::now();
        loop {
            match self.api.get(Service::Compute, &format!("servers/{key}")).await {
                Err(error) if error.status() == Some(404) => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(_) if begun.elapsed() > SERVER_DELETE_LIMIT => {
                    let why =
                        format!("it is still there after {} s", SERVER_DELETE_LIMIT.as_secs());
                    return Err(StepFailed::Server { server: id.to_string(), why });
                }
                Ok(_) => tokio::time::sleep(SERVER_LOOK_PERIOD).await,
            }
        }
    }
}
