//! A script's output as lines, however it comes: in halves, without an end, with bytes that are no text, without limit.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line, in bytes; a longer one is told in pieces.
pub const LINE_MAX_BYTES: usize = 16 << 10;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// Lines of a stream.
#[derive(Debug)]
pub struct Lines<R> {
    stream: R,
    held: Vec<u8>,
    /// What of it was told already.
    told: usize,
    over: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Of this stream.
    pub fn new(stream: R) -> Lines<R> {
        Lines { stream, held: Vec::new(), told: 0, over: false }
    }

    /// The next line without its end; `None` after the last. What is no UTF-8 becomes U+FFFD, a broken stream ends it.
    /// Safe to cancel.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.ready() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            self.held.drain(..self.told);
            self.told = 0;
            self.held.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.held).await {
                Ok(0) | Err(_) => self.over = true,
                Ok(_) => {}
            }
        }
    }

    /// A line that has come already.
    pub fn ready(&mut self) -> Option<String> {
        let rest = &self.held[self.told..];
        let near = &rest[..rest.len().min(LINE_MAX_BYTES)];
        let (line, length) = match near.iter().position(|b| *b == b'\n') {
            Some(end) => (&near[..end], end + 1),
            None if near.len() == LINE_MAX_BYTES || (self.over && !near.is_empty()) => {
                (near, near.len())
            }
            None => return None,
        };
        let line = text(line);
        self.told += length;
        Some(line)
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

/// Replaces secrets in lines. Secrets of several lines are masked line by line; very short ones are left, since
/// masking them would make every line unreadable.
#[derive(Clone, Default)]
pub struct Mask {
    words: Vec<String>,
}

/// Shortest text that is masked, in bytes.
pub const MASKED_MIN_BYTES: usize = 4;

impl core::fmt::Debug for Mask {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Mask({} words)", self.words.len())
    }
}

impl Mask {
    /// For these secrets.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Mask {
        let mut words: Vec<String> = secrets
            .into_iter()
            .flat_map(str::lines)
            .map(str::trim)
            .filter(|line| line.len() >= MASKED_MIN_BYTES)
            .map(str::to_owned)
            .collect();
        // The longest first, so that one secret within another leaves no rest.
        words.sort_by_key(|w| core::cmp::Reverse(w.len()));
        words.dedup();
        Mask { words }
    }

    /// The line without them.
    #[must_use]
    pub fn apply(&self, line: String) -> String {
        self.words.iter().fold(line, |line, word| {
            if line.contains(word.as_str()) {
                line.replace(word.as_str(), "********")
            } else {
                line
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(bytes);
        let mut out = Vec::new();
        while let Some(line) = lines.next().await {
            out.push(line);
        }
        out
    }

    #[tokio::test]
    async fn lines_end_where_they_end() {
        assert_eq!(lines(b"a\r\nb\n\nc").await, ["a", "b", "", "c"]);
        assert_eq!(lines(b"").await, [""; 0]);
        assert_eq!(lines(b"\xff\xfe\n").await, ["\u{fffd}\u{fffd}"]);
    }

    #[tokio::test]
    async fn a_line_without_end_comes_in_pieces() {
        let long = vec![b'x'; 2 * LINE_MAX_BYTES + 5];
        let found: Vec<usize> = lines(&long).await.iter().map(String::len).collect();
        assert_eq!(found, [LINE_MAX_BYTES, LINE_MAX_BYTES, 5]);
    }

    #[test]
    fn secrets_are_masked_line_by_line_the_longest_first() {
        let mask = Mask::new(["hunter2", "hunter2-long", "-----BEGIN KEY-----\nabcdef\n", "ab"]);
        assert_eq!(mask.apply("x hunter2-long y hunter2".into()), "x ******** y ********");
        assert_eq!(mask.apply("abcdef ab".into()), "******** ab");
        assert!(!format!("{mask:?}").contains("hunter"));
    }
}
