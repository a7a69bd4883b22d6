//! Settings files in TOML. Every error names file, line and column, the whole key, and what was expected:
//! `toci.toml:12:15: provider[vms].max_servers: …`.
//!
//! What a type refuses is found by its place in the text. What only a look at several values refuses is a [`Wrong`]: it
//! says which key, as seen from the table at hand; whoever has read that table says where it is; and in the end
//! [`SettingsText::refuse`] finds the place.

use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// What entries of lists are told apart by, for people.
const NAMING_KEYS: [&str; 2] = ["name", "label"];

/// A value that cannot be used: which one, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The outermost first.
    way: Vec<Step>,
    why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    /// Of a list, counted from 0.
    Entry(usize),
}

impl Wrong {
    /// The value at this key; dots lead down. It need not be there.
    #[must_use]
    pub fn at(key: &str, why: impl Into<String>) -> Wrong {
        let way = key.split('.').map(|key| Step::Key(key.to_owned())).collect();
        Wrong { way, why: why.into() }
    }

    /// The same, as seen from the table that has the one at hand at `key`.
    #[must_use]
    pub fn below(mut self, key: &str) -> Wrong {
        self.way.insert(0, Step::Key(key.to_owned()));
        self
    }

    /// The same, as seen from the table that has the one at hand in a list, counted from 0.
    #[must_use]
    pub fn entry(mut self, list: &str, number: usize) -> Wrong {
        self.way.insert(0, Step::Entry(number));
        self.below(list)
    }
}

impl From<String> for Wrong {
    /// The whole table is wrong.
    fn from(why: String) -> Wrong {
        Wrong { way: Vec::new(), why }
    }
}

impl From<&str> for Wrong {
    fn from(why: &str) -> Wrong {
        Wrong::from(why.to_owned())
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_key(&written(&self.way, None), &self.why))
    }
}

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct SettingsError {
    /// `FILE:LINE:COLUMN`, or `FILE` when no place in it is wrong.
    pub place: String,
    /// The key, what is wrong and what was expected.
    pub message: String,
}

/// The text of a file.
#[derive(Clone, Copy, Debug)]
pub struct SettingsText<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> SettingsText<'a> {
    /// The text, and what the file is called.
    #[must_use]
    pub fn new(name: &'a str, text: &'a str) -> SettingsText<'a> {
        SettingsText { name, text }
    }

    /// Reads it into a type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        toml::from_str(self.text).map_err(|error| self.unreadable(&error))
    }

    /// Says where that is which is wrong: the value, or the innermost table around it that is there.
    #[must_use]
    pub fn refuse(&self, wrong: &Wrong) -> SettingsError {
        let root = self.root();
        let place = root.as_ref().and_then(|root| {
            let found = steps(root, &wrong.way).map_while(|(_, value)| value);
            found.last().map(|value| value.span().start)
        });
        let key = written(&wrong.way, root.as_ref());
        self.error(place, with_key(&key, &wrong.why))
    }

    /// The entries of a list, to be read one by one: a type that depends on a word in it cannot be read in one go
    /// without losing all places.
    #[must_use]
    pub fn entries(&self, list: &str) -> Vec<SettingsEntry<'a>> {
        let mut table = match self.root().map(Spanned::into_inner) {
            Some(DeValue::Table(table)) => table,
            Some(_) | None => return Vec::new(),
        };
        match table.remove(list).map(Spanned::into_inner) {
            Some(DeValue::Array(entries)) => {
                entries.into_iter().map(|value| SettingsEntry { text: *self, value }).collect()
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn unreadable(&self, error: &toml::de::Error) -> SettingsError {
        let message = error.message().trim();
        match error.span() {
            Some(place) => self.misplaced(&place, message),
            None => self.error(None, message.to_owned()),
        }
    }

    /// What stands there is not what should.
    fn misplaced(&self, place: &Range<usize>, why: &str) -> SettingsError {
        let (mut way, mut key) = (Vec::new(), String::new());
        // What is not TOML has no keys.
        if let Some(root) = self.root()
            && leads_to(&root, place, &mut way)
        {
            key = written(&way, Some(&root));
        }
        self.error(Some(place.start), with_key(&key, why))
    }

    fn error(&self, offset: Option<usize>, message: String) -> SettingsError {
        let Some(offset) = offset else {
            return SettingsError { place: self.name.to_owned(), message };
        };
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        SettingsError { place: format!("{}:{line}:{column}", self.name), message }
    }

    /// All of it, with places.
    fn root(&self) -> Option<Spanned<DeValue<'a>>> {
        let table = DeTable::parse(self.text).ok()?;
        Some(Spanned::new(table.span(), DeValue::Table(table.into_inner())))
    }
}

/// An entry of a list.
#[derive(Debug)]
pub struct SettingsEntry<'a> {
    text: SettingsText<'a>,
    value: Spanned<DeValue<'a>>,
}

impl SettingsEntry<'_> {
    /// Takes out one of these words, which says what the rest of it is.
    pub fn take_word(
        &mut self,
        key: &str,
        words: &[&'static str],
    ) -> Result<&'static str, SettingsError> {
        let all = self.value.span();
        let said = match self.value.get_mut() {
            DeValue::Table(table) => table.remove(key),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => None,
        };
        let word = said.as_ref().and_then(|said| said.get_ref().as_str());
        if let Some(known) = words.iter().find(|known| Some(**known) == word) {
            return Ok(known);
        }
        let place = said.map_or(all, |said| said.span());
        Err(self.text.misplaced(&place, &format!("`{key}` is one of {}", words.join(", "))))
    }

    /// Reads it into a type.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, SettingsError> {
        T::deserialize(ValueDeserializer::from(self.value))
            .map_err(|error| self.text.unreadable(&error))
    }
}

fn with_key(key: &str, why: &str) -> String {
    if key.is_empty() { why.to_owned() } else { format!("{key}: {why}") }
}

/// The steps, each with what is there.
fn steps<'t, 'i>(
    root: &'t Spanned<DeValue<'i>>,
    way: &'t [Step],
) -> impl Iterator<Item = (&'t Step, Option<&'t Spanned<DeValue<'i>>>)> {
    way.iter().scan(Some(root), |here, step| {
        *here = here.and_then(|value| match step {
            Step::Key(key) => value.get_ref().get(key.as_str()),
            Step::Entry(number) => value.get_ref().get(*number),
        });
        Some((step, *here))
    })
}

/// The way for people: `provider[vms].pool[1].image`.
fn written(way: &[Step], root: Option<&Spanned<DeValue<'_>>>) -> String {
    let mut text = String::new();
    let mut values = root.map(|root| steps(root, way));
    for step in way {
        let value = values.as_mut().and_then(Iterator::next).and_then(|(_, value)| value);
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Entry(number) => {
                let name = |value: &Spanned<DeValue<'_>>| {
                    let mut names = NAMING_KEYS.iter().filter_map(|key| value.get_ref().get(*key));
                    names.find_map(|name| name.get_ref().as_str().map(str::to_owned))
                };
                let name = value.and_then(name).unwrap_or_else(|| number.to_string());
                text.push_str(&format!("[{name}]"));
            }
        }
    }
    text
}

/// Finds what has exactly this place in the text: the innermost value, or a key.
fn leads_to(value: &Spanned<DeValue<'_>>, place: &Range<usize>, way: &mut Vec<Step>) -> bool {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                way.push(Step::Key(key.get_ref().to_string()));
                if key.span() == *place || leads_to(value, place, way) {
                    return true;
                }
                way.pop();
            }
        }
        DeValue::Array(array) => {
            for (number, value) in array.iter().enumerate() {
                way.push(Step::Entry(number));
                if leads_to(value, place, way) {
                    return true;
                }
                way.pop();
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
    value.span() == *place
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct File {
        state: String,
        lease: Lease,
        provider: Vec<Provider>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Lease {
        max_s: u64,
        listen: Vec<u16>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Provider {
        name: String,
        max: u16,
        #[serde(default)]
        pool: Vec<Pool>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Pool {
        label: String,
        cpus: u64,
    }

    #[test]
    fn entries_are_read_by_what_they_say_they_are() {
        let read = |text: &str| {
            let entries = SettingsText::new("f", text).entries("any");
            let kinds = entries.into_iter().map(|mut entry| {
                match entry.take_word("kind", &["pool", "lease"])? {
                    "pool" => entry.read::<Pool>().map(|_| "pool"),
                    _ => entry.read::<Lease>().map(|_| "lease"),
                }
            });
            kinds.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
        };
        let pool = "[[any]]\nname = \"p\"\nkind = \"pool\"\nlabel = \"x\"\ncpus = 1\n";
        let both = format!("[[any]]\nkind = \"lease\"\n{}", pool.replace("name = \"p\"\n", ""));
        assert_eq!(read(&both).unwrap(), ["lease", "pool"]);
        assert_eq!(read("").unwrap(), [""; 0]);
        for (text, expected) in [
            (pool.to_owned(), "f:2:1: any[p].name: unknown field `name`"),
            (
                both.replace("cpus = 1", "cpus = \"1\""),
                "f:6:8: any[x].cpus: invalid type: string \"1\", expected u64",
            ),
            (
                both.replace("\"pool\"", "\"pond\""),
                "f:4:8: any[x].kind: `kind` is one of pool, lease",
            ),
            (both.replace("kind = \"pool\"\n", ""), "f:3:1: any[x]: `kind` is one of pool, lease"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(expected), "{text} gave {error}");
        }
    }

    const TWO: &str = "[[provider]]\nname = \"a\"\nmax = 1\n[[provider]]\nname = \"b\"\nmax = 2\n\
        [[provider.pool]]\nlabel = \"x\"\ncpus = 1\n[[provider.pool]]\ncpus = 2\nlabel = \"é\"\n";

    #[test]
    fn what_a_type_refuses_is_told_with_its_place_and_key() {
        for (text, expected) in [
            ("state = 5\n", "f:1:9: state: invalid type: integer `5`, expected a string"),
            (
                "[lease]\nmax_s = -1\n",
                "f:2:9: lease.max_s: invalid value: integer `-1`, expected u64",
            ),
            ("[lease]\nlisten = [1,\n 70000]\n", "f:3:2: lease.listen[1]: invalid value"),
            ("lease.max = 3\n", "f:1:7: lease.max: unknown field `max`, expected"),
            ("[lease]\nmax = 3\n", "f:2:1: lease.max: unknown field `max`, expected"),
            ("lease = 1\n", "f:1:9: lease: invalid type: integer `1`, expected struct Lease"),
            (&TWO.replace("max = 2\n", ""), "f:4:1: provider[b]: missing field `max`"),
            (&TWO.replace("max = 2", "max = 2.5"), "f:6:7: provider[b].max: invalid type"),
            (&TWO.replace("cpus = 2", "cpu = 2"), "f:11:1: provider[b].pool[é].cpu: unknown field"),
            ("state\n", "f:1:6: "),
            ("x = \"é\"\nstate = \"\n", "f:2:10: "),
        ] {
            let error = SettingsText::new("f", text).read::<File>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        }
        SettingsText::new("f", TWO).read::<File>().unwrap();
    }

    #[test]
    fn what_a_look_at_several_refuses_too_and_what_is_missing_is_where_it_belongs() {
        let text = SettingsText::new("f", TWO);
        let told = |wrong: Wrong| text.refuse(&wrong).to_string();
        let pool = |wrong: Wrong, n| wrong.entry("pool", n).entry("provider", 1);
        assert_eq!(told(Wrong::at("cpus", "no").entry("pool", 1)), "f: pool[1].cpus: no");
        assert_eq!(told(pool(Wrong::at("cpus", "no"), 1)), "f:11:8: provider[b].pool[é].cpus: no");
        assert_eq!(told(pool(Wrong::at("image", "no"), 0)), "f:7:1: provider[b].pool[x].image: no");
        assert_eq!(told(Wrong::from("no").entry("provider", 0)), "f:1:1: provider[a]: no");
        assert_eq!(told(Wrong::at("lease.max_s", "no")), "f: lease.max_s: no");
        assert_eq!(told(Wrong::from("no")), "f: no");
        // Without a text numbers stand for names.
        let wrong = pool(Wrong::at("cpus", "no"), 1).to_string();
        assert_eq!(wrong, "provider[1].pool[1].cpus: no");
    }
}
