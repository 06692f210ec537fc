//! One connection through the proxy.

use std::collections::VecDeque;
use std::io::Result;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use super::wire::{Follower, Opening, Reader};
use super::{Harm, Moment, Shared, Upstream, lock};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How the relay came to its end.
enum End {
    /// One side closed, or could not be reached.
    Closed,
    Harmed(Harm),
}

/// The harm planned for the answers that are still to come, one for each ReadyForQuery.
type Answers = Mutex<VecDeque<Option<Harm>>>;

/// Relays until one side closes or the connection is harmed, and does what is to be done then.
pub async fn run(shared: Arc<Shared>, mut client: TcpStream, mut told: watch::Receiver<Option<Harm>>) {
    drop(client.set_nodelay(true));
    let mut server = None;
    let end = {
        let relay = relay(&shared, &mut client, &mut server);
        tokio::select! {
            end = relay => end.unwrap_or(End::Closed),
            harm = fate(&mut told) => End::Harmed(harm),
        }
    };
    match end {
        End::Closed | End::Harmed(Harm::Cut) => {}
        End::Harmed(Harm::Reset) => drop(client.set_zero_linger()),
        // Until the client has enough, or worse comes.
        End::Harmed(Harm::Mute) => tokio::select! {
            () = silence(&mut client) => {}
            () = async { while fate(&mut told).await == Harm::Mute {} } => {}
        },
    }
    drop(server);
}

/// What somebody decides about this connection.
async fn fate(told: &mut watch::Receiver<Option<Harm>>) -> Harm {
    loop {
        if told.changed().await.is_err() {
            return Harm::Cut;
        }
        if let Some(harm) = *told.borrow_and_update() {
            return harm;
        }
    }
}

/// Reads and forgets, until the client closes.
async fn silence(client: &mut TcpStream) {
    let mut ignored = [0; 4_096];
    while client.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
}

async fn relay(shared: &Shared, client: &mut TcpStream, server: &mut Option<Box<dyn Stream>>) -> Result<End> {
    let (from_client, mut to_client) = client.split();
    let mut from_client = Reader::new(from_client);
    let opening = loop {
        match from_client.opening().await? {
            None => return Ok(End::Closed),
            Some(Opening::WantsEncryption) => to_client.write_all(b"N").await?,
            Some(Opening::Cancel(bytes) | Opening::Startup(bytes)) => break bytes,
        }
    };
    shared.pass(opening.len()).await;
    let server = server.insert(connect(shared).await?);
    let (from_server, mut to_server) = tokio::io::split(server);
    to_server.write_all(&opening).await?;
    // The first ReadyForQuery answers the start-up.
    let answers = Mutex::new(VecDeque::from([None]));
    tokio::select! {
        end = requests(shared, &mut from_client, &mut to_server, &answers) => end,
        end = responses(shared, Reader::new(from_server), &mut to_client, &answers) => end,
    }
}

async fn connect(shared: &Shared) -> Result<Box<dyn Stream>> {
    let upstream = lock(&shared.upstream).clone();
    Ok(match upstream {
        Upstream::Socket(path) => Box::new(UnixStream::connect(path).await?),
        Upstream::Tcp(host, port) => {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    })
}

async fn requests(
    shared: &Shared,
    from: &mut Reader<impl AsyncRead + Unpin>,
    to: &mut (impl AsyncWrite + Unpin),
    answers: &Answers,
) -> Result<End> {
    let mut follower = Follower::default();
    let mut held = BytesMut::new();
    while let Some(message) = from.message().await? {
        held.extend_from_slice(&message.bytes);
        let mut during = None;
        if let Some(request) = follower.note(&message) {
            let planned = match shared.strike(&request) {
                Some((Moment::Before, harm)) => return Ok(End::Harmed(harm)),
                Some((Moment::During, harm)) => {
                    during = Some(harm);
                    None
                }
                Some((Moment::After, harm)) => Some(harm),
                None => None,
            };
            lock(answers).push_back(planned);
        } else if matches!(message.kind, b'P' | b'B' | b'D' | b'E' | b'C') {
            // The parts of a request are held back until it is whole and can be judged.
            continue;
        }
        shared.pass(held.len()).await;
        to.write_all(&held.split()).await?;
        to.flush().await?;
        if let Some(harm) = during {
            return Ok(End::Harmed(harm));
        }
    }
    Ok(End::Closed)
}

async fn responses(
    shared: &Shared,
    mut from: Reader<impl AsyncRead + Unpin>,
    to: &mut (impl AsyncWrite + Unpin),
    answers: &Answers,
) -> Result<End> {
    let mut ready = BytesMut::new();
    while let Some(message) = from.message().await? {
        let is_last = message.kind == b'Z';
        let planned = lock(answers).front().copied().flatten();
        match planned {
            None => ready.extend_from_slice(&message.bytes),
            // The answer is whole, so what was asked for has been carried out.
            Some(harm) if is_last => return Ok(End::Harmed(harm)),
            Some(_) => {}
        }
        if is_last {
            lock(answers).pop_front();
        }
        if is_last || !from.has_more() {
            shared.pass(ready.len()).await;
            to.write_all(&ready.split()).await?;
        }
    }
    Ok(End::Closed)
}
