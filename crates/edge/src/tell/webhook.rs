//! A report as JSON, by POST to an address of the layout's choice.

use crate::http::{Http, HttpError, Request, Secret, Url};
use ring::hmac;
use serde::Serialize;
use std::time::Duration;
use toci_core::event::Change;
use toci_core::hex::hex;
use toci_core::id::{ItemId, ReportId};
use toci_core::pipeline::{ItemView, ReportAction, ReportWish, Subject};

/// Longest wait for the receiver's answer.
pub const WEBHOOK_LIMIT: Duration = Duration::from_secs(20);

/// Longest answer of a receiver that is read, in bytes. Nothing in it matters.
pub const WEBHOOK_ANSWER_MAX_BYTES: usize = 64 << 10;

/// What the settings say about webhooks.
#[derive(Clone, Debug, Default)]
pub struct WebhookConfig {
    /// Signs every body: the receiver sees that it comes from us.
    pub secret: Option<Secret>,
}

/// What is posted: docs/reports.md describes it.
#[derive(Clone, Debug, Serialize)]
pub struct Hook<'a> {
    /// The same for every attempt to deliver this report.
    pub report: ReportId,
    /// Of which pipeline.
    pub pipeline: &'a str,
    /// What kind of report.
    pub action: ReportAction,
    /// Which item.
    pub item: ItemId,
    /// What the item is about.
    pub subject: &'a Subject,
    /// Its change as last seen.
    pub change: Option<&'a Change>,
    /// The text that is told everywhere else too.
    pub message: &'a str,
    /// The item with its jobs, if it is still there.
    pub state: Option<&'a ItemView>,
}

impl<'a> Hook<'a> {
    /// A report's; `state` is the item as the gate shows it.
    #[must_use]
    pub fn of(report: &'a ReportWish, state: Option<&'a ItemView>) -> Hook<'a> {
        Hook {
            report: report.report,
            pipeline: &report.pipeline.0,
            action: report.action,
            item: report.item,
            subject: &report.subject,
            change: report.change.as_ref(),
            message: &report.message,
            state,
        }
    }
}

/// Posts it. An error that [`HttpError::may_pass`] is worth another attempt, which is the gate's.
pub async fn post(
    http: &Http,
    config: &WebhookConfig,
    url: &str,
    hook: &Hook<'_>,
) -> Result<(), HttpError> {
    let url = Url::parse(url)?;
    let body = serde_json::to_vec(hook).map_err(|source| HttpError::Unexpected {
        what: format!("POST {}", url.server()),
        source,
    })?;
    let mut request = Request::post(&url)
        .header("x-toci-event", "report")
        .header("x-toci-delivery", &hook.report.to_string())
        .within(WEBHOOK_LIMIT)
        .answer_max(WEBHOOK_ANSWER_MAX_BYTES);
    if let Some(secret) = &config.secret {
        request = request.header("x-toci-signature-256", &signature(secret, &body));
    }
    http.send(request.body("application/json", body)).await?.well().map(drop)
}

/// `sha256=` and the HMAC-SHA-256 of the body in hex, as GitHub's webhooks have it.
#[must_use]
pub fn signature(secret: &Secret, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    format!("sha256={}", hex(hmac::sign(&key, body).as_ref()))
}

/// Whether `signature` (as [`signature`] makes it) is of this body, compared in constant time.
#[must_use]
pub fn is_signed(secret: &Secret, body: &[u8], signature: &str) -> bool {
    let Some(hex) = signature.strip_prefix("sha256=").filter(|hex| hex.is_ascii()) else {
        return false;
    };
    let bytes: Option<Vec<u8>> = (0..hex.len())
        .step_by(2)
        .map(|at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    bytes.is_some_and(|bytes| hmac::verify(&key, body, &bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Trust;
    use crate::http::fake::{Fake, Reply};
    use toci_core::layout::PipelineName;
    use toci_core::time::Time;

    fn wish() -> ReportWish {
        ReportWish {
            report: ReportId(7),
            item: ItemId(3),
            pipeline: PipelineName("gate".into()),
            action: ReportAction::Success,
            reporters: Vec::new(),
            subject: Subject::Branch {
                project: serde_json::from_value(
                    serde_json::json!({"source": "gerrit", "name": "openstack/heat"}),
                )
                .unwrap(),
                branch: "master".parse().unwrap(),
            },
            change: None,
            message: "Build succeeded.\n".into(),
            commit: None,
            not_before: Time(0),
        }
    }

    /// The example of GitHub's documentation, "Validating webhook deliveries".
    #[test]
    fn signatures_are_githubs() {
        let secret = Secret::new("It's a Secret to Everybody");
        let known = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(signature(&secret, b"Hello, World!"), known);
        assert!(is_signed(&secret, b"Hello, World!", known));
        let upper = known.to_uppercase().replace("SHA256", "sha256");
        assert!(is_signed(&secret, b"Hello, World!", &upper));
        assert!(!is_signed(&Secret::new("x"), b"Hello, World!", known));
        for bad in ["", "sha256=", "sha256=7", "sha256=zz", "sha256=ü", &known[7..], &known[..69]]
        {
            assert!(!is_signed(&secret, b"Hello, World!", bad), "{bad}");
        }
        assert!(!is_signed(&secret, b"Hello, World?", known));
    }

    #[tokio::test]
    async fn a_report_is_posted_signed_and_named() {
        let fake = Fake::start(|_| Reply::new(204, "")).await;
        let config = WebhookConfig { secret: Some(Secret::new("hush")) };
        let url = format!("{}/hook?key=1", fake.url.server());
        let (http, wish) = (Http::new(&Trust::System).unwrap(), wish());
        post(&http, &config, &url, &Hook::of(&wish, None)).await.unwrap();
        let seen = &fake.seen()[0];
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/hook?key=1"));
        assert_eq!(seen.header("x-toci-delivery"), ReportId(7).to_string());
        let signature = seen.header("x-toci-signature-256");
        assert!(is_signed(&Secret::new("hush"), &seen.body, signature), "{signature}");
        let body = seen.json();
        assert_eq!((&body["pipeline"], &body["action"]), (&"gate".into(), &"success".into()));
        assert_eq!(body["subject"]["branch"]["branch"], "master");
        assert_eq!(
            (&body["message"], body["change"].is_null()),
            (&"Build succeeded.\n".into(), true)
        );
    }

    #[tokio::test]
    async fn a_receiver_that_fails_is_worth_another_attempt_and_one_that_refuses_is_not() {
        for (status, again) in [(500, true), (503, true), (429, true), (404, false), (401, false)] {
            let fake = Fake::start(move |_| Reply::new(status, "no")).await;
            let http = Http::new(&Trust::System).unwrap();
            let url = format!("{}/?key=hush", fake.url.server());
            let wish = wish();
            let error = post(&http, &WebhookConfig::default(), &url, &Hook::of(&wish, None)).await;
            let error = error.unwrap_err();
            assert_eq!((error.status(), error.may_pass()), (Some(status), again));
            assert!(!error.to_string().contains("hush"), "{error}");
            assert_eq!(fake.seen()[0].header("x-toci-signature-256"), "");
        }
    }
}
