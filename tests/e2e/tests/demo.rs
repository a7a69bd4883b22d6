//! `toci demo` as a newcomer runs it: it ends well within its time, and nothing is left behind.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{Leftovers, binary, wait_for};
use tempfile::TempDir;

/// Issue A: "well within 5 minutes after the build on 2 cores without KVM".
const DEMO_LIMIT: Duration = Duration::from_secs(300);
/// From Ctrl-C until everything is gone.
const STOP_LIMIT: Duration = Duration::from_secs(30);

struct Demo {
    folder: TempDir,
    child: Child,
}

impl Demo {
    fn start() -> Result<Demo> {
        let folder = tempfile::Builder::new().prefix("toci-demo-").tempdir()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let child = Command::new(binary("toci")?)
            .args(["demo", "--state"])
            .arg(folder.path().join("state"))
            .current_dir(root)
            .env("TOCI_LAB", folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("out"))?)
            .stderr(File::create(folder.path().join("err"))?)
            .spawn()?;
        Ok(Demo { folder, child })
    }

    fn said(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name));
        format!("{}\n{}", read("out").unwrap_or_default(), read("err").unwrap_or_default())
    }
}

#[test]
fn the_demo_ends_well_and_leaves_nothing() {
    let mut demo = Demo::start().unwrap();
    let leftovers = Leftovers::before(demo.folder.path());
    let start = Instant::now();
    let status = wait_for("the demo to end", DEMO_LIMIT, || match demo.child.try_wait()? {
        Some(status) => Ok(status),
        None => bail!("it runs:\n{}", demo.said()),
    });
    let status = status.unwrap();
    assert!(status.success(), "{status}\n{}", demo.said());
    println!("the demo took {:.0} s", start.elapsed().as_secs_f64());
    println!("{}", demo.said());
    leftovers.check().unwrap();
}

#[test]
fn ctrl_c_leaves_nothing() {
    let mut demo = Demo::start().unwrap();
    let leftovers = Leftovers::before(demo.folder.path());
    wait_for("the demo to have a TE host", DEMO_LIMIT, || {
        if let Some(status) = demo.child.try_wait()? {
            // No use in waiting any longer.
            return Ok(Err(anyhow::anyhow!("the demo ended with {status}:\n{}", demo.said())));
        }
        let processes = Command::new("ps").args(["-e", "-o", "args="]).output()?.stdout;
        let processes = String::from_utf8_lossy(&processes).into_owned();
        let mark = demo.folder.path().display().to_string();
        ensure!(
            processes.lines().any(|l| l.contains("toci-host") && l.contains(&mark)),
            "{}",
            demo.said()
        );
        Ok(Ok(()))
    })
    .and_then(|ended| ended)
    .unwrap();
    let pid = demo.child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().context("kill").unwrap();
    assert!(sent.success());
    let status = wait_for("the demo to stop", STOP_LIMIT, || match demo.child.try_wait()? {
        Some(status) => Ok(status),
        None => bail!("it runs:\n{}", demo.said()),
    });
    assert!(!status.unwrap().success(), "an interrupted demo is no success");
    leftovers.check().unwrap();
}
