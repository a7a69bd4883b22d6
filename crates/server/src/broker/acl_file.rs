//! The ACL file of geard (origin.md 1.6): an INI file with a section for each certificate name.
//!
//! ```ini
//! [worker1]
//! register=lockenv
//! [client1]
//! invoke=lock.*
//! grant=True
//! ```

use std::path::{Path, PathBuf};
use toci_core::broker::{Acl, AclEntry, AclError, Pattern};

/// Largest file, in bytes.
pub const ACL_FILE_MAX_BYTES: u64 = 16 << 20;

/// What is wrong with an ACL file.
#[derive(Debug, thiserror::Error)]
pub enum AclFileError {
    /// It cannot be read.
    #[error("reading the ACL file {path} failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

/// Read a file.
pub fn read_acl_file(path: &Path) -> Result<Acl, AclFileError> {
    let read = |source| AclFileError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > ACL_FILE_MAX_BYTES {
        return Err(read(std::io::Error::other(format!("larger than {ACL_FILE_MAX_BYTES} bytes"))));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    parse_acl(&text).map_err(|(line, problem)| AclFileError::Line {
        path: path.to_owned(),
        line,
        problem,
    })
}

/// The list in `text`, or the line that is wrong and why.
pub fn parse_acl(text: &str) -> Result<Acl, (usize, String)> {
    let mut acl = Acl::default();
    let mut section: Option<(String, usize, AclEntry)> = None;
    for (n, raw) in text.lines().enumerate() {
        let (number, line) = (n + 1, raw.trim());
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            close(&mut acl, section.take())?;
            section = Some((name.to_owned(), number, AclEntry::default()));
            continue;
        }
        let Some((_, _, entry)) = &mut section else {
            return Err((number, "expected a section such as [subject] first".to_owned()));
        };
        let Some((key, value)) = line.split_once(['=', ':']) else {
            return Err((number, format!("expected key=value, found `{line}`")));
        };
        set(entry, key.trim(), value.trim()).map_err(|problem| (number, problem))?;
    }
    close(&mut acl, section)?;
    Ok(acl)
}

fn close(acl: &mut Acl, section: Option<(String, usize, AclEntry)>) -> Result<(), (usize, String)> {
    let Some((name, line, entry)) = section else { return Ok(()) };
    acl.add(&name, entry).map_err(|e: AclError| (line, e.to_string()))
}

fn set(entry: &mut AclEntry, key: &str, value: &str) -> Result<(), String> {
    let pattern = || Pattern::new(value).map_err(|e| e.to_string());
    match key.to_ascii_lowercase().as_str() {
        "register" => entry.register = Some(pattern()?),
        "invoke" => entry.invoke = Some(pattern()?),
        "grant" => {
            entry.grant = match value.to_ascii_lowercase().as_str() {
                "1" | "yes" | "true" | "on" => Some(true),
                "0" | "no" | "false" | "off" => Some(false),
                _ => return Err(format!("grant is `{value}`; expected true or false")),
            }
        }
        _ => return Err(format!("unknown key `{key}`; expected register, invoke or grant")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_list() {
        let text = "# who may what\n[w 1]\nregister = lock.*\n\n; c\n[c]\ninvoke: a%b\ngrant=Yes\n";
        let acl = parse_acl(text).unwrap();
        assert!(acl.may_register(Some("w 1"), b"lockenv"));
        assert!(acl.may_invoke(Some("c"), b"a%b"));
        assert!(acl.may_grant(Some("c")) && !acl.may_grant(Some("w 1")));
    }

    #[test]
    fn mistakes_name_their_line() {
        let line = |text: &str| parse_acl(text).unwrap_err();
        assert_eq!(line("register=x").0, 1);
        assert_eq!(line("[a]\nregister=(\n").0, 2);
        assert_eq!(line("[a]\n[b]\n[a]\n").0, 3);
        assert_eq!(line("[a]\ngrant=perhaps").0, 2);
        assert!(line("[a]\nwrite=x").1.contains("expected register, invoke or grant"));
    }
}
