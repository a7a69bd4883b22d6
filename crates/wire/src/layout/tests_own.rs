//! `.toci.yaml`: what it may do, what it may not, and what hostile files come to.

use super::{OWN_ERRORS_MAX, OWN_JOBS_MAX, OWN_TEXT_MAX_BYTES, read, read_own};
use toci_core::event::{ProjectKey, ProjectName, SourceName};
use toci_core::layout::{Job, Layout, PipelineName, Script};

const BASE: &str = "
pipelines:
  - {name: check, manager: independent}
  - {name: gate, manager: dependent, post-review: true}
jobs:
  - {name: lint, run: tools/lint}
  - {name: publish, secrets: [upload-key]}
  - {name: idle, mutex: door}
projects:
  - name: org/app
    in-repository: true
    own-secrets: {sign-key: gate}
    check: [lint]
    gate: [lint, publish]
  - name: org/other
    check: [lint]
";

fn key(name: &str) -> ProjectKey {
    let source = SourceName::new("gerrit").unwrap();
    ProjectKey { source, name: ProjectName::new(name).unwrap() }
}

fn base() -> Layout {
    let found = read("layout.yaml", BASE, &SourceName::new("gerrit").unwrap());
    assert!(found.errors.is_empty(), "{:#?}", found.errors);
    found.layout.unwrap()
}

fn own(text: &str) -> Result<Layout, String> {
    read_own(&base(), &key("org/app"), &[(".toci.yaml".to_owned(), text.to_owned())])
}

fn job<'l>(layout: &'l Layout, name: &str) -> &'l Job {
    layout.jobs.iter().find(|j| j.name.0 == name).unwrap_or_else(|| panic!("no job {name}"))
}

fn names(layout: &Layout, pipeline: &str) -> Vec<String> {
    let tree = &layout.projects[&key("org/app")].pipelines[&PipelineName(pipeline.to_owned())];
    tree.jobs.iter().map(|(name, _)| name.0.clone()).collect()
}

#[test]
fn a_project_adds_jobs_to_its_own_pipelines() {
    let layout = own("
jobs:
  - {name: '^unit-.*', timeout: 10m}
  - {name: unit-fast, run: ./run-tests.sh --fast}
  - {name: sign, secrets: {KEY: sign-key}, semaphore: door}
project:
  check:
    - lint: [unit-fast]
    - noop
  gate: [unit-fast, sign]
")
    .unwrap();
    // What the layout says comes first and stays.
    assert_eq!(names(&layout, "check"), ["lint", "lint", "noop"]);
    assert_eq!(names(&layout, "gate"), ["lint", "publish", "unit-fast", "sign"]);
    let unit = job(&layout, "unit-fast");
    assert_eq!(unit.run.run, [Script::File("./run-tests.sh --fast".into())]);
    assert_eq!(unit.run.timeout.as_secs(), 600);
    assert_eq!(job(&layout, "lint"), job(&base(), "lint"));
    assert!(layout.jobs.iter().any(|j| j.name.0 == "noop"));
    assert_eq!(layout.projects.len(), 1, "other projects do not concern it");
    assert_eq!(layout.pipelines, base().pipelines);
    let nothing = own("").unwrap();
    assert_eq!(names(&nothing, "gate"), ["lint", "publish"]);
}

#[test]
fn several_files_count_as_one() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let jobs = file(".toci.yaml", "jobs: [{name: a, run: make}]");
    let layout = read_own(
        &base(),
        &key("org/app"),
        &[jobs.clone(), file(".toci.d/gate.yaml", "project: {gate: [a]}")],
    );
    assert_eq!(names(&layout.unwrap(), "gate"), ["lint", "publish", "a"]);
    let twice = read_own(&base(), &key("org/app"), &[jobs.clone(), jobs]).unwrap_err();
    assert_eq!(
        twice,
        ".toci.yaml:1:8: jobs: another file defines `a` already (expected one definition)"
    );
}

#[test]
fn a_project_without_leave_has_none() {
    let other = read_own(&base(), &key("org/other"), &[]).unwrap_err();
    assert!(other.contains("`in-repository: true`"), "{other}");
    assert!(read_own(&base(), &key("org/none"), &[]).unwrap_err().contains("does not have"));
}

/// A broken text and the errors that it must give, in order.
fn fails(text: &str, expected: &[&str]) {
    let told = own(text).unwrap_err();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected, "{text}");
}

#[test]
fn what_is_the_layouts_stays_the_layouts() {
    fails(
        "pipelines: []\nprojects: [{name: org/other}]\nproject:\n  chek: [lint]\n",
        &[
            ".toci.yaml:1:1: `pipelines` can stand only in the layout itself (expected jobs or project)",
            ".toci.yaml:2:1: `projects` can stand only in the layout itself (expected jobs or project)",
            ".toci.yaml:4:3: project: there is no key `chek` (did you mean `check`?)",
        ],
    );
    fails(
        "jobs:\n  - {name: lint, run: 'true'}\n  - {name: noop}\n  - {name: q, queue-name: fast, mutex: gold, pause-after-failures: 2}\n",
        &[
            ".toci.yaml:2:5: job lint: `lint` belongs to the layout and cannot be changed here (expected another name)",
            ".toci.yaml:3:5: job noop: `noop` belongs to the layout and cannot be changed here (expected another name)",
            ".toci.yaml:4:27: job q: a project cannot choose its queue by itself (expected it in the layout)",
            ".toci.yaml:4:68: job q: a project cannot pause jobs, whose names others have too (expected it in the layout)",
            ".toci.yaml:4:40: job q: the layout has no semaphore `gold` (expected one that the layout has)",
        ],
    );
    // A job that fails would keep the layout's own from starting.
    fails(
        "jobs: [{name: a}]\nproject:\n  gate:\n    - a: [lint]\n    - b\n",
        &[
            ".toci.yaml:4:11: project.gate: `lint` is in the layout's list for gate, before all others (expected it first, with your jobs after it)",
            ".toci.yaml:5:7: project.gate: there is no job `b` (did you mean `a`?)",
        ],
    );
}

#[test]
fn secrets_are_had_only_where_the_layout_grants_them() {
    fails(
        "jobs: [{name: leak, run: 'echo $SIGN_KEY', secrets: [sign-key, root-password]}]\nproject: {check: [leak, publish], gate: [leak, publish]}\n",
        &[
            ".toci.yaml:2:19: project.check: `leak` takes the secret `sign-key` (expected the layout to grant it: `own-secrets: {sign-key: check}` of the project)",
            ".toci.yaml:2:19: project.check: `leak` takes the secret `root-password` (expected the layout to grant it: `own-secrets: {root-password: check}` of the project)",
            ".toci.yaml:2:25: project.check: `publish` takes the secret `upload-key` (expected the layout to grant it: `own-secrets: {upload-key: check}` of the project)",
            ".toci.yaml:2:42: project.gate: `leak` takes the secret `root-password` (expected the layout to grant it: `own-secrets: {root-password: gate}` of the project)",
        ],
    );
}

#[test]
fn jobs_that_wait_for_each_other_are_refused() {
    fails(
        "jobs: [{name: a, dependencies: b}, {name: b}]\nproject: {check: [a: [b]]}\n",
        &[
            ".toci.yaml:2:18: project.check: these jobs wait for each other: a after b after a (expected an order in which each can start)",
        ],
    );
}

#[test]
fn names_that_leave_folders_and_figures_without_measure_are_refused() {
    for name in ["../../etc", "a/b", "a b", "'a\n'", "-x", "''", &"x".repeat(129)] {
        let told = own(&format!("jobs: [{{name: {name}}}]")).unwrap_err();
        assert!(told.contains("cannot be a job's"), "{name}: {told}");
    }
    let much = "jobs: [{name: a, nodes: 1000, timeout: 99w, post-timeout: 2d, attempts: 99, testenv: {label: x, count: 99}}]";
    let told = own(much).unwrap_err();
    for what in ["nodes", "timeout", "post-timeout", "attempts", "testenv.count"] {
        assert!(told.contains(&format!("`{what}` is too much")), "{what}: {told}");
    }
}

#[test]
fn hostile_files_are_told_and_cost_little() {
    let long = "#".repeat(OWN_TEXT_MAX_BYTES + 1);
    assert!(own(&long).unwrap_err().contains("longer than 262144 bytes"));
    assert!(own(&"[".repeat(100)).unwrap_err().contains("deeper than 64"));
    assert!(own(&"[".repeat(10_000)).is_err());
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    assert!(own(&bomb).unwrap_err().contains("more than 20000 values"));
    let jobs: String = (0..=OWN_JOBS_MAX).map(|n| format!("  - {{name: j{n}}}\n")).collect();
    assert!(own(&format!("jobs:\n{jobs}")).unwrap_err().contains("at most 100"));
    let places = vec!["lint"; 501].join(", ");
    assert!(own(&format!("project: {{check: [{places}]}}")).unwrap_err().contains("at most 500"));
    let patterns = vec!["'^a'"; 101].join(", ");
    let told = own(&format!("jobs: [{{name: a, files: [{patterns}]}}]")).unwrap_err();
    assert!(told.contains("too many regular expressions"), "{told}");
    let told = own("jobs: [{name: a, branch: '(a{1000}){1000}'}]").unwrap_err();
    assert!(told.contains("is not a regular expression"), "{told}");
    let wrong: String = (0..60).map(|n| format!("k{n}: 1\n")).collect();
    let told = own(&wrong).unwrap_err();
    assert_eq!(told.lines().count(), OWN_ERRORS_MAX + 1);
    assert!(told.ends_with("and 40 more"), "{told}");
    // An alias within what it names.
    assert!(own("jobs: &j [{name: a, tags: *j}]").is_err());
}

proptest::proptest! {
    #[test]
    fn any_text_gives_an_answer(text in "[ -~\n]{0,200}") {
        let _ = own(&text);
    }

    #[test]
    fn whatever_it_says_the_layouts_own_part_stands(
        text in "(jobs: \\[\\{name: (a|lint|noop), run: x(, dependencies: (a|lint))?\\}\\]\n)?project: \\{(check|gate): \\[(a|lint|publish|a: \\[lint\\]|lint: \\[a\\])\\]\\}\n"
    ) {
        let Ok(layout) = own(&text) else { return Ok(()) };
        let before = base();
        for (pipeline, tree) in &before.projects[&key("org/app")].pipelines {
            let now = &layout.projects[&key("org/app")].pipelines[pipeline];
            proptest::prop_assert!(now.jobs.starts_with(&tree.jobs));
        }
        for known in before.jobs.iter() {
            for job in layout.jobs.iter().filter(|j| j.name == known.name) {
                proptest::prop_assert_eq!(job, known);
            }
        }
    }
}
