//! Reading what a worker writes, with bounds: lines of stdout, the end of stderr.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::locked;
use super::settings::Settings;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// A buffer that grew beyond this for a long line is given back when it is empty.
const KEPT_BYTES: usize = 1024 * 1024;

/// How reading ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// End of file, with what followed the last newline.
    Eof { rest: usize },
    /// A line, or what may become one, is longer than allowed.
    TooLong,
    /// The consumer had enough.
    Stopped,
}

/// Hands every non-empty line to `consume`, without its newline. Holds no more than one line and one chunk.
///
/// # Errors
/// What the operating system says.
pub(super) async fn read_lines(
    mut source: impl AsyncRead + Unpin,
    max_bytes: usize,
    mut consume: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> std::io::Result<ReadEnd> {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    let mut scanned = 0;
    loop {
        if buffer.is_empty() && buffer.capacity() > KEPT_BYTES {
            buffer = BytesMut::new();
        }
        buffer.reserve(CHUNK_BYTES);
        if source.read_buf(&mut buffer).await? == 0 {
            return Ok(ReadEnd::Eof { rest: buffer.trim_ascii().len() });
        }
        let mut start = 0;
        while let Some(length) = buffer[scanned..].iter().position(|&b| b == b'\n') {
            let line = &buffer[start..scanned + length];
            if line.len() > max_bytes {
                return Ok(ReadEnd::TooLong);
            }
            scanned += length + 1;
            start = scanned;
            if !line.trim_ascii().is_empty() && consume(line).is_break() {
                return Ok(ReadEnd::Stopped);
            }
        }
        buffer.advance(start);
        scanned = buffer.len();
        if scanned > max_bytes {
            return Ok(ReadEnd::TooLong);
        }
    }
}

/// Reads all that comes into `into`, up to `max_bytes`.
///
/// # Errors
/// What the operating system says.
pub(super) async fn read_all(
    mut source: impl AsyncRead + Unpin,
    max_bytes: usize,
    into: &Mutex<Vec<u8>>,
) -> std::io::Result<ReadEnd> {
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    loop {
        chunk.clear();
        chunk.reserve(CHUNK_BYTES);
        if source.read_buf(&mut chunk).await? == 0 {
            return Ok(ReadEnd::Eof { rest: 0 });
        }
        let mut all = locked(into);
        if all.len() + chunk.len() > max_bytes {
            return Ok(ReadEnd::TooLong);
        }
        all.extend_from_slice(&chunk);
    }
}

/// The end of a worker's stderr.
#[derive(Debug)]
pub(super) struct Tail {
    /// What people get to see.
    max_bytes: usize,
    /// A secret that lies across the beginning of that is recognised by what comes before.
    kept_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    cut: bool,
    /// The text of `bytes`, until more comes: many jobs end between two lines of stderr.
    text: Option<Arc<str>>,
}

impl Tail {
    pub(super) fn new(settings: &Settings) -> Self {
        let max_bytes = settings.stderr_max_bytes;
        let longest = settings.secrets.iter().map(String::len).max().unwrap_or_default();
        let kept_bytes = max_bytes.saturating_add(longest.saturating_sub(1));
        Self { max_bytes, kept_bytes, kept: Mutex::default() }
    }

    fn push(&self, chunk: &[u8]) {
        let mut kept = locked(&self.kept);
        kept.text = None;
        kept.bytes.extend(&chunk[chunk.len().saturating_sub(self.kept_bytes)..]);
        let excess = kept.bytes.len().saturating_sub(self.kept_bytes);
        kept.bytes.drain(..excess);
        kept.cut |= excess > 0 || chunk.len() > self.kept_bytes;
    }

    /// The text without the secrets of `settings`. Bytes that are no UTF-8, and NUL, become U+FFFD.
    pub(super) fn text(&self, settings: &Settings) -> Arc<str> {
        let mut kept = locked(&self.kept);
        if let Some(text) = &kept.text {
            return Arc::clone(text);
        }
        let was_cut = kept.cut;
        let all: &[u8] = kept.bytes.make_contiguous();
        let from = settings.past_secrets(all, all.len().saturating_sub(self.max_bytes));
        let cut = was_cut || from > 0;
        let mut bytes = &all[from..];
        // The cut may have gone through a character.
        while let [first, rest @ ..] = bytes
            && cut
            && *first & 0b1100_0000 == 0b1000_0000
        {
            bytes = rest;
        }
        let text: Arc<str> =
            settings.redact(&String::from_utf8_lossy(bytes).replace('\0', "\u{FFFD}")).into();
        kept.text = Some(Arc::clone(&text));
        text
    }

    /// Takes in all of `source` until its end. An error ends it too: stderr decides nothing.
    pub(super) async fn drain(&self, mut source: impl AsyncRead + Unpin) {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            chunk.clear();
            chunk.reserve(CHUNK_BYTES);
            match source.read_buf(&mut chunk).await {
                Ok(0) => return,
                Ok(_) => self.push(&chunk),
                Err(error) => {
                    tracing::debug!(%error, "a worker's stderr cannot be read any further");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;

    /// Settings that keep so much of stderr, and know these secrets, the longest first.
    fn keeping(stderr_max_bytes: usize, secrets: &[&str]) -> Settings {
        let config = Config::from_lookup(&|_| None).unwrap();
        let secrets = secrets.iter().map(|&s| s.to_owned()).collect();
        Settings { stderr_max_bytes, secrets, ..Settings::from_config(&config) }
    }

    async fn lines(source: &[u8], max: usize) -> (Vec<String>, ReadEnd) {
        let mut seen = Vec::new();
        let end = read_lines(source, max, |line| {
            seen.push(String::from_utf8(line.to_vec()).unwrap());
            ControlFlow::Continue(())
        });
        let end = end.await.unwrap();
        (seen, end)
    }

    #[tokio::test]
    async fn lines_are_split_and_bounded() {
        let (seen, end) = lines(b"a\n\n \nbcd\nrest", 4).await;
        assert_eq!((seen, end), (vec!["a".into(), "bcd".into()], ReadEnd::Eof { rest: 4 }));
        assert_eq!(lines(b"abcd\nabcde\n", 4).await, (vec!["abcd".into()], ReadEnd::TooLong));
        assert_eq!(lines(b"abcde", 4).await.1, ReadEnd::TooLong);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(text in "[ab\n]{0,60}", cuts in prop::collection::vec(1_usize..9, 0..30)) {
            let mut source = tokio_test_source(&text, &cuts);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut seen = Vec::new();
            runtime.block_on(read_lines(&mut source, 100, |line| {
                seen.push(String::from_utf8(line.to_vec()).unwrap());
                ControlFlow::Continue(())
            })).unwrap();
            let complete = text.rfind('\n').map_or("", |end| &text[..end]);
            let expected: Vec<String> =
                complete.split('\n').filter(|l| !l.is_empty()).map(ToOwned::to_owned).collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn the_tail_is_the_end(chunks in prop::collection::vec("[a-z]{0,12}", 0..12), max in 0_usize..20) {
            let settings = keeping(max, &["SECRET-LONGER-THAN-ALL"]);
            let tail = Tail::new(&settings);
            chunks.iter().for_each(|c| tail.push(c.as_bytes()));
            let all = chunks.concat();
            prop_assert_eq!(&*tail.text(&settings), &all[all.len().saturating_sub(max)..]);
        }

        #[test]
        fn nothing_of_a_secret_is_in_the_tail_wherever_it_is_cut(
            words in prop::collection::vec(prop_oneof!["[a-z]{0,6}", Just("KEY-OF-ADA".to_owned()), Just("ADA12345".to_owned())], 0..9),
            max in 0_usize..40,
            cuts in prop::collection::vec(1_usize..9, 0..30),
        ) {
            // The second begins with the end of the first.
            let settings = keeping(max, &["KEY-OF-ADA", "ADA12345"]);
            let tail = Tail::new(&settings);
            let all = words.concat();
            let mut rest = all.as_bytes();
            for cut in cuts {
                let (piece, remaining) = rest.split_at(cut.min(rest.len()));
                tail.push(piece);
                rest = remaining;
            }
            tail.push(rest);
            let shown = tail.text(&settings).replace("[redacted]", "");
            prop_assert!(!shown.contains(|c: char| !c.is_ascii_lowercase()), "{all} → {shown}");
        }
    }

    /// Gives `text` in pieces of the sizes of `cuts`.
    fn tokio_test_source(text: &str, cuts: &[usize]) -> impl AsyncRead + Unpin + use<> {
        let mut pieces = VecDeque::new();
        let mut rest = text.as_bytes();
        for &cut in cuts {
            let (piece, remaining) = rest.split_at(cut.min(rest.len()));
            pieces.push_back(Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(piece)));
            rest = remaining;
        }
        pieces.push_back(Ok(bytes::Bytes::copy_from_slice(rest)));
        pieces.retain(|piece| !piece.as_ref().is_ok_and(bytes::Bytes::is_empty));
        tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces))
    }

    #[test]
    fn the_tail_is_text_without_nul_half_characters_or_secrets() {
        let settings = keeping(6, &["k"]);
        let tail = Tail::new(&settings);
        tail.push("ééé\0k".as_bytes());
        assert_eq!(&*tail.text(&settings), "éé\u{FFFD}[redacted]");
        tail.push(&[0xff]);
        assert_eq!(&*tail.text(&keeping(6, &[])), "é\u{FFFD}k\u{FFFD}");
    }
}
