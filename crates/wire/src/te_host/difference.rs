//! Settings that differ between two texts.

use toci_core::deploy::Difference;
use toml::{Table, Value};

/// Differences of two TOML texts, by key. Lists are compared as wholes.
///
/// # Errors
/// One of them is not TOML.
pub fn differences(from: &str, to: &str) -> Result<Vec<Difference>, toml::de::Error> {
    let (from, to): (Table, Table) = (toml::from_str(from)?, toml::from_str(to)?);
    let mut found = Vec::new();
    compare("", &from, &to, &mut found);
    Ok(found)
}

fn compare(above: &str, from: &Table, to: &Table, found: &mut Vec<Difference>) {
    let mut keys: Vec<&String> = from.keys().chain(to.keys()).collect();
    keys.sort();
    keys.dedup();
    let nothing = Table::new();
    for key in keys {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match (from.get(key), to.get(key)) {
            (Some(Value::Table(from)), Some(Value::Table(to))) => compare(&path, from, to, found),
            (Some(Value::Table(from)), None) => compare(&path, from, &nothing, found),
            (None, Some(Value::Table(to))) => compare(&path, &nothing, to, found),
            (from, to) if from == to => {}
            (from, to) => {
                let [from, to] = [from, to].map(|v| v.map(Value::to_string));
                found.push(Difference { key: path, from, to });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_by_its_key() {
        let from = "a = 1\n[n]\nx = \"y\"\nz = 2\n[old]\nk = true\n[[t]]\ncount = 1\n";
        let to = "a = 1 # same\n[n]\nx = \"w\"\nz = 2\n[[t]]\ncount = 2\n";
        let found = differences(from, to).unwrap();
        let said: Vec<_> = found
            .iter()
            .map(|d| {
                let [from, to] = [&d.from, &d.to].map(|v| v.as_deref().unwrap_or("-"));
                format!("{} {from} {to}", d.key)
            })
            .collect();
        let expected = ["n.x \"y\" \"w\"", "old.k true -", "t [{ count = 1 }] [{ count = 2 }]"];
        assert_eq!(said, expected);
        assert_eq!(differences(from, from).unwrap(), []);
        assert!(differences("=", to).is_err());
    }
}
