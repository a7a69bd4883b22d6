//! Runs on a machine that is reached by SSH as somebody who is not root.

use super::collecting::command;
use super::git::git;
use super::world::*;
use crate::tasks::sshd::{Machine, known, machine, ssh_keygen};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use toci_core::log::collect::Rules;
use toci_core::pipeline::RunResult;
use toci_edge::node::Session;

/// Who logs in; the number is nobody's on the machine.
const USER: &str = "toci-ci";
const NUMBER: u32 = 64_100;

/// One run of the user at a time: what is left of one must not be what another one is doing.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The user with a home and a place for repositories, what sudo lets them do, and logs of which some are root's.
fn machine_of_a_user(folder: &Path, sudoers: &str, more: &str) -> (Machine, Session) {
    let (key, host) = (folder.join("key"), folder.join("host"));
    ssh_keygen(&key);
    ssh_keygen(&host);
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = format!("{users}{USER}:*:{NUMBER}:{NUMBER}::/home/toci:/bin/bash\n");
    std::fs::write(folder.join("passwd"), user).unwrap();
    let sudoers_file = folder.join("sudoers");
    std::fs::write(&sudoers_file, format!("root ALL=(ALL) ALL\n{sudoers}")).unwrap();
    std::fs::set_permissions(&sudoers_file, std::fs::Permissions::from_mode(0o440)).unwrap();
    let inside = format!(
        "[ -e /etc/sudoers ] || {{ echo 'sudo is missing: apt-get install sudo' >&2; exit 1; }}
         mount --bind passwd /etc/passwd; mount --bind sudoers /etc/sudoers
         for d in /home /opt /var/log; do mount -t tmpfs tmpfs $d; done
         install -d -o {NUMBER} /home/toci /opt/stack /opt/stack/new
         echo for everybody >/var/log/open.log
         (umask 077; echo for root >/var/log/root.log; mkdir /var/log/private; echo too >/var/log/private/in.log)
         {more}"
    );
    let machine = machine(folder, "machine", &host, &key, &inside);
    let known_hosts = folder.join("known_hosts");
    std::fs::write(&known_hosts, known(&machine, &host)).unwrap();
    let target = format!("{USER}@127.0.0.1");
    let session = Session::Ssh { target, port: machine.port, key, known_hosts };
    (machine, session)
}

/// A whole run there: workspace, script, what it leaves running, what is collected.
async fn collected(sudoers: &str) -> Kept {
    let _alone = ALONE.lock().await;
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_machine, session) = machine_of_a_user(folder.path(), sudoers, "");
    let folders = vec!["var/log".to_owned()];
    let rules = Rules { commands: vec![command("id -un")], folders, ..Rules::default() };
    let mut world = World::start_with(dir.path(), rules).await;
    *world.nodes.machine.lock().unwrap() = Some(session.clone());
    let script = "id -un; cat version; mkdir -p $WORKSPACE/logs $WORKSPACE/out; echo mine >$WORKSPACE/logs/mine.txt; \
                  echo made >$WORKSPACE/out/made.txt; setsid sleep 86412 >/dev/null 2>&1 </dev/null &";
    let wish = world.wish(|job| {
        job.run = inline(script);
        job.artifacts = vec!["out/*.txt".into()];
    });
    let (result, kept, _) = world.whole(&wish).await;
    let console = &kept["console.txt"];
    assert_eq!(result, RunResult::Success, "{console}");
    let lines = said(console);
    assert!(lines.contains(&USER) && lines.contains(&"tested"), "{console}");
    assert!(!console.contains("not whole"), "{console}");
    // Whatever root may see.
    assert_eq!(kept["logs/mine.txt"], "mine\n");
    assert_eq!(kept["artifacts/out/made.txt"], "made\n");
    assert_eq!(kept["node/var/log/open.log"], "for everybody\n");
    let left =
        session.run("look", "ps -u toci-ci -o args=; ls -d /tmp/tmp.*/o || true", b"", LIMIT);
    let left = left.await.unwrap().text();
    assert!(!left.contains("sleep 86412") && !left.contains("/o\n"), "{left}");
    kept
}

#[tokio::test]
async fn with_sudo_everything_of_a_machine_is_collected() {
    let kept = collected(&format!("{USER} ALL=(ALL) NOPASSWD: ALL\n")).await;
    assert_eq!(kept["node/var/log/root.log"], "for root\n");
    assert_eq!(kept["node/var/log/private/in.log"], "too\n");
    let info = &kept["node/host_info.txt"];
    assert!(info.contains("===== id -un\nroot\n"), "{info}");
    assert!(!info.contains("without root") && !info.contains("may not be read"), "{info}");
}

#[tokio::test]
async fn without_sudo_what_is_missing_is_told_and_nothing_else_is_lost() {
    // Nothing at all, or only with a password, which nobody is there to give.
    for sudoers in [String::new(), format!("{USER} ALL=(ALL) ALL\n")] {
        let kept = collected(&sudoers).await;
        let files: Vec<&String> = kept.keys().filter(|name| name.contains("var/log")).collect();
        assert_eq!(files, ["node/var/log/open.log"]);
        let info = &kept["node/host_info.txt"];
        for words in [
            "===== without root\nsudo -n is refused to toci-ci: what only root may see is missing\n",
            "===== id -un\ntoci-ci\n",
            "var/log/root.log: may not be read\n",
            "var/log/private/: may not be read\n",
        ] {
            assert!(info.contains(words), "{words}: {info}");
        }
    }
}

/// Packs that hold a commit, and how many of them hold another one.
const PACKS: &str = "for i in .git/objects/pack/*.idx; do git show-index <$i | grep -q TESTED || continue; \
    echo \"sent $(git show-index <$i | grep -c BASE)\"; done";

#[tokio::test]
async fn what_the_node_has_in_its_cache_is_not_sent_and_nothing_else_of_the_cache_counts() {
    let _alone = ALONE.lock().await;
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut world = World::start(dir.path()).await;
    // An old cache, root's, with a branch that nobody else has.
    let (cache, work) = (dir.path().join("cache.git"), dir.path().join("work-app"));
    let path = cache.to_str().unwrap();
    git(dir.path(), &["clone", "-q", "--bare", "git/org/app.git", path]).unwrap();
    git(&work, &["checkout", "-q", "-b", "gone", "HEAD~1"]).unwrap();
    git(&work, &["commit", "-q", "--allow-empty", "-m", "gone"]).unwrap();
    git(&work, &["push", "-q", path, "gone"]).unwrap();
    let commit = |name: &str| git(&work, &["rev-parse", name]).unwrap();
    let (gone, base) = (commit("gone"), commit("gone~1"));
    let more = format!(
        "mkdir -p /opt/git/org; cp -a {path} /opt/git/org/app; git clone -q {path} /opt/git/org/lib"
    );
    let (_machine, session) = machine_of_a_user(folder.path(), "", &more);
    *world.nodes.machine.lock().unwrap() = Some(session.clone());
    let packs = PACKS.replace("TESTED", world.tested.as_str()).replace("BASE", &base);
    let script = format!(
        "cat version; git cat-file -t {gone} || echo none; git -C ../lib cat-file -t {gone} || echo none\n\
         git for-each-ref --format='%(refname)'; git for-each-ref --count=1 --format='%(objectname)'; {packs}"
    );
    let wish = world.wish(|job| {
        job.run = inline(&script);
        job.projects = vec!["org/lib".into()];
    });
    let (result, kept, _) = world.whole(&wish).await;
    let console = &kept["console.txt"];
    assert_eq!(result, RunResult::Success, "{console}");
    let lines = said(console);
    let own = |lines: &[&str]| {
        lines.iter().filter(|l| !l.starts_with("toci: ")).copied().collect::<Vec<_>>().join("|")
    };
    let refs = format!("refs/remotes/origin/master|refs/tags/1.0|{base}");
    assert_eq!(own(&lines), format!("tested|commit|commit|{refs}|sent 0"));

    // One that is broken is as good as none.
    let mut root = session.clone();
    if let Session::Ssh { target, .. } = &mut root {
        *target = "root@127.0.0.1".into();
    }
    root.run(
        "break it",
        "echo x >/opt/git/org/app/HEAD; rm -r /opt/git/org/lib/.git/refs",
        b"",
        LIMIT,
    )
    .await
    .unwrap();
    let wish = world.wish(|job| {
        job.run = inline(&script);
        job.projects = vec!["org/lib".into()];
    });
    let (result, kept, _) = world.whole(&wish).await;
    let console = &kept["console.txt"];
    assert_eq!(result, RunResult::Success, "{console}");
    let mut lines = said(console);
    lines.retain(|line| !line.starts_with("fatal: "));
    assert_eq!(own(&lines), format!("tested|none|none|{refs}|sent 1"));
}
