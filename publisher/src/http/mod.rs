//! The HTTP control API: routes, and the server.
//!
//! One thread serves all requests. Commands that wait for Kafka run on the blocking pool, so that `/health`
//! answers even if Kafka does not. Connections, header and body sizes and the time for a request are bounded;
//! the API has no authentication and belongs on a private network.

mod answers;
mod metrics;
mod requests;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Publisher;
use crate::throttle::Throttle;
use answers::{Changed, Figures, Health, Refusal, Started, Stopped};

/// Room for the maximum number of tokens of maximum length, with the JSON around them.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Further connections wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 128;
/// Timeout for a request's head, and between two requests of a connection.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Timeout for a request's body and its response; a stop uses up to [`crate::run::FLUSH_MAX`] of it.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// Timeout at shutdown for requests in progress.
const DRAIN_MAX: Duration = Duration::from_secs(2);

const _: () = assert!(REQUEST_MAX.as_secs() > crate::run::FLUSH_MAX.as_secs());
const _: () = assert!(BODY_BYTES_MAX > crate::tokens::TOKENS_MAX * (crate::tokens::TOKEN_BYTES_MAX + 8));

struct Control {
    publisher: Arc<Publisher>,
    registry: Registry,
}

/// Serves the API until `shutdown` resolves, then finishes the requests in progress.
pub async fn serve(listener: TcpListener, publisher: Arc<Publisher>, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(routes(publisher));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let requests = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    let refused = Throttle::default();
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &room, &refused) => accepted,
            () = &mut shutdown => break,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = requests.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, requests.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way at the end");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    refused: &Throttle,
) -> (TcpStream, OwnedSemaphorePermit) {
    let place = Arc::clone(room).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                if let Some(suppressed) = refused.pass() {
                    tracing::warn!(%error, suppressed, "a connection could not be accepted");
                }
                // Most likely the process is out of descriptors: an immediate retry would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn routes(publisher: Arc<Publisher>) -> Router {
    let registry = metrics::registry(Arc::clone(&publisher));
    Router::new()
        .route("/health", get(health))
        .route("/status", get(status))
        .route("/metrics", get(metrics_text))
        .route("/start", post(start))
        .route("/stop", post(stop))
        .route("/rate", post(rate))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(in_time))
        .with_state(Arc::new(Control { publisher, registry }))
}

async fn health(State(control): State<Arc<Control>>) -> Response {
    let status = control.publisher.status();
    let code = if status.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(Health::of(status))).into_response()
}

async fn status(State(control): State<Arc<Control>>) -> Response {
    axum::Json(Figures::of(control.publisher.status())).into_response()
}

async fn metrics_text(State(control): State<Arc<Control>>) -> Response {
    let text = metrics::text(&control.registry);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn start(
    State(control): State<Arc<Control>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let request =
        requests::start(&body.map_err(|rejection| unreadable(&rejection))?).map_err(Refusal::bad_request)?;
    let started = Started::of(request.rate, request.tokens.len());
    commanded(control, move |publisher| publisher.start(request.rate, request.tokens))
        .await
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    Ok(axum::Json(started).into_response())
}

async fn stop(State(control): State<Arc<Control>>) -> Response {
    let status = commanded(control, Publisher::stop).await;
    axum::Json(Stopped::of(&status)).into_response()
}

async fn rate(
    State(control): State<Arc<Control>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let rate =
        requests::rate(&body.map_err(|rejection| unreadable(&rejection))?).map_err(Refusal::bad_request)?;
    commanded(control, move |publisher| publisher.set_rate(rate))
        .await
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    Ok(axum::Json(Changed::of(rate)).into_response())
}

/// Runs a blocking command on another thread.
async fn commanded<T: Send + 'static>(
    control: Arc<Control>,
    command: impl FnOnce(&Publisher) -> T + Send + 'static,
) -> T {
    tokio::task::spawn_blocking(move || command(&control.publisher))
        .await
        .expect("a command does not panic and is never cancelled")
}

fn unreadable(rejection: &BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is over {BODY_BYTES_MAX} bytes; send fewer tokens"),
        ),
        _ => Refusal::bad_request(format!("the body cannot be read: {rejection}; send it whole")),
    }
}

async fn unknown_route(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(100).collect();
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("there is no {path}; use GET /health, /status, /metrics or POST /start, /stop, /rate"),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let right = if matches!(uri.path(), "/start" | "/stop" | "/rate") { "POST" } else { "GET" };
    let shown: String = method.as_str().chars().take(20).collect();
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {shown}; use {right}", uri.path()))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request took over {} s; send the body without pauses", REQUEST_MAX.as_secs()),
        )
        .into_response(),
    }
}
