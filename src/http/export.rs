//! `GET /runs/{id}/export`: a run's transcripts or scores as a file, streamed.
//!
//! A task reads pages and hands them over one at a time, so a slow client slows the reading and holds nothing in the
//! database. A client that takes nothing for too long is given up: its connection breaks off, which no client takes for
//! the end of the file.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::Instrument;

use super::error::EdgeError;
use super::graphql::authenticate;
use crate::auth::Authority;
use crate::domain::RequestId;
use crate::domain::export::{ExportFormat, ExportSubject};
use crate::export::{self, Export};
use crate::service::{self, Service};

const ALLOWED: &str = "GET, HEAD, OPTIONS";
/// The most that is handed over at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// What exports need.
#[derive(Debug, Clone)]
pub struct Exports {
    service: Service,
    authority: Arc<Authority>,
    /// One permit for each export that may run at once.
    permits: Arc<Semaphore>,
    stall_max: Duration,
    retry_after: Duration,
}

impl Exports {
    /// At most `at_once` exports run together; a client that takes nothing for `stall_max` is given up.
    #[must_use]
    pub fn new(
        service: Service,
        authority: Arc<Authority>,
        at_once: usize,
        stall_max: Duration,
        retry_after: Duration,
    ) -> Self {
        Self { service, authority, permits: Arc::new(Semaphore::new(at_once)), stall_max, retry_after }
    }

    /// The routes.
    pub fn routes(self) -> Router {
        Router::new().route("/runs/{id}/export", any(handle)).with_state(self)
    }
}

async fn handle(
    State(exports): State<Exports>,
    run: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => {
            return (StatusCode::NO_CONTENT, [(ALLOW, HeaderValue::from_static(ALLOWED))]).into_response();
        }
        _ => return EdgeError::method_not_allowed(ALLOWED, "an export is read: use GET").into_response(),
    }
    // A body, which nobody reads, must not wait with it.
    let (request, _) = request.into_parts();
    begin(exports, run, &request).await.unwrap_or_else(EdgeError::into_response)
}

async fn begin(
    exports: Exports,
    run: Result<Path<String>, PathRejection>,
    request: &Parts,
) -> Result<Response, EdgeError> {
    let mut requester = authenticate(&exports.authority, &request.headers)?;
    if let Some(id) = request.extensions.get::<RequestId>() {
        requester.request_id.clone_from(&id.0);
    }
    let unreadable = || EdgeError::bad_request("the address cannot be read: URL-encode it in UTF-8");
    let Path(run) = run.map_err(|_| unreadable())?;
    let Query(pairs) = Query::try_from_uri(&request.uri).map_err(|_| unreadable())?;
    let (subject, format) = choices(pairs)?;
    let rows = exports.service.export(&requester, &run, subject).await.map_err(refused)?;
    let permit = Arc::clone(&exports.permits).try_acquire_owned().map_err(|_| {
        EdgeError::unavailable("too many exports run already: come again", exports.retry_after)
    })?;
    let mut export = Export::new(rows, subject, format).map_err(|e| EdgeError::internal(&e))?;
    // The first piece is made before the answer begins: what is wrong from the start has a status of its own.
    let first = export.next().await.map_err(|error| match error {
        export::Error::Service(error) => refused(error),
        error => EdgeError::internal(&error),
    })?;
    let (pieces, taken) = mpsc::channel(1);
    let work = produce(export, first, pieces, exports.stall_max, permit);
    tokio::spawn(work.in_current_span());
    let body = Body::from_stream(stream::unfold(taken, |mut taken| async {
        let piece = taken.recv().await?;
        Some((piece, taken))
    }));
    let name = format!("attachment; filename=\"{run}-{subject}.{format}\"");
    // The run was found by its id, so this is one.
    let name = HeaderValue::from_str(&name).map_err(|e| EdgeError::internal(&e))?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (CONTENT_DISPOSITION, name),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body).into_response())
}

/// `what` and `format`, each with a default.
fn choices(pairs: Vec<(String, String)>) -> Result<(ExportSubject, ExportFormat), EdgeError> {
    let (mut subject, mut format) = (None, None);
    for (name, value) in pairs {
        let twice = match name.as_str() {
            "what" => subject
                .replace(value.parse().map_err(|_| {
                    EdgeError::bad_request("`what` must be transcripts (when left out) or scores")
                })?)
                .is_some(),
            "format" => format
                .replace(value.parse().map_err(|_| {
                    EdgeError::bad_request("`format` must be jsonl (when left out), csv or parquet")
                })?)
                .is_some(),
            _ => return Err(EdgeError::bad_request("an export has the parameters `what` and `format` only")),
        };
        if twice {
            return Err(EdgeError::bad_request(format!("`{name}` is given twice")));
        }
    }
    Ok((subject.unwrap_or(ExportSubject::Transcripts), format.unwrap_or(ExportFormat::Jsonl)))
}

fn refused(error: service::Error) -> EdgeError {
    match &error {
        service::Error::NotFound { .. } => {
            EdgeError::new(StatusCode::NOT_FOUND, error.code(), error.to_string())
        }
        service::Error::Unavailable { retry_after, .. } => {
            EdgeError::unavailable(error.to_string(), *retry_after)
        }
        _ => EdgeError::internal(&error.internal_text().unwrap_or("an export was refused")),
    }
}

type Piece = io::Result<Bytes>;

/// Makes the file and hands it over. What goes wrong breaks the answer off.
async fn produce(
    mut export: Export,
    first: Option<Vec<u8>>,
    pieces: mpsc::Sender<Piece>,
    stall_max: Duration,
    _permit: OwnedSemaphorePermit,
) {
    let mut next = Ok(first);
    loop {
        match next {
            Ok(None) => return,
            Ok(Some(piece)) => {
                let mut piece = Bytes::from(piece);
                while !piece.is_empty() {
                    let part = piece.split_to(piece.len().min(PIECE_BYTES));
                    match tokio::time::timeout(stall_max, pieces.send(Ok(part))).await {
                        Ok(Ok(())) => {}
                        // The client is gone.
                        Ok(Err(_)) => return,
                        Err(_) => {
                            let waited_ms = stall_max.as_millis() as u64;
                            tracing::warn!(waited_ms, "an export was given up: its client takes nothing");
                            return break_off(&pieces);
                        }
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "an export broke off");
                return break_off(&pieces);
            }
        }
        next = export.next().await;
    }
}

/// Ends the answer as an error. The channel may be full: then it is emptied into a connection that does not move, and
/// the error waits in a task of its own that ends with the connection.
fn break_off(pieces: &mpsc::Sender<Piece>) {
    let pieces = pieces.clone();
    tokio::spawn(async move {
        // Nobody is left to tell when this fails.
        drop(pieces.send(Err(io::ErrorKind::TimedOut.into())).await);
    });
}
