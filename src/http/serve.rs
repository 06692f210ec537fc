//! Accepts connections until it is told to stop, and then lets requests finish for a while.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Connection = http1::UpgradeableConnection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// Every request was answered.
    Drained,
    /// So many connections were cut when the grace was over.
    Cut {
        /// Connections that still had a request.
        connections: usize,
    },
}

/// How long to wait after a failed accept (no file descriptors left, say), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` is cancelled. Then the listener is closed, idle connections are ended,
/// requests in flight have `grace` to finish, and what is left is cut. A client has `header_timeout` to send the head of
/// a request, counted from the connection's start or the answer before.
///
/// HTTP/1.1 only: what looks into the first bytes for HTTP/2 waits for them without a limit, and proxies that speak
/// HTTP/2 to browsers speak HTTP/1.1 to servers.
///
/// # Errors
/// When the listener's socket cannot be used at all.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    grace: Duration,
    header_timeout: Duration,
) -> io::Result<ShutdownOutcome> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
            // Finished connections are taken from the set, so that it does not grow.
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
        };
        prepare(&stream);
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        connections.spawn(until_done(connection, shutdown.clone()));
    }
    drop(listener);
    tracing::info!(connections = connections.len(), "no longer listening; finishing requests");
    Ok(finish(connections, grace).await)
}

/// One connection: when the server stops, the request in flight is its last.
async fn until_done(connection: Connection, shutdown: CancellationToken) {
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

async fn finish(mut connections: JoinSet<()>, grace: Duration) -> ShutdownOutcome {
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    };
    if tokio::time::timeout(grace, drained).await.is_ok() {
        return ShutdownOutcome::Drained;
    }
    let left = connections.len();
    tracing::warn!(connections = left, "the grace is over: cutting connections");
    connections.shutdown().await;
    ShutdownOutcome::Cut { connections: left }
}

/// Answers are small and whole: they should not wait for more to send.
fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
}

/// A connection's task; handlers' panics are caught inside, so one here is a mistake of the server's own.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return; // the client's business only
    }
    tracing::error!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
