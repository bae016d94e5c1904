//! What Envoy's admin interface prints as text (`/stats`, `/clusters`), where somebody has pointed it at the log.
//!
//! Called for lines that begin like nothing else; other programs print `name: number` too, so both the beginning and a part
//! of the name must be Envoy's.

use memchr::{memchr, memmem};

/// Names are not longer than this, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// Beginnings of the names of statistics, and what must stand in the rest. Whole words of Envoy's: `server.uptime` is
/// anybody's.
const STATISTICS: [(&[u8], &[&[u8]]); 8] = [
    (
        b"cluster.",
        &[
            b".upstream_cx_",
            b".upstream_rq_",
            b".upstream_flow_control_",
            b".upstream_internal_",
            b".membership_change",
            b".membership_degraded",
            b".membership_excluded",
            b".membership_healthy",
            b".membership_total",
            b".lb_healthy_panic",
            b".lb_recalculate_zone_structures",
            b".lb_subsets_",
            b".lb_zone_",
            b".circuit_breakers.default.",
            b".circuit_breakers.high.",
            b".retry_or_shadow_abandoned",
            b".ssl.handshake",
            b".ssl.connection_error",
        ],
    ),
    (b"http.", &[b".downstream_cx_", b".downstream_rq_", b".rs_too_large", b".no_route", b".no_cluster"]),
    (
        b"listener.",
        &[
            b".downstream_cx_",
            b".downstream_pre_cx_",
            b".ssl.handshake",
            b".ssl.connection_error",
            b".no_filter_chain_match",
        ],
    ),
    (b"listener_manager.", &[b"listener_", b"lds.", b"total_listeners_", b"total_filter_chains_", b"workers_started"]),
    (
        b"cluster_manager.",
        &[
            b"cluster_added",
            b"cluster_modified",
            b"cluster_removed",
            b"cluster_updated",
            b"cds.",
            b"active_clusters",
            b"warming_clusters",
        ],
    ),
    (
        b"server.",
        &[
            b".days_until_first_cert_expiring",
            b".hot_restart_epoch",
            b".hot_restart_generation",
            b".memory_heap_size",
            b".memory_physical_size",
            b".envoy_bug_failures",
            b".dropped_stat_flushes",
        ],
    ),
    (b"main_thread.", &[b"watchdog_"]),
    (
        b"runtime.",
        &[
            b"override_dir_",
            b"num_keys",
            b"num_layers",
            b"load_success",
            b"load_error",
            b"admin_overrides_active",
            b"deprecated_feature_",
        ],
    ),
];

/// The last but one part of a line of `/clusters`.
const HOST_VALUES: [&[u8]; 17] = [
    b"cx_active",
    b"cx_connect_fail",
    b"cx_total",
    b"rq_active",
    b"rq_error",
    b"rq_success",
    b"rq_timeout",
    b"rq_total",
    b"hostname",
    b"health_flags",
    b"weight",
    b"region",
    b"zone",
    b"sub_zone",
    b"canary",
    b"success_rate",
    b"local_origin_success_rate",
];

/// The second part of a line of `/clusters` that is of no host.
const CLUSTER_VALUES: [&[u8]; 6] =
    [b"observability_name", b"default_priority", b"high_priority", b"added_via_api", b"eds_service_name", b"outlier"];

/// Whether this is a line of `/stats` or `/clusters`.
pub(super) fn is_line(line: &[u8]) -> bool {
    let name = &line[..line.len().min(NAME_BYTES_MAX)];
    match memchr(b' ', name) {
        Some(blank) if blank > 1 && name[blank - 1] == b':' => is_statistic(&name[..blank - 1], &line[blank + 1..]),
        Some(_) => false,
        None => memmem::find(name, b"::").is_some() && is_cluster(line),
    }
}

fn is_statistic(name: &[u8], value: &[u8]) -> bool {
    let is_value = (!value.is_empty() && value.iter().all(u8::is_ascii_digit))
        || value == b"No recorded values"
        || value.starts_with(b"P0(");
    let known = |(begins, holds): &(&[u8], &[&[u8]])| {
        // The dot belongs to both.
        let Some(rest) = name.get(begins.len() - 1..).filter(|_| name.starts_with(begins)) else { return false };
        holds.iter().any(|part| match part.first() {
            Some(b'.') => memmem::find(rest, part).is_some(),
            _ => rest[1..].starts_with(part),
        })
    };
    is_value && STATISTICS.iter().any(known)
}

fn is_cluster(line: &[u8]) -> bool {
    let Some(last) = memmem::rfind(line, b"::") else { return false };
    let Some(second) = memmem::find(line, b"::").filter(|second| *second > 0) else { return false };
    let behind = &line[second + 2..];
    let part = &behind[..memmem::find(behind, b"::").unwrap_or(behind.len())];
    if CLUSTER_VALUES.contains(&part) {
        return last > second;
    }
    let Some(before) = memmem::rfind(&line[..last], b"::") else { return false };
    let address = &line[second + 2..before.max(second + 2)];
    HOST_VALUES.contains(&&line[before + 2..last]) && memchr(b':', address).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statistics_and_clusters_are_known() {
        for line in [
            "cluster.app.upstream_cx_total: 5",
            "cluster.app.upstream_rq_time: P0(1,1) P25(1.025,1.05)",
            "cluster.app.upstream_rq_time: No recorded values",
            "http.ingress.downstream_rq_2xx: 12",
            "listener.0.0.0.0_80.downstream_cx_total: 4",
            "listener_manager.listener_added: 2",
            "server.hot_restart_epoch: 0",
            "runtime.num_keys: 0",
            "outbound|80||app::10.0.0.1:80::cx_active::0",
            "app::[::1]:80::health_flags::healthy",
            "app::observability_name::app",
            "app::default_priority::max_connections::1024",
            "app::added_via_api::true",
        ] {
            assert!(is_line(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn what_only_looks_like_it() {
        for line in [
            "",
            ":",
            ": 5",
            "server.port: 8080",
            "server.uptime: 12",
            "listener.http.port: 80",
            "runtime.num_threads: 4",
            "cluster.update_interval: 30",
            "cluster.size: 3",
            "http.status: 200",
            "cluster.app.upstream_cx_total: many",
            "cluster.app.upstream_cx_total:5",
            "std::vector::size",
            "a::b::weight::1",
            "::cx_active::0",
            "use crate::zone::x",
            "runtime.: 1",
        ] {
            assert!(!is_line(line.as_bytes()), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(line in "[a-z:. 0-9]{0,40}", start in prop::sample::select(vec!["", "cluster.", "runtime.", "a::", "::"])) {
            let _ = is_line(format!("{start}{line}").as_bytes());
        }
    }
}
