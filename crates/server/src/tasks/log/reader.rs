//! Stored texts as they are read: unzipped piece by piece, in lines with their times.

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use std::io::{self, Write};
use std::pin::Pin;
use toci_core::log::first_error::{Rank, cleaned, rank};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Compressed bytes that are unzipped at a time. What was packed here grows a thousandfold at most.
const PIECE_BYTES: usize = 16 << 10;

/// A compressed text, unzipped.
pub(crate) struct Unzipped {
    body: Pin<Box<dyn AsyncRead + Send>>,
    decoder: MultiGzDecoder<Vec<u8>>,
    over: bool,
}

impl Unzipped {
    pub(crate) fn new(body: Pin<Box<dyn AsyncRead + Send>>) -> Unzipped {
        Unzipped { body, decoder: MultiGzDecoder::new(Vec::new()), over: false }
    }

    /// The next piece; none after the last.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = vec![0; PIECE_BYTES];
        while !self.over {
            let got = self.body.read(&mut piece).await?;
            if got == 0 {
                self.over = true;
                self.decoder.try_finish()?;
            } else {
                self.decoder.write_all(&piece[..got])?;
            }
            let text = std::mem::take(self.decoder.get_mut());
            if !text.is_empty() {
                return Ok(Some(Bytes::from(text)));
            }
        }
        Ok(None)
    }

    /// Lines `from` to `from + max - 1` that are at least as telling as `least`, and whether there are more lines.
    /// Numbers count from 1.
    pub(crate) async fn lines(
        mut self,
        from: usize,
        max: usize,
        least: Option<Rank>,
    ) -> io::Result<(Vec<ViewedLine>, bool)> {
        let (mut out, mut number, mut held) = (Vec::new(), 0, Vec::new());
        while let Some(piece) = self.next().await? {
            let mut rest = &piece[..];
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                held.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                number += 1;
                if out.len() == max {
                    return Ok((out, true));
                }
                if number >= from {
                    out.extend(ViewedLine::new(number, &held, least));
                }
                held.clear();
            }
            held.extend_from_slice(rest);
        }
        if !held.is_empty() && number + 1 >= from {
            if out.len() == max {
                return Ok((out, true));
            }
            out.extend(ViewedLine::new(number + 1, &held, least));
        }
        Ok((out, false))
    }
}

/// A line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ViewedLine {
    pub(crate) number: usize,
    /// Its time as written; empty when it has none.
    pub(crate) stamp: String,
    pub(crate) text: String,
    pub(crate) rank: Option<Rank>,
}

impl ViewedLine {
    fn new(number: usize, bytes: &[u8], least: Option<Rank>) -> Option<ViewedLine> {
        let line = String::from_utf8_lossy(bytes);
        let text = cleaned(&line);
        let rank = rank(&text);
        if let Some(least) = least
            && rank.is_none_or(|rank| rank > least)
        {
            return None;
        }
        let stamp = match line.split_once(" | ") {
            Some((stamp, rest)) if rest.len() + 3 < line.len() && !text.starts_with(stamp) => {
                stamp.to_owned()
            }
            Some(_) | None => String::new(),
        };
        Some(ViewedLine { number, stamp, text, rank })
    }
}
