//! `/graphql`: GraphQL over HTTP, as its specification has it.
//!
//! The order of the checks is what a client sees when several things are wrong: the method, `Accept` (406), the token (401),
//! `Content-Type` (415), the body's size (413), its form (400). So nobody without a token gets a body read.

use std::sync::Arc;

use async_graphql::Executor;
use async_graphql::parser::types::OperationType;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;

use super::answer::{self, answer};
use super::error::EdgeError;
use super::negotiate::{MediaType, Wanted, check_content_type, wanted};
use super::{Shared, console, params};
use crate::auth::{AuthError, Authority};
use crate::domain::{RequestId, Requester};

const ALLOWED: &str = "GET, HEAD, POST, OPTIONS";

/// How much of a body that is too large is still read, in times of the limit, so that a client which sends before it
/// reads sees the answer rather than a broken connection.
const DRAIN_FACTOR: usize = 4;

/// The handler of `/graphql` for all methods.
pub(super) async fn handle<E: Executor, P: Send + Sync + 'static>(
    State(shared): State<Arc<Shared<E, P>>>,
    request: Request<Body>,
) -> Response {
    let mut response = dispatch(&shared, request).await;
    // One path has answers of several types, and most of them are for one person only.
    response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn dispatch<E: Executor, P>(shared: &Shared<E, P>, request: Request<Body>) -> Response {
    let method = request.method().clone();
    let wanted = wanted(request.headers());
    let media_type = match (&method, wanted) {
        (&Method::OPTIONS, _) => {
            return (StatusCode::NO_CONTENT, [(ALLOW, HeaderValue::from_static(ALLOWED))]).into_response();
        }
        (&Method::GET | &Method::HEAD, Wanted::Page) => return console::page(request.headers()),
        (&Method::GET | &Method::HEAD | &Method::POST, Wanted::Response(media_type)) => media_type,
        (&Method::GET | &Method::HEAD | &Method::POST, _) => {
            let message = "nothing in Accept is made here: accept application/graphql-response+json or application/json";
            return EdgeError::validation(StatusCode::NOT_ACCEPTABLE, message).into_response();
        }
        _ => {
            let message = "this method is not taken: use POST, or GET for queries";
            return EdgeError::method_not_allowed(ALLOWED, message).into_response();
        }
    };
    match run(shared, request, media_type).await {
        Ok(response) => response,
        Err(error) => error.with_media_type(media_type).into_response(),
    }
}

async fn run<E: Executor, P>(
    shared: &Shared<E, P>,
    request: Request<Body>,
    media_type: MediaType,
) -> Result<Response, EdgeError> {
    let mut requester = authenticate(&shared.authority, request.headers())?;
    let request_id = request.extensions().get::<RequestId>().cloned();
    if let Some(id) = &request_id {
        requester.request_id.clone_from(&id.0);
    }
    let by_post = request.method() == Method::POST;
    let read = if by_post {
        params::from_body(&read_body(request, shared.options.body_max_bytes).await?)
    } else {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
            .map_err(|_| EdgeError::bad_request("the query string cannot be read: URL-encode it in UTF-8"))?;
        params::from_query(pairs)
    };
    let mut request = read.map_err(EdgeError::bad_request)?;
    if params::nests_too_deep(&request.query) {
        return Ok(answer::request_error("the document nests too deep", media_type));
    }
    let document = match shared.documents.read(&request.query) {
        Ok(document) => document,
        Err(error) => return Ok(answer::request_errors(vec![params::readable(error)], media_type)),
    };
    request.set_parsed_query(document.as_ref().clone());
    if let Some(operation) = params::operation(&document, request.operation_name.as_deref()) {
        if !by_post && operation.ty == OperationType::Mutation {
            let message = "a mutation cannot be sent by GET: use POST";
            return Err(EdgeError::method_not_allowed("POST, OPTIONS", message));
        }
        if let Some(variable) = params::missing_variable(operation, &request.variables) {
            let message = format!("variable `${variable}` must have a value: it is missing or null");
            return Ok(answer::request_error(message, media_type));
        }
    }
    let mut request = request.data::<Requester>(requester);
    if let Some(request_id) = request_id {
        request = request.data::<RequestId>(request_id);
    }
    Ok(answer(shared.executor.execute(request).await, media_type, shared.options.retry_after))
}

/// Who asks, by the one `Authorization` header.
pub(super) fn authenticate(authority: &Authority, headers: &HeaderMap) -> Result<Requester, EdgeError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let verified = match (values.next(), values.next()) {
        (None, _) => authority.verify_header(None),
        (Some(value), None) => {
            value.to_str().map_err(|_| AuthError::NotBearer).and_then(|v| authority.verify_header(Some(v)))
        }
        _ => Err(AuthError::NotBearer),
    };
    verified.map_err(|error| EdgeError::unauthenticated(&error))
}

/// The whole body of a POST, if it is JSON in plain encoding and not too large.
async fn read_body(request: Request<Body>, max: usize) -> Result<Bytes, EdgeError> {
    let headers = request.headers();
    check_content_type(headers)
        .map_err(|message| EdgeError::validation(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))?;
    let encoded =
        headers.get_all(CONTENT_ENCODING).iter().any(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        let message = "the Content-Encoding is not taken: send the body as it is";
        return Err(EdgeError::validation(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    let waits_for_go = headers.contains_key(EXPECT);
    let mut stream = request.into_body().into_data_stream();
    let max_u64 = u64::try_from(max).unwrap_or(u64::MAX);
    if announced.is_some_and(|length| length > max_u64) {
        if !waits_for_go {
            drain(&mut stream, max.saturating_mul(DRAIN_FACTOR)).await;
        }
        return Err(too_large(max));
    }
    let mut body = Vec::with_capacity(announced.and_then(|l| usize::try_from(l).ok()).unwrap_or(0));
    while let Some(chunk) = next(&mut stream).await? {
        if body.len() + chunk.len() > max {
            drain(&mut stream, max.saturating_mul(DRAIN_FACTOR)).await;
            return Err(too_large(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

async fn next(stream: &mut BodyDataStream) -> Result<Option<Bytes>, EdgeError> {
    stream.try_next().await.map_err(|error| {
        tracing::debug!(%error, "a request body broke off");
        EdgeError::bad_request("the body broke off before its end")
    })
}

async fn drain(stream: &mut BodyDataStream, most: usize) {
    let mut seen = 0;
    // A client that breaks off here gets no answer either way.
    while let Ok(Some(chunk)) = stream.try_next().await {
        seen += chunk.len();
        if seen > most {
            return;
        }
    }
}

fn too_large(max: usize) -> EdgeError {
    let message = format!("the body is too large: at most {max} bytes are taken");
    EdgeError::validation(StatusCode::PAYLOAD_TOO_LARGE, message)
}
