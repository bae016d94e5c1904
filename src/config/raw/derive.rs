//! `[derive]` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::quantity::Count;

/// Fields made from what access logs hold; see docs/derive.md. Nothing is made that is not asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    /// Make `response_flags_long`: Envoy's long names of `response_flags`, as `UpstreamConnectionFailure`. Default: false.
    pub response_flags_long: Option<bool>,
    /// Make `status_class` of `response_code`, as `2xx`. Default: false.
    pub status_class: Option<bool>,
    /// Make `grpc_status_name`, as `DEADLINE_EXCEEDED`, and `grpc_status_number`, each from whichever the line has. Default: false.
    pub grpc_status: Option<bool>,
    /// Make numbers, in milliseconds, of `upstream_service_time` and other durations that come as text. Default: false.
    pub durations: Option<bool>,
    /// Make `client_address`: `downstream_remote_address` without port and brackets. Default: false.
    pub client_address: Option<bool>,
    /// Make `forwarded_for_first`: the first entry of `forwarded_for`, if it is an address, without port. Default: false.
    pub forwarded_for_first: Option<bool>,
    /// Cut the addresses of clients to their network, in place and in what is made of them. Default: addresses stay whole.
    pub truncate_addresses: Option<TruncateAddresses>,
    /// Make the route of `path`, for grouping: what requests of one kind have in common. Default: none is made.
    pub route: Option<DeriveRoute>,
}

/// How much of the addresses of clients is kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TruncateAddresses {
    /// Bits of an IPv4 address that are kept. Default: 24. Limits: 0 to 32.
    pub ipv4: Option<Count>,
    /// Bits of an IPv6 address that are kept. Default: 48. Limits: 0 to 128.
    pub ipv6: Option<Count>,
}

/// How the route of a path is made.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeriveRoute {
    /// Paths in order, the first that fits is the route: `/users/{id}/orders`, where `{…}` is any one segment, and `/files/**`, where `**` is all that follows. Default: none.
    pub patterns: Option<Vec<String>>,
    /// Where no pattern fits, segments that name one thing (numbers, UUIDs, hashes, tokens) become `{id}`; without it such a path has no route. Default: true.
    pub defaults: Option<bool>,
    /// Name of the field. Default: `route`.
    pub field: Option<String>,
}
