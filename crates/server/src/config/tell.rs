//! `[smtp]` and `[webhook]`: how reports go out to others than sources.

use crate::broker::host_name;
use serde::Deserialize;
use std::path::PathBuf;
use toci_core::chain::Chain;
use toci_edge::http::{Secret, Trust, secret_in};
use toci_edge::tell::smtp::{self, MailTls, SmtpConfig};
use toci_edge::tell::webhook::WebhookConfig;
use toci_wire::settings::Wrong;

/// Port of mail servers; of those for users when STARTTLS is asked for; of those that begin with TLS.
const PORTS: [u16; 3] = [25, 587, 465];

/// `[smtp]`; names and defaults are those of zuul.conf (origin.md 7.7), and what TLS and a login need.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SmtpFile {
    server: Option<String>,
    port: Option<u16>,
    default_from: Option<String>,
    default_to: Option<String>,
    tls: Option<Tls>,
    ca: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    hello: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tls {
    Off,
    Starttls,
    Implicit,
}

/// `[webhook]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebhookFile {
    secret_file: Option<PathBuf>,
}

pub(super) fn smtp(file: SmtpFile) -> Result<SmtpConfig, Wrong> {
    let (tls, port) = match file.tls.unwrap_or(Tls::Off) {
        Tls::Off => (MailTls::Off, PORTS[0]),
        Tls::Starttls => (MailTls::Starttls, PORTS[1]),
        Tls::Implicit => (MailTls::Implicit, PORTS[2]),
    };
    let login = match (file.user, file.password_file) {
        (Some(user), Some(path)) => Some((user, secret("password_file", &path)?)),
        (None, None) => None,
        (Some(_), None) => return Err(Wrong::at("password_file", "user needs it")),
        (None, Some(_)) => return Err(Wrong::at("user", "password_file needs it")),
    };
    if login.is_some() && tls == MailTls::Off {
        let why =
            "user without TLS would tell everybody the password: use \"starttls\" or \"implicit\"";
        return Err(Wrong::at("tls", why));
    }
    let config = SmtpConfig {
        host: file.server.unwrap_or_else(|| "localhost".to_owned()),
        port: file.port.unwrap_or(port),
        tls,
        trust: file.ca.map_or(Trust::System, Trust::File),
        login,
        from: file.default_from.unwrap_or_else(|| "zuul".to_owned()),
        to: file.default_to.unwrap_or_else(|| "zuul".to_owned()),
        hello: file.hello.unwrap_or_else(host_name),
    };
    smtp::check(&config).map_err(|e| Chain(&e).to_string())?;
    Ok(config)
}

pub(super) fn webhook(file: WebhookFile) -> Result<WebhookConfig, Wrong> {
    let path = file.secret_file;
    let secret = path.map(|path| secret("secret_file", &path)).transpose()?;
    Ok(WebhookConfig { secret })
}

fn secret(key: &str, path: &std::path::Path) -> Result<Secret, Wrong> {
    secret_in(path).map_err(|e| Wrong::at(key, Chain(&e).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SmtpConfig, String> {
        let file = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        smtp(file).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn defaults_are_zuuls() {
        let config = read("").unwrap();
        assert_eq!(
            (config.host.as_str(), config.port, config.tls),
            ("localhost", 25, MailTls::Off)
        );
        assert_eq!((config.from.as_str(), config.to.as_str()), ("zuul", "zuul"));
        assert_eq!(read("tls = \"starttls\"").unwrap().port, 587);
        assert_eq!(read("tls = \"implicit\"").unwrap().port, 465);
    }

    #[test]
    fn what_cannot_work_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hush\n").unwrap();
        let login = format!("user = \"u\"\npassword_file = \"{}\"", file.display());
        for (text, expected) in [
            ("default_to = \"a b\"", "`a b` is not a mail address"),
            ("user = \"u\"", "password_file: user needs it"),
            ("password_file = \"/x\"", "user: password_file needs it"),
            ("user = \"u\"\npassword_file = \"/nonexistent\"", "password_file: read secret"),
            ("host = \"x\"", "unknown field `host`"),
            (&login, "tls: user without TLS"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        }
        let config = read(&format!("{login}\ntls = \"starttls\"")).unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        assert_eq!(config.login.unwrap().1.reveal(), "hush");
        let missing = WebhookFile { secret_file: Some("/nonexistent".into()) };
        assert!(webhook(missing).unwrap_err().to_string().starts_with("secret_file: read secret"));
        assert_eq!(
            webhook(WebhookFile { secret_file: Some(file) }).unwrap().secret.unwrap().reveal(),
            "hush"
        );
    }

    #[test]
    fn the_documented_settings_can_be_used() {
        let page = include_str!("../../../../docs/reports.md");
        let text = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Page {
            smtp: SmtpFile,
            webhook: WebhookFile,
        }
        let page: Page = toml::from_str(text).unwrap();
        let told = [smtp(page.smtp).unwrap_err(), webhook(page.webhook).unwrap_err()];
        let told = told.map(|wrong| wrong.to_string());
        assert!(told[0].starts_with("password_file: read secret"), "{told:?}");
        assert!(told[1].starts_with("secret_file: read secret"), "{told:?}");
    }
}
