//! Repositories, layout and settings of the server under load, and what both loads need of it.

use anyhow::{Context as _, Result, bail, ensure};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use toci_client::api::{ApiClient, Token};
use toci_server::{Overrides, ServerConfig};
use toci_wire::api::NodeState;

/// Projects of the burst.
pub(crate) const BURST_PROJECTS: usize = 5;
/// Where single changes go.
pub(crate) const SINGLE: &str = "org/single";
/// The same with job `trivial`.
pub(crate) fn burst_project(number: usize) -> String {
    format!("org/burst{}", number % BURST_PROJECTS)
}
/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(900);

/// `speaks` tells the time of each of its lines.
const LAYOUT: &str = "
pipelines:
  - name: check
    manager: independent
    trigger:
      local: [{event: patchset-created}]
    success: {local: {verified: 1}}
    failure: {local: {verified: -1}}
jobs:
  - name: speaks
    run: 'for n in {1..20}; do echo \"at $EPOCHREALTIME\"; sleep 0.02; done'
  - name: trivial
    run: 'echo well'
projects:
  - {name: org/single, check: [speaks]}
";

/// Makes everything and serves until it is told to end.
pub(crate) async fn serve(folder: &Path, api: &str, nodes: u16) -> Result<()> {
    let mut layout = LAYOUT.to_owned();
    for number in 0..BURST_PROJECTS {
        writeln!(layout, "  - {{name: {}, check: [trivial]}}", burst_project(number))?;
    }
    std::fs::write(folder.join("layout.yaml"), layout)?;
    let text = format!(
        "[layout]\nfile = \"{0}/layout.yaml\"\n[[source]]\nname = \"local\"\nkind = \"git\"\nroot = \"{0}/git\"\n\
         look_every_s = 3600\n[[label]]\nname = \"sandbox\"\nmin_ready = {nodes}\n\
         [[provider]]\nname = \"here\"\nkind = \"local\"\nmax_servers = {nodes}\nfirst_number = 20000\n\
         [[provider.pool]]\nlabel = \"sandbox\"\n",
        folder.display()
    );
    std::fs::write(folder.join("toci.toml"), text)?;
    for name in (0..BURST_PROJECTS).map(burst_project).chain([SINGLE.to_owned()]) {
        let bare = bare(folder, &name);
        std::fs::create_dir_all(&bare)?;
        git(&bare, &["init", "-q", "--bare", "--initial-branch=master"], b"")?;
        let mut text = String::new();
        for n in 0..20 {
            let mark = if n == 9 { "mark :1\n" } else { "" };
            writeln!(
                text,
                "commit refs/heads/master\n{mark}committer b <b@example.org> {} +0000\ndata 1\nx\nM 100644 inline f{n}\ndata 1\n1\n",
                1_400_000_000 + n
            )?;
        }
        // Where changes begin: not at the end of the branch, so that each of them is merged.
        writeln!(text, "reset refs/notes/begin\nfrom :1\n")?;
        git(&bare, &["fast-import", "--quiet"], text.as_bytes())?;
    }
    let flags = Overrides {
        state: Some(folder.join("state")),
        listen: Some(api.parse().context("the API's address")?),
        socket: Some(folder.join("socket")),
        gearman: Some("127.0.0.1:0".parse()?),
    };
    toci_server::run(ServerConfig::load(Some(&folder.join("toci.toml")), flags)?).await?;
    Ok(())
}

fn bare(folder: &Path, project: &str) -> PathBuf {
    folder.join("git").join(format!("{project}.git"))
}

fn git(folder: &Path, arguments: &[&str], input: &[u8]) -> Result<()> {
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .spawn()
        .context("git (Debian package git)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "git {arguments:?}: {status}");
    Ok(())
}

/// Changes of these numbers in a project, as a push would leave them.
pub(crate) fn propose(folder: &Path, project: &str, numbers: &[usize]) -> Result<()> {
    let mut text = String::new();
    for number in numbers {
        writeln!(
            text,
            "commit refs/changes/{:02}/{number}/1\ncommitter b <b@example.org> 1500000000 +0000\ndata 1\ny\n\
             from refs/notes/begin^0\nM 100644 inline new{number}\ndata 1\nz\n",
            number % 100
        )?;
    }
    git(&bare(folder, project), &["fast-import", "--quiet"], text.as_bytes())
}

/// The operator's client, once the server answers.
pub(crate) async fn admin(address: &str, folder: &Path) -> Result<ApiClient> {
    let token = Token::from_file(&folder.join("state/admin.token"))?;
    Ok(ApiClient::new(format!("http://{address}").parse()?, Some(token), None)?)
}

/// Microseconds since 1970, as the server counts.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Waits until so many nodes are ready and the source is heard: what was proposed before is no news to it.
pub(crate) async fn ready(admin: &ApiClient, count: usize) -> Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let nodes = admin.nodes().await?;
        let are_ready = nodes.iter().filter(|n| n.state == NodeState::Ready).count() >= count;
        if are_ready && admin.sources().await?.iter().all(|source| source.state == "up") {
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            bail!("{count} nodes were not ready in time: {nodes:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Median, 95 of a hundred, largest.
pub(crate) fn spread(mut values: Vec<f64>) -> serde_json::Value {
    values.sort_by(f64::total_cmp);
    let at = |per_cent: usize| {
        let index = (values.len().saturating_sub(1) * per_cent).div_ceil(100);
        values.get(index).copied().unwrap_or(0.0)
    };
    serde_json::json!({ "p50": at(50), "p95": at(95), "max": at(100), "count": values.len() })
}

/// Milliseconds between two times in microseconds.
#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^52 us")]
pub(crate) fn ms(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1e3
}
