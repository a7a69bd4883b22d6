//! Mail with a real server: aiosmtpd of Debian's python3-aiosmtpd.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use toci_edge::http::{Secret, Trust};
use toci_edge::tell::smtp::{Mail, MailError, MailTls, SmtpConfig, send};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Longest wait for the mail server.
const SERVER_LIMIT: Duration = Duration::from_secs(60);

struct Server {
    port: u16,
    lines: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
    _process: Child,
}

impl Server {
    async fn start(mode: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smtp_server.py");
        // Debian's Python, which has Debian's packages.
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(mode)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 is missing: apt-get install python3-aiosmtpd");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = next(&mut lines).await;
        let port = port.parse().expect("a port; else: apt-get install python3-aiosmtpd");
        Server { port, lines, folder, _process: process }
    }

    fn config(&self, tls: MailTls) -> SmtpConfig {
        SmtpConfig {
            host: "localhost".into(),
            port: self.port,
            tls,
            trust: Trust::File(self.folder.path().join("cert.pem")),
            login: None,
            from: "zuul".into(),
            to: "ops@example.org".into(),
            hello: "toci.example.org".into(),
        }
    }

    async fn taken(&mut self) -> serde_json::Value {
        serde_json::from_str(&next(&mut self.lines).await).unwrap()
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(SERVER_LIMIT, lines.next_line()).await;
    let line = line.expect("the mail server said nothing").unwrap();
    line.expect("the mail server ended; is python3-aiosmtpd installed? apt-get install it")
}

fn mail(to: Option<&str>) -> Mail {
    Mail {
        from: Some("CI <ci@example.org>".into()),
        to: to.map(str::to_owned),
        subject: "Report for 1,2 — fällt".into(),
        body: "Build failed.\n\n- http://logs/1 : FAILURE\n.\n..two\nEnd ä\n".into(),
        id: "0123".into(),
    }
}

#[tokio::test]
async fn plain_mail_arrives_as_it_was_written() {
    let mut server = Server::start("off").await;
    let config = server.config(MailTls::Off);
    send(&config, &mail(Some("a@example.org, B <b@example.org>"))).await.unwrap();
    let taken = server.taken().await;
    assert_eq!(taken["from"], "ci@example.org");
    assert_eq!(taken["to"], serde_json::json!(["a@example.org", "b@example.org"]));
    assert_eq!((&taken["hello"], &taken["tls"]), (&"toci.example.org".into(), &false.into()));
    let content = taken["content"].as_str().unwrap().replace("\r\n", "\n");
    let (headers, body) = content.split_once("\n\n").unwrap();
    assert!(headers.contains("Message-ID: <0123@example.org>"), "{headers}");
    assert!(headers.contains("Subject: Report for 1,2 =?utf-8?b?"), "{headers}");
    // Quoted-printable keeps lines of plain text readable, and dots at their beginning.
    assert!(body.contains("- http://logs/1 : FAILURE\n.\n..two\nEnd =C3=A4"), "{body}");
    send(&config, &Mail { from: None, ..mail(None) }).await.unwrap();
    let taken = server.taken().await;
    assert_eq!(taken["from"], "zuul@localhost");
    assert_eq!(taken["to"], serde_json::json!(["ops@example.org"]));
}

#[tokio::test]
async fn a_mail_is_protected_and_a_user_named() {
    for (mode, tls) in [("starttls", MailTls::Starttls), ("implicit", MailTls::Implicit)] {
        let mut server = Server::start(mode).await;
        let login = Some(("toci".to_owned(), Secret::new("hush")));
        let config = SmtpConfig { login, ..server.config(tls) };
        send(&config, &mail(None)).await.unwrap();
        let taken = server.taken().await;
        assert_eq!((&taken["tls"], &taken["user"]), (&true.into(), &"toci".into()), "{mode}");
        let login = Some(("toci".to_owned(), Secret::new("wrong-password")));
        let wrong = SmtpConfig { login, ..config.clone() };
        let error = send(&wrong, &mail(None)).await.unwrap_err();
        assert!(matches!(error, MailError::Refused { .. }), "{mode}: {error}");
        assert!(!error.to_string().contains("wrong-password"), "{error}");
        let strange = SmtpConfig { trust: Trust::System, ..config };
        let error = send(&strange, &mail(None)).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("certificate"), "{mode}: {error}");
    }
}

#[tokio::test]
async fn a_server_without_starttls_gets_no_mail_and_no_password() {
    let server = Server::start("off").await;
    let login = Some(("toci".to_owned(), Secret::new("hush")));
    let config = SmtpConfig { login, ..server.config(MailTls::Starttls) };
    let error = send(&config, &mail(None)).await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("starttls"), "{error}");
}

#[tokio::test]
async fn what_may_pass_and_what_may_not_are_told_apart() {
    let server = Server::start("off").await;
    let config = server.config(MailTls::Off);
    let error = send(&config, &mail(Some("full@example.org"))).await.unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("no room"), "{error}");
    let error = send(&config, &mail(Some("nobody@example.org"))).await.unwrap_err();
    assert!(!error.may_pass() && error.to_string().contains("who is that?"), "{error}");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let error = send(&SmtpConfig { port, ..config }, &mail(None)).await.unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("refused"), "{error}");
}
