//! The decision.

use super::found::{AtServer, ConfigState, Found, Services, Standing};
use super::step::Step;
use super::wish::Wish;
use crate::refused::Refused;

/// Oldest release of Debian that has what we need.
const DEBIAN_MIN: u32 = 12;
/// Free disk beside the program, MiB.
const DISK_FREE_MIN_MIB: u64 = 1024;
/// A machine with less memory carries no TE, MiB.
const MEMORY_MIN_MIB: u64 = 1024;

/// What may happen to TEs that somebody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturb {
    /// Nothing.
    Never,
    /// They have been drained, or may be lost.
    Leases,
}

/// What has to be done, in this order.
///
/// # Errors
/// The machine cannot be a TE host, or leases would be disturbed.
pub fn plan(
    wish: &Wish,
    found: &Found,
    server: &AtServer,
    disturb: Disturb,
) -> Result<Vec<Step>, Refused> {
    fits(wish, found)?;
    let mut steps = Vec::new();
    if !found.missing_packages.is_empty() {
        steps.push(Step::Packages { names: found.missing_packages.clone() });
    }
    if !found.installed.contains(&wish.version) {
        steps.push(Step::Program { version: wish.version.clone(), bytes: wish.program_bytes });
    }
    match &found.config {
        ConfigState::Missing => {
            steps.push(Step::Configure { is_new: true, differences: Vec::new() });
        }
        ConfigState::Same => {}
        ConfigState::Differs(differences) => {
            steps.push(Step::Configure { is_new: false, differences: differences.clone() });
        }
    }
    let enrol = match (server.is_enrolled, found.has_credential) {
        (true, true) => None,
        (true, false) => Some("it has no credential (the server knows the name: its old one dies)"),
        (false, true) => Some("the server does not know it (any more)"),
        (false, false) => Some("it is new"),
    };
    steps.extend(enrol.map(|because| Step::Enrol { because }));
    let service = match found.services {
        Services::Systemd => &wish.unit,
        Services::None => &wish.keeper,
    };
    if found.service.as_ref() != Some(service) {
        steps.push(Step::Service { services: found.services, is_new: found.service.is_none() });
    }
    steps.extend(last_step(wish, found, enrol.is_some()));
    if let Some(Step::Restart { because, .. }) = steps.last()
        && disturb == Disturb::Never
        && !server.in_use.is_empty()
    {
        return Err(Refused::new(
            "in_use",
            format!("{} cannot change while {} in use", because.join(", "), are(&server.in_use)),
            "--drain waits until the leases are over; --now ends them",
        ));
    }
    Ok(steps)
}

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn fits(wish: &Wish, found: &Found) -> Result<(), Refused> {
    let no = |code, message: String, hint: &str| Err(Refused::new(code, message, hint));
    if !found.is_root {
        return no("not_root", "the SSH user is not root there".into(), "use --ssh root@…");
    }
    let release: Option<u32> =
        found.release.split('.').next().filter(|r| !r.is_empty()).and_then(|r| r.parse().ok());
    // Testing and unstable have no number.
    if found.distribution != "debian" || release.is_some_and(|r| r < DEBIAN_MIN) {
        let what = format!("it runs {} {}", found.distribution, found.release);
        return no("not_debian", what, "a TE host is set up on Debian 12 or newer");
    }
    if found.arch != wish.arch {
        let what = format!("it is {}, and the program is for {}", found.arch, wish.arch);
        return no("wrong_arch", what, "name a toci-host that was built for it with --binary");
    }
    if found.memory_mib < MEMORY_MIN_MIB {
        let what = format!("it has {} MiB of memory", found.memory_mib);
        return no("too_small", what, "a TE host needs 1024 MiB and what its TEs take");
    }
    let disk = DISK_FREE_MIN_MIB + (wish.program_bytes >> 20);
    if found.disk_free_mib < disk {
        let what = format!("{} MiB are free there", found.disk_free_mib);
        return no("disk_full", what, "free 1 GiB and what its TEs take, or name another `state`");
    }
    if found.standing == Standing::Foreign {
        return no(
            "foreign",
            "a toci-host that was not deployed by us runs there on the same state".into(),
            "stop it first: its credential and its TEs are taken over",
        );
    }
    Ok(())
}

/// How what is installed comes to run.
fn last_step(wish: &Wish, found: &Found, is_enrolled_anew: bool) -> Option<Step> {
    let version = wish.version.clone();
    let from = match &found.standing {
        Standing::Stopped | Standing::Foreign => return Some(Step::Start { version }),
        Standing::Unwell => None,
        Standing::Well(from) => Some(from.clone()),
    };
    let differences = match &found.config {
        ConfigState::Missing | ConfigState::Same => &[][..],
        ConfigState::Differs(differences) => differences,
    };
    let is_taken_up = |key: &str| key == "server" || key.starts_with("server.");
    let because: Vec<String> =
        differences.iter().filter(|d| !is_taken_up(&d.key)).map(|d| d.key.clone()).collect();
    if !because.is_empty() {
        return Some(Step::Restart { version, because });
    }
    let is_there = found.current.as_ref() == Some(&version)
        && (from.is_none() || from.as_ref() == Some(&version));
    let is_same = is_there && differences.is_empty() && !is_enrolled_anew;
    (!is_same).then_some(Step::HandOver { from, to: version })
}

#[cfg(test)]
mod tests {
    use super::super::found::Difference;
    use super::super::step::Describe;
    use super::super::wish::{PACKAGES, Version};
    use super::*;

    fn wish() -> Wish {
        Wish {
            version: Version::of("1.0.0", "0123456789abcdef"),
            program_bytes: 30 << 20,
            arch: "x86_64".into(),
            unit: "unit".into(),
            keeper: "keeper".into(),
        }
    }

    fn bare() -> Found {
        Found {
            distribution: "debian".into(),
            release: "12".into(),
            arch: "x86_64".into(),
            is_root: true,
            memory_mib: 8192,
            cpus: 2,
            state: "/var/lib/toci-host".into(),
            disk_free_mib: 100_000,
            services: Services::Systemd,
            missing_packages: vec!["ethtool".into()],
            installed: Vec::new(),
            current: None,
            previous: None,
            config: ConfigState::Missing,
            service: None,
            has_credential: false,
            standing: Standing::Stopped,
        }
    }

    fn done() -> Found {
        let version = wish().version;
        Found {
            missing_packages: Vec::new(),
            installed: vec![version.clone()],
            current: Some(version.clone()),
            config: ConfigState::Same,
            service: Some("unit".into()),
            has_credential: true,
            standing: Standing::Well(version),
            ..bare()
        }
    }

    fn enrolled() -> AtServer {
        AtServer { is_enrolled: true, in_use: vec!["t-1".into()] }
    }

    fn text(found: &Found, server: &AtServer) -> String {
        Describe(&plan(&wish(), found, server, Disturb::Never).unwrap()).to_string()
    }

    fn differs(key: &str) -> ConfigState {
        let (from, to) = (Some("1".to_owned()), None);
        ConfigState::Differs(vec![Difference { key: key.into(), from, to }])
    }

    #[test]
    fn a_bare_machine_needs_everything_and_a_finished_one_nothing() {
        let expected = "\
+ packages   ethtool
+ program    toci-host 1.0.0-0123456789ab (32 MB)
+ configure  there is none yet
+ enrol      it is new
+ service    a unit of systemd
> start      1.0.0-0123456789ab";
        assert_eq!(text(&bare(), &AtServer::default()), expected);
        assert_eq!(text(&done(), &enrolled()), "nothing to do");
        // One that is still starting is waited for.
        let unwell = Found { standing: Standing::Unwell, ..done() };
        assert_eq!(text(&unwell, &enrolled()), "nothing to do");
    }

    #[test]
    fn a_new_version_takes_over_while_leases_go_on() {
        let old = Version::of("0.9.0", "ff");
        let found = Found {
            installed: vec![old.clone()],
            current: Some(old.clone()),
            standing: Standing::Well(old),
            ..done()
        };
        let said = text(&found, &enrolled());
        assert!(
            said.ends_with(
                "> hand over  from 0.9.0-ff to 1.0.0-0123456789ab: machines and leases go on"
            ),
            "{said}"
        );
        assert_eq!(said.lines().count(), 2, "{said}");
    }

    #[test]
    fn settings_that_end_leases_wait_for_their_end() {
        let found = Found { config: differs("network.address"), ..done() };
        let refused = plan(&wish(), &found, &enrolled(), Disturb::Never).unwrap_err();
        assert_eq!(refused.code, "in_use");
        assert!(refused.message.contains("network.address cannot change while t-1 is in use"));
        let steps = plan(&wish(), &found, &enrolled(), Disturb::Leases).unwrap();
        assert!(matches!(steps.last(), Some(Step::Restart { .. })), "{steps:?}");
        let free = AtServer { is_enrolled: true, in_use: Vec::new() };
        assert!(plan(&wish(), &found, &free, Disturb::Never).is_ok());
        // Where the server is concerns no lease.
        let moved = text(&Found { config: differs("server.url"), ..done() }, &enrolled());
        assert!(moved.contains("server.url: 1 -> (unset)\n> hand over"), "{moved}");
    }

    #[test]
    fn one_that_the_server_forgot_is_enrolled_again() {
        let said = text(&done(), &AtServer::default());
        assert!(said.contains("+ enrol      the server does not know it"), "{said}");
        assert!(said.contains("> hand over"), "{said}");
        let lost = Found { has_credential: false, ..done() };
        assert!(text(&lost, &enrolled()).contains("it has no credential"));
    }

    #[test]
    fn what_cannot_be_a_te_host_is_refused() {
        let cases = [
            ("not_root", Found { is_root: false, ..bare() }),
            ("not_debian", Found { distribution: "fedora".into(), ..bare() }),
            ("not_debian", Found { release: "11".into(), ..bare() }),
            ("wrong_arch", Found { arch: "aarch64".into(), ..bare() }),
            ("too_small", Found { memory_mib: 512, ..bare() }),
            ("disk_full", Found { disk_free_mib: 1000, ..bare() }),
            ("foreign", Found { standing: Standing::Foreign, ..bare() }),
        ];
        for (code, found) in cases {
            let refused = plan(&wish(), &found, &AtServer::default(), Disturb::Never).unwrap_err();
            assert_eq!(refused.code, code);
        }
        let testing = Found { release: String::new(), ..bare() };
        assert!(plan(&wish(), &testing, &AtServer::default(), Disturb::Never).is_ok());
    }

    #[test]
    fn names_of_versions_cannot_lead_elsewhere() {
        assert_eq!(Version::named("1.0.0-0123456789ab"), Some(wish().version));
        for bad in ["", "..", "../x-1", "-x", "current", "a/b-c", "a b-c"] {
            assert_eq!(Version::named(bad), None, "{bad}");
        }
    }

    #[test]
    fn packages_are_those_that_the_project_lists() {
        let list = include_str!("../../../../xtask/packages.txt");
        let (_, section) = list.split_once("# A TE host\n").unwrap();
        let section = section.split("\n\n").next().unwrap();
        let listed: Vec<&str> =
            section.lines().filter_map(|l| l.split_whitespace().next()).collect();
        // util-linux is on every Debian.
        let ours: Vec<&str> = PACKAGES.into_iter().chain(["util-linux"]).collect();
        assert_eq!(ours, listed);
    }
}
