//! A job's code is hostile: on a real node it looks for the cloud's credentials in all that it can reach, and finds none.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cloud_tests::{Api, Footprint, Site, forget_key_pairs, wait_for};
use serde_json::{Value, json};

/// Longest wait for a node and a run on it, and for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(300);
/// Whose mark the node carries.
const OWNER: &str = "restricted";
/// What the secret begins with. The job's code has it in another spelling, so that it does not find itself.
const SECRET: &str = "secret-of-the-cloud-";

/// Everything that a job, which is root on its node, can read: its environment and those of all processes, their arguments,
/// all files, the memory of what runs, and what the cloud tells a server about itself. A token of Keystone begins with
/// `gAAAAA`. What it finds it prints, the last line says that it looked everywhere.
const PROBE: &str = r#"
pattern='secret-of-the-[c]loud-|gAAAA[A]'
echo "as $(id -un), $(cat /proc/[0-9]*/comm | wc -l) processes"
for place in environ cmdline; do
    cat /proc/[0-9]*/$place 2>/dev/null | tr '\0' '\n' | grep -aE "$pattern" | sed "s/^/found in $place: /"
done
find / -xdev -type f -exec grep -alE "$pattern" {} + 2>/dev/null | sed 's/^/found in the file /'
for mounted in /tmp /run /dev/shm /root /opt; do
    grep -arlE "$pattern" "$mounted" 2>/dev/null | sed 's/^/found in the file /'
done
for told in meta_data.json user_data network_data.json vendor_data.json vendor_data2.json; do
    printf 'GET /openstack/latest/%s HTTP/1.0\r\nHost: 169.254.169.254\r\n\r\n' "$told" |
        nc -w 10 169.254.169.254 80 >"/tmp/$told" || echo "no $told"
    grep -aE "$pattern" "/tmp/$told" | sed "s/^/found in $told: /"
done
grep -ao '"uuid": "[^"]*"' /tmp/meta_data.json
env | grep -E '^(OS_|TOCI_TOKEN|TOCI_SERVER|SSH_AUTH_SOCK)' | sed 's/^/found in the environment: /'
echo looked everywhere
"#;

/// A credential of the tenant that only this test knows, as an operator makes one for toci; dropped, it is gone.
struct Credential {
    id: String,
    secret: String,
    path: String,
}

impl Credential {
    fn new() -> Result<Credential> {
        let ci = Api::ci()?;
        let secret =
            format!("{SECRET}{}", fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim());
        let list = format!("/users/{}/application_credentials", ci.user);
        let wish = json!({"application_credential": {"name": OWNER, "secret": secret}});
        let made = ci.post("identity", &list, &wish)?;
        let id = made["application_credential"]["id"].as_str().context("an id")?.to_owned();
        Ok(Credential { path: format!("{list}/{id}"), id, secret })
    }

    /// clouds.yaml that only its owner may read.
    fn write(&self, file: &Path) -> Result<()> {
        use std::io::Write as _;
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        Ok(writeln!(
            file,
            "clouds:\n  {OWNER}:\n    auth_type: v3applicationcredential\n    region_name: RegionOne\n    auth: {{auth_url: \
             \"http://127.0.0.1:5000/v3\", application_credential_id: {}, application_credential_secret: {}}}",
            self.id, self.secret
        )?)
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        if let Err(why) = Api::ci().and_then(|ci| ci.delete("identity", &self.path)) {
            eprintln!("a credential is left behind: {why:#}");
        }
    }
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"[layout]
file = "{folder}/layout.yaml"
[[source]]
name = "local"
kind = "git"
root = "{folder}/git"
look_every_s = 1
[logs]
store = "folder:{folder}/archive"
[[label]]
name = "node"
[[provider]]
name = "stack"
kind = "openstack"
cloud = "{OWNER}"
clouds_file = "{folder}/clouds.yaml"
owner = "{OWNER}"
max_servers = 1
networks = ["private"]
floating_network = "public"
[[provider.pool]]
label = "node"
cloud_image = "tiny"
flavor = "tiny"
"#
    )
}

fn layout() -> Value {
    json!({
        "pipelines": [{
            "name": "check",
            "manager": "independent",
            "trigger": {"local": [{"event": "patchset-created"}]},
        }],
        "jobs": [{"name": "probe", "node": "node", "run": PROBE}],
        "projects": [{"name": "org/a", "check": ["probe"]}],
    })
}

fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    let who = ["-c", "user.name=Eve", "-c", "user.email=eve@example.org"];
    let output = Command::new("git").args(who).args(arguments).current_dir(folder).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {arguments:?}: {}", complaint.trim());
    Ok(())
}

/// The git host, with one project.
fn repository(folder: &Path) -> Result<()> {
    let (bare, work) = (folder.join("git/org/a.git"), folder.join("work"));
    fs::create_dir_all(&bare)?;
    fs::create_dir_all(&work)?;
    git(&bare, &["init", "-q", "--bare", "--initial-branch=master"])?;
    git(&work, &["init", "-q", "--initial-branch=master"])?;
    git(&work, &["commit", "-q", "--allow-empty", "-m", "begin"])?;
    git(&work, &["push", "-q", "../git/org/a.git", "master"])
}

/// Files below a folder that have a text in them.
fn files_with(folder: &Path, text: &str) -> Result<String> {
    let grep = Command::new("grep").args(["-arl", "--", text]).arg(folder).output()?;
    let none = grep.status.code() == Some(1);
    ensure!(grep.status.success() || none, "{}", String::from_utf8_lossy(&grep.stderr));
    Ok(String::from_utf8_lossy(&grep.stdout).into_owned())
}

#[test]
fn a_job_finds_no_credential() -> Result<()> {
    let before = Footprint::now()?;
    {
        let credential = Credential::new()?;
        let folder = tempfile::tempdir()?;
        credential.write(&folder.path().join("clouds.yaml"))?;
        fs::write(folder.path().join("layout.yaml"), layout().to_string())?;
        repository(folder.path())?;
        let site = Site::start(&settings(folder.path()))?;
        let looked = look(&site, folder.path());
        site.toci(&["provider", "pause", "stack", "--reason", "the test is over"])?;
        let emptied = wait_for("the node to be gone", LIMIT, || {
            let nodes = site.toci(&["node", "list"])?;
            ensure!(nodes == json!([]), "{nodes}\n{}", site.logs());
            Ok(())
        });
        forget_key_pairs(OWNER)?;
        looked.and(emptied)?;
    }
    before.is_restored(LIMIT)
}

fn look(site: &Site, folder: &Path) -> Result<()> {
    let mirror = site.path("server/mirrors/local/org/a.git/toci-mirror");
    wait_for("the project to be known", LIMIT, || {
        ensure!(mirror.exists(), "no {}\n{}", mirror.display(), site.logs());
        Ok(())
    })?;
    let work = folder.join("work");
    git(&work, &["commit", "-q", "--allow-empty", "-m", "change"])?;
    git(&work, &["push", "-q", "../git/org/a.git", "HEAD:refs/changes/01/1/1"])?;
    let run = wait_for("the run to be over", LIMIT, || {
        let runs = site.toci(&["run", "list"])?;
        let over = runs.as_array().into_iter().flatten().find(|run| !run["result"].is_null());
        over.cloned().with_context(|| format!("{runs}\n{}", site.logs()))
    })?;
    let id = run["id"].as_str().context("a run has an id")?;
    let console = fs::read_to_string(site.path(&format!("server/runs/{id}/console.txt")))?;
    println!("{console}");
    ensure!(run["result"] == "SUCCESS", "{run}");
    ensure!(console.contains("looked everywhere"), "it did not look everywhere");
    ensure!(console.contains("\"uuid\": "), "the metadata service has not answered");
    ensure!(!console.contains("found in"), "it found something");
    // What the server itself writes: its state, its log, the archive.
    for place in [site.folder(), &folder.join("archive")] {
        let files = files_with(place, SECRET)?;
        ensure!(files.is_empty(), "the secret is in\n{files}");
        let tokens = files_with(place, "gAAAAAB[A-Za-z0-9_-]\\{80\\}")?;
        ensure!(tokens.is_empty(), "a token is in\n{tokens}");
    }
    Ok(())
}
