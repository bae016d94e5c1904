//! `[SERVICE]`, parsers, and sections that are not plugins.

use super::{Key, To, better, ignored, noted, same, warned};

/// Sections that are not plugins, in the order of the documentation.
pub const SECTIONS: &[(&str, &[Key])] =
    &[("SERVICE", SERVICE), ("PARSER", PARSER), ("MULTILINE_PARSER", MULTILINE_PARSER)];

/// `[SERVICE]`. A key that stands twice counts as written last.
pub const SERVICE: &[Key] = &[
    noted("flush", To::Code, "`batch_timeout` of CloudWatch and Firehose sinks, which is 5s if not given."),
    ignored("flush.*", "Batches are sent when they are full or due."),
    better(
        "grace",
        To::Code,
        "`shutdown.grace`, and less by 5 s from 30 on, so that the end comes before SIGKILL. 25s if not given. Connections are read until they are quiet, then what is left is sent.",
    ),
    same("log_level", To::Code),
    ignored("log_file", "Our log is on stderr."),
    ignored("daemon", "A container runs in the foreground."),
    same("parsers_file", To::Code),
    warned("plugins_file", "Plugins cannot be loaded; the AWS outputs are built in."),
    ignored(
        "streams_file",
        "The stream processor is not supported: its tasks are named in warnings. `rewrite_tag` gives records another tag.",
    ),
    noted("http_server", To::Code, "`admin.fluent_bit_listen`."),
    same("http_listen", To::Code),
    same("http_port", To::Code),
    noted("health_check", To::Code, "`admin.fluent_bit_health`."),
    same("hc_errors_count", To::Code),
    same("hc_retry_failure_count", To::Code),
    same("hc_period", To::Code),
    noted("storage.path", To::Code, "`journal.dir`, if an input asks for `storage.type filesystem`."),
    ignored("storage.metrics", "Metrics are always there."),
    ignored("storage.sync", "What is written is synced as docs/reliability.md says."),
    ignored("storage.checksum", "Everything on disk has a checksum."),
    ignored("storage.backlog.*", "Memory is bounded by `journal.memory_bytes_max`."),
    ignored("storage.max_chunks_up", "Memory is bounded by `journal.memory_bytes_max`."),
    ignored("storage.delete_irrecoverable_chunks", "What cannot be read is counted and skipped."),
    ignored("storage.trim_files", "Files are removed when they are delivered."),
    noted("storage.type", To::Code, "For all inputs."),
    ignored("storage.inherit", "There is one journal."),
    warned("storage.keep.rejected", "Use `[dead_letters]` in a TOML."),
    warned("storage.rejected.*", "Use `[dead_letters]` in a TOML."),
    ignored("scheduler.*", "Retries wait with full jitter up to 20 s; see `retry_limit` of outputs."),
    ignored("dns.*", "The system's resolver."),
    ignored("coro_stack_size", "No coroutines of that kind."),
    ignored("json.convert_nan_to_null", "JSON has no NaN: it becomes null."),
    warned("security.fips_mode", "Use `use_fips` of the sinks, or `AWS_USE_FIPS_ENDPOINT`."),
    ignored("hot_reload*", "A new configuration is a new task."),
    ignored("enable_chunk_trace", "Not here."),
    ignored("multiline_buffer_limit", "Lines put together are bounded."),
    ignored("sp.*", "The stream processor is not supported."),
    ignored("windows.*", "Not on Windows."),
];

/// `[PARSER]`.
pub const PARSER: &[Key] = &[
    same("name", To::Code),
    same("format", To::Text("format")),
    same("regex", To::Text("regex")),
    same("time_key", To::Text("time_key")),
    same("time_format", To::Text("time_format")),
    same("time_offset", To::Text("time_offset")),
    same("time_keep", To::Bool("time_keep")),
    ignored("time_strict", "A time that does not fit is left, and the record keeps its own."),
    warned("time_system_timezone", "Times without a zone are UTC, or as `time_offset` says."),
    warned("time_zone", "Times without a zone are UTC, or as `time_offset` says."),
    same("types", To::Text("types")),
    same("skip_empty_values", To::Bool("skip_empty_values")),
    warned("logfmt_no_bare_keys", "Bare keys are taken."),
    same("decode_field", To::Each("decode_field")),
    same("decode_field_as", To::Each("decode_field_as")),
];

/// `[MULTILINE_PARSER]`.
pub const MULTILINE_PARSER: &[Key] = &[
    same("name", To::Code),
    same("type", To::Text("type")),
    same("flush_timeout", To::Count("flush_timeout")),
    same("rule", To::Each("rule")),
    same("match_string", To::Text("match_string")),
    same("negate", To::Bool("negate")),
    same("parser", To::Text("parser")),
    same("key_content", To::Text("key_content")),
    warned("key_pattern", "The content itself is matched."),
    ignored("key_group", "Lines are put together by stream."),
];
