//! Whether a run may have its job's secrets: never when people who were not reviewed yet say what runs.
//!
//! What has been merged is trusted, and so is everything in pipelines that the layout says to be `post-review`. In all
//! other runs the job's scripts must come from where the change under test, and those tested with it, cannot write: shell
//! text of the layout, or files of other projects. What such a script runs is its own responsibility.

use super::variables::project;
use crate::event::ProjectName;
use crate::layout::Script;
use crate::pipeline::{RunWish, Subject};
use std::path::Path;

/// Why a run may not have secrets; none: it may. Repositories are below `base` on the node.
#[must_use]
pub fn distrust(wish: &RunWish, base: &str) -> Option<String> {
    let context = &wish.context;
    let reviewed = match &context.subject {
        Subject::Change(_) => context.post_review,
        Subject::Ref(update) => {
            let name = update.reference.as_str();
            let merged = name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
            merged || context.post_review
        }
        Subject::Branch { .. } => true,
    };
    if reviewed {
        return None;
    }
    let run = &wish.job.run;
    let scripts = run.pre.iter().chain(&run.run).chain(&run.post);
    let (file, why) = scripts.filter_map(|script| under_test(script, wish, base)).next()?;
    Some(format!(
        "job {} takes secrets and runs {file}, {why}: whoever proposes a change would have them. Mark the pipeline {} \
         as `post-review: true` if it takes only reviewed changes, or let the job run shell text of the layout or a file \
         of a project that is not under test",
        wish.job.name, context.pipeline
    ))
}

/// The file, and why it cannot be trusted.
fn under_test<'a>(
    script: &'a Script,
    wish: &RunWish,
    base: &str,
) -> Option<(&'a str, &'static str)> {
    let line = match script {
        Script::Inline(_) => return None,
        Script::File(line) => line.trim(),
    };
    let file = line.split(char::is_whitespace).next().unwrap_or(line);
    // What the node came with is the operator's; what leads back up may be anything.
    if file.starts_with('/') {
        // By parts: `//` and `/./` lead to the same place.
        let below = Path::new(file).starts_with(base);
        let odd = file.split('/').any(|part| part == "..");
        return (below || odd).then_some((file, "which the change may have written"));
    }
    let within = |name: &ProjectName| {
        file.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('/'))
    };
    let named = wish.job.run.projects.iter().filter_map(|text| {
        let name = text.split_once(':').map_or(text.as_str(), |(_, name)| name);
        ProjectName::new(name).ok()
    });
    let tested: Vec<&ProjectName> =
        wish.context.series.iter().map(|item| &item.project.name).chain(project(wish)).collect();
    // Of projects whose names begin alike the longest counts, as where the file is looked for.
    let other = named.filter(|name| within(name) && !tested.contains(&name)).max_by_key(length);
    let own = tested.iter().filter(|name| within(name)).max_by_key(|name| length(name));
    match (other, own) {
        (Some(other), own) if own.is_none_or(|own| length(&other) > length(own)) => {
            let odd = file.split('/').any(|part| part == "..");
            odd.then_some((file, "which leads out of its project"))
        }
        (_, Some(_)) => Some((file, "a file of a project under test")),
        (_, None) => Some((file, "a file of the project under test")),
    }
}

fn length(name: &ProjectName) -> usize {
    name.as_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Branch, RefName, RefUpdate, Revision};
    use crate::run::variables::tests::{change, item, project as key, wish};
    use std::sync::Arc;

    const BASE: &str = "/opt/stack/new";

    fn with(mut wish: RunWish, post_review: bool, scripts: &[Script]) -> RunWish {
        let mut job = wish.job.as_ref().clone();
        job.run.run = scripts.to_vec();
        job.run.projects = vec!["org/ci".into(), "gerrit:org/ci/more".into(), "org/lib".into()];
        wish.job = Arc::new(job);
        let mut context = wish.context.as_ref().clone();
        context.post_review = post_review;
        wish.context = Arc::new(context);
        wish
    }

    /// A change of org/app on top of one of org/lib.
    fn changed(post_review: bool, script: Script) -> Option<String> {
        let series = vec![item("org/lib", "master", 1), item("org/app", "master", 2)];
        distrust(&with(wish(change(2), series), post_review, &[script]), BASE)
    }

    #[test]
    fn what_a_change_says_has_no_secrets_before_it_is_reviewed() {
        for file in [
            "tools/deploy.sh --all",
            "org/app/deploy.sh",
            "org/lib/deploy.sh",
            "org/other/deploy.sh",
            "/opt/stack/new/ci/deploy.sh",
            "/opt//stack/./new/ci/deploy.sh",
            "/usr/../opt/stack/new/app/x",
            "org/ci/../app/x",
        ] {
            let why = changed(false, Script::File(file.into())).expect(file);
            assert!(why.contains("post-review: true") && why.contains("check-nova"), "{why}");
            assert!(why.contains(file.split(' ').next().unwrap()), "{why}");
            assert_eq!(changed(true, Script::File(file.into())), None, "{file}");
        }
    }

    #[test]
    fn what_it_cannot_write_is_trusted() {
        for script in [
            Script::File("org/ci/deploy.sh --all".into()),
            Script::File("org/ci/more/deploy.sh".into()),
            Script::File("/usr/local/bin/deploy".into()),
            Script::File("/opt/stack/newer/deploy".into()),
            Script::Inline("cd $WORKSPACE; ./deploy".into()),
        ] {
            assert_eq!(changed(false, script.clone()), None, "{script:?}");
        }
        // One that cannot be trusted is enough, and the project that others are trusted for may be under test itself.
        let series = vec![item("org/ci", "master", 1), item("org/app", "master", 2)];
        let both = [Script::Inline("true".into()), Script::File("org/ci/deploy.sh".into())];
        let why = distrust(&with(wish(change(2), series), false, &both), BASE).unwrap();
        assert!(why.contains("org/ci/deploy.sh, a file of a project under test"), "{why}");
    }

    #[test]
    fn what_is_merged_is_trusted() {
        let own = [Script::File("tools/deploy.sh".into())];
        let moved = |name: &str| {
            let subject = Subject::Ref(RefUpdate {
                project: key("org/app"),
                reference: RefName::new(name).unwrap(),
                old: Revision::none(),
                new: Revision::new("a".repeat(40)).unwrap(),
            });
            distrust(&with(wish(subject, vec![]), false, &own), BASE)
        };
        assert_eq!(moved("refs/heads/master"), None);
        assert_eq!(moved("refs/tags/1.0"), None);
        assert!(moved("refs/changes/01/1/1").is_some());
        let branch = Branch::new("master").unwrap();
        let timer = Subject::Branch { project: key("org/app"), branch };
        assert_eq!(distrust(&with(wish(timer, vec![]), false, &own), BASE), None);
    }
}
