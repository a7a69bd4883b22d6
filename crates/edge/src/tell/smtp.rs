//! Mail by SMTP. The protocol and the shape of messages are `lettre`'s.

use crate::http::{HttpError, Secret, Trust};
use lettre::address::AddressError;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Mailboxes, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use std::time::Duration;
use toci_core::chain::Chain;

/// Longest time for sending one mail, all of it.
pub const MAIL_LIMIT: Duration = Duration::from_secs(60);

/// Longest text of a mail, in bytes; the rest is cut off and said to be. Mail servers take ten times as much.
pub const MAIL_MAX_BYTES: usize = 1 << 20;

/// Longest subject, in characters.
pub const SUBJECT_MAX_CHARS: usize = 400;

/// How the connection to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// Not at all: a server on this machine or in a trusted network.
    Off,
    /// By STARTTLS; a server that does not offer it is refused.
    Starttls,
    /// From the first byte (port 465).
    Implicit,
}

/// What the settings say about mail.
#[derive(Clone, Debug)]
pub struct SmtpConfig {
    /// Name or address of the mail server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// User and password, if the server asks for them.
    pub login: Option<(String, Secret)>,
    /// Sender of mails that name none.
    pub from: String,
    /// Receivers of mails that name none, separated by commas.
    pub to: String,
    /// What we call ourselves to the server.
    pub hello: String,
}

/// A mail to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Sender; the settings' when absent. An address without `@` is one of `localhost`.
    pub from: Option<String>,
    /// Receivers, separated by commas; the settings' when absent.
    pub to: Option<String>,
    /// One line; other characters than text become blanks.
    pub subject: String,
    /// Text.
    pub body: String,
    /// The same for each attempt to send it: a part of its Message-ID.
    pub id: String,
}

/// A mail that was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// An address is none.
    #[error("`{address}` is not a mail address")]
    Address {
        /// The text.
        address: String,
        /// What is wrong.
        #[source]
        source: AddressError,
    },
    /// The message cannot be made.
    #[error("make the mail")]
    Make(#[source] lettre::error::Error),
    /// The certificate authorities are of no use.
    #[error("trust the mail server")]
    Trust(#[source] HttpError),
    /// The server refused it for good.
    #[error("mail server {server} refused: {why}")]
    Refused {
        /// Which.
        server: String,
        /// What it said.
        why: String,
    },
    /// The server cannot be reached or cannot take it now.
    #[error("mail server {server} did not take it: {why}")]
    Failed {
        /// Which.
        server: String,
        /// What happened.
        why: String,
    },
}

impl MailError {
    /// Whether the same mail may go well later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            MailError::Failed { .. } => true,
            MailError::Address { .. }
            | MailError::Make(_)
            | MailError::Trust(_)
            | MailError::Refused { .. } => false,
        }
    }
}

/// Checks that the texts of the settings are addresses, so that a mistake is told at the start.
pub fn check(config: &SmtpConfig) -> Result<(), MailError> {
    mailbox(&config.from)?;
    mailboxes(&config.to).map(drop)
}

/// Sends it: one connection, one mail.
pub async fn send(config: &SmtpConfig, mail: &Mail) -> Result<(), MailError> {
    let message = message(config, mail)?;
    let transport = transport(config)?;
    let server = || format!("{}:{}", config.host, config.port);
    match tokio::time::timeout(MAIL_LIMIT, transport.send(message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is_permanent() => {
            Err(MailError::Refused { server: server(), why: Chain(&error).to_string() })
        }
        Ok(Err(error)) => {
            Err(MailError::Failed { server: server(), why: Chain(&error).to_string() })
        }
        Err(_) => {
            let why = format!("not done within {} s", MAIL_LIMIT.as_secs());
            Err(MailError::Failed { server: server(), why })
        }
    }
}

fn message(config: &SmtpConfig, mail: &Mail) -> Result<Message, MailError> {
    let from = mailbox(mail.from.as_deref().unwrap_or(&config.from))?;
    let to = mailboxes(mail.to.as_deref().unwrap_or(&config.to))?;
    let id: String = mail.id.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut builder: MessageBuilder = Message::builder()
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .from(from)
        .subject(line(&mail.subject))
        .date_now()
        // RFC 3834: nobody's holiday reply is wanted.
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .header(ContentType::TEXT_PLAIN);
    for receiver in to {
        builder = builder.to(receiver);
    }
    builder.body(cut(&mail.body)).map_err(MailError::Make)
}

fn transport(config: &SmtpConfig) -> Result<AsyncSmtpTransport<Tokio1Executor>, MailError> {
    let tls = match config.tls {
        MailTls::Off => Tls::None,
        MailTls::Starttls => Tls::Required(believing(config)?),
        MailTls::Implicit => Tls::Wrapper(believing(config)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
        .port(config.port)
        .tls(tls)
        .hello_name(ClientId::Domain(config.hello.clone()))
        .timeout(Some(MAIL_LIMIT));
    if let Some((user, password)) = &config.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
    }
    Ok(builder.build())
}

fn believing(config: &SmtpConfig) -> Result<TlsParameters, MailError> {
    let failed = |error: lettre::transport::smtp::Error| MailError::Failed {
        server: config.host.clone(),
        why: Chain(&error).to_string(),
    };
    let mut builder =
        TlsParameters::builder(config.host.clone()).certificate_store(CertificateStore::None);
    for authority in config.trust.authorities().map_err(MailError::Trust)? {
        let certificate = Certificate::from_der(authority.to_vec()).map_err(failed)?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build_rustls().map_err(failed)
}

/// `Name <user@host>`, `user@host`, or `user` alone as Zuul's default `zuul`.
fn mailbox(text: &str) -> Result<Mailbox, MailError> {
    let text = text.trim();
    let whole = match text.contains('@') {
        true => text.to_owned(),
        false => format!("{text}@localhost"),
    };
    whole.parse().map_err(|source| MailError::Address { address: line(text), source })
}

fn mailboxes(text: &str) -> Result<Mailboxes, MailError> {
    text.split(',').map(mailbox).collect()
}

/// Text that cannot end its header: control characters are blanks.
fn line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(SUBJECT_MAX_CHARS).collect::<String>().trim().to_owned()
}

fn cut(text: &str) -> String {
    if text.len() <= MAIL_MAX_BYTES {
        return text.to_owned();
    }
    let end = (0..=MAIL_MAX_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}\n\n[cut off after {end} bytes]\n", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SmtpConfig {
        SmtpConfig {
            host: "localhost".into(),
            port: 25,
            tls: MailTls::Off,
            trust: Trust::System,
            login: None,
            from: "zuul".into(),
            to: "a@example.org, Ops <ops@example.org>".into(),
            hello: "toci.example.org".into(),
        }
    }

    fn mail(subject: &str) -> Mail {
        let body = "Build failed.\n.\nä\n".to_owned();
        Mail { from: None, to: None, subject: subject.into(), body, id: "ab-12\r\n>".into() }
    }

    fn formatted(mail: &Mail) -> String {
        String::from_utf8(message(&config(), mail).unwrap().formatted()).unwrap()
    }

    #[test]
    fn a_mail_has_its_headers() {
        let text = formatted(&mail("Report for 1,2"));
        for header in [
            "From: zuul@localhost\r\n",
            "To: a@example.org, Ops <ops@example.org>\r\n",
            "Subject: Report for 1,2\r\n",
            "Message-ID: <ab12@localhost>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Content-Type: text/plain; charset=utf-8\r\n",
        ] {
            assert!(text.contains(header), "{header} is missing in:\n{text}");
        }
    }

    #[test]
    fn nothing_can_be_put_into_the_headers() {
        let text = formatted(&mail("x\r\nBcc: evil@example.org\r\n\r\nbody\0"));
        let (headers, _) = text.split_once("\r\n\r\n").unwrap();
        let bcc = |line: &str| line.to_lowercase().starts_with("bcc");
        assert!(!headers.lines().any(bcc), "{headers}");
        assert!(headers.contains("Subject: x  Bcc: evil@example.org    body"), "{headers}");
        for bad in ["a@b\r\nBcc: c@d", "a b@c", "@", "a@", "", "a@b>\r\nX: <c@d"] {
            let mail = Mail { to: Some(bad.into()), ..mail("x") };
            if let Ok(message) = message(&config(), &mail) {
                let text = String::from_utf8(message.formatted()).unwrap();
                let (headers, _) = text.split_once("\r\n\r\n").unwrap();
                assert!(!headers.lines().any(|l| bcc(l) || l.starts_with("X:")), "{headers}");
            }
        }
        for bad in ["a b@c", "@", "a@", "", "a@b>\r\nX: <c@d"] {
            let mail = Mail { to: Some(bad.into()), ..mail("x") };
            let error = message(&config(), &mail).map(|m| m.formatted());
            assert!(matches!(error, Err(MailError::Address { .. })), "{bad:?}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let mail = Mail { body: "ä".repeat(MAIL_MAX_BYTES), ..mail(&"s".repeat(1000)) };
        assert!(cut(&mail.body).ends_with("[cut off after 1048576 bytes]\n"));
        assert_eq!(line(&mail.subject).len(), SUBJECT_MAX_CHARS);
    }

    #[test]
    fn settings_are_checked() {
        assert!(check(&config()).is_ok());
        assert!(check(&SmtpConfig { to: "a@b,,".into(), ..config() }).is_err());
    }
}
