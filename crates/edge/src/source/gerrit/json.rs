//! Gerrit's JSON over SSH, as it is sent: lines of `stream-events` and of `query`. Any attribute may be missing, and
//! numbers may be texts (2.8 and before).

use serde::{Deserialize, Deserializer, de};
use toci_core::event::Person;

/// A number that older Gerrits send as a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(pub u64);

/// A vote that all Gerrits send as a text, and none promises to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value(pub i32);

#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Int(i64),
    Text(String),
}

impl Loose {
    fn number<T: TryFrom<i64>, E: de::Error>(self) -> Result<T, E> {
        let int = match self {
            Loose::Int(int) => Ok(int),
            Loose::Text(text) => text.trim().trim_start_matches('+').parse().map_err(|_| text),
        };
        let int = int.map_err(|text| E::custom(format!("`{text:.40}` is no number")))?;
        T::try_from(int).map_err(|_| E::custom(format!("{int} is out of range")))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Loose::deserialize(deserializer)?.number().map(Number)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Loose::deserialize(deserializer)?.number().map(Value)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Account {
    pub name: String,
    pub email: String,
    pub username: String,
}

impl Account {
    pub(super) fn person(&self) -> Person {
        Person {
            username: self.username.clone(),
            email: self.email.clone(),
            name: self.name.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ChangeJson {
    pub project: String,
    pub branch: String,
    pub topic: String,
    pub id: String,
    pub number: Number,
    pub subject: String,
    pub owner: Account,
    pub url: String,
    pub commit_message: String,
    pub hashtags: Vec<String>,
    pub last_updated: Number,
    pub open: Option<bool>,
    pub status: String,
    pub wip: bool,
    pub is_draft: bool,
    pub comments: Vec<CommentJson>,
    pub current_patch_set: Option<PatchSetJson>,
    pub patch_sets: Vec<PatchSetJson>,
    pub depends_on: Vec<DependencyJson>,
    pub needed_by: Vec<DependencyJson>,
    pub submit_records: Vec<RecordJson>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PatchSetJson {
    pub number: Number,
    pub revision: String,
    #[serde(rename = "ref")]
    pub reference: String,
    pub uploader: Account,
    pub created_on: Number,
    pub is_draft: bool,
    pub approvals: Vec<ApprovalJson>,
    pub files: Option<Vec<FileJson>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct FileJson {
    pub file: String,
    #[serde(default, rename = "fileOld")]
    pub file_old: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApprovalJson {
    #[serde(rename = "type")]
    pub label: String,
    pub value: Value,
    pub old_value: Option<Value>,
    #[serde(default)]
    pub granted_on: Number,
    #[serde(default)]
    pub by: Account,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CommentJson {
    pub timestamp: Number,
    pub reviewer: Account,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct DependencyJson {
    pub number: Number,
    #[serde(rename = "ref")]
    pub reference: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RecordJson {
    pub status: String,
    pub labels: Vec<RecordLabelJson>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RecordLabelJson {
    pub label: String,
    pub status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RefUpdateJson {
    pub old_rev: String,
    pub new_rev: String,
    pub ref_name: String,
    pub project: String,
}

/// One line of `stream-events`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EventJson {
    #[serde(rename = "type")]
    pub kind: String,
    pub change: Option<ChangeJson>,
    pub patch_set: Option<PatchSetJson>,
    pub ref_update: Option<RefUpdateJson>,
    pub comment: String,
    pub approvals: Vec<ApprovalJson>,
    pub author: Option<Account>,
    pub uploader: Option<Account>,
    pub submitter: Option<Account>,
    pub abandoner: Option<Account>,
    pub restorer: Option<Account>,
    pub changer: Option<Account>,
    pub deleter: Option<Account>,
    pub event_created_on: Option<Number>,
}

/// The last line of `query`, or the only one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct TailJson {
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    pub more_changes: bool,
}
