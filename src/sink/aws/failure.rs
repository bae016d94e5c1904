//! What an error of the SDK means for the records behind it. Decided by type, error code and status, never by message text.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Too much for the service at this time; retried, and slower.
    Throttled,
    /// The network, a timeout, or the service in trouble; retried.
    Transient,
    /// Credentials, permissions or the clock: what an operator or the next credentials put right; retried.
    Credentials,
    /// The client's own settings, such as region, endpoint or CA bundle: no request was made; retried.
    Setup,
    /// The stream, group or bucket is not there; retried, unless the sink can create it.
    NotFound,
    /// It is there already: another created the group or the stream, or the object (`If-None-Match`).
    Exists,
    /// The service says that it has these records already (`DataAlreadyAcceptedException`).
    AlreadyAccepted,
    /// Larger than the service takes; never accepted.
    TooLarge,
    /// The service understood the request and will never accept it.
    Refused,
}

/// Why a request failed. Its text names the class, the service's error code, status and request id, and never holds what a
/// validation message may quote from the request.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The class.
    pub kind: Kind,
    /// The service's error code, if it gave one.
    pub code: Option<Box<str>>,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The service's id of the request, to be quoted to its support.
    pub request_id: Option<Box<str>>,
    /// How long the service asks to wait.
    pub retry_after: Option<Duration>,
    /// What is known beyond the code.
    pub detail: Box<str>,
    /// The destination took the greater part of the request, and failed the rest so.
    pub is_partial: bool,
}

impl Failure {
    /// A failure of that class without an answer from a service.
    pub fn new(kind: Kind, detail: impl Into<Box<str>>) -> Self {
        Self {
            kind,
            code: None,
            status: None,
            request_id: None,
            retry_after: None,
            detail: detail.into(),
            is_partial: false,
        }
    }

    /// The client cannot be built or used as it is set up.
    pub fn setup(detail: impl Into<Box<str>>) -> Self {
        Self::new(Kind::Setup, detail)
    }

    /// An attempt took longer than its limit.
    pub fn timed_out(limit: Duration) -> Self {
        Self::new(Kind::Transient, format!("no answer within {limit:.1?}"))
    }

    /// The class by an error code, as partial failures give it for single entries.
    pub fn from_code(code: &str) -> Self {
        let kind = kind_of_code(code).unwrap_or(Kind::Transient);
        Self { code: Some(code.into()), ..Self::new(kind, "") }
    }

    /// Whether the same request may be accepted later.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            Kind::Throttled | Kind::Transient | Kind::Credentials | Kind::Setup | Kind::NotFound => true,
            Kind::Exists | Kind::AlreadyAccepted | Kind::TooLarge | Kind::Refused => false,
        }
    }

    /// The service's error code, or "".
    pub fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Failure {
    /// `throttled: ThrottlingException (status 400, request id 6a…)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Throttled => "throttled",
            Kind::Transient => "not reached or in trouble",
            Kind::Credentials => "credentials or permissions",
            Kind::Setup => "client settings",
            Kind::NotFound => "not found",
            Kind::Exists => "exists already",
            Kind::AlreadyAccepted => "accepted already",
            Kind::TooLarge => "too large",
            Kind::Refused => "refused",
        })?;
        if let Some(code) = &self.code {
            write!(f, ": {code}")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        match (self.status, &self.request_id) {
            (Some(status), Some(id)) => write!(f, " (status {status}, request id {id})"),
            (Some(status), None) => write!(f, " (status {status})"),
            (None, Some(id)) => write!(f, " (request id {id})"),
            (None, None) => Ok(()),
        }
    }
}

impl StdError for Failure {}

impl<E: ProvideErrorMetadata + StdError + 'static> From<SdkError<E, HttpResponse>> for Failure {
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::ServiceError(answer) => {
                answered(answer.err().meta().code(), answer.err().meta().message(), answer.raw())
            }
            // An answer that is not the service's: a proxy's page, a cut body.
            SdkError::ResponseError(answer) => answered(None, None, answer.raw()),
            SdkError::TimeoutError(_) => Self::new(Kind::Transient, chain(&error)),
            SdkError::DispatchFailure(dispatch) => {
                // The SDK leaves what went wrong before the request was sent without a kind: credentials, signing, endpoint.
                let before = dispatch.is_other() && dispatch.as_other().is_none();
                Self::new(if before { Kind::Credentials } else { Kind::Transient }, chain(&error))
            }
            // The request could not be made from its parameters and settings.
            _ => Self::setup(chain(&error)),
        }
    }
}

fn answered(code: Option<&str>, message: Option<&str>, response: &HttpResponse) -> Failure {
    let status = response.status().as_u16();
    let kind = code.and_then(kind_of_code).unwrap_or_else(|| kind_of_status(status, code.is_some()));
    let headers = response.headers();
    let request_id = headers.get("x-amzn-requestid").or_else(|| headers.get("x-amz-request-id"));
    let retry_after = match headers.get("x-amz-retry-after") {
        Some(milliseconds) => milliseconds.parse().ok().map(Duration::from_millis),
        None => headers.get("retry-after").and_then(retry_after),
    };
    // A message about who may do what quotes names of ours and of AWS; one about validation may quote a record.
    let telling = matches!(kind, Kind::Credentials | Kind::NotFound);
    Failure {
        kind,
        code: code.map(Into::into),
        status: Some(status),
        request_id: request_id.map(Into::into),
        retry_after,
        detail: message.filter(|_| telling).unwrap_or_default().into(),
        is_partial: false,
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::from_str(value.trim(), Format::HttpDate).ok()?;
    let date = std::time::SystemTime::try_from(date).ok()?;
    Some(date.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}

/// The class of an error code. Throttling and transient codes are those of the SDK's own classifier
/// (`aws_runtime::retries::classifiers`), and what the API references of Logs, Firehose, S3 and STS name.
fn kind_of_code(code: &str) -> Option<Kind> {
    Some(match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException"
        | "TransactionInProgressException"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "LimitExceededException"
        | "PriorRequestNotComplete"
        | "EC2ThrottledException"
        | "SlowDown"
        // Firehose: "throughput limits for the Firehose stream may have been exceeded".
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Kind::Throttled,
        "RequestTimeout"
        | "RequestTimeoutException"
        | "InternalError"
        | "InternalFailure"
        | "InternalFailureException"
        | "InternalServerError"
        | "InternalServiceError"
        | "InternalServiceException"
        | "OperationAborted"
        | "OperationAbortedException"
        | "ConditionalRequestConflict"
        | "InvalidSequenceTokenException"
        | "ConcurrentModificationException" => Kind::Transient,
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "AuthorizationHeaderMalformed"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidKMSResourceException"
        | "InvalidSignatureException"
        | "InvalidToken"
        | "InvalidTokenId"
        | "KMS.DisabledException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "UnauthorizedAccess"
        | "UnrecognizedClientException" => Kind::Credentials,
        "ResourceNotFoundException" | "NoSuchBucket" | "NoSuchUpload" | "NoSuchKey" => Kind::NotFound,
        "ResourceAlreadyExistsException" | "PreconditionFailed" => Kind::Exists,
        "DataAlreadyAcceptedException" => Kind::AlreadyAccepted,
        "EntityTooLarge" | "RequestEntityTooLargeException" | "RequestTooLarge" => Kind::TooLarge,
        _ => return None,
    })
}

/// The class of a status whose code says nothing, or is not there.
fn kind_of_status(status: u16, coded: bool) -> Kind {
    match status {
        429 | 503 => Kind::Throttled,
        401 | 403 => Kind::Credentials,
        404 => Kind::NotFound,
        408 | 409 => Kind::Transient,
        412 => Kind::Exists,
        413 => Kind::TooLarge,
        // Without a code it is not the service that speaks, and no verdict on the records.
        400..500 if coded => Kind::Refused,
        _ => Kind::Transient,
    }
}

/// The texts of an error and its causes, each once.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Many layers repeat what the one below says.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
