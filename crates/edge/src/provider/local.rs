//! The provider `local`: sandboxes on this machine. They end with the server.

use super::{Machine, Provider, ProviderError, Work};
use crate::node::bounds::Bounds;
use crate::node::local::{Link, LocalNode};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use toci_core::id::Label;

/// Looking is cheap, and a sandbox that died should be noticed soon.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Sandboxes at most.
    pub max: u16,
    /// Number of the first one; servers on one machine need different ones.
    pub first_number: u16,
    /// Addresses of the pairs of ends, the first and the last; without them sandboxes have no network.
    pub addresses: Option<(Ipv4Addr, Ipv4Addr)>,
    /// What sandboxes of each label may take; without an entry nothing is bounded but processes.
    pub bounds: BTreeMap<Label, Bounds>,
}

/// Pairs in a range of addresses: even is our end, odd is the sandbox's.
#[must_use]
pub fn pairs(first: Ipv4Addr, last: Ipv4Addr) -> Vec<Link> {
    let (first, last) = (u32::from(first), u32::from(last));
    let even = first.saturating_add(first % 2);
    (even..last)
        .step_by(2)
        .map(|n| Link { outside: Ipv4Addr::from(n), inside: Ipv4Addr::from(n + 1) })
        .collect()
}

/// A number that is taken, and the sandbox once it is there.
#[derive(Debug)]
struct Slot {
    number: u16,
    node: Option<LocalNode>,
}

/// Sandboxes on this machine.
#[derive(Debug)]
pub struct Local {
    config: LocalConfig,
    links: Vec<Link>,
    slots: Mutex<BTreeMap<String, Slot>>,
}

impl Local {
    /// With these settings.
    #[must_use]
    pub fn new(config: LocalConfig) -> Local {
        let links = config.addresses.map(|(a, b)| pairs(a, b)).unwrap_or_default();
        Local { config, links, slots: Mutex::new(BTreeMap::new()) }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lowest free number.
    fn reserve(&self, name: &str) -> Option<(u16, Option<Link>)> {
        let mut slots = self.slots();
        let taken: BTreeSet<u16> = slots.values().map(|slot| slot.number).collect();
        let place = (0..self.config.max)
            .find(|n| !taken.contains(&self.config.first_number.saturating_add(*n)))?;
        let link = self.links.get(usize::from(place)).copied();
        if self.config.addresses.is_some() && link.is_none() {
            return None;
        }
        let number = self.config.first_number.saturating_add(place);
        slots.insert(name.to_owned(), Slot { number, node: None });
        Some((number, link))
    }

    async fn make(&self, name: &str, label: &Label) -> Result<Machine, ProviderError> {
        let what = || format!("start the sandbox {name}");
        let Some((number, link)) = self.reserve(name) else {
            return Err(ProviderError::said(what(), "no number or address is free"));
        };
        let bounds = self.config.bounds.get(label).cloned().unwrap_or_default();
        let node = LocalNode::start(name, number, link, &bounds)
            .await
            .map_err(|e| ProviderError::new(what(), &e))?;
        let machine = Machine {
            session: node.session(),
            address: link.map(|link| IpAddr::V4(link.inside)),
            token: String::new(),
        };
        match self.slots().get_mut(name) {
            Some(slot) => slot.node = Some(node),
            None => return Err(ProviderError::said(what(), "it was deleted meanwhile")),
        }
        Ok(machine)
    }

    async fn end(&self, name: &str) {
        let node = self.slots().get_mut(name).and_then(|slot| slot.node.take());
        if let Some(node) = node {
            node.end().await;
        }
        // Its number is free only now.
        self.slots().remove(name);
    }
}

impl Provider for Local {
    fn kind(&self) -> &'static str {
        "local"
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
        let machine = self.slots().get(name).and_then(|slot| {
            let link = self.links.get(usize::from(slot.number - self.config.first_number));
            Some(Machine {
                session: slot.node.as_ref()?.session(),
                address: link.map(|link| IpAddr::V4(link.inside)),
                token: String::new(),
            })
        });
        Box::pin(async { Ok(machine) })
    }

    fn list(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>> {
        let mut names = BTreeSet::new();
        for (name, slot) in self.slots().iter_mut() {
            if slot.node.as_mut().is_some_and(LocalNode::is_alive) {
                names.insert(name.clone());
            }
        }
        Box::pin(async { Ok(names) })
    }

    fn delete<'a>(&'a self, name: &'a str, _token: &'a str) -> Work<'a, Result<(), ProviderError>> {
        Box::pin(async move {
            self.end(name).await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_come_in_pairs() {
        let address = |n| Ipv4Addr::new(198, 18, 1, n);
        let found = pairs(address(199), address(204));
        let expected = |n| Link { outside: address(n), inside: address(n + 1) };
        assert_eq!(found, [expected(200), expected(202)]);
        assert!(pairs(address(200), address(200)).is_empty());
    }

    #[test]
    fn numbers_are_used_again_and_never_twice() {
        let config =
            LocalConfig { max: 2, first_number: 7, addresses: None, bounds: BTreeMap::new() };
        let local = Local::new(config);
        assert_eq!(local.reserve("a"), Some((7, None)));
        assert_eq!(local.reserve("b"), Some((8, None)));
        assert_eq!(local.reserve("c"), None);
        local.slots().remove("a");
        assert_eq!(local.reserve("c"), Some((7, None)));
    }
}
