//! How OpenSSH's client is called everywhere: it asks nobody, reads nobody's settings, offers no key but ours, trusts no
//! host key but the named ones, and does not wait on a dead link.

use std::ffi::OsString;
use std::path::Path;
use toci_core::shell::quoted;

/// Options that are always the same. A link that says nothing for 15 s is dead.
const ALWAYS: [&str; 11] = [
    "-F",
    "/dev/null",
    "-T",
    "-oBatchMode=yes",
    "-oPasswordAuthentication=no",
    "-oStrictHostKeyChecking=yes",
    "-oConnectTimeout=15",
    "-oLogLevel=ERROR",
    "-oServerAliveInterval=5",
    "-oServerAliveCountMax=3",
    "-oIdentitiesOnly=yes",
];

/// With this private key, and the host keys of this file.
#[must_use]
pub fn options(key: Option<&Path>, known_hosts: Option<&Path>) -> Vec<OsString> {
    let mut options: Vec<OsString> = ALWAYS.map(OsString::from).into();
    for (name, path) in [("IdentityFile", key), ("UserKnownHostsFile", known_hosts)] {
        if let Some(path) = path {
            let mut option = OsString::from(format!("-o{name}="));
            option.push(path);
            options.push(option);
        }
    }
    if known_hosts.is_some() {
        // Else the machine's own list would be believed as well.
        options.push("-oGlobalKnownHostsFile=/dev/null".into());
    }
    options
}

/// The environment by which git calls it so.
#[must_use]
pub fn git_environment(key: Option<&Path>, known_hosts: Option<&Path>) -> Vec<(String, String)> {
    let words: Vec<String> =
        options(key, known_hosts).iter().map(|word| quoted(&word.to_string_lossy())).collect();
    vec![("GIT_SSH_COMMAND".to_owned(), format!("ssh {}", words.join(" ")))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_and_nobody_else_is_trusted() {
        let environment = git_environment(Some(Path::new("/k e y")), Some(Path::new("/known")));
        let [(name, command)] = &environment[..] else { panic!("{environment:?}") };
        assert_eq!(name, "GIT_SSH_COMMAND");
        for word in [
            "'-oIdentityFile=/k e y'",
            "'-oUserKnownHostsFile=/known'",
            "'-oGlobalKnownHostsFile=/dev/null'",
            "'-oStrictHostKeyChecking=yes'",
            "'-oBatchMode=yes'",
            "'-F' '/dev/null'",
        ] {
            assert!(command.contains(word), "{word} is not in {command}");
        }
        let bare = options(None, None);
        assert!(!bare.iter().any(|o| o.to_string_lossy().contains("File")), "{bare:?}");
    }
}
