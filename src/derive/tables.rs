//! What short values of Envoy stand for: its response flags, and gRPC's status codes. Data, in one place.

/// Response flags: short, long. Extensions may register more, so that others pass as they are.
const FLAGS: [(&str, &str); 30] = [
    ("DC", "DownstreamConnectionTermination"),
    ("DF", "DnsResolutionFailed"),
    ("DI", "DelayInjected"),
    ("DO", "DropOverload"),
    ("DPE", "DownstreamProtocolError"),
    ("DR", "DownstreamRemoteReset"),
    ("DT", "DurationTimeout"),
    ("FI", "FaultInjected"),
    ("IH", "InvalidEnvoyRequestHeaders"),
    ("LH", "FailedLocalHealthCheck"),
    ("LR", "LocalReset"),
    ("NC", "NoClusterFound"),
    ("NFCF", "NoFilterConfigFound"),
    ("NR", "NoRouteFound"),
    ("OM", "OverloadManagerTerminated"),
    ("RFCF", "ResponseFromCacheFilter"),
    ("RL", "RateLimited"),
    ("RLSE", "RateLimitServiceError"),
    ("SI", "StreamIdleTimeout"),
    ("UAEX", "UnauthorizedExternalService"),
    ("UC", "UpstreamConnectionTermination"),
    ("UDO", "UnconditionalDropOverload"),
    ("UF", "UpstreamConnectionFailure"),
    ("UH", "NoHealthyUpstream"),
    ("UMSDR", "UpstreamMaxStreamDurationReached"),
    ("UO", "UpstreamOverflow"),
    ("UPE", "UpstreamProtocolError"),
    ("UR", "UpstreamRemoteReset"),
    ("URX", "UpstreamRetryLimitExceeded"),
    ("UT", "UpstreamRequestTimeout"),
];

/// Status codes of gRPC, each at its number.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// As Envoy spells it beside gRPC's own way.
const CANCELED: (&[u8], usize) = (b"CANCELED", 1);

/// The long name of a flag.
pub(super) fn flag(short: &[u8]) -> Option<&'static str> {
    let place = FLAGS.binary_search_by(|(known, _)| known.as_bytes().cmp(short)).ok()?;
    Some(FLAGS[place].1)
}

/// The name of a status code.
pub(super) fn grpc_name(number: u64) -> Option<&'static str> {
    GRPC.get(usize::try_from(number).ok()?).copied()
}

/// The status code of that name, in any of its spellings: `DeadlineExceeded`, `DEADLINE_EXCEEDED`, `deadline_exceeded`.
pub(super) fn grpc_number(name: &[u8]) -> Option<usize> {
    let place = GRPC.iter().position(|known| spells(known.as_bytes(), name));
    place.or_else(|| spells(CANCELED.0, name).then_some(CANCELED.1))
}

/// Whether a name says the same as `known`, but for the case of its letters and `_` between them.
fn spells(known: &[u8], name: &[u8]) -> bool {
    let mut rest = name.iter().filter(|byte| **byte != b'_');
    known
        .iter()
        .filter(|byte| **byte != b'_')
        .all(|byte| rest.next().is_some_and(|other| byte.eq_ignore_ascii_case(other)))
        && rest.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_in_order_and_found() {
        assert!(FLAGS.is_sorted());
        for (short, long) in FLAGS {
            assert_eq!(flag(short.as_bytes()), Some(long));
        }
        assert_eq!(flag(b"XYZ"), None);
    }

    #[test]
    fn status_codes_are_known_in_every_spelling() {
        let camel = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        for (number, name) in GRPC.into_iter().enumerate() {
            assert_eq!(grpc_name(number as u64), Some(name));
            for spelled in [name.to_owned(), name.to_lowercase(), camel[number].to_owned()] {
                assert_eq!(grpc_number(spelled.as_bytes()), Some(number), "{spelled}");
            }
        }
        assert_eq!((grpc_name(17), grpc_name(u64::MAX)), (None, None));
        for other in ["", "_", "O", "OKAY", "InvalidCode", "CANCELE"] {
            assert_eq!(grpc_number(other.as_bytes()), None, "{other}");
        }
    }
}
