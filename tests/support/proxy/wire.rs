//! As much of PostgreSQL's protocol as it takes to know which statement is on its way, and where its answer ends.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Asks for TLS, or for encryption by GSSAPI.
const WANTS_ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
/// What is read at once, at most if nothing more is known to come.
const READ: usize = 16_384;
/// Asks to cancel another connection's statement.
const CANCEL_REQUEST: u32 = 80_877_102;

/// One message after the start-up: its type, and all of its bytes.
pub struct Message {
    pub kind: u8,
    pub bytes: Bytes,
}

impl Message {
    /// What follows type and length.
    fn body(&self) -> &[u8] {
        &self.bytes[5..]
    }
}

/// Reads messages.
pub struct Reader<R> {
    from: R,
    buffer: BytesMut,
}

/// What a client begins with.
pub enum Opening {
    /// It wants encryption, and gets none here.
    WantsEncryption,
    /// It wants a statement cancelled.
    Cancel(Bytes),
    /// It wants a session.
    Startup(Bytes),
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(from: R) -> Self {
        Self { from, buffer: BytesMut::new() }
    }

    /// The next start-up packet; `None` at the end.
    pub async fn opening(&mut self) -> Result<Option<Opening>> {
        let Some(bytes) = self.take(0).await? else { return Ok(None) };
        let code = bytes.get(4..8).ok_or(ErrorKind::InvalidData)?;
        let code = u32::from_be_bytes(code.try_into().map_err(|_| ErrorKind::InvalidData)?);
        Ok(Some(match code {
            c if WANTS_ENCRYPTION.contains(&c) => Opening::WantsEncryption,
            CANCEL_REQUEST => Opening::Cancel(bytes),
            _ => Opening::Startup(bytes),
        }))
    }

    /// The next message; `None` at the end.
    pub async fn message(&mut self) -> Result<Option<Message>> {
        Ok(self.take(1).await?.map(|bytes| Message { kind: bytes[0], bytes }))
    }

    /// Whether a whole message has been read already.
    pub fn has_more(&self) -> bool {
        length(&self.buffer, 1).is_some_and(|length| self.buffer.len() >= length)
    }

    /// The next packet, whose length follows `before` bytes and does not count them.
    async fn take(&mut self, before: usize) -> Result<Option<Bytes>> {
        loop {
            if let Some(length) = length(&self.buffer, before) {
                if length < before + 4 {
                    return Err(Error::new(ErrorKind::InvalidData, "a message shorter than its length"));
                }
                if self.buffer.len() >= length {
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
                self.buffer.reserve(length - self.buffer.len());
            }
            self.buffer.reserve(READ);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

fn length(buffer: &BytesMut, before: usize) -> Option<usize> {
    let mut length = buffer.get(before..before + 4)?;
    Some(before + length.get_u32() as usize)
}

/// What a client has asked for with one Sync or one simple query; the server answers it with one ReadyForQuery.
#[derive(Debug, Default, Clone)]
pub struct Request {
    /// The statements that it runs.
    pub runs: Vec<String>,
    /// The statements that are on record for good when the server has carried it out: itself outside of transactions; for
    /// a COMMIT, all of its transaction.
    pub commits: Vec<String>,
}

/// Follows what a client sends.
#[derive(Default)]
pub struct Follower {
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, String>,
    runs: Vec<String>,
    transaction: Option<Vec<String>>,
}

impl Follower {
    /// Takes note of a message; a request that it completes is returned.
    pub fn note(&mut self, message: &Message) -> Option<Request> {
        let mut body = message.body();
        match message.kind {
            b'P' => {
                let name = text(&mut body);
                let sql = String::from_utf8_lossy(&text(&mut body)).into_owned();
                self.statements.insert(name, sql);
                None
            }
            b'B' => {
                let portal = text(&mut body);
                let sql = self.statements.get(&text(&mut body)).cloned().unwrap_or_default();
                self.portals.insert(portal, sql);
                None
            }
            b'E' => {
                self.runs.extend(self.portals.get(&text(&mut body)).cloned());
                None
            }
            b'Q' => {
                self.runs.push(String::from_utf8_lossy(&text(&mut body)).into_owned());
                Some(self.complete())
            }
            b'S' => Some(self.complete()),
            _ => None,
        }
    }

    fn complete(&mut self) -> Request {
        let runs = std::mem::take(&mut self.runs);
        let mut commits = Vec::new();
        for sql in &runs {
            let word = |word: &str| sql.get(..word.len()).is_some_and(|s| s.eq_ignore_ascii_case(word));
            if word("BEGIN") {
                self.transaction = Some(Vec::new());
            } else if word("COMMIT") {
                commits.extend(self.transaction.take().unwrap_or_default());
            } else if word("ROLLBACK") && !word("ROLLBACK TO") {
                self.transaction = None;
            } else if let Some(transaction) = &mut self.transaction {
                transaction.push(sql.clone());
            } else {
                commits.push(sql.clone());
            }
        }
        Request { runs, commits }
    }
}

/// The text up to the next NUL, which is consumed.
fn text(body: &mut &[u8]) -> Vec<u8> {
    let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
    let text = body[..end].to_vec();
    *body = body.get(end + 1..).unwrap_or_default();
    text
}
