//! The bearer token, which never shows itself.

use core::fmt;
use hyper::header::HeaderValue;
use std::path::Path;

/// Longest token, in bytes.
const TOKEN_MAX_BYTES: usize = 512;

/// A bearer token. `Debug` does not show it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Something that cannot be a token.
#[derive(Debug, thiserror::Error)]
pub enum BadToken {
    /// Empty, too long, or with characters that cannot stand in a header.
    #[error(
        "this is not a token: expected 1 to {TOKEN_MAX_BYTES} printable characters without spaces"
    )]
    Malformed,
    /// The file could not be read.
    #[error("read token file {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl Token {
    /// A token from text; white space around it is ignored.
    pub fn new(text: &str) -> Result<Token, BadToken> {
        let text = text.trim();
        let fits = !text.is_empty() && text.len() <= TOKEN_MAX_BYTES;
        if fits && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Token(text.to_owned()))
        } else {
            Err(BadToken::Malformed)
        }
    }

    /// A token from a file that holds nothing else.
    pub fn from_file(path: &Path) -> Result<Token, BadToken> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BadToken::Read { path: path.display().to_string(), source })?;
        Token::new(&text)
    }

    /// The secret itself; keep it out of logs and argument lists.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_checked_and_hidden() {
        let token = Token::new(" toci_abc\n").unwrap();
        assert_eq!(token.reveal(), "toci_abc");
        assert!(!format!("{token:?}").contains("abc"));
        assert!(token.header().unwrap().is_sensitive());
        for bad in ["", "  ", "a b", "a\u{e9}", &"x".repeat(TOKEN_MAX_BYTES + 1)] {
            assert!(matches!(Token::new(bad), Err(BadToken::Malformed)), "{bad:?}");
        }
        assert!(matches!(Token::from_file(Path::new("/nonexistent")), Err(BadToken::Read { .. })));
    }
}
