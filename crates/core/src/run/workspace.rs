//! Which revision each repository of a workspace is put at: devstack-gate's rules (origin.md 6.3) without their two
//! defects (a branch is looked for by its whole name; all characters that cannot stand in a variable's name are dropped).
//!
//! The merger makes refs only in repositories that have a change in the series, under each branch seen so far. So "there
//! is no such ref" is the normal case for all others. It is told from "could not ask" where the plan is carried out.

use super::variables::zuul_ref;
use crate::event::ProjectName;

/// What the rules look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The branch of the change under test; empty for timers.
    pub zuul_branch: String,
    /// Last part of the speculative refs, `Z…`; empty when nothing was merged.
    pub reference: String,
    /// OVERRIDE_ZUUL_BRANCH: the branch to use instead.
    pub override_branch: Option<String>,
    /// OVERRIDE_<PROJ>_PROJECT_BRANCH, by [`override_name`].
    pub project_branches: Vec<(String, String)>,
    /// The branch that every repository has.
    pub default_branch: String,
}

/// Where a revision may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A ref of the merger.
    Merger(String),
    /// A branch of the project itself.
    Branch(String),
}

/// Where to look, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub from: From,
    /// Only when the project has no branch of this name.
    pub unless_branch: Option<String>,
}

/// One repository: the first candidate that exists is checked out, detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// Which.
    pub project: ProjectName,
    /// Where, below the workspace's base (`/opt/stack/new`).
    pub folder: String,
    /// In this order.
    pub candidates: Vec<Candidate>,
}

/// The variable part of `OVERRIDE_<PROJ>_PROJECT_BRANCH` for a project: its short name in upper case, dashes as
/// underscores, everything else that cannot stand in a variable's name dropped.
#[must_use]
pub fn override_name(project: &ProjectName) -> String {
    let kept = |c: char| match c {
        '-' => Some('_'),
        c if c.is_ascii_alphanumeric() || c == '_' => Some(c.to_ascii_uppercase()),
        _ => None,
    };
    project.short().chars().filter_map(kept).collect()
}

impl Rules {
    /// Where a project's revision comes from.
    #[must_use]
    pub fn checkout(&self, project: &ProjectName) -> Checkout {
        let wanted = override_name(project);
        let own = self.project_branches.iter().find(|(name, _)| *name == wanted);
        let branch = match (own, &self.override_branch) {
            (Some((_, branch)), _) => branch,
            (None, Some(branch)) => branch,
            (None, None) if self.zuul_branch.is_empty() => &self.default_branch,
            (None, None) => &self.zuul_branch,
        };
        let always = |from| Candidate { from, unless_branch: None };
        let mut candidates = Vec::new();
        if !self.reference.is_empty() {
            candidates.push(always(From::Merger(zuul_ref(branch, &self.reference))));
            if *branch != self.default_branch {
                candidates.push(Candidate {
                    from: From::Merger(zuul_ref(&self.default_branch, &self.reference)),
                    unless_branch: Some(branch.clone()),
                });
            }
        }
        candidates.push(always(From::Branch(branch.clone())));
        if *branch != self.default_branch {
            candidates.push(always(From::Branch(self.default_branch.clone())));
        }
        Checkout { project: project.clone(), folder: project.short().to_owned(), candidates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A world of projects: their branches, and the refs that the merger made.
    struct World<'a> {
        branches: &'a [(&'a str, &'a [&'a str])],
        merged: &'a [(&'a str, &'a str)],
    }

    impl World<'_> {
        /// What the first existing candidate is, as `merger:REF` or `branch:NAME`.
        fn resolve(&self, rules: &Rules, project: &str) -> String {
            let checkout = rules.checkout(&ProjectName::new(project).unwrap());
            let has = |branch: &str| {
                self.branches.iter().any(|(p, b)| *p == project && b.contains(&branch))
            };
            let exists = |c: &&Candidate| {
                c.unless_branch.as_deref().is_none_or(|b| !has(b))
                    && match &c.from {
                        From::Merger(r) => self.merged.iter().any(|(p, m)| *p == project && m == r),
                        From::Branch(b) => has(b),
                    }
            };
            match checkout.candidates.iter().find(exists).map(|c| &c.from) {
                Some(From::Merger(r)) => format!("merger:{r}"),
                Some(From::Branch(b)) => format!("branch:{b}"),
                None => "nothing".to_owned(),
            }
        }
    }

    const BOTH: &[&str] = &["master", "stable/havana"];
    const ONE: &[&str] = &["master"];
    const BRANCHES: &[(&str, &[&str])] = &[
        ("openstack/nova", BOTH),
        ("openstack/glance", BOTH),
        ("openstack/keystone", BOTH),
        ("openstack/swift", BOTH),
        ("openstack/python-glanceclient", ONE),
        ("openstack/tempest", ONE),
    ];

    fn rules(branch: &str, reference: &str) -> Rules {
        Rules {
            zuul_branch: branch.into(),
            reference: reference.into(),
            default_branch: "master".into(),
            ..Rules::default()
        }
    }

    fn check(rules: &Rules, merged: &[(&str, &str)], expected: &[(&str, &str)]) {
        let world = World { branches: BRANCHES, merged };
        for (project, from) in expected {
            assert_eq!(world.resolve(rules, project), *from, "{project}");
        }
    }

    #[test]
    fn one_on_master() {
        check(
            &rules("master", "ZB"),
            &[("openstack/nova", "refs/zuul/master/ZB")],
            &[
                ("openstack/nova", "merger:refs/zuul/master/ZB"),
                ("openstack/glance", "branch:master"),
                ("openstack/python-glanceclient", "branch:master"),
            ],
        );
    }

    #[test]
    fn two_on_master() {
        check(
            &rules("master", "ZB"),
            &[
                ("openstack/nova", "refs/zuul/master/ZB"),
                ("openstack/glance", "refs/zuul/master/ZB"),
            ],
            &[
                ("openstack/nova", "merger:refs/zuul/master/ZB"),
                ("openstack/glance", "merger:refs/zuul/master/ZB"),
                ("openstack/keystone", "branch:master"),
            ],
        );
    }

    /// Series: glance on stable, a client on master, nova on master (tested last).
    const MULTI: &[(&str, &str)] = &[
        ("openstack/glance", "refs/zuul/stable/havana/ZD"),
        ("openstack/python-glanceclient", "refs/zuul/master/ZD"),
        ("openstack/nova", "refs/zuul/master/ZD"),
    ];

    #[test]
    fn multi_branch_on_master() {
        check(
            &rules("master", "ZD"),
            MULTI,
            &[
                ("openstack/glance", "branch:master"),
                ("openstack/python-glanceclient", "merger:refs/zuul/master/ZD"),
                ("openstack/nova", "merger:refs/zuul/master/ZD"),
                ("openstack/keystone", "branch:master"),
            ],
        );
    }

    #[test]
    fn multi_branch_project_override() {
        let mut rules = rules("master", "ZD");
        rules.project_branches.push(("GLANCE".into(), "stable/havana".into()));
        check(
            &rules,
            MULTI,
            &[
                ("openstack/glance", "merger:refs/zuul/stable/havana/ZD"),
                ("openstack/nova", "merger:refs/zuul/master/ZD"),
                ("openstack/keystone", "branch:master"),
            ],
        );
    }

    #[test]
    fn multi_branch_on_stable() {
        check(
            &rules("stable/havana", "ZD"),
            MULTI,
            &[
                ("openstack/glance", "merger:refs/zuul/stable/havana/ZD"),
                // It has no stable branch, so the series' change on master counts.
                ("openstack/python-glanceclient", "merger:refs/zuul/master/ZD"),
                // It has one, so the change on master does not.
                ("openstack/nova", "branch:stable/havana"),
                ("openstack/tempest", "branch:master"),
            ],
        );
    }

    #[test]
    fn grenade_backward() {
        // The change is on master; the old side is set up from stable.
        let old = Rules { override_branch: Some("stable/havana".into()), ..rules("master", "ZB") };
        let merged = &[("openstack/nova", "refs/zuul/master/ZB")];
        check(
            &old,
            merged,
            &[("openstack/nova", "branch:stable/havana"), ("openstack/tempest", "branch:master")],
        );
        check(&rules("master", "ZB"), merged, &[("openstack/nova", "merger:refs/zuul/master/ZB")]);
    }

    #[test]
    fn grenade_forward() {
        // The change is on stable; the new side is set up from master.
        let new = Rules { override_branch: Some("master".into()), ..rules("stable/havana", "ZB") };
        let merged = &[("openstack/nova", "refs/zuul/stable/havana/ZB")];
        check(&new, merged, &[("openstack/nova", "branch:master")]);
        check(
            &rules("stable/havana", "ZB"),
            merged,
            &[
                ("openstack/nova", "merger:refs/zuul/stable/havana/ZB"),
                ("openstack/glance", "branch:stable/havana"),
                ("openstack/python-glanceclient", "branch:master"),
            ],
        );
    }

    #[test]
    fn branch_override() {
        let rules =
            Rules { override_branch: Some("stable/havana".into()), ..rules("master", "ZB") };
        check(
            &rules,
            &[("openstack/glance", "refs/zuul/stable/havana/ZB")],
            &[
                ("openstack/glance", "merger:refs/zuul/stable/havana/ZB"),
                ("openstack/swift", "branch:stable/havana"),
            ],
        );
    }

    #[test]
    fn periodic() {
        check(
            &rules("", ""),
            &[],
            &[
                ("openstack/nova", "branch:master"),
                ("openstack/python-glanceclient", "branch:master"),
            ],
        );
        let stable = Rules { override_branch: Some("stable/havana".into()), ..rules("", "") };
        check(
            &stable,
            &[],
            &[("openstack/nova", "branch:stable/havana"), ("openstack/tempest", "branch:master")],
        );
    }

    #[test]
    fn a_branch_is_not_found_by_the_beginning_of_its_name() {
        // devstack-gate's grep took stable/hav for stable/havana.
        check(
            &rules("stable/hav", "ZB"),
            &[("openstack/nova", "refs/zuul/master/ZB")],
            &[("openstack/nova", "merger:refs/zuul/master/ZB")],
        );
    }

    #[test]
    fn every_odd_character_is_dropped_from_variable_names() {
        let name = |p: &str| override_name(&ProjectName::new(p).unwrap());
        assert_eq!(name("openstack/oslo.messaging.x"), "OSLOMESSAGINGX");
        assert_eq!(name("openstack/python-glanceclient"), "PYTHON_GLANCECLIENT");
    }
}
