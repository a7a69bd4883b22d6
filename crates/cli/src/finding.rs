//! Errors of a YAML file with their places: for people under the line that each is about, for programs as JSON.

use serde::Serialize;
use toci_wire::layout::LayoutError;

/// An error or a note, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Finding {
    pub(crate) fn of(error: &LayoutError) -> Finding {
        Finding {
            line: error.mark.line,
            column: error.mark.column,
            path: error.path.clone(),
            message: error.what.clone(),
            hint: error.expected.clone(),
        }
    }
}

/// Each error, with its line of the file and a caret under it.
pub(crate) fn under_their_lines(errors: &[LayoutError], text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for error in errors {
        out.push(error.to_string());
        if let Some(line) = text.lines().nth(error.mark.line.saturating_sub(1)) {
            let under = " ".repeat(error.mark.column.saturating_sub(1));
            out.push(format!("    {line}\n    {under}^"));
        }
    }
    out
}
