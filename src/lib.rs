//! meshlens: a log router for Amazon ECS that understands Envoy.
//!
//! # The flow, and the order of the modules
//!
//! ```text
//! source  forward (tcp, unix, tls), lines (stdin, files)            bytes come in
//!   │ chunk            bytes read together
//!   ▼
//! process: decode ─ classify ─ envoy (parse) ─ redact ─ enrich ─ route ─ encode
//!   │                  one synchronous pass over borrowed bytes
//!   ▼ journal::block   encoded records, shared, never copied
//! journal              ordered, bounded in bytes, one cursor a sink
//!   │
//!   ▼
//! sink    cloudwatch_logs, firehose, s3, file, stdout               requests go out
//! ```

pub mod cli;
pub mod config;
pub mod topology;
pub mod source;
pub mod chunk;
pub mod process;
pub mod decode;
pub mod record;
pub mod timestamp;
pub mod classify;
pub mod envoy;
pub mod redact;
pub mod enrich;
pub mod route;
pub mod encode;
pub mod journal;
pub mod sink;
pub mod telemetry;
