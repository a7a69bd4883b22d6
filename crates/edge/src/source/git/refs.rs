//! The refs by which people talk to a plain git source, and what their coming and going means.
//!
//! | ref | meaning |
//! |---|---|
//! | `refs/changes/NN/<number>/<patchset>` | a patchset; `NN` are the last two digits of the number |
//! | `refs/changes/NN/<number>/branch/<branch>` | the change is for this branch, not for the one of HEAD |
//! | `refs/approvals/<number>/<patchset>/<label>/<user>/<value>` | a vote |
//! | `refs/abandoned/<number>` | the change is given up |
//! | `refs/merged/<number>/<patchset>` | the patchset is merged |

use std::collections::BTreeMap;
use toci_core::event::{EventKind, Revision, normal_label};

/// All refs of one project.
pub(super) type Snapshot = BTreeMap<String, Revision>;

/// What a ref means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    Patchset {
        number: u64,
        patchset: u32,
    },
    Target {
        number: u64,
        branch: &'a str,
    },
    Vote {
        number: u64,
        patchset: u32,
        label: String,
        user: &'a str,
        value: i32,
    },
    Abandoned {
        number: u64,
    },
    Merged {
        number: u64,
        patchset: u32,
    },
    /// A branch or tag.
    Line,
    /// Something else, e.g. notes.
    Other,
}

pub(super) fn meaning(name: &str) -> Meaning<'_> {
    read(name).unwrap_or(Meaning::Other)
}

fn read(name: &str) -> Option<Meaning<'_>> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        ["refs", "heads" | "tags", ..] => Some(Meaning::Line),
        ["refs", "changes", shard, number, "branch", ..] => {
            let number = number_of(shard, number)?;
            // Behind the fifth slash.
            let branch = name.splitn(6, '/').nth(5)?;
            Some(Meaning::Target { number, branch })
        }
        ["refs", "changes", shard, number, patchset] => {
            let number = number_of(shard, number)?;
            Some(Meaning::Patchset { number, patchset: patchset.parse().ok()? })
        }
        ["refs", "approvals", number, patchset, label, user, value] => Some(Meaning::Vote {
            number: number.parse().ok()?,
            patchset: patchset.parse().ok()?,
            label: normal_label(label),
            user,
            value: value.strip_prefix('+').unwrap_or(value).parse().ok()?,
        }),
        ["refs", "abandoned", number] => Some(Meaning::Abandoned { number: number.parse().ok()? }),
        ["refs", "merged", number, patchset] => {
            Some(Meaning::Merged { number: number.parse().ok()?, patchset: patchset.parse().ok()? })
        }
        _ => None,
    }
}

fn number_of(shard: &str, number: &str) -> Option<u64> {
    let n: u64 = number.parse().ok()?;
    (shard == format!("{:02}", n % 100)).then_some(n)
}

/// Where a patchset is pushed to.
pub(super) fn patchset_ref(number: u64, patchset: u32) -> String {
    format!("refs/changes/{:02}/{number}/{patchset}", number % 100)
}

/// The newest patchset of a change.
pub(super) fn current(refs: &Snapshot, number: u64) -> Option<u32> {
    let first = format!("refs/changes/{:02}/{number}/", number % 100);
    let own = refs.range(first.clone()..).take_while(|(name, _)| name.starts_with(&first));
    own.filter_map(|(name, _)| match meaning(name) {
        Meaning::Patchset { patchset, .. } => Some(patchset),
        _ => None,
    })
    .max()
}

/// All changes with their newest patchset.
pub(super) fn changes(refs: &Snapshot) -> BTreeMap<u64, u32> {
    let mut found = BTreeMap::new();
    for name in refs.keys() {
        if let Meaning::Patchset { number, patchset } = meaning(name) {
            let newest = found.entry(number).or_insert(patchset);
            *newest = patchset.max(*newest);
        }
    }
    found
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) kind: EventKind,
    /// Number and patchset; the newest patchset when none is named.
    pub(super) change: Option<(u64, Option<u32>)>,
    /// Branches and tags: name, before, now.
    pub(super) line: Option<(String, Revision, Revision)>,
    pub(super) by: String,
    pub(super) votes: Vec<(String, i32)>,
}

fn step(kind: EventKind, change: Option<(u64, Option<u32>)>) -> Step {
    Step { kind, change, line: None, by: String::new(), votes: Vec::new() }
}

/// What happened between two looks, in an order that makes sense: patchsets before the votes on them. Votes of one
/// person on one patchset are one event.
pub(super) fn happened(old: &Snapshot, new: &Snapshot) -> Vec<Step> {
    let mut patchsets: BTreeMap<(u64, u32), Step> = BTreeMap::new();
    let mut votes: BTreeMap<(u64, u32, String), Step> = BTreeMap::new();
    let mut ends: Vec<Step> = Vec::new();
    let mut lines: Vec<Step> = Vec::new();
    for (name, now) in new.iter().filter(|(name, now)| old.get(*name) != Some(now)) {
        match meaning(name) {
            Meaning::Patchset { number, patchset } => {
                let of = Some((number, Some(patchset)));
                patchsets.insert((number, patchset), step(EventKind::PatchsetCreated, of));
            }
            Meaning::Vote { number, patchset, label, user, value } => {
                let of = Some((number, Some(patchset)));
                let vote = votes
                    .entry((number, patchset, user.to_owned()))
                    .or_insert_with(|| step(EventKind::CommentAdded, of));
                user.clone_into(&mut vote.by);
                vote.votes.push((label, value));
            }
            Meaning::Abandoned { number } => {
                ends.push(step(EventKind::ChangeAbandoned, Some((number, None))));
            }
            Meaning::Merged { number, patchset } => {
                ends.push(step(EventKind::ChangeMerged, Some((number, Some(patchset)))));
            }
            Meaning::Line => {
                let before = old.get(name).cloned().unwrap_or_else(Revision::none);
                let line = Some((name.clone(), before, now.clone()));
                lines.push(Step { line, ..step(EventKind::RefUpdated, None) });
            }
            Meaning::Target { .. } | Meaning::Other => {}
        }
    }
    for (name, before) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        match meaning(name) {
            Meaning::Abandoned { number } => {
                ends.push(step(EventKind::ChangeRestored, Some((number, None))));
            }
            Meaning::Line => {
                let line = Some((name.clone(), before.clone(), Revision::none()));
                lines.push(Step { line, ..step(EventKind::RefUpdated, None) });
            }
            Meaning::Patchset { .. }
            | Meaning::Target { .. }
            | Meaning::Vote { .. }
            | Meaning::Merged { .. }
            | Meaning::Other => {}
        }
    }
    let changes = patchsets.into_values().chain(votes.into_values());
    changes.chain(ends).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(refs: &[(&str, char)]) -> Snapshot {
        let id = |c: &char| Revision::new(c.to_string().repeat(40)).unwrap();
        refs.iter().map(|(name, c)| ((*name).to_owned(), id(c))).collect()
    }

    #[test]
    fn refs_have_meanings() {
        let patchset = Meaning::Patchset { number: 1234, patchset: 5 };
        assert_eq!(meaning("refs/changes/34/1234/5"), patchset);
        assert_eq!(meaning("refs/changes/01/1234/5"), Meaning::Other, "the wrong folder");
        let target = Meaning::Target { number: 3, branch: "stable/havana" };
        assert_eq!(meaning("refs/changes/03/3/branch/stable/havana"), target);
        let vote = Meaning::Vote {
            number: 3,
            patchset: 1,
            label: "code-review".into(),
            user: "ann",
            value: -2,
        };
        assert_eq!(meaning("refs/approvals/3/1/Code-Review/ann/-2"), vote);
        assert_eq!(meaning("refs/merged/3/1"), Meaning::Merged { number: 3, patchset: 1 });
        assert_eq!(meaning("refs/notes/toci"), Meaning::Other);
    }

    #[test]
    fn what_came_and_went_is_told_in_order() {
        let old = snapshot(&[("refs/heads/master", 'a'), ("refs/abandoned/7", 'a')]);
        let new = snapshot(&[
            ("refs/heads/master", 'b'),
            ("refs/changes/05/5/1", 'c'),
            ("refs/approvals/5/1/code-review/ann/2", 'c'),
            ("refs/approvals/5/1/approved/ann/1", 'c'),
            ("refs/abandoned/6", 'c'),
        ]);
        let steps = happened(&old, &new);
        let kinds: Vec<EventKind> = steps.iter().map(|s| s.kind).collect();
        let expected = [
            EventKind::PatchsetCreated,
            EventKind::CommentAdded,
            EventKind::ChangeAbandoned,
            EventKind::ChangeRestored,
            EventKind::RefUpdated,
        ];
        assert_eq!(kinds, expected);
        let votes = [("approved".to_owned(), 1), ("code-review".to_owned(), 2)];
        assert_eq!((steps[1].by.as_str(), &steps[1].votes[..]), ("ann", &votes[..]));
        assert_eq!(current(&new, 5), Some(1));
        assert_eq!(happened(&new, &new), []);
    }
}
