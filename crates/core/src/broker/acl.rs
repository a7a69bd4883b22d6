//! Who may register, invoke and grant: the list of origin.md 1.6, keyed on the common name of the
//! client's certificate. With a list everything is denied that is not allowed.

use regex::bytes::Regex;
use std::collections::BTreeMap;

/// Most entries in a list.
pub const ACL_MAX_ENTRIES: usize = 10_000;
/// Longest pattern, in bytes.
pub const ACL_PATTERN_MAX_BYTES: usize = 1024;
/// Most memory of one compiled pattern, in bytes.
const PATTERN_MAX_MEMORY_BYTES: usize = 1 << 20;

/// Why a change of the list was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// The pattern is not a regular expression, or too large a one.
    #[error("Regular expression error: {0}")]
    Pattern(String),
    /// The subject has an entry already.
    #[error("ACL entry already exists for {0}")]
    Duplicate(String),
    /// [`ACL_MAX_ENTRIES`] is reached.
    #[error("The list holds {ACL_MAX_ENTRIES} entries already")]
    Full,
}

/// A pattern as written, and compiled. It must match at the start of a name, as in python's
/// `re.match`; it need not reach the end.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    compiled: Regex,
}

impl Pattern {
    /// Compile `text`.
    pub fn new(text: &str) -> Result<Pattern, AclError> {
        if text.len() > ACL_PATTERN_MAX_BYTES {
            return Err(AclError::Pattern(format!("longer than {ACL_PATTERN_MAX_BYTES} bytes")));
        }
        let compile = |pattern: &str| {
            regex::bytes::RegexBuilder::new(pattern)
                .size_limit(PATTERN_MAX_MEMORY_BYTES)
                .build()
                .map_err(|e| AclError::Pattern(one_line(&e.to_string())))
        };
        // Alone first, or `x)|(?:y` would close the group that anchors it.
        compile(text)?;
        let compiled = compile(&format!("^(?:{text})"))?;
        Ok(Pattern { text: text.to_owned(), compiled })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn matches(&self, name: &[u8]) -> bool {
        self.compiled.is_match(name)
    }
}

/// A regex error is a drawing of several lines; an admin answer is one line.
fn one_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

/// The rights of one subject.
#[derive(Clone, Debug, Default)]
pub struct AclEntry {
    /// Functions it may register.
    pub register: Option<Pattern>,
    /// Functions it may submit jobs for, and whose jobs it may cancel.
    pub invoke: Option<Pattern>,
    /// Whether it may change rights. `None` is how an entry from the file without `grant` is
    /// listed; it means the same as `Some(false)`.
    pub grant: Option<bool>,
}

impl AclEntry {
    fn is_empty(&self) -> bool {
        self.register.is_none() && self.invoke.is_none() && self.grant != Some(true)
    }
}

/// The list: subjects and their rights, sorted by subject.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    entries: BTreeMap<String, AclEntry>,
}

impl Acl {
    /// Add an entry; a second one of the same subject is an error, as in the file.
    pub fn add(&mut self, subject: &str, entry: AclEntry) -> Result<(), AclError> {
        if self.entries.contains_key(subject) {
            return Err(AclError::Duplicate(subject.to_owned()));
        }
        self.room()?;
        self.entries.insert(subject.to_owned(), entry);
        Ok(())
    }

    fn room(&self) -> Result<(), AclError> {
        if self.entries.len() >= ACL_MAX_ENTRIES { Err(AclError::Full) } else { Ok(()) }
    }

    /// All entries, sorted by subject.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &AclEntry)> {
        self.entries.iter().map(|(s, e)| (s.as_str(), e))
    }

    fn entry(&self, subject: Option<&str>) -> Option<&AclEntry> {
        self.entries.get(subject?)
    }

    /// Whether `subject` may register `function`.
    #[must_use]
    pub fn may_register(&self, subject: Option<&str>, function: &[u8]) -> bool {
        self.entry(subject).and_then(|e| e.register.as_ref()).is_some_and(|p| p.matches(function))
    }

    /// Whether `subject` may submit jobs for `function`.
    #[must_use]
    pub fn may_invoke(&self, subject: Option<&str>, function: &[u8]) -> bool {
        self.entry(subject).and_then(|e| e.invoke.as_ref()).is_some_and(|p| p.matches(function))
    }

    /// Whether `subject` may change rights.
    #[must_use]
    pub fn may_grant(&self, subject: Option<&str>) -> bool {
        self.entry(subject).is_some_and(|e| e.grant == Some(true))
    }

    fn change(&mut self, subject: &str) -> Result<&mut AclEntry, AclError> {
        if !self.entries.contains_key(subject) {
            self.room()?;
        }
        Ok(self.entries.entry(subject.to_owned()).or_default())
    }

    /// Allow `subject` to register functions that match.
    pub fn grant_register(&mut self, subject: &str, pattern: &str) -> Result<(), AclError> {
        let pattern = Pattern::new(pattern)?;
        self.change(subject)?.register = Some(pattern);
        Ok(())
    }

    /// Allow `subject` to invoke functions that match.
    pub fn grant_invoke(&mut self, subject: &str, pattern: &str) -> Result<(), AclError> {
        let pattern = Pattern::new(pattern)?;
        self.change(subject)?.invoke = Some(pattern);
        Ok(())
    }

    /// Allow `subject` to change rights.
    pub fn grant_grant(&mut self, subject: &str) -> Result<(), AclError> {
        self.change(subject)?.grant = Some(true);
        Ok(())
    }

    /// Take rights away; an unknown subject has none, so that is fine. An entry without any
    /// right is removed.
    pub fn revoke(&mut self, subject: &str, verb: super::AclVerb) {
        use super::AclVerb;
        let Some(entry) = self.entries.get_mut(subject) else { return };
        match verb {
            AclVerb::Register => entry.register = None,
            AclVerb::Invoke => entry.invoke = None,
            AclVerb::Grant => entry.grant = Some(false),
            AclVerb::All => *entry = AclEntry::default(),
        }
        if entry.is_empty() {
            self.entries.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::AclVerb;

    #[test]
    fn patterns_are_anchored_at_the_start_only() {
        let mut acl = Acl::default();
        acl.grant_register("w", "lock").unwrap();
        assert!(acl.may_register(Some("w"), b"lockenv"));
        assert!(!acl.may_register(Some("w"), b"unlock"));
        assert!(!acl.may_register(Some("x"), b"lockenv"));
        assert!(!acl.may_register(None, b"lockenv"));
        assert!(!acl.may_invoke(Some("w"), b"lockenv"));
        acl.grant_invoke("w", "a|b").unwrap();
        assert!(acl.may_invoke(Some("w"), b"bx") && !acl.may_invoke(Some("w"), b"xb"));
    }

    #[test]
    fn an_entry_without_rights_disappears_even_when_the_file_left_grant_out() {
        let mut acl = Acl::default();
        let register = Some(Pattern::new(".*").unwrap());
        acl.add("w", AclEntry { register, invoke: None, grant: None }).unwrap();
        acl.revoke("w", AclVerb::Register);
        assert_eq!(acl.entries().count(), 0);
        acl.revoke("nobody", AclVerb::All);
    }

    #[test]
    fn bad_patterns_and_duplicates_are_refused() {
        let mut acl = Acl::default();
        let error = acl.grant_register("w", "(").unwrap_err().to_string();
        assert!(error.starts_with("Regular expression error: "), "{error}");
        assert!(!error.contains('\n'));
        assert_eq!(acl.entries().count(), 0, "a refused grant leaves no entry");
        acl.add("w", AclEntry::default()).unwrap();
        assert!(matches!(acl.add("w", AclEntry::default()), Err(AclError::Duplicate(_))));
    }
}
