//! One script on the node: started, followed line by line, stopped.

use super::console::Console;
use super::environment::Places;
use crate::clock::Clock;
use std::time::Duration;
use toci_core::event::ProjectName;
use toci_core::layout::Script;
use toci_core::shell::quoted;
use toci_edge::node::console::{Lines, Mask};
use toci_edge::node::{Session, SessionError, Step};
use toci_edge::program::Group;
use tokio::process::ChildStdout;

/// How long output is still read after a script has ended: something that it left behind may hold it open for ever.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// How long the node is asked whether a script that ended oddly really ended.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Longest script in the layout, in bytes.
pub(super) const SCRIPT_MAX_BYTES: usize = 1 << 20;

/// A script that runs.
#[derive(Debug)]
pub(super) struct Playing {
    session: Session,
    step: Step,
    group: Group,
    lines: Option<Lines<ChildStdout>>,
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with this exit code.
    Code(i32),
    /// Nobody knows: the node is lost.
    Lost,
}

/// Where a step runs, and what its name in the control folder is.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) places: &'a Places,
    /// The project under test's checkout; the workspace without one.
    pub(super) folder: &'a str,
    /// Projects that are checked out, with their folders.
    pub(super) projects: &'a [(ProjectName, String)],
}

/// The shell text of a script.
pub(super) fn text_of(script: &Script, scene: &Scene<'_>) -> String {
    let line = match script {
        Script::Inline(text) => return text.clone(),
        Script::File(line) => line.trim(),
    };
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    // The longest name of a project that the path begins with.
    let within = |(project, folder): &(ProjectName, String)| {
        let rest = name.strip_prefix(project.as_str())?.strip_prefix('/')?;
        Some((project.as_str().len(), format!("{folder}/{rest}")))
    };
    let path = match scene.projects.iter().filter_map(within).max() {
        Some((_, path)) => path,
        None if name.starts_with('/') => name.to_owned(),
        None => format!("{}/{name}", scene.folder),
    };
    format!(
        "f={}\nif [ ! -f \"$f\" ]; then echo \"toci: there is no script $f\"; exit 127; fi\n\
         if [ -x \"$f\" ]; then exec \"$f\" {rest}; else exec bash \"$f\" {rest}; fi\n",
        quoted(&path)
    )
}

impl Playing {
    /// Puts the script on the node and starts it.
    pub(super) async fn start(
        session: &Session,
        scene: &Scene<'_>,
        name: &str,
        text: &str,
        mask: &Mask,
    ) -> Result<Playing, SessionError> {
        let control = format!("{}/{name}", scene.places.control);
        let file = format!("{control}/script");
        session.put(&file, text.as_bytes(), 0o600).await?;
        let step = Step {
            control,
            folder: scene.folder.to_owned(),
            environment: format!("{}/environment", scene.places.control),
            script: format!("exec bash -e {}", quoted(&file)),
        };
        let mut group = session.start(&step)?;
        let lines = group.child.stdout.take().map(|stream| Lines::new(stream, mask.clone()));
        Ok(Playing { session: session.clone(), step, group, lines })
    }

    /// Follows it to its end. Safe to cancel and to call again.
    pub(super) async fn follow(&mut self, console: &mut Console, clock: Clock) -> End {
        loop {
            let Some(lines) = &mut self.lines else {
                let status = self.group.child.wait().await;
                return self.end(status.ok().and_then(|s| s.code())).await;
            };
            tokio::select! {
                line = lines.next() => match line {
                    Some(line) => tell(line, lines, console, clock),
                    None => self.lines = None,
                },
                status = self.group.child.wait() => {
                    let rest = async {
                        while let Some(line) = lines.next().await {
                            tell(line, lines, console, clock);
                        }
                    };
                    // What it left running keeps the output open: that is not waited for.
                    let _ = tokio::time::timeout(DRAIN_LIMIT, rest).await;
                    return self.end(status.ok().and_then(|s| s.code())).await;
                }
            }
        }
    }

    /// What the way there ended with is not always what the script ended with.
    async fn end(&self, code: Option<i32>) -> End {
        if !self.session.is_lost(code) {
            // A way there that a signal ended here says nothing of the script, which is as good as lost.
            return code.map_or(End::Lost, End::Code);
        }
        let look = format!("cat {}/code", quoted(&self.step.control));
        match self.session.try_run("look how a script ended", &look, b"", LOOK_LIMIT).await {
            Ok(ended) if ended.is_well() => {
                ended.text().trim().parse().map_or(End::Lost, End::Code)
            }
            Ok(_) | Err(_) => End::Lost,
        }
    }

    /// Asks it to end, and waits for that as long as it is given.
    pub(super) async fn terminate(&mut self, grace: Duration, console: &mut Console, clock: Clock) {
        let session = self.session.clone();
        let step = self.step.clone();
        let asked = async {
            if let Err(error) = session.signal(&step, "TERM").await {
                tracing::debug!(%error, "a script could not be told to end");
            }
            std::future::pending::<()>().await
        };
        let ended = async {
            tokio::select! {
                _ = self.follow(console, clock) => true,
                () = asked => false,
            }
        };
        if !matches!(tokio::time::timeout(grace, ended).await, Ok(true)) {
            console.line(clock.now(), "toci: it did not end when told to: killed".to_owned());
            console.flush();
        }
    }
}

/// A line, and what has come with it.
fn tell(line: String, lines: &mut Lines<ChildStdout>, console: &mut Console, clock: Clock) {
    let now = clock.now();
    console.line(now, line);
    while let Some(line) = lines.ready() {
        console.line(now, line);
    }
    console.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_their_projects() {
        let places = Places { workspace: "/w".into(), base: "/b".into(), control: "/c".into() };
        let project = |name: &str, folder: &str| (ProjectName::new(name).unwrap(), folder.into());
        let projects = [project("org/ci", "/b/ci"), project("org/app", "/b/app")];
        let scene = Scene { places: &places, folder: "/b/app", projects: &projects };
        let first = |script: &str| {
            let text = text_of(&Script::File(script.into()), &scene);
            (text.lines().next().unwrap().to_owned(), text)
        };
        assert_eq!(first("org/ci/gate.sh").0, "f='/b/ci/gate.sh'");
        let (file, text) = first("tools/x.sh --all 'a b'");
        assert_eq!(file, "f='/b/app/tools/x.sh'");
        assert!(text.contains("exec \"$f\" --all 'a b'; else"), "{text}");
        assert_eq!(first("/opt/x").0, "f='/opt/x'");
    }
}
