//! Response bodies: the JSON that the platform's tools read, with additional figures.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::Status;

/// `GET /health`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    status: &'static str,
    publisher: &'static str,
    simulator: &'static str,
    current_rate: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Health {
    pub(super) fn of(status: Status) -> Health {
        Health {
            status: if status.is_healthy() { "ok" } else { "unavailable" },
            publisher: if status.is_connected { "connected" } else { "disconnected" },
            simulator: if status.is_running { "running" } else { "stopped" },
            current_rate: status.rate,
            reason: status.trouble,
        }
    }
}

/// `GET /status`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    is_running: bool,
    current_rate: u32,
    publisher_healthy: bool,
    token_count: usize,
    produced: u64,
    delivered: u64,
    failed: u64,
    queued: u64,
    skipped: u64,
    queue_full: u64,
    behind_ms: u64,
    reason: Option<String>,
    last_failure: Option<String>,
}

impl Figures {
    pub(super) fn of(status: Status) -> Figures {
        Figures {
            is_running: status.is_running,
            current_rate: status.rate,
            publisher_healthy: status.is_healthy(),
            token_count: status.token_count,
            produced: status.produced(),
            delivered: status.delivered,
            failed: status.failed,
            queued: status.queued(),
            skipped: status.skipped,
            queue_full: status.queue_full,
            behind_ms: status.behind_ms,
            reason: status.trouble,
            last_failure: status.last_failure,
        }
    }
}

/// `POST /start`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Started {
    status: &'static str,
    rate: u32,
    token_count: usize,
}

impl Started {
    pub(super) fn of(rate: u32, token_count: usize) -> Started {
        Started { status: "started", rate, token_count }
    }
}

/// `POST /stop`.
#[derive(Serialize)]
pub(super) struct Stopped {
    status: &'static str,
    produced: u64,
    delivered: u64,
    failed: u64,
    queued: u64,
}

impl Stopped {
    pub(super) fn of(status: &Status) -> Stopped {
        Stopped {
            status: "stopped",
            produced: status.produced(),
            delivered: status.delivered,
            failed: status.failed,
            queued: status.queued(),
        }
    }
}

/// `POST /rate`.
#[derive(Serialize)]
pub(super) struct Changed {
    status: &'static str,
    rate: u32,
}

impl Changed {
    pub(super) fn of(rate: u32) -> Changed {
        Changed { status: "updated", rate }
    }
}

/// A rejected request, with the remedy.
#[derive(Debug)]
pub(super) struct Refusal {
    code: StatusCode,
    error: String,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, error: String) -> Refusal {
        Refusal { code, error }
    }

    pub(super) fn bad_request(error: String) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
        }
        (self.code, Json(Body { error: self.error })).into_response()
    }
}
