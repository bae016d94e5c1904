//! meshlens: a log router for Amazon ECS that understands Envoy.
//!
//! # The flow, and the order of the modules
//!
//! ```text
//! main ─► cli ─► config ─► topology         one validated Config; bind, spawn, supervise, drain, account
//!          │       └ TOML and flags; what Fluent Bit (classic, YAML) and fluentd call theirs becomes the same document
//!          └ firelens                       what the ECS agent would write for a task definition, for `check`
//!
//! source   forward (tcp, unix, tls), tcp, lines (stdin, files), tail, dummy   bytes come in
//!   │ chunk            bytes read together: whole messages or lines, where from
//!   ▼
//! process  decode ─ filter ─ classify ─ envoy (parse) ─ redact ─ derive ─ enrich ─ route ─ encode
//!   │                  filter has what Fluent Bit's filters do: grep, modify, parser, multiline, rewrite_tag, …;
//!   │                  derive makes fields of what an access log holds, where it is asked to;
//!   │                  one synchronous pass over borrowed bytes; a record is a view, reused from one to the next
//!   ▼ journal::block   encoded records, an index over them; written once, shared by all sinks
//! journal              ordered, bounded in bytes, in memory and on disk; a cursor and a watermark for each sink
//!   │
//!   ▼
//! sink     cloudwatch_logs, firehose, s3, forward, file, stdout               requests go out
//!          discard, unsupported                                               nothing goes out; unsupported counts it as dropped
//!
//! admin                metrics, status and health over HTTP, beside the flow
//! telemetry            the account of every record, the log on stderr, panics
//! ```
//!
//! Imports point down this picture, with `record`, `chunk` and `telemetry` at its bottom: the stages (`decode` to `encode`) do no
//! I/O and know nothing of sources, journal and sinks; sinks know the journal, not what fills it; `admin` looks at the journal and the account; `topology` alone knows all.
//! `source` names the way into `process` as a trait, since its tests write down what comes instead. `record::json` and
//! `record::msgpack` hold what redaction and encoding both need of the two notations, `letter` the notation of dead letters,
//! which sinks write and `process` reads.
//!
//! # What holds
//!
//! - **Redaction comes first**: before the journal, and with it before everything that keeps or prints a byte. What is not
//!   understood is scrubbed as text.
//! - **Every record has a fate**: `received = delivered + filtered + rejected + dropped + pending`, for each source and each
//!   sink, with reasons ([`telemetry::account`]). A drop without a reason cannot be written down.
//! - **An acknowledgement is true**: it is written after the block is in the journal, and as durable there as its mode promises.
//! - **One sink's trouble is its own**: it lags in the journal; what happens when that is full is configured and counted.
//! - **Nothing per record** that can be per chunk, batch or start: no lock, channel, clock, log line or allocation.

pub mod cli;
pub mod config;
pub mod firelens;
pub mod topology;
pub mod source;
pub mod chunk;
pub mod process;
pub mod decode;
pub mod filter;
pub mod record;
pub mod timestamp;
pub mod pattern;
pub mod classify;
pub mod envoy;
pub mod redact;
pub mod derive;
pub mod enrich;
pub mod route;
pub mod encode;
pub mod letter;
pub mod journal;
pub mod sink;
pub mod admin;
pub mod telemetry;
