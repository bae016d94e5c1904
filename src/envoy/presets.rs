//! The formats that are known by name, and those that are tried where nobody says which.
//!
//! The strings are the products' own. Sources: Amazon ECS developer guide, "Service Connect access logs"; Envoy
//! `substitution_formatter.cc`; Istio `telemetry_logging.go` of 1.9 and of 1.8; Kuma `meshaccesslog/plugin/xds/configurer.go`;
//! Consul `agent/xds/accesslogs/accesslogs.go`; Contour `accesslog.go`; Envoy Gateway `accesslog.go`; Emissary `v3listener.py`.
//!
//! Presets name layouts of text. Access logs in JSON need no name: they are known by their keys, whichever format is named.

use std::sync::LazyLock;

use crate::envoy::format::{Compiled, Layout, Options, compile};

/// Name and format string of each layout. Where a line fits several equally well, the earlier wins.
pub const LAYOUTS: [(&str, &str); 10] = [
    ("service-connect-http", SERVICE_CONNECT_HTTP),
    ("service-connect-http2", SERVICE_CONNECT_HTTP2),
    ("service-connect-grpc", SERVICE_CONNECT_GRPC),
    ("service-connect-tcp", SERVICE_CONNECT_TCP),
    ("envoy", ENVOY),
    ("istio", ISTIO),
    ("service-connect-http-short", SERVICE_CONNECT_HTTP_SHORT),
    ("istio-pre-1.9", ISTIO_BEFORE_1_9),
    ("kuma-http", KUMA_HTTP),
    ("kuma-tcp", KUMA_TCP),
];

/// A preset: its name, the names of its layouts, and what is to be said of it.
pub const PRESETS: [(&str, &[&str], &str); 17] = [
    (
        "service-connect",
        &[
            "service-connect-http",
            "service-connect-http2",
            "service-connect-grpc",
            "service-connect-tcp",
            "service-connect-http-short",
        ],
        "ECS Service Connect, HTTP, HTTP/2, gRPC and TCP, in text or JSON",
    ),
    (
        "service-connect-http",
        &["service-connect-http", "service-connect-http-short"],
        "ECS Service Connect, appProtocol http",
    ),
    ("service-connect-http2", &["service-connect-http2"], "ECS Service Connect, appProtocol http2"),
    ("service-connect-grpc", &["service-connect-grpc"], "ECS Service Connect, appProtocol grpc"),
    ("service-connect-tcp", &["service-connect-tcp"], "ECS Service Connect without appProtocol"),
    ("envoy", &["envoy"], "Envoy's default"),
    ("istio", &["istio"], "Istio 1.9 and later"),
    ("istio-pre-1.9", &["istio-pre-1.9"], "Istio before 1.9"),
    ("app-mesh", &["envoy"], "AWS App Mesh: Envoy's default"),
    ("contour", &["envoy"], "Contour: Envoy's default in text; JSON with @timestamp"),
    ("envoy-gateway", &["envoy"], "Envoy Gateway: JSON with keys like :authority; text as Envoy"),
    ("gloo", &["envoy"], "Gloo: Envoy's default in text; JSON with keys of one's own: name the json_format"),
    ("consul", &["envoy"], "Consul: JSON with the keys of Istio; text as Envoy"),
    ("kuma", &["kuma-http", "kuma-tcp"], "Kuma and Kong Mesh, HTTP and TCP"),
    ("kuma-http", &["kuma-http"], "Kuma and Kong Mesh, HTTP"),
    ("kuma-tcp", &["kuma-tcp"], "Kuma and Kong Mesh, TCP"),
    ("emissary", &["envoy"], "Emissary-ingress and Ambassador: `ACCESS ` and Envoy's default"),
];

const SERVICE_CONNECT_HTTP: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%""#;

const SERVICE_CONNECT_HTTP2: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" "%STREAM_ID%""#;

const SERVICE_CONNECT_GRPC: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %GRPC_STATUS()% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" "%STREAM_ID%""#;

const SERVICE_CONNECT_TCP: &str = "[%START_TIME%] %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_PORT% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %CONNECTION_TERMINATION_DETAILS% %CONNECTION_ID%";

/// The published sample of Service Connect has no upstream host.
const SERVICE_CONNECT_HTTP_SHORT: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%""#;

const ENVOY: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%""#;

const ISTIO: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#;

const ISTIO_BEFORE_1_9: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% "%DYNAMIC_METADATA(istio.mixer:status)%" "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#;

const KUMA_HTTP: &str = r#"[%START_TIME%] %KUMA_MESH% "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-B3-TRACEID?X-DATADOG-TRACEID)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%KUMA_SOURCE_SERVICE%" "%KUMA_DESTINATION_SERVICE%" "%KUMA_SOURCE_ADDRESS_WITHOUT_PORT%" "%UPSTREAM_HOST%""#;

const KUMA_TCP: &str = "[%START_TIME%] %RESPONSE_FLAGS% %KUMA_MESH% %KUMA_SOURCE_ADDRESS_WITHOUT_PORT%(%KUMA_SOURCE_SERVICE%)->%UPSTREAM_HOST%(%KUMA_DESTINATION_SERVICE%) took %DURATION%ms, sent %BYTES_SENT% bytes, received: %BYTES_RECEIVED% bytes";

/// The layouts, compiled at first use.
pub fn layouts() -> &'static [Layout] {
    static COMPILED: LazyLock<Vec<Layout>> = LazyLock::new(|| {
        let compiled = LAYOUTS.iter().map(|(name, format)| compile(name, format, &Options::default()));
        compiled.filter_map(Result::ok).map(|Compiled { layout, .. }| layout).collect()
    });
    &COMPILED
}

/// The layouts of a preset.
pub fn named(preset: &str) -> Option<Vec<Layout>> {
    let (_, names, _) = PRESETS.iter().find(|(name, ..)| *name == preset)?;
    Some(layouts().iter().filter(|layout| names.contains(&layout.name.as_str())).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_compiles_without_a_warning() {
        for (name, format) in LAYOUTS {
            let compiled = compile(name, format, &Options::default()).unwrap();
            assert_eq!(compiled.warnings, [], "{name}");
            assert!(compiled.layout.is_bracketed, "{name}");
        }
        for (name, layouts, _) in PRESETS {
            assert_eq!(named(name).unwrap().len(), layouts.len(), "{name}");
        }
        assert_eq!(named("haproxy"), None);
    }

    #[test]
    fn which_layouts_a_cut_line_of_another_can_look_like() {
        let mut cuts = Vec::new();
        for short in layouts() {
            for long in layouts() {
                if short.is_start_of(long) {
                    cuts.push((short.name.as_str(), long.name.as_str()));
                }
            }
        }
        assert_eq!(
            cuts,
            [
                ("service-connect-http", "service-connect-http2"),
                ("envoy", "service-connect-grpc"),
                ("service-connect-http-short", "service-connect-http"),
                ("service-connect-http-short", "service-connect-http2"),
            ]
        );
    }
}
