//! Full disks, with file systems of a few MiB that really are full.

use std::time::Duration;

use anyhow::Result;
use e2e::{Ci, Lab, wait_for};
use toci_client::api::ClientError;
use toci_wire::api::{LeaseRequest, Release, TeState};

/// A command, on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A file system in the lab's own mount namespace, with nothing on it.
fn small_file_system(lab: &Lab, name: &str, size: &str) -> Result<String> {
    let folder = lab.folder().join(name).display().to_string();
    std::fs::create_dir(&folder)?;
    lab.read("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs", &folder])?;
    Ok(folder)
}

/// Fills what room there is, to the last byte.
fn fill(lab: &Lab, folder: &str) -> Result<()> {
    let script = r#"! cat /dev/zero >"$0/ballast" 2>/dev/null && df "$0" | grep -q '100%'"#;
    lab.read("sh", &["-c", script, folder]).map(drop)
}

fn free(lab: &Lab, folder: &str) -> Result<()> {
    lab.read("rm", &[format!("{folder}/ballast")]).map(drop)
}

/// Asks for leases and gives them back until one call fails, which it must: every call is written down.
fn ask_until_it_fails(ci: &Ci) -> Result<ClientError> {
    let ask = || -> Result<(), ClientError> {
        let lease = ci.wait(ci.api().request_lease(&LeaseRequest::default()))?;
        ci.wait(ci.api().release(&lease.id, &Release::default())).map(drop)
    };
    wait_for("a call to fail", COMMAND_LIMIT, || match ask() {
        Ok(()) => anyhow::bail!("the server could write"),
        Err(error) => Ok(error),
    })
}

/// The lease that is being used, with what it has.
fn held(ci: &Ci) -> Result<Vec<(String, u64, Option<String>)>> {
    let all = ci.ask(ci.api().testenvs())?;
    let held = all.into_iter().filter(|te| te.state == TeState::Leased);
    Ok(held.map(|te| (te.id, te.generation, te.lease)).collect())
}

#[test]
fn a_server_whose_disk_is_full_says_so_loses_nothing_and_goes_on_when_there_is_room() {
    let lab = Lab::start().unwrap();
    let state = small_file_system(&lab, "server", "6m").unwrap();
    let mut ci = Ci::start_in(lab, 2).unwrap();
    let folder = ci.lab.folder().display().to_string();
    let script = format!("echo up; until test -e {folder}/go; do sleep 0.1; done; exit 7");
    let mut holder = ci.lease_run("holder", &[], &script).unwrap();
    holder.wait_for_line("up").unwrap();
    let before = held(&ci).unwrap();
    assert_eq!(before.len(), 1, "{before:?}");

    fill(&ci.lab, &state).unwrap();
    let told = ask_until_it_fails(&ci).unwrap();
    assert_eq!((told.status(), told.code()), (Some(503), Some("disk_full")), "{told:?}");
    let mut refused = ci.lease_run("refused", &[], "echo ran").unwrap();
    assert_eq!(refused.wait(COMMAND_LIMIT).unwrap().code(), Some(1), "{}", refused.log());
    let said = refused.log();
    assert!(
        said.contains(&state) && said.contains("hint: free space there"),
        "{said}\n{}",
        ci.logs()
    );
    assert_eq!(refused.output(), "");
    assert_eq!(held(&ci).unwrap(), before, "it still answers, and the holder has its TE");

    free(&ci.lab, &state).unwrap();
    let mut next = ci.lease_run("next", &[], "$GATE virsh list --all").unwrap();
    let status = next.wait(COMMAND_LIMIT).unwrap();
    assert!(status.success(), "{status}\n{}\n{}", next.log_tail(), ci.logs());

    // Killed while it is full: it says why it cannot start, and starts when it can.
    fill(&ci.lab, &state).unwrap();
    ask_until_it_fails(&ci).unwrap();
    ci.kill_server().unwrap();
    let mut server = ci.spawn_server().unwrap();
    assert_eq!(server.wait(COMMAND_LIMIT).unwrap().code(), Some(1), "{}", server.log());
    let said = server.log();
    assert!(said.contains(&state) && said.contains("hint: free space there"), "{said}");
    free(&ci.lab, &state).unwrap();
    ci.start_server().unwrap();
    assert_eq!(held(&ci).unwrap(), before, "nothing granted is lost or granted twice");
    std::fs::write(format!("{folder}/go"), "").unwrap();
    let status = holder.wait(COMMAND_LIMIT).unwrap();
    assert_eq!(status.code(), Some(7), "{}\n{}", holder.log(), ci.logs());
    ci.wait_for_testenvs("ready", COMMAND_LIMIT, |all| {
        all.iter().all(|te| te.state == TeState::Ready)
    })
    .unwrap();
}

#[test]
fn a_te_datafile_that_does_not_fit_is_told_and_the_lease_given_back() {
    let ci = Ci::start(1).unwrap();
    let full = small_file_system(&ci.lab, "run", "64k").unwrap();
    fill(&ci.lab, &full).unwrap();
    let toci = e2e::binary("toci").unwrap().display().to_string();
    let variable = format!("XDG_RUNTIME_DIR={full}");
    let command = ["env", &variable, &toci, "lease", "run", "--quiet", "--", "echo", "ran"];
    let mut client = ci.spawn_client("client", &command).unwrap();
    let status = client.wait(COMMAND_LIMIT).unwrap();
    let said = client.log();
    assert_eq!((status.code(), client.output().as_str()), (Some(125), ""), "{said}");
    assert!(said.contains(&full) && said.contains("No space left"), "{said}");
    assert!(said.contains("hint: free space there"), "{said}");
    let leases = ci.ask(ci.api().leases(true)).unwrap();
    assert_eq!(leases[0].state, toci_wire::api::LeaseState::Released, "{leases:#?}");
    let left = ci.lab.read("ls", &[&full]).unwrap();
    assert_eq!(left.trim(), "ballast", "no half of a key is left behind");
}
