//! What is taken out of texts before they are kept: private keys everywhere, passwords from what describes a machine.

use std::borrow::Cow;

/// What stands in the place of a secret.
pub const MASK: &str = "********";
/// Lines of a private key at most; what has more is no key.
const KEY_LINES_MAX: usize = 200;

/// How much is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// What a job wrote itself: private keys, and passwords in URLs.
    Output,
    /// A machine's configuration: that, and every value whose name says that it is a secret.
    Configuration,
}

impl Care {
    /// For a file of the archive.
    #[must_use]
    pub fn of(path: &str) -> Care {
        let names: Vec<&str> = path.split('/').collect();
        let last = names.last().copied().unwrap_or_default();
        let configuration = names.contains(&"etc")
            || last.starts_with("host_info")
            || last.ends_with(".conf")
            || last.ends_with(".ini")
            || last.ends_with(".json");
        if configuration { Care::Configuration } else { Care::Output }
    }
}

/// Goes through a text line by line.
#[derive(Debug)]
pub struct Scrubber {
    care: Care,
    /// Lines of a private key that were left out so far.
    key_lines: Option<usize>,
}

impl Scrubber {
    /// At the beginning of a text.
    #[must_use]
    pub fn new(care: Care) -> Scrubber {
        Scrubber { care, key_lines: None }
    }

    /// The line without its secrets. Lines stay lines, so that their numbers stay the same.
    pub fn line<'a>(&mut self, line: &'a str) -> Cow<'a, str> {
        if let Some(count) = self.key_lines {
            let over = line.contains("-----END ") || count == KEY_LINES_MAX;
            self.key_lines = (!over).then_some(count + 1);
            return Cow::Borrowed(MASK);
        }
        if let Some(at) = line.find("-----BEGIN ").filter(|at| line[*at..].contains("PRIVATE KEY"))
        {
            if !line[at..].contains("-----END ") {
                self.key_lines = Some(0);
            }
            return Cow::Owned(format!("{}(a private key was taken out here)", &line[..at]));
        }
        let line = without_url_password(line);
        match self.care {
            Care::Output => line,
            Care::Configuration => without_value(&line).map_or(line, Cow::Owned),
        }
    }
}

/// `mysql://nova:secret@192.0.2.1/nova` without its password.
fn without_url_password(line: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '<' | '>'));
        let authority = &after[..end.unwrap_or(after.len())];
        rest = after;
        if let Some((login, _)) = authority.rsplit_once('@')
            && let Some((user, _)) = login.split_once(':')
        {
            out.push_str(user);
            out.push(':');
            out.push_str(MASK);
            rest = &after[login.len()..];
        }
    }
    if out.is_empty() {
        return Cow::Borrowed(line);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// `admin_password = x`, `"token": "x",`, `export OS_PASSWORD=x` without the value.
fn without_value(line: &str) -> Option<String> {
    let at = line.find(['=', ':'])?;
    let (name, value) = line.split_at(at);
    let value = &value[1..];
    if !is_secret_name(name) || value.trim_matches([' ', '"', '\'', ',', '{', '[']).is_empty() {
        return None;
    }
    let blank = &value[..value.len() - value.trim_start().len()];
    let quote = if value.trim_start().starts_with('"') { "\"" } else { "" };
    let comma = if value.trim_end().ends_with(',') { "," } else { "" };
    Some(format!("{name}{}{blank}{quote}{MASK}{quote}{comma}", &line[at..=at]))
}

/// Whether a setting's name says that its value is a secret.
fn is_secret_name(name: &str) -> bool {
    let name: String = name.trim().trim_matches(['"', '\'', '-', ' ']).to_ascii_lowercase();
    // A sentence is no name.
    if name.len() > 80 || name.trim_start_matches("export ").contains(' ') {
        return false;
    }
    [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "private_key",
        "privatekey",
        "apikey",
        "api_key",
        "_pass",
        "credential",
    ]
    .iter()
    .any(|word| name.contains(word))
        && !["token_format", "token_expiration", "secret_name", "_file", "_path", "_url", "_uri"]
            .iter()
            .any(|word| name.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(care: Care, text: &str) -> String {
        let mut scrubber = Scrubber::new(care);
        let lines = text.lines().map(|line| scrubber.line(line).into_owned());
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn private_keys_go_from_every_text() {
        let text = "a\n+ echo '-----BEGIN RSA PRIVATE KEY-----\nMIIsecret\nmore\n-----END RSA PRIVATE KEY-----'\nb\n-----BEGIN CERTIFICATE-----\npublic\n-----END CERTIFICATE-----";
        let clean = scrubbed(Care::Output, text);
        assert!(!clean.contains("MIIsecret") && !clean.contains("more"), "{clean}");
        assert!(
            clean.starts_with(
                "a\n+ echo '(a private key was taken out here)\n********\n********\n********\nb\n"
            ),
            "{clean}"
        );
        assert!(clean.contains("public"));
        let in_json = r#"{"key": "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----"}"#;
        assert!(!scrubbed(Care::Output, &format!("{in_json}\nnext")).contains("abc"));
        assert!(scrubbed(Care::Output, &format!("{in_json}\nnext")).ends_with("next"));
    }

    #[test]
    fn a_key_without_an_end_hides_not_the_rest() {
        let text =
            format!("-----BEGIN PRIVATE KEY-----\n{}the end", "x\n".repeat(KEY_LINES_MAX + 1));
        assert!(scrubbed(Care::Output, &text).ends_with("the end"));
    }

    #[test]
    fn passwords_in_urls_go_from_every_text() {
        assert_eq!(
            scrubbed(
                Care::Output,
                "connection = mysql://nova:s3cret@192.0.2.1/nova?x and amqp://a:b@c"
            ),
            "connection = mysql://nova:********@192.0.2.1/nova?x and amqp://a:********@c"
        );
        for untouched in [
            "https://git.example.org/a@b",
            "ssh://jenkins@review:29418/x",
            "a://",
            "see http://x/y:z@w",
        ] {
            assert_eq!(scrubbed(Care::Output, untouched), untouched);
        }
    }

    #[test]
    fn values_of_secret_settings_go_from_configuration_only() {
        for (line, clean) in [
            ("admin_password = s3cret", "admin_password = ********"),
            ("  \"admin-token\": \"s3cret\",", "  \"admin-token\": \"********\","),
            ("export OS_PASSWORD=s3cret", "export OS_PASSWORD=********"),
            ("rabbit_pass: s3cret", "rabbit_pass: ********"),
        ] {
            assert_eq!(scrubbed(Care::Configuration, line), clean);
            assert_eq!(scrubbed(Care::Output, line), line);
        }
        for untouched in [
            "password =",
            "token_format = UUID",
            "the password is wrong: try again",
            "debug = True",
            "# secret",
            "secret_file = /etc/x",
        ] {
            assert_eq!(scrubbed(Care::Configuration, untouched), untouched);
        }
    }

    #[test]
    fn care_is_taken_by_path() {
        assert_eq!(Care::of("node/etc/nova/nova.conf"), Care::Configuration);
        assert_eq!(Care::of("te/seed/host_info.txt"), Care::Configuration);
        assert_eq!(Care::of("console.txt"), Care::Output);
        assert_eq!(Care::of("te/seed/var/log/syslog"), Care::Output);
    }
}
