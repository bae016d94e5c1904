use aws_sdk_cloudwatchlogs::operation::put_log_events::PutLogEventsError;
use aws_sdk_cloudwatchlogs::types::error::ResourceNotFoundException;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::retry::ErrorKind;

use super::*;

type Error = SdkError<PutLogEventsError, HttpResponse>;

fn response(status: u16, headers: &[(&'static str, &'static str)]) -> HttpResponse {
    let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
    for (name, value) in headers {
        response.headers_mut().insert(*name, *value);
    }
    response
}

fn coded(status: u16, code: Option<&str>) -> Failure {
    let mut metadata = ErrorMetadata::builder().message("value '{\"path\":\"/secret\"}' failed to satisfy");
    if let Some(code) = code {
        metadata = metadata.code(code);
    }
    let error = PutLogEventsError::generic(metadata.build());
    Failure::from(SdkError::service_error(error, response(status, &[("x-amzn-requestid", "id-1")])))
}

#[test]
fn codes_come_before_statuses() {
    for (status, code, kind) in [
        (400, Some("ThrottlingException"), Kind::Throttled),
        (400, Some("LimitExceededException"), Kind::Throttled),
        (503, Some("SlowDown"), Kind::Throttled),
        (503, Some("ServiceUnavailableException"), Kind::Throttled),
        (429, None, Kind::Throttled),
        (400, Some("ExpiredTokenException"), Kind::Credentials),
        (400, Some("UnrecognizedClientException"), Kind::Credentials),
        (403, Some("InvalidSignatureException"), Kind::Credentials),
        (403, Some("RequestTimeTooSkewed"), Kind::Credentials),
        (400, Some("AccessDeniedException"), Kind::Credentials),
        (403, None, Kind::Credentials),
        (400, Some("RequestTimeout"), Kind::Transient),
        (500, Some("InternalFailure"), Kind::Transient),
        (500, Some("Unheard"), Kind::Transient),
        (502, None, Kind::Transient),
        (400, Some("OperationAbortedException"), Kind::Transient),
        (400, None, Kind::Transient),
        (301, None, Kind::Transient),
        (400, Some("ResourceNotFoundException"), Kind::NotFound),
        (404, Some("NoSuchBucket"), Kind::NotFound),
        (400, Some("ResourceAlreadyExistsException"), Kind::Exists),
        (412, Some("PreconditionFailed"), Kind::Exists),
        (409, Some("ConditionalRequestConflict"), Kind::Transient),
        (400, Some("DataAlreadyAcceptedException"), Kind::AlreadyAccepted),
        (413, None, Kind::TooLarge),
        (400, Some("EntityTooLarge"), Kind::TooLarge),
        (400, Some("InvalidParameterException"), Kind::Refused),
        (400, Some("SerializationException"), Kind::Refused),
        (400, Some("InvalidArgumentException"), Kind::Refused),
    ] {
        let failure = coded(status, code);
        assert_eq!(failure.kind, kind, "{status} {code:?}");
        let retried = !matches!(kind, Kind::Refused | Kind::TooLarge | Kind::Exists | Kind::AlreadyAccepted);
        assert_eq!(failure.is_retryable(), retried, "{status} {code:?}");
    }
}

#[test]
fn a_modeled_error_has_its_code() {
    let metadata = ErrorMetadata::builder().code("ResourceNotFoundException").build();
    let error =
        PutLogEventsError::ResourceNotFoundException(ResourceNotFoundException::builder().meta(metadata).build());
    assert_eq!(Failure::from(Error::service_error(error, response(400, &[]))).kind, Kind::NotFound);
}

#[test]
fn the_text_tells_code_and_request_but_not_what_was_sent() {
    let text = coded(400, Some("InvalidParameterException")).to_string();
    assert_eq!(text, "refused: InvalidParameterException (status 400, request id id-1)");
    let denied = coded(400, Some("AccessDeniedException")).to_string();
    assert!(denied.starts_with("credentials or permissions: AccessDeniedException: "), "{denied}");
    assert_eq!(Failure::new(Kind::Transient, "no answer").to_string(), "not reached or in trouble: no answer");
}

#[test]
fn a_wait_that_is_asked_for_is_read() {
    let after = |headers: &[(&'static str, &'static str)]| {
        let error = PutLogEventsError::generic(ErrorMetadata::builder().code("ThrottlingException").build());
        Failure::from(Error::service_error(error, response(400, headers))).retry_after
    };
    assert_eq!(after(&[]), None);
    assert_eq!(after(&[("retry-after", "3")]), Some(Duration::from_secs(3)));
    assert_eq!(after(&[("x-amz-retry-after", "1500"), ("retry-after", "9")]), Some(Duration::from_millis(1_500)));
    assert_eq!(after(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]), Some(Duration::ZERO));
    assert!(after(&[("retry-after", "Wed, 31 Dec 2098 23:59:59 GMT")]) > Some(Duration::from_secs(3_600)));
    assert_eq!(after(&[("retry-after", "soon")]), None);
}

#[test]
fn what_never_reached_the_service_is_retried() {
    let io = || Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    for (error, kind) in [
        (Error::timeout_error(io()), Kind::Transient),
        (Error::dispatch_failure(ConnectorError::io(io())), Kind::Transient),
        (Error::dispatch_failure(ConnectorError::timeout(io())), Kind::Transient),
        (Error::dispatch_failure(ConnectorError::other(io(), Some(ErrorKind::TransientError))), Kind::Transient),
        (Error::dispatch_failure(ConnectorError::other(io(), None)), Kind::Credentials),
        (Error::construction_failure(io()), Kind::Setup),
        (Error::response_error(io(), response(400, &[])), Kind::Transient),
        (Error::response_error(io(), response(429, &[])), Kind::Throttled),
        (Error::response_error(io(), response(200, &[])), Kind::Transient),
    ] {
        let failure = Failure::from(error);
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.is_retryable());
    }
    let failure = Failure::from(Error::dispatch_failure(ConnectorError::io(io())));
    assert!(failure.to_string().contains("connection reset"), "{failure}");
}

#[test]
fn buckets_stand_in_the_path_where_the_endpoint_is_not_amazons() {
    for url in [
        "https://s3.eu-central-1.amazonaws.com",
        "https://bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com/",
        "https://S3-FIPS.dualstack.us-gov-west-1.amazonaws.com:443/x",
        "https://s3.cn-north-1.amazonaws.com.cn",
        "https://s3.eu-central-1.api.aws?x",
    ] {
        assert!(is_amazon(url), "{url}");
    }
    for url in [
        "http://127.0.0.1:9000",
        "http://[::1]:9000/",
        "http://minio",
        "https://amazonaws.com.example.org",
        "http://é",
        "",
    ] {
        assert!(!is_amazon(url), "{url}");
    }
}

#[test]
fn a_bundle_gives_its_certificates_and_never_a_panic() {
    let certificate = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let two = format!("# roots\n{}\n{}", certificate(), certificate());
    let found = trusted_certificates(two.as_bytes()).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(trusted_certificates(found[1].as_bytes()).unwrap(), found[1..]);
    let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(trusted_certificates(format!("{odd}{two}").as_bytes()).unwrap(), found);
    for bad in [
        "",
        "text",
        odd,
        "-----BEGIN CERTIFICATE-----\n***\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n",
    ] {
        assert!(trusted_certificates(bad.as_bytes()).is_err(), "{bad}");
    }
}
