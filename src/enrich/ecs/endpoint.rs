//! The endpoint: plain HTTP on a link-local address, two small JSON documents.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::document::Document;

/// Bytes of an answer. The greatest documents known have some tens of thousands.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Why the endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{uri}` is not an http:// url with a host")]
pub(super) struct InvalidUri {
    uri: String,
}

/// Why a document was not read. Says nothing of what stood in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
    #[error("request failed: {0}")]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error("answered with status {0}")]
    Status(StatusCode),
    #[error("answer broke off or has more than {BODY_BYTES_MAX} bytes")]
    Body,
    #[error("answer is not json: {0}")]
    Json(#[from] serde_json::Error),
    #[error("answer is not a json object")]
    NotAnObject,
}

/// A client of the task metadata endpoint.
pub(super) struct Endpoint {
    client: Client<HttpConnector, Empty<Bytes>>,
    container: Uri,
    task: Uri,
}

impl Endpoint {
    pub(super) fn new(base: &str) -> Result<Self, InvalidUri> {
        let invalid = || InvalidUri { uri: base.to_owned() };
        let path = base.trim().trim_end_matches('/');
        let container: Uri = path.parse().map_err(|_| invalid())?;
        let task: Uri = format!("{path}/task").parse().map_err(|_| invalid())?;
        if container.scheme_str() != Some("http") || container.host().is_none_or(str::is_empty) {
            return Err(invalid());
        }
        // No connection is kept: between two readings the agent may go away without a word.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Ok(Self { client, container, task })
    }

    /// The document of the container that asks.
    pub(super) async fn container(&self, timeout: Duration) -> Result<Document, ReadError> {
        self.get(&self.container, timeout).await
    }

    /// The document of its task.
    pub(super) async fn task(&self, timeout: Duration) -> Result<Document, ReadError> {
        self.get(&self.task, timeout).await
    }

    async fn get(&self, uri: &Uri, timeout: Duration) -> Result<Document, ReadError> {
        tokio::time::timeout(timeout, self.get_patiently(uri)).await.map_err(|_| ReadError::Timeout(timeout))?
    }

    async fn get_patiently(&self, uri: &Uri) -> Result<Document, ReadError> {
        let response = self.client.get(uri.clone()).await?;
        if response.status() != StatusCode::OK {
            return Err(ReadError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|_| ReadError::Body)?;
        match serde_json::from_slice(&body.to_bytes())? {
            Value::Object(document) => Ok(document),
            _ => Err(ReadError::NotAnObject),
        }
    }
}
