//! Layouts that load, and layouts that do not.

use super::{read, read_for};
use std::time::Duration;
use toci_core::event::{EventKind, ProjectKey, ProjectName, SourceName};
use toci_core::layout::{
    GerritVote, Growth, Job, Layout, Manager, MergeMode, Pipeline, Reporter, Script, Trigger,
};

fn source() -> SourceName {
    SourceName::new("review").unwrap()
}

fn load(text: &str) -> Layout {
    let read = read("layout.yaml", text, &source());
    assert!(read.errors.is_empty(), "{:#?}", read.errors);
    read.layout.unwrap()
}

fn job<'l>(layout: &'l Layout, name: &str) -> &'l Job {
    layout.jobs.iter().find(|j| j.name.0 == name).unwrap_or_else(|| panic!("no job {name}"))
}

fn pipeline<'l>(layout: &'l Layout, name: &str) -> &'l Pipeline {
    layout.pipelines.iter().find(|p| p.name.0 == name).unwrap()
}

const FULL: &str = include_str!("../../../../examples/layouts/zuul2-full.yaml");

#[test]
fn every_documented_key_of_zuul_2_loads() {
    let found = read("zuul2-full.yaml", FULL, &source());
    assert!(found.errors.is_empty(), "{:#?}", found.errors);
    let notes: Vec<&str> = found.notes.iter().map(|n| n.path.as_str()).collect();
    let expected =
        ["includes", "job ^(gate|check)-.*$.parameter-function", "job check-deploy.swift"];
    assert_eq!(notes, expected);
    let layout = found.layout.unwrap();
    let names: Vec<&str> = layout.pipelines.iter().map(|p| p.name.0.as_str()).collect();
    assert_eq!(names, ["check", "gate", "post", "release", "periodic", "merge-check"]);
}

#[test]
fn a_pipeline_says_what_its_yaml_says() {
    let layout = load(FULL);
    let check = pipeline(&layout, "check");
    assert_eq!(check.manager, Manager::Independent);
    assert_eq!(check.disable_after, Some(10));
    assert!(check.ignore_dependencies);
    let rule = &check.require.approvals[0];
    assert_eq!(rule.older_than, Some(Duration::from_secs(3600)));
    assert_eq!(rule.labels, [("verified".to_owned(), vec![1, 2])]);
    let comment = &check.triggers[2];
    assert_eq!(
        (comment.trigger, comment.events.as_slice()),
        (Trigger::Source, &[EventKind::CommentAdded][..])
    );
    assert!(comment.comments[0].search("Patch Set 1:\n\nrecheck"));
    assert!(comment.branches[0].matches("master") && !comment.branches[0].matches("stable/havana"));
    assert_eq!(comment.approvals, [("code-review".to_owned(), vec![2])]);
    let gate = pipeline(&layout, "gate");
    assert_eq!(gate.manager, Manager::Dependent);
    assert_eq!(gate.window.decrease, Growth::Exponential(2));
    // `gerrit` means the source, whatever it is called.
    let votes = vec![GerritVote::Label("verified".into(), 2)];
    let expected = Reporter::Source { source: source(), votes, merge: true };
    assert_eq!(gate.actions.success, [expected]);
    assert!(gate.actions.merge_failure.is_none() && check.actions.merge_failure.is_some());
    assert_eq!(pipeline(&layout, "periodic").triggers.len(), 2);
}

#[test]
fn templates_are_expanded_and_jobs_resolved() {
    let layout = load(FULL);
    let key = |name: &str| ProjectKey { source: source(), name: ProjectName::new(name).unwrap() };
    let one = &layout.projects[&key("org/one")];
    let check = &one.pipelines.iter().find(|(n, _)| n.0 == "check").unwrap().1.jobs;
    let names: Vec<&str> = check.iter().map(|(n, _)| n.0.as_str()).collect();
    assert_eq!(names, ["one-pep8", "one-python27", "org-one-merge"]);
    assert_eq!(check[2].1.jobs[1].1.jobs[0].0.0, "check-after-deploy-nv");
    assert_eq!(layout.projects[&key("org/two")].merge_mode, MergeMode::CherryPick);
    // Metajobs reach jobs that are only named, and never override what a job says itself.
    assert!(job(&layout, "org-one-merge").hold_following);
    assert!(!job(&layout, "check-after-deploy-nv").voting);
    assert_eq!(job(&layout, "check-unit").run.attempts, 4);
    assert_eq!(layout.semaphores["lab"], 1);
    assert_eq!(layout.semaphores["bench"], 2);
    assert_eq!(job(&layout, "gate-deploy").queue_name.as_deref(), Some("integrated"));
}

#[test]
fn a_jobs_own_word_beats_every_metajob() {
    let text = "
pipelines: [{name: check, manager: IndependentPipelineManager}]
jobs:
  - {name: '^x-.*', voting: false, timeout: 10m, pause-after-failures: 5}
  - {name: x-1, voting: true}
  - {name: '^x-1', timeout: 20m}
projects: [{name: a, check: [x-1, x-2]}]
";
    let layout = load(text);
    assert!(job(&layout, "x-1").voting);
    assert_eq!(job(&layout, "x-1").run.timeout, Duration::from_secs(1200));
    assert!(!job(&layout, "x-2").voting);
    assert_eq!(job(&layout, "x-2").run.timeout, Duration::from_secs(600));
    assert_eq!(job(&layout, "x-1").pause_after_failures, Some(5));
}

#[test]
fn our_own_keys_of_a_job() {
    let text = "
pipelines: [{name: check, manager: IndependentPipelineManager}]
jobs:
  - name: deploy
    pre-run: tripleo-ci/scripts/prepare.sh
    run:
      - tripleo-ci/toci_gate_test.sh --fast
      - |
        echo one
        echo two
    post-run: [make -C logs]
    node: tripleo-precise
    nodes: 2
    testenv: {label: devtest, count: 2}
    timeout: 170m
    wait-timeout: 2h
    attempts: 2
    artifacts: [logs/**, '*.qcow2']
    env: {TRIPLEO_TEST: overcloud}
    secrets: [deploy-key]
    dependencies: build
projects: [{name: a, in-repository: true, check: [build, deploy]}]
";
    let layout = load(text);
    let run = &job(&layout, "deploy").run;
    assert_eq!(run.pre, [Script::File("tripleo-ci/scripts/prepare.sh".into())]);
    assert_eq!(run.run[0], Script::File("tripleo-ci/toci_gate_test.sh --fast".into()));
    assert_eq!(run.run[1], Script::Inline("echo one\necho two\n".into()));
    assert_eq!(run.post, [Script::Inline("make -C logs".into())]);
    assert_eq!((run.nodes, run.attempts), (2, 2));
    assert_eq!(run.testenv.as_ref().map(|t| t.count), Some(2));
    assert_eq!(run.wait_timeout, Some(Duration::from_secs(7200)));
    assert_eq!(run.secrets, [("deploy-key".to_owned(), "DEPLOY_KEY".to_owned())]);
    assert_eq!(job(&layout, "deploy").dependencies[0].0, "build");
    assert!(layout.projects.values().next().unwrap().in_repository);
}

#[test]
fn aliases_and_merge_keys_work_as_in_zuul_2() {
    let text = "
pipelines:
  - &check
    name: check
    manager: IndependentPipelineManager
    trigger: {gerrit: [{event: patchset-created}]}
  - {<<: *check, name: check2, precedence: high}
projects: []
";
    let layout = load(text);
    assert_eq!(layout.pipelines.len(), 2);
    assert_eq!(pipeline(&layout, "check2").triggers, pipeline(&layout, "check").triggers);
}

/// A broken text and every error that it must give, in order.
fn fails(text: &str, expected: &[&str]) {
    let found = read("l.yaml", text, &source());
    assert!(found.layout.is_none());
    let told: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    assert_eq!(told, expected, "{text}");
}

#[test]
fn errors_name_their_place_and_what_would_be_right() {
    fails(
        "pipelines: []\nprojcts: []\n",
        &[
            "l.yaml:2:1: there is no key `projcts` (did you mean `projects`?)",
            "l.yaml:1:1: `projects` is missing (expected a list of them)",
        ],
    );
    fails(
        "pipelines:\n  - name: check\n    manager: Depndent\n    window: -1\nprojects: []\n",
        &[
            "l.yaml:2:5: pipeline check: there is no manager `Depndent` (expected DependentPipelineManager or IndependentPipelineManager)",
            "l.yaml:4:13: pipeline check.window: `-1` (expected a whole number from 0 on)",
        ],
    );
    fails(
        "pipelines:\n  - {name: c, manager: independent, trigger: {gerrit: [{event: patchset-craeted, branch: '('}]}}\nprojects: []\n",
        &[
            "l.yaml:2:64: event: there is no event `patchset-craeted` (did you mean `patchset-created`?)",
            "l.yaml:2:90: branch: `(` is not a regular expression: Parsing error at position 1: Opening parenthesis without closing parenthesis (expected a regular expression as Python's)",
        ],
    );
}

#[test]
fn names_that_stand_twice_or_nowhere_are_errors() {
    fails(
        "pipelines:\n  - &p {name: c, manager: independent}\n  - *p\njobs: [{name: j}, {name: j, semaphore: s}]\nprojects:\n  - {name: a, template: [{name: t}]}\n  - {name: b/../c}\n",
        &[
            "l.yaml:3:5: pipeline: `c` is defined twice (expected one definition)",
            "l.yaml:4:19: job: `j` is defined twice (expected one definition)",
            "l.yaml:6:26: project a: there is no template `t` (expected a name of `project-templates`)",
            "l.yaml:7:5: project b/../c: `b/../c` is not a project name: parts between slashes may not be empty, begin with . or -, end with . or .lock, or hold .. (expected a project of the source)",
            "l.yaml:4:40: j: there is no semaphore `s` (expected one of `semaphores`, or use `mutex`)",
        ],
    );
}

#[test]
fn jobs_that_wait_for_each_other_are_errors() {
    fails(
        "pipelines: [{name: c, manager: independent}]\njobs: [{name: x, dependencies: z}]\nprojects:\n  - {name: org/a, c: [x: [y: [z]]]}\n",
        &[
            "l.yaml:2:8: project org/a.c: these jobs wait for each other: x after z after y after x (expected an order in which each can start)",
        ],
    );
}

#[test]
fn secrets_of_a_projects_own_jobs_are_granted_by_pipeline() {
    let head = "pipelines: [{name: gate, manager: dependent, post-review: true}, {name: check, manager: independent}]\nprojects:\n";
    let layout =
        load(&format!("{head}  - {{name: a, own-secrets: {{key: gate, other: [gate]}}}}\n"));
    let secrets = &layout.projects.values().next().unwrap().own_secrets;
    assert_eq!(secrets["key"], secrets["other"]);
    assert_eq!(secrets["key"][0].0, "gate");
    fails(
        &format!("{head}  - {{name: a, own-secrets: {{key: gat}}}}\n"),
        &[
            "l.yaml:3:34: project a.own-secrets: there is no pipeline `gat` (expected a name of `pipelines`)",
        ],
    );
    fails(
        &format!("{head}  - {{name: a, own-secrets: {{key: [gate, check]}}}}\n"),
        &[
            "l.yaml:3:41: project a.own-secrets: pipeline `check` takes what nobody has reviewed (expected a pipeline with `post-review: true`: its changes say what runs)",
        ],
    );
}

#[test]
fn placeholders_without_a_value_are_errors() {
    fails(
        "pipelines: [{name: c, manager: independent}]\nproject-templates: [{name: t, c: ['{name}-{py}']}]\nprojects: [{name: org/a, template: t}]\n",
        &[
            "l.yaml:2:35: project org/a, template t: `{py}` of {name}-{py} has no value (expected `py: …` where the template is used)",
        ],
    );
}

#[test]
fn yaml_that_is_none_or_too_much_is_told_and_harms_nobody() {
    for (text, words) in [
        ("a: [", "it is no YAML"),
        ("a: 1\na: 2\n", "a second time"),
        ("a: *x\n", "YAML"),
        ("? [1]\n: 2\n", "a key must be text"),
        ("- 1\n", "this is a list"),
    ] {
        let found = read("l.yaml", text, &source());
        let told = found.errors.first().map(ToString::to_string).unwrap_or_default();
        assert!(told.contains(words), "{text:?}: {told}");
    }
    let deep = "[".repeat(1000);
    assert!(read("l.yaml", &deep, &source()).layout.is_none());
    // Each line repeats the one before ten times: a billion laughs.
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    let told = read("l.yaml", &bomb, &source()).errors[0].to_string();
    assert!(told.contains("more than"), "{told}");
}

const GUIDE: &str = include_str!("../../../../docs/layout.md");

/// Fenced blocks of the guide that are marked so.
fn blocks(mark: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in GUIDE.lines() {
        if line.starts_with("```") {
            inside = line == format!("```yaml {mark}");
            if inside {
                found.push(String::new());
            }
        } else if let Some(block) = found.last_mut().filter(|_| inside) {
            block.push_str(line);
            block.push('\n');
        }
    }
    found
}

#[test]
fn the_guides_examples_load() {
    let [layout] = &blocks("layout")[..] else { panic!("one layout") };
    let [own] = &blocks("own")[..] else { panic!("one own") };
    let layout = load(layout);
    let project = layout.projects.keys().next().unwrap();
    let files = [(super::OWN_FILE.to_owned(), own.clone())];
    let whole = super::read_own(&layout, project, &files).unwrap();
    assert_eq!(whole.jobs.len(), 5, "two of the layout, two of its own, noop");
}

#[test]
fn the_guide_has_every_key() {
    let keys = [
        super::KEYS,
        super::pipelines::KEYS,
        super::pipelines::TRIGGER_KEYS,
        super::jobs::KEYS,
        super::projects::KEYS,
    ];
    for key in keys.concat() {
        assert!(GUIDE.contains(&format!("`{key}`")), "docs/layout.md does not explain `{key}`");
    }
}

#[test]
fn tripleos_layout_in_our_form_loads() {
    const TRIPLEO: &str = include_str!("../../../../examples/layouts/tripleo.yaml");
    let found = read("tripleo.yaml", TRIPLEO, &source());
    assert!(found.errors.is_empty() && found.notes.is_empty(), "{found:#?}");
    let layout = found.layout.unwrap();
    let names: Vec<&str> = layout.pipelines.iter().map(|p| p.name.0.as_str()).collect();
    let expected =
        ["check", "check-tripleo", "gate", "experimental-tripleo", "post", "release", "periodic"];
    assert_eq!(names, expected);
    let undercloud = &job(&layout, "check-tripleo-ironic-undercloud-precise-nonha").run;
    assert_eq!(undercloud.timeout, Duration::from_secs(125 * 60));
    assert!(undercloud.env.contains(&("TRIPLEO_TEST".to_owned(), "undercloud".to_owned())));
    let ha = job(&layout, "check-tripleo-ironic-overcloud-precise-ha");
    assert!(
        !ha.voting
            && ha.run.testenv.as_ref().unwrap().label.as_ref().unwrap().as_str() == "devtest-ha"
    );
    // Every job but noop knows what it runs; only deployments take a test environment.
    for job in layout.jobs.iter().filter(|job| job.name.0 != "noop") {
        assert!(!job.run.run.is_empty(), "{}", job.name);
        assert_eq!(
            job.run.testenv.is_some(),
            job.name.0.contains("-tripleo-ironic-"),
            "{}",
            job.name
        );
    }
    assert!(layout.projects.len() >= 10);
}

proptest::proptest! {
    #[test]
    fn any_text_gives_an_answer(text in "[ -~\n]{0,200}") {
        let _ = read("l.yaml", &text, &source());
    }

    #[test]
    fn a_layout_with_a_hole_gives_an_answer(from in 0usize..5000, length in 0usize..40) {
        let mut text = FULL.to_owned();
        let from = from.min(text.len());
        let to = (from + length).min(text.len());
        text.replace_range(from..to, "");
        let found = read("l.yaml", &text, &source());
        proptest::prop_assert!(found.layout.is_some() == found.errors.is_empty());
    }
}

/// `gerrit` means the one source of Zuul 2, until some source is called so; a name that no source has is told.
#[test]
fn sources_are_those_of_the_server() {
    let text = "
pipelines:
  - {name: check, manager: independent, source: gerrit, trigger: {gerrit: [{event: patchset-created}]}, success: {gerrit: {}}}
projects: [{name: a, source: gerrit, check: [j]}, {name: a, source: local, check: [j]}]
";
    let name = |text: &str| SourceName::new(text).unwrap();
    let alone = read_for("l", text, &[name("local")]);
    assert_eq!(
        alone.errors[0].to_string().split(" (").next(),
        Some("l:4:51: project a: this project is defined twice")
    );
    let both = read_for("l", text, &[name("local"), name("gerrit")]).layout.unwrap();
    assert_eq!(both.pipelines[0].source, name("gerrit"));
    let reporter = &both.pipelines[0].actions.success[0];
    assert!(matches!(reporter, Reporter::Source { source, .. } if *source == name("gerrit")));
    assert_eq!(both.projects.len(), 2, "two projects of one name");
    let odd = text.replace("local", "locla");
    let wrong = read_for("l", &odd, &[name("local"), name("gerrit")]);
    let told: Vec<String> = wrong.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "l:4:51: project a: there is no source `locla` (expected a source of toci.toml: local, gerrit)"
        ]
    );
    assert!(read("l", &odd, &name("gerrit")).errors.is_empty(), "offline, others may exist");
    assert!(read_for("l", text, &[]).layout.is_none());
}

#[test]
fn names_that_would_leave_their_folder_are_refused_where_they_stand() {
    let long = "j".repeat(129);
    let text = format!(
        "pipelines:
  - name: a/b
    manager: independent
  - {{name: check, manager: independent}}
jobs:
  - name: ../../etc
  - name: \"x\\ty\"
  - name: ^a/.*$
  - name: with a blank
project-templates:
  - name: t
    check: ['{{name}}-{{kind}}']
projects:
  - name: org/good
    template: [{{name: t, kind: up/down}}]
    check:
      - ..: [{long}]
"
    );
    let found = read("layout.yaml", &text, &source());
    let places: Vec<(_, String)> = found
        .errors
        .iter()
        .filter(|error| error.what.contains("becomes part of paths"))
        .map(|error| {
            (error.mark.line, error.what.split('`').nth(1).unwrap().chars().take(12).collect())
        })
        .collect();
    let expected = [
        (2, "a/b"),
        (6, "../../etc"),
        (7, "x\\ty"),
        (12, "good-up/down"),
        (17, ".."),
        (17, &long[..12]),
    ];
    let expected = expected.map(|(line, name)| (line, name.to_owned()));
    assert_eq!(places, expected, "{:#?}", found.errors);
}
