//! Which changes the gate has to see with one: what it needs, over all sources, and what needs it.

use super::standing::{Link, Standing, Standings, moment};
use crate::clock::now;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use toci_core::event::{Change, ChangeKey, ChangeState, SourceName};
use toci_core::layout::Layout;
use toci_edge::source::{CHANGES_MAX, Source, SourceError, depends_on};

/// All sources by name.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    first: Option<SourceName>,
    all: Arc<BTreeMap<SourceName, Arc<dyn Source>>>,
    pub(super) standings: Standings,
}

impl Sources {
    /// In the order of the settings: the first one is the default.
    #[must_use]
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Sources {
        let first = sources.first().map(|s| s.name().clone());
        let standings = Standings::default();
        sources.iter().for_each(|source| standings.begin(source.name(), now()));
        let all = sources.into_iter().map(|s| (s.name().clone(), s)).collect();
        Sources { first, all: Arc::new(all), standings }
    }

    /// The source of this name.
    #[must_use]
    pub fn get(&self, name: &SourceName) -> Option<&Arc<dyn Source>> {
        self.all.get(name)
    }

    /// The source that a person names.
    #[must_use]
    pub fn by_word(&self, word: &str) -> Option<&Arc<dyn Source>> {
        self.all.values().find(|source| source.name().as_str() == word)
    }

    /// The default one.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<dyn Source>> {
        self.first.as_ref().and_then(|name| self.all.get(name))
    }

    /// How it stands with a source.
    #[must_use]
    pub fn standing(&self, name: &SourceName) -> Option<Standing> {
        self.standings.get(name)
    }

    /// What a source says of itself, and since when it is not heard, if it is not.
    #[must_use]
    pub fn complaint(&self, name: &SourceName, error: &SourceError) -> String {
        match self.standing(name) {
            Some(Standing { link: Link::Down(_), since, .. }) => {
                format!("{error} (not heard since {})", moment(since))
            }
            Some(_) | None => error.to_string(),
        }
    }

    /// Tells each source which of its projects pipelines know.
    pub fn watch(&self, layout: &Layout) {
        for source in self.iter() {
            let own = layout.projects.keys().filter(|project| project.source == *source.name());
            source.watch(own.map(|project| project.name.clone()).collect());
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Source>> {
        self.all.values()
    }
}

/// Fresh views of a change, of everything that it needs (and that those need), and of the open changes that need it.
/// A change that is not there any more is left out. At most [`CHANGES_MAX`] of them.
pub async fn gather(sources: &Sources, key: &ChangeKey) -> Result<Vec<Change>, SourceError> {
    let mut seen: BTreeSet<ChangeKey> = BTreeSet::new();
    let mut views: Vec<Change> = Vec::new();
    // Also, for what needs the first one, whether to go on from there.
    let mut queue: VecDeque<ChangeKey> = VecDeque::from([key.clone()]);
    while let Some(next) = queue.pop_front() {
        if !seen.insert(next.clone()) {
            continue;
        }
        if views.len() >= CHANGES_MAX {
            tracing::warn!(%key, max = CHANGES_MAX, "a change has too many around it; the rest is left out");
            break;
        }
        let Some(mut change) = view(sources, &next).await? else { continue };
        if change.state == ChangeState::Open {
            across(sources, &mut change).await?;
        }
        queue.extend(change.needs.iter().cloned());
        if next == *key {
            queue.extend(change.needed_by.iter().cloned());
        }
        views.push(change);
    }
    Ok(views)
}

async fn view(sources: &Sources, key: &ChangeKey) -> Result<Option<Change>, SourceError> {
    let Some(source) = sources.get(&key.source) else { return Ok(None) };
    source.change(key.number, Some(&key.patchset)).await
}

/// `Depends-On:` may name changes of other sources.
async fn across(sources: &Sources, change: &mut Change) -> Result<(), SourceError> {
    for footer in depends_on(&change.message) {
        for source in sources.iter().filter(|s| *s.name() != change.key.source) {
            for found in source.find(&footer).await? {
                if !change.needs.contains(&found.key) {
                    change.needs.push(found.key);
                }
            }
        }
    }
    Ok(())
}
