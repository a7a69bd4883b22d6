//! Reading maps: known keys, typed values, and everything that is wrong with its place.

use super::tree::{Kind, Mark, Node};
use core::fmt;
use std::collections::BTreeSet;
use toci_core::event::SourceName;

/// After so many errors no more suggestions are looked for: each takes its time, and nobody reads them all.
const NEAREST_MAX: usize = 100;

/// Something in a layout that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// The file, as it was named.
    pub file: String,
    /// Line and column.
    pub mark: Mark,
    /// Which section or key.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What would be right: "expected …", or a question.
    pub expected: String,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.mark.line, self.mark.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} ({})", self.what, self.expected)
    }
}

impl core::error::Error for LayoutError {}

/// A key that Zuul 2 knew and that has no effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file, as it was named.
    pub file: String,
    /// Line and column.
    pub mark: Mark,
    /// Which key.
    pub path: String,
    /// What to do instead.
    pub instead: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Note { file, mark, path, instead } = self;
        write!(f, "{file}:{}:{}: {path} has no effect: {instead}", mark.line, mark.column)
    }
}

/// All that is found.
#[derive(Debug)]
pub(crate) struct Findings {
    file: String,
    pub(crate) errors: Vec<LayoutError>,
    pub(crate) notes: Vec<Note>,
    /// How many regular expressions there were, and how many there may be: for files that strangers write.
    patterns: Option<(usize, usize)>,
    /// The sources that are known by name; all of them when it says so.
    sources: (Vec<SourceName>, bool),
}

/// Whether one more regular expression may be compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Budget {
    /// The operator wrote it: no limit.
    Free,
    /// There is room for one more, as long as it is modest.
    Left,
    /// There were as many as there may be.
    Spent { most: usize },
}

impl Findings {
    pub(crate) fn new(file: &str) -> Findings {
        let file = file.to_owned();
        let sources = (Vec::new(), false);
        Findings { file, errors: Vec::new(), notes: Vec::new(), patterns: None, sources }
    }

    /// These are the sources; `all`: there are no others.
    pub(crate) fn with_sources(file: &str, sources: &[SourceName], all: bool) -> Findings {
        Findings { sources: (sources.to_vec(), all), ..Findings::new(file) }
    }

    /// Zuul 2 calls its one source `gerrit`, whatever the connection is called: that is meant unless one is called so.
    pub(crate) fn is_any_source(&self, name: &str) -> bool {
        name == "gerrit" && !self.sources.0.iter().any(|source| source.as_str() == name)
    }

    /// A source that nobody has is an error, when all are known.
    pub(crate) fn must_be_source(&mut self, name: &SourceName, mark: Mark, path: &str) {
        if self.sources.1 && !self.sources.0.contains(name) {
            let known: Vec<&str> = self.sources.0.iter().map(SourceName::as_str).collect();
            let expected = format!("a source of toci.toml: {}", known.join(", "));
            self.error(mark, path, format!("there is no source `{name}`"), expected);
        }
    }

    /// Of a file that strangers write: at most so many regular expressions.
    pub(crate) fn with_budget(file: &str, patterns: usize) -> Findings {
        Findings { patterns: Some((0, patterns)), ..Findings::new(file) }
    }

    /// Counts one more.
    pub(crate) fn pattern_budget(&mut self) -> Budget {
        match &mut self.patterns {
            None => Budget::Free,
            Some((used, most)) if *used >= *most => Budget::Spent { most: *most },
            Some((used, _)) => {
                *used += 1;
                Budget::Left
            }
        }
    }

    pub(crate) fn error(
        &mut self,
        mark: Mark,
        path: &str,
        what: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let expected = expected.into();
        let question = expected.starts_with("did you mean");
        let expected = if question { expected } else { format!("expected {expected}") };
        self.errors.push(LayoutError {
            file: self.file.clone(),
            mark,
            path: path.to_owned(),
            what: what.into(),
            expected,
        });
    }

    pub(crate) fn note(&mut self, mark: Mark, path: &str, instead: &str) {
        let (file, path) = (self.file.clone(), path.to_owned());
        self.notes.push(Note { file, mark, path, instead: instead.to_owned() });
    }

    /// Zuul 2 refuses a name that stands twice in a list.
    pub(crate) fn unique(&mut self, what: &str, names: &[(String, Mark)]) {
        let mut seen = BTreeSet::new();
        for (name, mark) in names {
            if !seen.insert(name) {
                self.error(*mark, what, format!("`{name}` is defined twice"), "one definition");
            }
        }
    }
}

/// A map with the path to it.
#[derive(Clone, Debug)]
pub(crate) struct Map<'n> {
    pub(crate) mark: Mark,
    pub(crate) path: String,
    pub(crate) entries: &'n [(String, Mark, Node)],
}

impl<'n> Map<'n> {
    pub(crate) fn of(node: &'n Node, path: &str, found: &mut Findings) -> Option<Map<'n>> {
        match &node.kind {
            Kind::Map(entries) => Some(Map { mark: node.mark, path: path.to_owned(), entries }),
            Kind::Null => Some(Map { mark: node.mark, path: path.to_owned(), entries: &[] }),
            Kind::Scalar { .. } | Kind::List(_) => {
                found.error(node.mark, path, format!("this is {}", node.kind.word()), "a map");
                None
            }
        }
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, ..)| k == key).map(|(_, _, node)| node)
    }

    /// The first of several spellings.
    pub(crate) fn any(&self, keys: &[&str]) -> Option<&'n Node> {
        keys.iter().find_map(|key| self.get(key))
    }

    /// Every other key is an error, with the nearest known one.
    pub(crate) fn known(&self, keys: &[&str], found: &mut Findings) {
        for (key, mark, _) in self.entries {
            if !keys.contains(&key.as_str()) {
                let near = (found.errors.len() < NEAREST_MAX).then(|| nearest(key, keys)).flatten();
                let expected = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("one of {}", keys.join(", ")),
                };
                found.error(*mark, &self.path, format!("there is no key `{key}`"), expected);
            }
        }
    }

    pub(crate) fn list(&self, key: &str, found: &mut Findings) -> Vec<&'n Node> {
        match self.get(key).map(|n| (&n.kind, n.mark)) {
            None | Some((Kind::Null, _)) => Vec::new(),
            Some((Kind::List(items), _)) => items.iter().collect(),
            Some((other, mark)) => {
                found.error(mark, &self.at(key), format!("this is {}", other.word()), "a list");
                Vec::new()
            }
        }
    }

    /// One value or a list of them, as Zuul 2 takes nearly everywhere.
    pub(crate) fn several(&self, keys: &[&str]) -> Vec<&'n Node> {
        match self.any(keys) {
            None => Vec::new(),
            Some(node) => match &node.kind {
                Kind::Null => Vec::new(),
                Kind::List(items) => items.iter().collect(),
                Kind::Scalar { .. } | Kind::Map(_) => vec![node],
            },
        }
    }

    pub(crate) fn text(&self, key: &str, found: &mut Findings) -> Option<String> {
        text(self.get(key)?, &self.at(key), found)
    }

    pub(crate) fn needed(&self, key: &str, found: &mut Findings) -> Option<String> {
        if self.get(key).is_none() {
            found.error(self.mark, &self.path, format!("`{key}` is missing"), "a text");
        }
        self.text(key, found)
    }

    /// Texts of one value or a list.
    pub(crate) fn texts(&self, keys: &[&str], found: &mut Findings) -> Vec<String> {
        let path = self.at(keys[0]);
        self.several(keys).into_iter().filter_map(|node| text(node, &path, found)).collect()
    }

    /// A number that is not smaller than `min`.
    pub(crate) fn number(&self, key: &str, min: u32, found: &mut Findings) -> Option<u32> {
        let node = self.get(key)?;
        let given = text(node, &self.at(key), found)?;
        match given.parse::<u32>() {
            Ok(n) if n >= min => Some(n),
            Ok(_) | Err(_) => {
                let expected = format!("a whole number from {min} on");
                found.error(node.mark, &self.at(key), format!("`{given}`"), expected);
                None
            }
        }
    }

    pub(crate) fn truth(&self, key: &str, found: &mut Findings) -> Option<bool> {
        let node = self.get(key)?;
        let value = truth(node);
        if value.is_none() {
            found.error(node.mark, &self.at(key), "this is neither", "true or false");
        }
        value
    }
}

/// YAML 1.1's words, as Zuul 2's parser took them.
pub(crate) fn truth(node: &Node) -> Option<bool> {
    let Kind::Scalar { text, plain: true } = &node.kind else { return None };
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

pub(crate) fn text(node: &Node, path: &str, found: &mut Findings) -> Option<String> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(text.clone()),
        Kind::Null | Kind::List(_) | Kind::Map(_) => {
            found.error(node.mark, path, format!("this is {}", node.kind.word()), "text");
            None
        }
    }
}

/// The known word that is at most two letters away.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &str| {
        let (a, b): (Vec<char>, Vec<char>) =
            (word.chars().take(64).collect(), known.chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, ca) in a.iter().enumerate() {
            let mut before = row[0];
            row[0] = i + 1;
            for (j, cb) in b.iter().enumerate() {
                let swap = before + usize::from(ca != cb);
                before = row[j + 1];
                row[j + 1] = swap.min(row[j] + 1).min(before + 1);
            }
        }
        row[b.len()]
    };
    known.iter().map(|k| (distance(k), *k)).filter(|(d, _)| *d <= 2).min().map(|(_, k)| k)
}
