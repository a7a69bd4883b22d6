//! The environment of a job's scripts, as a file that a shell reads. It may hold secrets, so it is never an argument.

use super::secret::Secrets;
use crate::config::RunConfig;
use crate::tasks::node::NodeHandle;
use toci_core::pipeline::RunWish;
use toci_core::run::variables::{Variables, branch, variables};
use toci_core::shell::quoted;
use toci_edge::node::Session;

/// What stands in the environment of everything that a run starts.
pub(super) fn mark(wish: &RunWish) -> String {
    format!("ZUUL_UUID={}", wish.run)
}

/// Where things lie on a node.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// WORKSPACE.
    pub(super) workspace: String,
    /// Where repositories are checked out.
    pub(super) base: String,
    /// Ours: environment, scripts, TE JSON.
    pub(super) control: String,
}

impl Places {
    pub(super) fn new(config: &RunConfig) -> Places {
        // Beside the workspace, so that no artifact's glob finds it.
        let above = config.workspace.rsplit_once('/').map_or("", |(above, _)| above);
        let control = format!("{above}/.toci");
        Places { workspace: config.workspace.clone(), base: config.base.clone(), control }
    }
}

/// Everything but secrets and TE: origin.md 7.6, and what Jenkins and devstack-gate gave besides.
pub(super) fn usual(
    wish: &RunWish,
    merger_url: &str,
    places: &Places,
    nodes: &[NodeHandle],
) -> Variables {
    let mut out: Variables = Vec::new();
    if let Some(Session::Namespaces { .. }) = nodes.first().map(|n| &n.session) {
        // A sandbox has no login that would set them.
        for (name, value) in [
            ("HOME", "/root"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ] {
            out.push((name.to_owned(), value.to_owned()));
        }
    }
    if let Some(first) = nodes.first() {
        // Before all else, which counts more.
        out.extend(first.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let above = places.base.rsplit_once('/').map_or("/", |(above, _)| above);
    let mut set = |name: &str, value: String| out.push((name.to_owned(), value));
    set("WORKSPACE", places.workspace.clone());
    set("BASE", above.to_owned());
    set("JOB_NAME", wish.job.name.to_string());
    set("BUILD_ID", wish.run.to_string());
    set("TOCI_RUN", wish.run.to_string());
    set("TOCI_ATTEMPT", wish.attempt.to_string());
    if let Some(branch) = branch(wish) {
        set("TOCI_BRANCH", branch.to_owned());
    }
    if let Some(first) = nodes.first() {
        set("NODE_NAME", first.name.clone());
        set("NODE_LABELS", first.label.to_string());
    }
    let all: Vec<String> = nodes
        .iter()
        .map(|n| match n.cloud_address {
            Some(address) => format!("{}={address}", n.name),
            None => n.name.clone(),
        })
        .collect();
    set("TOCI_NODES", all.join(" "));
    let own = variables(wish, merger_url);
    out.retain(|(name, _)| !own.iter().any(|(other, _)| other == name));
    out.extend(own);
    out
}

/// The file's text, and the names that cannot be variables of a shell.
pub(super) fn file(
    usual: &Variables,
    secrets: &Secrets,
    testenv: &Variables,
) -> (String, Vec<String>) {
    let (mut text, mut odd) = (String::new(), Vec::new());
    for (name, value) in usual.iter().chain(&secrets.0).chain(testenv) {
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if first && rest && !value.contains('\0') {
            text.push_str(&format!("{name}={}\n", quoted(value)));
        } else {
            odd.push(name.clone());
        }
    }
    (text, odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_odd_names_are_told() {
        let usual = vec![("A".into(), "it's $x\ny".into()), ("a.b".into(), "1".into())];
        let (text, odd) = file(&usual, &Secrets(vec![("S".into(), "s".into())]), &Vec::new());
        assert_eq!(text, "A='it'\\''s $x\ny'\nS='s'\n");
        assert_eq!(odd, ["a.b"]);
    }
}
