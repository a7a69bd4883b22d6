//! GitHub's JSON, as far as it is read. Whatever else it holds is passed over.

use serde::Deserialize;
use toci_core::event::Person;
use toci_core::time::Time;

#[derive(Clone, Debug, Deserialize)]
pub(super) struct User {
    #[serde(default)]
    pub(super) login: String,
}

/// Users that are gone are null.
pub(super) fn person(user: &Option<User>) -> Person {
    let username = user.as_ref().map(|u| u.login.clone()).unwrap_or_default();
    Person { username, ..Person::default() }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Repository {
    pub(super) id: u64,
    pub(super) full_name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Label {
    pub(super) name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Head {
    pub(super) sha: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Base {
    #[serde(rename = "ref")]
    pub(super) branch: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PullRequest {
    pub(super) number: u64,
    pub(super) state: String,
    #[serde(default)]
    pub(super) draft: bool,
    #[serde(default)]
    pub(super) title: String,
    #[serde(default)]
    pub(super) body: Option<String>,
    pub(super) html_url: String,
    #[serde(default)]
    pub(super) user: Option<User>,
    pub(super) head: Head,
    pub(super) base: Base,
    #[serde(default)]
    pub(super) labels: Vec<Label>,
    #[serde(default)]
    pub(super) merged_at: Option<String>,
    pub(super) updated_at: String,
    #[serde(default)]
    pub(super) changed_files: Option<usize>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct File {
    pub(super) filename: String,
    #[serde(default)]
    pub(super) previous_filename: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Review {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) user: Option<User>,
    #[serde(default)]
    pub(super) body: Option<String>,
    /// `APPROVED` by REST, `approved` in webhooks.
    pub(super) state: String,
    #[serde(default)]
    pub(super) author_association: String,
    #[serde(default)]
    pub(super) submitted_at: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Comment {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) user: Option<User>,
    #[serde(default)]
    pub(super) body: Option<String>,
    pub(super) created_at: String,
    /// By REST only: ends in the pull request's number.
    #[serde(default)]
    pub(super) issue_url: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    pub(super) state: String,
    pub(super) context: String,
    #[serde(default)]
    pub(super) creator: Option<User>,
    pub(super) updated_at: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct CheckRun {
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) conclusion: Option<String>,
    #[serde(default)]
    pub(super) completed_at: Option<String>,
    #[serde(default)]
    pub(super) app: Option<App>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct App {
    #[serde(default)]
    pub(super) slug: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct CheckRuns {
    pub(super) check_runs: Vec<CheckRun>,
}

/// A time of GitHub's, e.g. `2011-01-26T19:01:12Z`.
pub(super) fn time(text: &str) -> Option<Time> {
    text.parse::<jiff::Timestamp>().ok().map(|stamp| Time(stamp.as_microsecond()))
}

/// As GitHub writes times: whole seconds, earlier rather than later.
pub(super) fn written(time: Time) -> String {
    let stamp = jiff::Timestamp::from_second(time.0.div_euclid(1_000_000));
    stamp.map(|s| s.to_string()).unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}
