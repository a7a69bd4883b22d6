//! A script's output as lines, however it comes: in halves, without an end, with bytes that are no text, without limit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line, in bytes; a longer one is told in pieces.
pub const LINE_MAX_BYTES: usize = 16 << 10;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// Lines of a stream.
#[derive(Debug)]
pub struct Lines<R> {
    stream: R,
    mask: Mask,
    held: Vec<u8>,
    /// What of it was told already.
    told: usize,
    over: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Of this stream. A line that is told in pieces is never cut within a word of the mask.
    pub fn new(stream: R, mask: Mask) -> Lines<R> {
        Lines { stream, mask, held: Vec::new(), told: 0, over: false }
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
            None if near.len() == LINE_MAX_BYTES => {
                let near = &near[..self.mask.cut(near)];
                (near, near.len())
            }
            None if self.over && !near.is_empty() => (near, near.len()),
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

/// Replaces secrets in lines, also their base64. Secrets of several lines are masked line by line; very short ones are
/// left, since masking them would make every line unreadable.
#[derive(Clone, Default)]
pub struct Mask {
    words: Vec<String>,
}

/// Shortest secret whose base64 is masked as well, in bytes: what is left of a shorter one's may be anything.
const DISGUISED_MIN_BYTES: usize = 8;
/// Lines of base64 as `base64` and PEM files have them, in characters.
const BASE64_LINES: [usize; 2] = [76, 64];

/// A secret as base64 shows it: alone, over several lines, and behind other bytes (as in `user:password`).
fn disguised(secret: &str) -> Vec<String> {
    let secret = secret.trim_end_matches('\n').as_bytes();
    if secret.len() < DISGUISED_MIN_BYTES {
        return Vec::new();
    }
    let mut out = Vec::new();
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(secret);
        let text = STANDARD_NO_PAD.encode(&bytes);
        // Characters that depend on nothing but the secret.
        let first = (before * 8).div_ceil(6);
        let whole = bytes.len() * 8 / 6;
        let Some(own) = text.get(first..whole) else { continue };
        out.push(own.to_owned());
        if before == 0 {
            for width in BASE64_LINES {
                let lines = own.as_bytes().chunks(width).map(String::from_utf8_lossy);
                // A short last line may be part of any word.
                let lines = lines.filter(|line| line.len() >= DISGUISED_MIN_BYTES);
                out.extend(lines.map(String::from));
            }
        }
    }
    out
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
        let mut words: Vec<String> = Vec::new();
        for secret in secrets {
            words.extend(secret.lines().map(|line| line.trim().to_owned()));
            words.extend(disguised(secret));
        }
        words.retain(|word| word.len() >= MASKED_MIN_BYTES);
        // The longest first, so that one secret within another leaves no rest.
        words.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        words.dedup();
        Mask { words }
    }

    /// Where a text that goes on may be cut: not where a word has begun that ends behind it, or may.
    fn cut(&self, text: &[u8]) -> usize {
        let mut end = text.len();
        while end > text.len() / 2 {
            let across = |word: &String| {
                let word = word.as_bytes();
                let first = (end + 1).saturating_sub(word.len());
                (first..end).find(|at| {
                    let there = &text[*at..text.len().min(at + word.len())];
                    word.starts_with(there)
                })
            };
            match self.words.iter().filter_map(across).min() {
                Some(at) => end = at,
                None => return end,
            }
        }
        // It consists of words that overlap: nothing is to be read in it.
        text.len()
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
        let mut lines = Lines::new(bytes, Mask::new(["hunter2-hunter2"]));
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

    #[tokio::test]
    async fn a_line_that_is_told_in_pieces_is_not_cut_within_a_secret() {
        let mask = Mask::new(["hunter2-hunter2"]);
        for before in LINE_MAX_BYTES - 20..LINE_MAX_BYTES + 5 {
            let mut long = vec![b'h'; before];
            long.extend_from_slice(b"hunter2-hunter2");
            long.extend_from_slice(&[b'x'; 100]);
            let pieces = lines(&long).await;
            assert!(pieces.iter().all(|piece| piece.len() <= LINE_MAX_BYTES));
            let told: String = pieces.into_iter().map(|piece| mask.apply(piece)).collect();
            assert!(told.contains("********") && !told.contains("hunter2"), "{before}");
            let lost = "hunter2-hunter2".len() - "********".len();
            assert_eq!(told.len(), long.len() - lost);
        }
    }

    #[test]
    fn what_base64_makes_of_secrets_is_masked() {
        let secret = "correct horse battery staple, and some more so that it takes two lines\nand one more\n";
        let mask = Mask::new([secret, "hunter2-hunter2"]);
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        for text in [
            encode(secret.as_bytes()),
            encode(b"hunter2-hunter2"),
            encode(b"hunter2-hunter2\n"),
            encode(b"ann:hunter2-hunter2"),
            encode(b"anna:hunter2-hunter2"),
            encode(b"annaa:hunter2-hunter2 x"),
        ] {
            let masked = mask.apply(format!("x {text} y"));
            assert!(masked.contains("********"), "{masked}");
            // Characters that other bytes have a part in stay.
            let other = "x  y********".len() + 12;
            assert!(masked.len() <= other, "{masked} of {text}");
        }
        for width in BASE64_LINES {
            let text = encode(secret.as_bytes());
            for line in text.as_bytes().chunks(width) {
                let line = String::from_utf8_lossy(line).into_owned();
                let masked = mask.apply(line.clone());
                assert!(masked.contains("********"), "{masked}");
            }
        }
    }

    #[test]
    fn secrets_are_masked_line_by_line_the_longest_first() {
        let mask = Mask::new(["hunter2", "hunter2-long", "-----BEGIN KEY-----\nabcdef\n", "ab"]);
        assert_eq!(mask.apply("x hunter2-long y hunter2".into()), "x ******** y ********");
        assert_eq!(mask.apply("abcdef ab".into()), "******** ab");
        assert!(!format!("{mask:?}").contains("hunter"));
    }
}
