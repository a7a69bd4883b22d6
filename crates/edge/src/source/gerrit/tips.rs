//! Branches and tags as they were told. Gerrit does not remember their moves, so what moved while the stream was away is
//! found by comparing: each move is told once, whether the stream brings it or a look shows it.
//!
//! A look may show what the stream has not brought yet. Its event comes later, perhaps as several steps: they are passed
//! over up to the commit that the look showed, and from there on each one is news again.

use super::listen::OVERLAP;
use crate::source::Cursors;
use std::collections::{BTreeMap, BTreeSet};
use toci_core::event::{
    Branch, EventKind, Person, ProjectKey, ProjectName, RefName, Revision, SourceName, TriggerEvent,
};
use toci_core::time::Time;

/// Branches and tags of one project that are compared at most: of a project with more of them only the stream tells.
pub const TIPS_MAX: usize = 50_000;
/// Moves of branches and tags of one project that a look tells at most; the rest is told as left out.
pub const MOVES_MAX: usize = 500;
/// A project's cursor is called so, and its name follows.
const CURSOR: &str = "refs ";

/// By full name.
pub(super) type Refs = BTreeMap<String, Revision>;

/// What was told of each project's branches and tags.
#[derive(Debug, Default)]
pub(super) struct Tips {
    projects: BTreeMap<ProjectName, Told>,
}

#[derive(Debug, Default)]
struct Told {
    refs: Refs,
    /// Shown by a look: until when, in seconds, events of the stream may lie before that.
    ahead: BTreeMap<String, u64>,
}

/// What an event of the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Of a ref that is not compared.
    Unknown,
    /// It was not told yet; now it counts as told.
    News,
    /// A look has told it.
    Told,
}

impl Tips {
    pub(super) fn read(cursors: &Cursors) -> Tips {
        let told = cursors.iter().filter_map(|(name, text)| {
            let project = ProjectName::new(name.strip_prefix(CURSOR)?).ok()?;
            let refs = serde_json::from_str(text).ok()?;
            Some((project, Told { refs, ahead: BTreeMap::new() }))
        });
        Tips { projects: told.collect() }
    }

    /// Those that are known; without one, nothing of it is news.
    pub(super) fn knows(&self, project: &ProjectName) -> bool {
        self.projects.contains_key(project)
    }

    /// Others are no longer anybody's business.
    pub(super) fn keep(&mut self, projects: &BTreeSet<ProjectName>) {
        self.projects.retain(|project, _| projects.contains(project));
    }

    /// A project as it is, of which nothing is news.
    pub(super) fn learn(&mut self, project: &ProjectName, refs: Refs) {
        self.projects.insert(project.clone(), Told { refs, ahead: BTreeMap::new() });
    }

    pub(super) fn cursor(&self, project: &ProjectName) -> (String, String) {
        let refs = self.projects.get(project).map(|told| &told.refs);
        let text = refs.and_then(|refs| serde_json::to_string(refs).ok());
        (format!("{CURSOR}{project}"), text.unwrap_or_else(|| "{}".to_owned()))
    }

    /// An event of the stream came, at this second.
    pub(super) fn heard(&mut self, event: &TriggerEvent, now: u64) -> Standing {
        let (Some(reference), Some(old), Some(new)) = (&event.reference, &event.old, &event.new)
        else {
            return Standing::Unknown;
        };
        let name = reference.as_str();
        let Some(told) = self.projects.get_mut(&event.project.name) else {
            return Standing::Unknown;
        };
        if !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/") {
            return Standing::Unknown;
        }
        let known = told.refs.get(name).cloned().unwrap_or_else(Revision::none);
        let ahead = told.ahead.get(name).is_some_and(|until| now <= *until);
        if ahead && known != *old {
            if known == *new {
                told.ahead.remove(name);
            }
            return Standing::Told;
        }
        told.ahead.remove(name);
        told.set(name, new);
        Standing::News
    }

    /// What moved since it was told, by what a look shows.
    pub(super) fn moved(&self, project: &ProjectName, now: &Refs) -> Vec<Move> {
        let Some(told) = self.projects.get(project) else { return Vec::new() };
        let names: BTreeSet<&String> = told.refs.keys().chain(now.keys()).collect();
        let at = |refs: &Refs, name: &str| refs.get(name).cloned().unwrap_or_else(Revision::none);
        let moves = names.into_iter().map(|name| Move {
            name: name.clone(),
            old: at(&told.refs, name),
            new: at(now, name),
        });
        moves.filter(|m| m.old != m.new).collect()
    }

    /// A move that a look showed, at this second, counts as told.
    pub(super) fn tell(&mut self, project: &ProjectName, moved: &Move, now: u64) {
        if let Some(told) = self.projects.get_mut(project) {
            told.set(&moved.name, &moved.new);
            told.ahead.insert(moved.name.clone(), now + OVERLAP.as_secs());
        }
    }
}

impl Told {
    fn set(&mut self, name: &str, new: &Revision) {
        if new.is_none() {
            self.refs.remove(name);
        } else {
            self.refs.insert(name.to_owned(), new.clone());
        }
    }
}

/// A branch or tag that moved, came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    name: String,
    old: Revision,
    new: Revision,
}

impl Move {
    /// Who moved it is not known any more. `None`: such a name cannot be.
    pub(super) fn event(
        &self,
        source: &SourceName,
        project: &ProjectName,
        at: Time,
    ) -> Option<TriggerEvent> {
        let branch = self.name.strip_prefix("refs/heads/");
        Some(TriggerEvent {
            kind: EventKind::RefUpdated,
            project: ProjectKey { source: source.clone(), name: project.clone() },
            branch: branch.and_then(|name| Branch::new(name).ok()),
            change: None,
            reference: Some(RefName::new(self.name.as_str()).ok()?),
            old: Some(self.old.clone()),
            new: Some(self.new.clone()),
            by: Person::default(),
            comment: String::new(),
            approvals: Vec::new(),
            origin: String::new(),
            at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> ProjectName {
        ProjectName::new("openstack/nova").unwrap()
    }

    fn id(letter: char) -> Revision {
        if letter == '0' {
            return Revision::none();
        }
        Revision::new(letter.to_string().repeat(40)).unwrap()
    }

    fn refs(all: &[(&str, char)]) -> Refs {
        all.iter().map(|(name, letter)| ((*name).to_owned(), id(*letter))).collect()
    }

    fn heard(tips: &mut Tips, name: &str, old: char, new: char, now: u64) -> Standing {
        let moved = Move { name: name.to_owned(), old: id(old), new: id(new) };
        let source = SourceName::new("gerrit").unwrap();
        tips.heard(&moved.event(&source, &project(), Time(0)).unwrap(), now)
    }

    /// Looks as the listener does; what was told, as `<name> <old><new>`.
    fn look(tips: &mut Tips, now: &Refs, at: u64) -> Vec<String> {
        let letter = |r: &Revision| r.as_str()[..1].to_owned();
        let moves = tips.moved(&project(), now);
        moves.iter().for_each(|m| tips.tell(&project(), m, at));
        moves.iter().map(|m| format!("{} {}{}", m.name, letter(&m.old), letter(&m.new))).collect()
    }

    const MASTER: &str = "refs/heads/master";

    #[test]
    fn what_moved_while_nobody_listened_is_told_once() {
        let mut tips = Tips::default();
        assert!(!tips.knows(&project()));
        assert_eq!(heard(&mut tips, MASTER, 'a', 'b', 0), Standing::Unknown);
        tips.learn(&project(), refs(&[(MASTER, 'a'), ("refs/heads/old", 'a')]));
        assert_eq!(heard(&mut tips, MASTER, 'a', 'b', 0), Standing::News);
        assert_eq!(heard(&mut tips, "refs/meta/config", 'a', 'b', 0), Standing::Unknown);
        let (name, text) = tips.cursor(&project());
        // The server was away, and learns what was told from the cursor.
        let mut tips = Tips::read(&Cursors::from([(name, text), ("heard".into(), "7".into())]));
        let now = refs(&[(MASTER, 'd'), ("refs/tags/1.0", 'c')]);
        let moved = ["refs/heads/master bd", "refs/heads/old a0", "refs/tags/1.0 0c"];
        assert_eq!(look(&mut tips, &now, 10), moved);
        assert_eq!(look(&mut tips, &now, 11), [""; 0], "once");
        assert_eq!(heard(&mut tips, MASTER, 'd', 'e', 12), Standing::News);
    }

    #[test]
    fn what_a_look_has_overtaken_is_not_told_again_by_the_stream() {
        let mut tips = Tips::default();
        tips.learn(&project(), refs(&[(MASTER, 'a')]));
        assert_eq!(look(&mut tips, &refs(&[(MASTER, 'c')]), 10), ["refs/heads/master ac"]);
        let steps = [('a', 'b', Standing::Told), ('b', 'c', Standing::Told)];
        for (old, new, expected) in steps {
            assert_eq!(heard(&mut tips, MASTER, old, new, 11), expected);
        }
        for (old, new) in [('c', 'b'), ('b', 'c'), ('c', 'a')] {
            assert_eq!(heard(&mut tips, MASTER, old, new, 11), Standing::News, "{old}{new}");
        }
        // It went on before the stream brought anything.
        assert_eq!(look(&mut tips, &refs(&[(MASTER, 'd')]), 20), ["refs/heads/master ad"]);
        assert_eq!(heard(&mut tips, MASTER, 'd', 'e', 21), Standing::News);
        // What does not fit any more counts: rather twice than never.
        assert_eq!(look(&mut tips, &refs(&[(MASTER, 'f')]), 30), ["refs/heads/master ef"]);
        assert_eq!(heard(&mut tips, MASTER, 'a', 'b', 31 + OVERLAP.as_secs()), Standing::News);
    }
}
