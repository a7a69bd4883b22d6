//! What of a run's folder goes where in the archive: no two files under one name, nothing that is secret by its name,
//! and not more than may be kept.

use super::path::{PATH_MAX_BYTES, plain_name};
use std::collections::BTreeSet;

/// Files of one run that are kept at most.
pub const FILES_MAX: usize = 20_000;
/// Bytes of one run that are kept at most, before they are compressed.
pub const RUN_MAX_BYTES: u64 = 2 << 30;
/// Bytes of one file that are kept at most: of a longer text its beginning and its end, of anything else nothing.
pub const FILE_MAX_BYTES: u64 = 256 << 20;
/// Files at most whose names would be the same.
const SAME_NAME_MAX: usize = 100;
/// Names that are ours at the top of a run.
const OURS: [&str; 2] = ["index.html", "console.html"];
/// Which folders come first when not everything may be kept: what the job chose to keep before what nodes are asked.
const FIRST: [&str; 5] = ["console.txt", "zuul-info/", "te/", "logs/", "artifacts/"];

/// A file of the run's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Relative to the folder, with slashes.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// Where a file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Into the archive.
    Kept {
        /// From here.
        source: String,
        /// Relative to the run's place in the archive; as people see it.
        target: String,
    },
    /// Not into the archive.
    LeftOut {
        /// Which.
        source: String,
        /// Why.
        why: &'static str,
    },
}

/// Where each file goes. The same files always go to the same places.
#[must_use]
pub fn arrange(mut sources: Vec<Source>) -> Vec<Placed> {
    sources.sort_by(|a, b| (urgency(&a.path), &a.path).cmp(&(urgency(&b.path), &b.path)));
    let mut taken: BTreeSet<String> = OURS.iter().map(|name| (*name).to_owned()).collect();
    let (mut files, mut bytes) = (0, 0_u64);
    let mut out = Vec::with_capacity(sources.len());
    for Source { path: source, bytes: size } in sources {
        let size = size.min(FILE_MAX_BYTES);
        let why = if is_secret(&source) {
            Some("keys and passwords are never kept")
        } else if files == FILES_MAX {
            Some("more than 20,000 files")
        } else if bytes.saturating_add(size) > RUN_MAX_BYTES {
            Some("more than 2 GiB in all")
        } else {
            None
        };
        let target = target(&source, &taken);
        match (why, target) {
            (None, Some(target)) => {
                files += 1;
                bytes += size;
                taken.insert(seen_as(&target).to_owned());
                out.push(Placed::Kept { source, target });
            }
            (why, _) => {
                out.push(Placed::LeftOut {
                    source,
                    why: why.unwrap_or("its path is too long or too often the same"),
                });
            }
        }
    }
    out
}

/// The name under which people see a stored file: compressed text has `.gz` appended.
#[must_use]
pub fn seen_as(stored: &str) -> &str {
    match stored.strip_suffix(".gz") {
        Some(name) if !name.ends_with(".tar") && !name.is_empty() => name,
        Some(_) | None => stored,
    }
}

/// The name under which a file is stored.
#[must_use]
pub fn stored_as(target: &str, is_text: bool) -> String {
    if is_text {
        format!("{}.gz", seen_as(target))
    } else if seen_as(target) != target || target.rsplit('/').next() == Some("index.html") {
        // Something compressed that is no text would be taken for text, and a page for one of ours.
        format!("{target}.bin")
    } else {
        target.to_owned()
    }
}

fn urgency(path: &str) -> usize {
    FIRST.iter().position(|first| path.starts_with(first)).unwrap_or(FIRST.len())
}

/// What a job left in `logs/` lies at the top, as it always did (origin.md 9.3, 9.4).
fn target(source: &str, taken: &BTreeSet<String>) -> Option<String> {
    let below = source.strip_prefix("logs/").unwrap_or(source);
    let names = below.split('/').filter(|name| !name.is_empty()).map(plain_name);
    let plain = names.collect::<Vec<_>>().join("/");
    if plain.is_empty() || plain.len() + 16 > PATH_MAX_BYTES {
        return None;
    }
    if !taken.contains(seen_as(&plain)) {
        return Some(plain);
    }
    (2..=SAME_NAME_MAX)
        .map(|n| format!("{}.{n}", seen_as(&plain)))
        .find(|name| !taken.contains(name))
}

/// Whether a file is a key or a list of passwords, by its path on the machine it came from.
#[must_use]
pub fn is_secret(path: &str) -> bool {
    let small = path.to_ascii_lowercase();
    let name = small.rsplit('/').next().unwrap_or(&small);
    let in_folder = |folder: &str| {
        small.contains(&format!("/{folder}/")) || small.starts_with(&format!("{folder}/"))
    };
    let ends = [
        ".pem",
        ".key",
        ".p12",
        ".pfx",
        ".jks",
        ".keytab",
        ".kdbx",
        ".ppk",
        ".ovpn",
        "_rsa",
        "_dsa",
        "_ecdsa",
        "_ed25519",
        "_key",
        "-passwords",
        "_passwords",
        ".htpasswd",
    ];
    let names = [
        "shadow",
        "shadow-",
        "gshadow",
        "gshadow-",
        "opasswd",
        "sudoers",
        ".netrc",
        ".pgpass",
        ".my.cnf",
        ".git-credentials",
        "credentials",
        "clouds.yaml",
        "secure.yaml",
        "authorized_keys",
        "te.json",
        ".npmrc",
        ".pypirc",
        "stackrc",
        "seedrc",
        "undercloudrc",
        "overcloudrc",
        "debian.cnf",
        "random_seed",
        "random-seed",
        "krb5.keytab",
        "fernet-keys",
    ];
    names.contains(&name)
        || ends.iter().any(|end| name.ends_with(end))
        || [".ssh", ".gnupg", "private", "ssl/certs", "pki", "fernet-keys", "sudoers.d", "secrets"]
            .iter()
            .any(|f| in_folder(f))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str) -> Source {
        Source { path: path.to_owned(), bytes: 1 }
    }

    fn kept(paths: &[&str]) -> Vec<(String, String)> {
        let placed = arrange(paths.iter().map(|p| source(p)).collect());
        let kept = placed.into_iter().filter_map(|p| match p {
            Placed::Kept { source, target } => Some((source, target)),
            Placed::LeftOut { .. } => None,
        });
        kept.collect()
    }

    fn pair(source: &str, target: &str) -> (String, String) {
        (source.to_owned(), target.to_owned())
    }

    #[test]
    fn the_job_cannot_take_our_names_and_no_two_files_share_one() {
        let found = kept(&[
            "logs/console.txt",
            "console.txt",
            "logs/index.html",
            "logs/console.html",
            "logs/a.log",
            "logs/a.log.gz",
            "a.log",
            "logs/te/seed.txt",
            "te/seed.txt",
            "logs/x.tar.gz",
            "logs/x.tar",
        ]);
        assert_eq!(found[0], pair("console.txt", "console.txt"));
        for wanted in [
            pair("logs/console.txt", "console.txt.2"),
            pair("logs/index.html", "index.html.2"),
            pair("logs/console.html", "console.html.2"),
            pair("te/seed.txt", "te/seed.txt"),
            pair("logs/te/seed.txt", "te/seed.txt.2"),
            pair("logs/a.log", "a.log"),
            pair("logs/a.log.gz", "a.log.2"),
            pair("a.log", "a.log.3"),
            pair("logs/x.tar", "x.tar"),
            pair("logs/x.tar.gz", "x.tar.gz"),
        ] {
            assert!(found.contains(&wanted), "{wanted:?} in {found:?}");
        }
        let seen: BTreeSet<&str> = found.iter().map(|(_, target)| seen_as(target)).collect();
        assert_eq!(seen.len(), found.len());
    }

    #[test]
    fn keys_and_passwords_are_left_out() {
        for secret in [
            "node/etc/shadow",
            "node/etc/ssh/ssh_host_rsa_key",
            "logs/home/.ssh/id_rsa",
            "logs/.ssh/known_hosts",
            "te/seed/etc/pki/x",
            "logs/tripleo-undercloud-passwords",
            "logs/etc/ssl/private/a.crt",
            "logs/server.KEY",
            "logs/clouds.yaml",
            "logs/te.json",
        ] {
            assert!(is_secret(secret), "{secret}");
            assert_eq!(kept(&[secret]), []);
        }
        for harmless in [
            "logs/etc/passwd",
            "logs/keystone.log",
            "logs/monkey",
            "logs/shadow.txt",
            "console.txt",
            "logs/private.txt",
        ] {
            assert!(!is_secret(harmless), "{harmless}");
        }
    }

    #[test]
    fn what_is_too_much_is_left_out_and_the_console_never() {
        let mut sources: Vec<Source> =
            (0..FILES_MAX).map(|n| source(&format!("logs/{n}"))).collect();
        sources.push(source("console.txt"));
        let placed = arrange(sources);
        assert_eq!(
            placed[0],
            Placed::Kept { source: "console.txt".into(), target: "console.txt".into() }
        );
        let out = placed
            .iter()
            .filter(|p| matches!(p, Placed::LeftOut { why: "more than 20,000 files", .. }));
        assert_eq!(out.count(), 1);
        let both = [source("node/a"), source("logs/z"), source("te/b")].into();
        let order: Vec<Placed> = arrange(both);
        let sources = order.iter().map(|p| match p {
            Placed::Kept { source, .. } | Placed::LeftOut { source, .. } => source.as_str(),
        });
        assert_eq!(sources.collect::<Vec<_>>(), ["te/b", "logs/z", "node/a"]);
        let big = |path: &str| Source { path: path.to_owned(), bytes: u64::MAX };
        let nine = (0..9).map(|n| big(&format!("logs/{n}"))).collect();
        let out = arrange(nine).into_iter().filter(|p| matches!(p, Placed::LeftOut { .. }));
        assert_eq!(out.count(), 1, "eight times 256 MiB are 2 GiB");
        let long = format!("logs/{}", "d/".repeat(600));
        assert_eq!(kept(&[&long]), []);
    }

    #[test]
    fn stored_names_and_seen_names_belong_together() {
        for (target, is_text, stored, seen) in [
            ("a.log", true, "a.log.gz", "a.log"),
            ("a.log.gz", true, "a.log.gz", "a.log"),
            ("a.png", false, "a.png", "a.png"),
            ("a.tar.gz", false, "a.tar.gz", "a.tar.gz"),
            ("a.qcow2.gz", false, "a.qcow2.gz.bin", "a.qcow2.gz.bin"),
            ("a/index.html", false, "a/index.html.bin", "a/index.html.bin"),
            ("a/index.html", true, "a/index.html.gz", "a/index.html"),
        ] {
            assert_eq!(stored_as(target, is_text), stored);
            assert_eq!(seen_as(stored), seen);
        }
    }
}
