//! `user@host:port`, as people write it for SSH.

use std::fmt;
use std::str::FromStr;

/// Port of SSH.
const SSH_PORT: u16 = 22;

/// Where an SSH server is, and as whom to go there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The user.
    pub user: String,
    /// A name or an address; one of IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Destination {
    /// As `known_hosts` names it.
    #[must_use]
    pub fn known_as(&self) -> String {
        match self.port {
            SSH_PORT => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Destination { user, host, port } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        match *port {
            SSH_PORT => write!(f, "{user}@{host}"),
            port => write!(f, "{user}@{host}:{port}"),
        }
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Destination, String> {
        let bad = || format!("`{text}` is not of the form root@ADDRESS or root@ADDRESS:PORT");
        let (user, place) = text.rsplit_once('@').ok_or_else(bad)?;
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
                (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("")))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, Some("")),
            },
        };
        let port = match port.ok_or_else(bad)? {
            "" if place.ends_with(':') => return Err(bad()),
            "" => SSH_PORT,
            port => port.parse().map_err(|_| bad())?,
        };
        // Neither may be taken for an option of ssh.
        let is_word = |w: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
            !w.is_empty() && !w.starts_with('-') && w.chars().all(fits)
        };
        if !is_word(user) || !is_word(host) || user.contains(':') || port == 0 {
            return Err(bad());
        }
        Ok(Destination { user: user.to_owned(), host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_and_written() {
        for (text, known_as) in [
            ("root@192.0.2.7", "192.0.2.7"),
            ("root@te-1.example.org:2222", "[te-1.example.org]:2222"),
            ("root@[2001:db8::7]", "2001:db8::7"),
            ("root@[2001:db8::7]:2222", "[2001:db8::7]:2222"),
        ] {
            let read: Destination = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
            assert_eq!(read.known_as(), known_as);
        }
        for bad in [
            "",
            "root",
            "@h",
            "root@",
            "root@h:",
            "root@h:0",
            "root@h:x",
            "root@-oX",
            "-o@h",
            "root@h h",
            "root@[::1",
            "root@[::1]x",
            "root@::1",
            "a:b@h",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }
}
