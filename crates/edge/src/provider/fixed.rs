//! The provider `static`: existing machines over SSH. They cannot be deleted: a used one is made as if it were new by
//! the operator's command, and is not used again before that has worked.

use super::{Machine, Provider, ProviderError, Work};
use crate::node::{SMALL_LIMIT, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use toci_core::id::Label;

/// What is listed is known without asking anybody.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedMachine {
    /// User and host.
    pub target: String,
    /// TCP port.
    pub port: u16,
    /// What it is.
    pub label: Label,
    /// Its address, when it is configured by it.
    pub address: Option<IpAddr>,
}

impl FixedMachine {
    fn token(&self) -> String {
        format!("{}:{}", self.target, self.port)
    }
}

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedConfig {
    /// Private key.
    pub key: PathBuf,
    /// Host keys; no other ones are trusted.
    pub known_hosts: PathBuf,
    /// Shell text that makes a used machine as if it were new. `TOCI_NODE` is the node's name.
    pub cleanup: String,
    /// How long it may take.
    pub cleanup_limit: Duration,
    /// The machines.
    pub machines: Vec<FixedMachine>,
}

/// Existing machines.
#[derive(Debug)]
pub struct Fixed {
    config: FixedConfig,
    /// Nodes and the machines that they are, by place in the settings.
    claims: Mutex<BTreeMap<String, usize>>,
}

impl Fixed {
    /// With these settings.
    #[must_use]
    pub fn new(config: FixedConfig) -> Fixed {
        Fixed { config, claims: Mutex::new(BTreeMap::new()) }
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, name: &str, label: &Label) -> Option<&FixedMachine> {
        let mut claims = self.claims();
        let taken: BTreeSet<usize> = claims.values().copied().collect();
        let mut machines = self.config.machines.iter().enumerate();
        let (place, machine) =
            machines.find(|(place, m)| m.label == *label && !taken.contains(place))?;
        claims.insert(name.to_owned(), place);
        Some(machine)
    }

    fn claimed(&self, name: &str) -> Option<&FixedMachine> {
        let place = self.claims().get(name).copied()?;
        self.config.machines.get(place)
    }

    fn machine(&self, machine: &FixedMachine) -> Machine {
        Machine {
            session: Session::Ssh {
                target: machine.target.clone(),
                port: machine.port,
                key: self.config.key.clone(),
                known_hosts: self.config.known_hosts.clone(),
            },
            address: machine.address,
            token: machine.token(),
        }
    }

    async fn make(&self, name: &str, label: &Label) -> Result<Machine, ProviderError> {
        let Some(fixed) = self.claim(name, label) else {
            return Err(ProviderError::said("find a machine", "all of them are in use"));
        };
        let machine = self.machine(fixed);
        let what = format!("reach {}", fixed.token());
        match machine.session.run(&what, "true", b"", SMALL_LIMIT).await {
            Ok(_) => Ok(machine),
            Err(error) => Err(ProviderError::new(what, &error)),
        }
    }

    async fn clean(&self, name: &str) -> Result<(), ProviderError> {
        // One that was never claimed, or is not configured any more, is not ours to clean.
        let Some(fixed) = self.claimed(name) else { return Ok(()) };
        let what = format!("clean {}", fixed.token());
        let session = self.machine(fixed).session;
        let text = format!(
            "export TOCI_NODE={}\n{}\n",
            toci_core::shell::quoted(name),
            self.config.cleanup
        );
        let limit = self.config.cleanup_limit;
        session.run(&what, &text, b"", limit).await.map_err(|e| ProviderError::new(&what, &e))?;
        // The guard goes last, when the rest is as if it were new.
        let guard = "rm -rf /var/tmp/toci";
        session
            .run(&what, guard, b"", SMALL_LIMIT)
            .await
            .map_err(|e| ProviderError::new(&what, &e))?;
        self.claims().remove(name);
        Ok(())
    }
}

impl Provider for Fixed {
    fn kind(&self) -> &'static str {
        "static"
    }

    fn list_every(&self) -> Duration {
        LIST_EVERY
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        label: &'a Label,
    ) -> Work<'a, Result<Machine, ProviderError>> {
        Box::pin(self.make(name, label))
    }

    fn find<'a>(
        &'a self,
        name: &'a str,
        _token: &'a str,
    ) -> Work<'a, Result<Option<Machine>, ProviderError>> {
        let machine = self.claimed(name).map(|fixed| self.machine(fixed));
        Box::pin(async { Ok(machine) })
    }

    fn list(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>> {
        let names = self.claims().keys().cloned().collect();
        Box::pin(async { Ok(names) })
    }

    fn delete<'a>(&'a self, name: &'a str, _token: &'a str) -> Work<'a, Result<(), ProviderError>> {
        Box::pin(self.clean(name))
    }

    fn remember(&self, name: &str, token: &str) {
        let place = self.config.machines.iter().position(|machine| machine.token() == token);
        if let Some(place) = place {
            self.claims().insert(name.to_owned(), place);
        }
    }
}
