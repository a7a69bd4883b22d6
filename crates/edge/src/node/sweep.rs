//! Ending everything that a run has started on its node, also what forks for ever or has left its process group.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a sweep of a sandbox may take.
const SWEEP_LIMIT: Duration = Duration::from_secs(30);
/// The kernel's mark of a process that is ending (`PF_EXITING`), in the ninth field of `/proc/<pid>/stat`.
const ENDING: u64 = 0x4;

/// Whether a sandbox's first process runs. One that is just ending takes all others with it, before it is gone itself.
pub(super) fn lives(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may hold anything, so fields are counted after it: state is the third.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    let state = fields.next().unwrap_or("X");
    let flags: u64 = fields.nth(5).and_then(|f| f.parse().ok()).unwrap_or(ENDING);
    !matches!(state, "Z" | "X") && flags & ENDING == 0
}

/// Kills everything in the sandbox but its first process, from outside. First all of it is stopped, so that nothing
/// can fork any more, then it is killed.
pub(super) fn sweep(pid: u32) -> Result<(), String> {
    let Ok(space) = std::fs::read_link(format!("/proc/{pid}/ns/pid")) else {
        // It is gone, and everything with it.
        return Ok(());
    };
    let end = Instant::now() + SWEEP_LIMIT;
    let mut stopped = BTreeSet::new();
    loop {
        let fresh: Vec<i32> =
            members(&space, pid).into_iter().filter(|p| stopped.insert(*p)).collect();
        if fresh.is_empty() {
            break;
        }
        send(&fresh, Signal::SIGSTOP);
        if Instant::now() > end {
            return Err("it forks faster than it can be stopped".to_owned());
        }
    }
    loop {
        let left = members(&space, pid);
        if left.is_empty() {
            return Ok(());
        }
        send(&left, Signal::SIGKILL);
        if Instant::now() > end {
            return Err(format!("{} processes do not end", left.len()));
        }
        std::thread::yield_now();
    }
}

fn send(pids: &[i32], signal: Signal) {
    for pid in pids {
        // It may have ended this moment.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

/// The living processes of a pid namespace, by their numbers here, but for its first one.
fn members(space: &Path, first: u32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|p| u32::try_from(*p) != Ok(first))
        .filter(|p| {
            // A zombie has no namespace any more.
            let link = std::fs::read_link(format!("/proc/{p}/ns/pid"));
            link.is_ok_and(|link: PathBuf| link == space)
                && u32::try_from(*p).is_ok_and(|p| lives(p) || !is_zombie(p))
        })
        .collect()
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// Shell text that kills whatever has `mark` in its environment, until nothing has. It forks nothing.
pub(super) fn marked(mark: &str) -> String {
    format!(
        "for round in {{1..1000}}; do n=0; for p in /proc/[0-9]*; do q=${{p#/proc/}}; [ $q = $$ ] && continue; \
         mapfile -d '' -t e 2>/dev/null <$p/environ || continue; \
         for v in \"${{e[@]}}\"; do [ \"$v\" = {} ] && {{ kill -KILL $q 2>/dev/null && n=1; break; }}; done; done; \
         [ $n = 0 ] && exit 0; done 2>/dev/null; echo 'processes do not end' >&2; exit 1",
        toci_core::shell::quoted(mark)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_ended_and_nothing_else() {
        use std::process::Command;
        let start = |mark: &str| {
            Command::new("sleep").arg("1000").env("TOCI_TEST_MARK", mark).spawn().expect("sleep")
        };
        let (mut own, mut other) = (start("a b"), start("c"));
        let swept =
            Command::new("bash").args(["-c", &marked("TOCI_TEST_MARK=a b")]).status().unwrap();
        assert!(swept.success());
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(own.wait().unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_process_lives_until_it_has_ended() {
        assert!(lives(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let end = Instant::now() + Duration::from_secs(20);
        // Not waited for yet, it is a zombie in the end.
        while lives(pid) {
            assert!(Instant::now() < end, "process {pid} lives on");
        }
        child.wait().unwrap();
        assert!(!lives(pid));
    }
}
