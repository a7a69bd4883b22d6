//! What settings name and a cloud has: flavors, networks, security groups, images, key pairs. Asked for seldom.

use super::config::FlavorChoice;
use super::marks::Marks;
use crate::openstack::{
    Cloud, CloudError, Flavor, Named as _, Network, NotOne, SecurityGroup, listed, one,
};
use crate::provider::ProviderError;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// So long what was found is believed. A failed build asks anew.
const BELIEVED: Duration = Duration::from_secs(300);

/// What a cloud has.
#[derive(Clone, Debug, Default)]
pub(super) struct Things {
    flavors: Vec<Flavor>,
    networks: Vec<Network>,
    groups: Vec<SecurityGroup>,
}

/// Looks things up.
#[derive(Debug)]
pub(super) struct Finder {
    cloud: Arc<Cloud>,
    things: Mutex<Option<(Instant, Arc<Things>)>>,
    key_pair: Mutex<Option<String>>,
}

impl Finder {
    pub(super) fn new(cloud: Arc<Cloud>) -> Finder {
        Finder { cloud, things: Mutex::default(), key_pair: Mutex::default() }
    }

    pub(super) async fn things(&self) -> Result<Arc<Things>, CloudError> {
        // Held, so that of many who ask one does.
        let mut kept = self.things.lock().await;
        if let Some((since, things)) = kept.as_ref()
            && since.elapsed() < BELIEVED
        {
            return Ok(Arc::clone(things));
        }
        let (flavors, networks, groups) = tokio::try_join!(
            self.cloud.flavors(),
            self.cloud.networks(&[]),
            self.cloud.security_groups(&[]),
        )?;
        let things = Arc::new(Things { flavors, networks, groups });
        *kept = Some((Instant::now(), Arc::clone(&things)));
        Ok(things)
    }

    /// What was found may be wrong: it is asked for anew.
    pub(super) async fn forget(&self) {
        *self.things.lock().await = None;
        *self.key_pair.lock().await = None;
    }

    /// The newest image of this name, or the one with this id.
    pub(super) async fn image(&self, name: &str) -> Result<String, ProviderError> {
        let found = self.cloud.image_named(name).await;
        let found =
            found.map_err(|e| super::server::failed(format!("find the image {name}"), e))?;
        Ok(found.map_err(told)?.id)
    }

    /// Makes sure that the cloud knows our public key; the name of its key pair.
    pub(super) async fn key_pair(&self, marks: &Marks, public: &str) -> Result<String, CloudError> {
        let mut kept = self.key_pair.lock().await;
        if let Some(name) = kept.as_ref() {
            return Ok(name.clone());
        }
        let name = marks.key_pair(public);
        let mut there = false;
        for pair in self.cloud.key_pairs().await? {
            if pair.name == name {
                there = true;
            } else if pair.name.starts_with(&marks.key_pairs()) {
                // Of a key that was used before. Servers have their own copy.
                self.cloud.delete_key_pair(&pair.name).await?;
            }
        }
        if !there {
            match self.cloud.create_key_pair(&name, public).await {
                // Somebody was quicker; the name has the key's hash in it.
                Ok(()) | Err(CloudError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        *kept = Some(name.clone());
        Ok(name)
    }
}

impl Things {
    pub(super) fn flavor(&self, choice: &FlavorChoice) -> Result<&Flavor, ProviderError> {
        match choice {
            FlavorChoice::Named(name) => one(name, &self.flavors).map_err(told),
            FlavorChoice::AtLeast { cpus, memory_mib, disk_gib, filter } => {
                let fits = |f: &&Flavor| {
                    f.vcpus >= *cpus
                        && f.ram >= *memory_mib
                        // A flavor without a disk gives one as large as the image.
                        && (f.disk >= *disk_gib || f.disk == 0)
                        && filter.as_ref().is_none_or(|part| f.name.contains(part))
                };
                let fitting = self.flavors.iter().filter(fits);
                fitting.min_by_key(|f| (f.ram, f.vcpus, f.disk, f.name.clone())).ok_or_else(|| {
                    let what = format!("find a flavor with {cpus} CPUs, {memory_mib} MiB of memory and {disk_gib} GiB of disk");
                    let shown = |f: &Flavor| {
                        format!("{} ({} CPUs, {} MiB, {} GiB)", f.name, f.vcpus, f.ram, f.disk)
                    };
                    let all: Vec<String> = self.flavors.iter().map(shown).collect();
                    ProviderError::said(what, listed(all.iter().map(String::as_str)))
                })
            }
        }
    }

    /// Networks by name or id, in their order; the only one there is when none is named.
    pub(super) fn networks(&self, names: &[String]) -> Result<Vec<&Network>, ProviderError> {
        let what = "find the nodes' networks";
        if names.is_empty() {
            let mut inner = self.networks.iter().filter(|network| !network.external);
            return match (inner.next(), inner.next()) {
                (Some(only), None) => Ok(vec![only]),
                (_, _) => {
                    let names = listed(self.networks.iter().map(|n| n.name.as_str()));
                    Err(ProviderError::said(what, format!("say which in `networks`; {names}")))
                }
            };
        }
        names.iter().map(|name| self.network(name)).collect()
    }

    /// A network by name or id.
    pub(super) fn network(&self, name: &str) -> Result<&Network, ProviderError> {
        one(name, &self.networks).map_err(told)
    }

    /// The ids of security groups.
    pub(super) fn groups(&self, names: &[String]) -> Result<Vec<&str>, ProviderError> {
        let group = |name: &String| Ok(one(name, &self.groups).map_err(told)?.id());
        names.iter().map(group).collect()
    }
}

fn told(error: NotOne) -> ProviderError {
    ProviderError::said(error.what, error.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn things() -> Things {
        let flavor = |id: &str, name: &str, vcpus, ram, disk| Flavor {
            id: id.into(),
            name: name.into(),
            vcpus,
            ram,
            disk,
        };
        let network = |id: &str, name: &str, external| Network {
            id: id.into(),
            name: name.into(),
            project_id: String::new(),
            external,
            port_security_enabled: true,
        };
        Things {
            flavors: vec![
                flavor("1", "large", 8, 16_384, 80),
                flavor("2", "small", 1, 2_048, 20),
                flavor("3", "nodisk", 2, 2_048, 0),
                flavor("4", "perf-large", 8, 16_384, 160),
            ],
            networks: vec![
                network("n1", "private", false),
                network("n2", "public", true),
                network("n3", "test", false),
                network("n4", "test", false),
            ],
            groups: Vec::new(),
        }
    }

    #[test]
    fn the_smallest_flavor_that_fits_is_taken() {
        let things = things();
        let least = |cpus, memory_mib, disk_gib, filter: Option<&str>| FlavorChoice::AtLeast {
            cpus,
            memory_mib,
            disk_gib,
            filter: filter.map(str::to_owned),
        };
        let name = |choice: &FlavorChoice| things.flavor(choice).map(|f| f.name.as_str());
        assert_eq!(name(&least(1, 512, 10, None)), Ok("small"));
        assert_eq!(name(&least(2, 512, 10, None)), Ok("nodisk"));
        assert_eq!(name(&least(4, 8_192, 40, None)), Ok("large"));
        assert_eq!(name(&least(4, 8_192, 40, Some("perf"))), Ok("perf-large"));
        assert_eq!(name(&FlavorChoice::Named("2".into())), Ok("small"));
        let error = name(&least(16, 1, 1, None)).unwrap_err().to_string();
        assert!(error.contains("16 CPUs") && error.contains("small (1 CPUs, 2048 MiB"), "{error}");
        let error = name(&FlavorChoice::Named("huge".into())).unwrap_err().to_string();
        assert_eq!(error, "find the flavor huge: the cloud has large, small, nodisk, perf-large");
    }

    #[test]
    fn networks_are_named_unless_there_is_one() {
        let things = things();
        let ids = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let found = things.networks(&names).map_err(|e| e.to_string())?;
            Ok::<_, String>(found.iter().map(|n| n.id.clone()).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["n3", "private"]).unwrap(), ["n3", "n1"]);
        assert!(ids(&["test"]).unwrap_err().contains("several have this name"));
        assert!(ids(&["none"]).unwrap_err().contains("the cloud has private, public, test"));
        assert!(ids(&[]).unwrap_err().contains("say which in `networks`"));
        let one = Things { networks: things.networks[..2].to_vec(), ..Things::default() };
        assert_eq!(one.networks(&[]).unwrap()[0].id, "n1");
    }
}
