//! Who is in a process group, read from /proc.

use nix::unistd::Pid;
use std::fs;

/// Whether a process of `group` other than `leader` still runs. Processes that have ended and only wait to be
/// collected do not count.
pub(super) fn others_live(group: Pid, leader: Pid) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != leader.as_raw())
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
        .any(|stat| is_live_member(&stat, group))
}

/// Reads one line of /proc/PID/stat: `pid (name) state ppid pgrp …`; the name may hold anything.
fn is_live_member(stat: &str, group: Pid) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    let state = fields.next().unwrap_or_default();
    let process_group = fields.nth(1).and_then(|f| f.parse::<i32>().ok());
    process_group == Some(group.as_raw()) && !matches!(state, "Z" | "X" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name() {
        let group = Pid::from_raw(77);
        assert!(is_live_member("80 (a) b) S 1 77 77 0", group));
        assert!(!is_live_member("80 (a) b) Z 1 77 77 0", group));
        assert!(!is_live_member("80 (a) S 1 78 77 0", group));
        assert!(!is_live_member("", group));
    }
}
