//! Regular expressions as Python's `re` has them, look-around included, with a limit on their work.

use core::fmt;

/// Steps back that one match may take; a pattern that needs more does not match, and that is told.
const BACKTRACK_MAX: usize = 100_000;
/// The same for patterns that strangers write: a look-around needs some ten.
const MODEST_BACKTRACK_MAX: usize = 500;
/// Longest pattern that strangers write, in bytes.
pub const MODEST_PATTERN_MAX_BYTES: usize = 512;
/// Its largest compiled form, in bytes.
const MODEST_COMPILED_MAX_BYTES: usize = 256 << 10;

/// A pattern that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a regular expression: {why}")]
pub struct BadPattern {
    /// The text.
    pub pattern: String,
    /// What is wrong with it.
    pub why: String,
}

/// A compiled regular expression that remembers its text.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    regex: fancy_regex::Regex,
}

impl Pattern {
    /// Compiles it.
    pub fn new(text: impl Into<String>) -> Result<Pattern, BadPattern> {
        let text = text.into();
        let built = fancy_regex::RegexBuilder::new(&text).backtrack_limit(BACKTRACK_MAX).build();
        match built {
            Ok(regex) => Ok(Pattern { text, regex }),
            Err(e) => Err(BadPattern { pattern: text, why: e.to_string() }),
        }
    }

    /// Compiles it within limits that make it cheap whatever it is: for patterns that strangers write.
    pub fn modest(text: impl Into<String>) -> Result<Pattern, BadPattern> {
        let text = text.into();
        if text.len() > MODEST_PATTERN_MAX_BYTES {
            let why = format!("it is longer than {MODEST_PATTERN_MAX_BYTES} bytes");
            return Err(BadPattern { pattern: text.chars().take(80).collect(), why });
        }
        let built = fancy_regex::RegexBuilder::new(&text)
            .backtrack_limit(MODEST_BACKTRACK_MAX)
            .delegate_size_limit(MODEST_COMPILED_MAX_BYTES)
            .build();
        match built {
            Ok(regex) => Ok(Pattern { text, regex }),
            Err(e) => Err(BadPattern { pattern: text, why: e.to_string() }),
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Python's `re.search`: somewhere in the text. A match that would take too many steps is none.
    #[must_use]
    pub fn search(&self, text: &str) -> bool {
        self.regex.is_match(text).unwrap_or(false)
    }

    /// Python's `re.match`: at the start of the text, not necessarily to its end.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // Leftmost-first search finds a match at 0 before any other, if there is one.
        matches!(self.regex.find(text), Ok(Some(found)) if found.start() == 0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn match_is_anchored_at_the_start_only() {
        let p = Pattern::new("stable/.*").unwrap();
        assert!(p.matches("stable/icehouse"));
        assert!(!p.matches("x/stable/icehouse"));
        assert!(p.search("x/stable/icehouse"));
        assert!(Pattern::new("mast").unwrap().matches("master"));
    }

    #[test]
    fn look_around_of_real_layouts_works() {
        let p = Pattern::new("^(?!stable/(havana|icehouse)).*$").unwrap();
        assert!(p.matches("master"));
        assert!(!p.matches("stable/havana"));
    }

    #[test]
    fn a_pattern_that_explodes_is_no_match_and_no_hang() {
        let p = Pattern::new("(?=(a+)+$)(a|aa)+$").unwrap();
        assert!(!p.search(&format!("{}b", "a".repeat(60))));
    }

    #[test]
    fn strangers_patterns_are_modest() {
        let p = Pattern::modest("^(?!doc/).*\\.py$").unwrap();
        assert!(p.matches("src/a.py") && !p.matches("doc/a.py"));
        assert!(Pattern::modest("x".repeat(600)).unwrap_err().to_string().contains("512 bytes"));
        assert!(Pattern::modest("(a{1000}){1000}").is_err());
        let slow = Pattern::modest("(?=(a+)+$)(a|aa)+$").unwrap();
        assert!(!slow.search(&format!("{}b", "a".repeat(1000))));
    }

    #[test]
    fn a_broken_pattern_is_told() {
        assert!(Pattern::new("(").unwrap_err().to_string().contains("regular expression"));
    }
}
