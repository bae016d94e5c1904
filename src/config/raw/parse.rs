//! `[parse]`: which lines are recognised, and by which formats.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Named;

/// What is recognised in log lines.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parse {
    /// Recognise the access logs of Envoy, and Envoy's own log. Default: true.
    pub envoy: Option<bool>,
    /// Mark lines of Envoy's own log with `log_type` and `level`. Default: true; false where a FireLens configuration is run, so that they pass as they came.
    pub application: Option<bool>,
    /// Formats of access logs, tried in this order: the name of a preset (docs/formats.md), an Envoy's `text_format` or `json_format` as it stands in its configuration, a name from `[parse.format.NAME]`, or `auto` for all text layouts that are known. Access logs in JSON with the keys of a known product are recognised in any case. Default: `["auto"]`.
    pub formats: Option<Vec<String>>,
    /// Formats with options: `[parse.format.NAME]`, used where `formats` has the name.
    pub format: Option<Named<AccessLogFormat>>,
    /// Join the lines of one record of Envoy's own log (dumps of headers, differences of configurations), with at most 1MiB, 10000 lines and 2s between two. As the last filter, with the multiline parser `envoy`. Default: false.
    pub join_lines: Option<bool>,
}

/// A format with options. Exactly one of `text` and `json` must be set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogFormat {
    /// The `text_format` of an Envoy.
    pub text: Option<String>,
    /// The `json_format` of an Envoy, as JSON.
    pub json: Option<String>,
    /// Keys of one's own for a text format, by operator as it stands between the percent signs: `{ "REQ(X-TENANT)" = "tenant" }`. Default: the keys of docs/formats.md.
    pub keys: Option<BTreeMap<String, String>>,
    /// As in Envoy's configuration: nothing is printed where a value is missing. Default: false.
    pub omit_empty_values: Option<bool>,
}
