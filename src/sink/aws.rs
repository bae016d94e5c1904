//! What the AWS sinks share: clients from the SDK's default chain, and what its errors mean.
//!
//! Credentials, region, endpoint, FIPS and dual-stack follow the SDK's chain (environment, profile, ECS, EC2) wherever a sink
//! does not say otherwise; `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_{CLOUDWATCH_LOGS,FIREHOSE,S3,STS}` are read by the SDK.
//! Two things it does not do are added here: `AWS_CA_BUNDLE`, and the region of the ECS task as the last resort.
//!
//! The SDK makes one attempt a request; what is tried again, when and how much of it is decided in [`super::retry`].
//! Fetching credentials keeps the SDK's own retries; when they are fetched is decided in [`credentials`].

use std::sync::Arc;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::watch;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::enrich::ecs::Metadata;

use super::retry::{End, Retrier};

mod credentials;
mod failure;
mod object;

pub use credentials::Refused;
use credentials::Renewing;
pub use failure::{Failure, Kind};
pub use object::object;

/// Time limit of opening a connection, TLS included: the SDK's own default, named here because it is set with the other.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);

/// The largest CA bundle read; the public bundle of all certificate authorities is a fifth of a MiB.
const CA_BUNDLE_BYTES_MAX: u64 = 8 << 20;

/// Settings of one sink's AWS client; what is not set follows the SDK's default chain (environment, profile, ECS, EC2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Region; default chain if none.
    pub region: Option<String>,
    /// Endpoint URL; `AWS_ENDPOINT_URL_<SERVICE>` and `AWS_ENDPOINT_URL` if none.
    pub endpoint_url: Option<String>,
    /// Role to assume for this sink.
    pub role_arn: Option<String>,
    /// External id that the role asks for.
    pub external_id: Option<String>,
    /// FIPS endpoints; default chain if none.
    pub use_fips: Option<bool>,
    /// Dual-stack endpoints; default chain if none.
    pub use_dual_stack: Option<bool>,
}

/// A CloudWatch Logs client. Tries until it can be built; `Err` only at the end of the process.
pub async fn cloudwatch_logs(
    config: &Config,
    retrier: &Retrier,
    metadata: &watch::Receiver<Arc<Metadata>>,
) -> Result<aws_sdk_cloudwatchlogs::Client, End> {
    let sdk = load_until_built(config, retrier, metadata).await?;
    let mut builder = aws_sdk_cloudwatchlogs::config::Builder::from(&sdk);
    if let Some(url) = &config.endpoint_url {
        builder = builder.endpoint_url(url);
    }
    Ok(aws_sdk_cloudwatchlogs::Client::from_conf(builder.build()))
}

/// A Firehose client. Tries until it can be built; `Err` only at the end of the process.
pub async fn firehose(
    config: &Config,
    retrier: &Retrier,
    metadata: &watch::Receiver<Arc<Metadata>>,
) -> Result<aws_sdk_firehose::Client, End> {
    let sdk = load_until_built(config, retrier, metadata).await?;
    let mut builder = aws_sdk_firehose::config::Builder::from(&sdk);
    if let Some(url) = &config.endpoint_url {
        builder = builder.endpoint_url(url);
    }
    Ok(aws_sdk_firehose::Client::from_conf(builder.build()))
}

/// An S3 client; addresses buckets in the path where the endpoint is not Amazon's. Tries until it can be built; `Err` only at
/// the end of the process.
pub async fn s3(
    config: &Config,
    retrier: &Retrier,
    metadata: &watch::Receiver<Arc<Metadata>>,
) -> Result<aws_sdk_s3::Client, End> {
    let sdk = load_until_built(config, retrier, metadata).await?;
    let mut builder = aws_sdk_s3::config::Builder::from(&sdk);
    if let Some(url) = &config.endpoint_url {
        builder = builder.endpoint_url(url);
    }
    // A client's configuration tells no endpoint once built, so ask for what it was built from, in the SDK's own order.
    let custom = config.endpoint_url.clone().or_else(|| endpoint_from_environment("AWS_ENDPOINT_URL_S3", &sdk));
    if custom.as_deref().is_some_and(|url| !is_amazon(url)) {
        builder = builder.force_path_style(true);
    }
    Ok(aws_sdk_s3::Client::from_conf(builder.build()))
}

fn endpoint_from_environment(service_variable: &str, sdk: &SdkConfig) -> Option<String> {
    std::env::var(service_variable).ok().filter(|url| !url.is_empty()).or_else(|| sdk.endpoint_url().map(str::to_owned))
}

/// Whether that is an endpoint of Amazon itself (a VPC endpoint, FIPS, China …), where buckets stand in the host name.
fn is_amazon(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host).to_ascii_lowercase();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"]
        .iter()
        .any(|domain| host.ends_with(domain))
}

async fn load_until_built(
    config: &Config,
    retrier: &Retrier,
    metadata: &watch::Receiver<Arc<Metadata>>,
) -> Result<SdkConfig, End> {
    let mut turn = retrier.free_turn();
    loop {
        let task_region = metadata.borrow().get("aws_region").map(str::to_owned);
        // Boxed: the SDK's loader is a future of many kilobytes that lives once.
        match turn.attempt(Box::pin(load(config, retrier, task_region))).await {
            Ok(sdk) => return Ok(sdk),
            Err(failure) => turn.pause(&failure).await?,
        }
    }
}

/// Loads the settings that a sink's clients are made from. `task_region` serves where the chain knows none.
async fn load(config: &Config, retrier: &Retrier, task_region: Option<String>) -> Result<SdkConfig, Failure> {
    let mut settings = Settings { config: config.clone(), http_client: http_client().await?, region: None };
    settings.region = config.region.clone().map(Region::new);
    let sdk = settings.load().await;
    settings.region = sdk.region().cloned().or_else(|| task_region.map(Region::new));
    let Some(region) = settings.region.clone() else { return Err(Failure::setup(NO_REGION.to_owned())) };
    let request_timeout = retrier.config().request_timeout;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT.min(request_timeout))
        .operation_attempt_timeout(request_timeout)
        .build();
    let provider = Renewing::new(settings, retrier.credentials_refused());
    Ok(sdk
        .into_builder()
        .region(region)
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .build())
}

/// What the SDK's settings are loaded from, and its credentials each time anew.
struct Settings {
    config: Config,
    http_client: Option<SharedHttpClient>,
    /// Once it is known, so that the chain is not asked for it again.
    region: Option<Region>,
}

impl Settings {
    async fn load(&self) -> SdkConfig {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(client) = &self.http_client {
            loader = loader.http_client(client.clone());
        }
        if let Some(region) = &self.region {
            loader = loader.region(region.clone());
        }
        if let Some(fips) = self.config.use_fips {
            loader = loader.use_fips(fips);
        }
        if let Some(dual_stack) = self.config.use_dual_stack {
            loader = loader.use_dual_stack(dual_stack);
        }
        loader.load().await
    }

    /// The chain's credentials, or those of the role to assume with them. Asking for them keeps the SDK's timeouts and retries.
    async fn credentials(&self, sdk: &SdkConfig) -> Option<SharedCredentialsProvider> {
        let Some(role) = &self.config.role_arn else { return sdk.credentials_provider() };
        let mut provider = aws_config::sts::AssumeRoleProvider::builder(role).session_name("meshlens").configure(sdk);
        if let Some(id) = &self.config.external_id {
            provider = provider.external_id(id);
        }
        Some(SharedCredentialsProvider::new(provider.build().await))
    }
}

const NO_REGION: &str = "no AWS region: set `aws.region` of the sink or the variable AWS_REGION";

/// An HTTPS client that trusts what `AWS_CA_BUNDLE` names in place of the system's certificates; none if it is not set.
async fn http_client() -> Result<Option<SharedHttpClient>, Failure> {
    let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) else { return Ok(None) };
    let told = |problem: String| Failure::setup(format!("AWS_CA_BUNDLE {}: {problem}", path.display()));
    let size = tokio::fs::metadata(&path).await.map_err(|error| told(error.to_string()))?.len();
    if size > CA_BUNDLE_BYTES_MAX {
        return Err(told(format!("{size} bytes; at most {CA_BUNDLE_BYTES_MAX} are read")));
    }
    let pem = tokio::fs::read(&path).await.map_err(|error| told(error.to_string()))?;
    let mut store = TrustStore::empty();
    for certificate in trusted_certificates(&pem).map_err(told)? {
        store = store.with_pem_certificate(certificate);
    }
    let context = TlsContext::builder().with_trust_store(store).build().map_err(|error| told(error.to_string()))?;
    let client = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build_https();
    Ok(Some(client))
}

/// The certificates of a PEM file, each as PEM of its own. Those that are no certificates are left out, since the SDK's client
/// panics at them; a file without any is an error.
fn trusted_certificates(pem: &[u8]) -> Result<Vec<String>, String> {
    let mut certificates = Vec::new();
    let mut problem = None;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        match certificate {
            Ok(der) => match RootCertStore::empty().add(der.clone()) {
                Ok(()) => certificates.push(format!(
                    "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                    BASE64_STANDARD.encode(der)
                )),
                Err(error) => problem = Some(error.to_string()),
            },
            Err(error) => {
                problem = Some(error.to_string());
                break;
            }
        }
    }
    match (certificates.is_empty(), problem) {
        (true, problem) => {
            Err(format!("no certificate in it: {}", problem.unwrap_or_else(|| "no PEM block".to_owned())))
        }
        (false, problem) => {
            if let Some(problem) = problem {
                tracing::warn!("AWS_CA_BUNDLE: a certificate is left out: {problem}");
            }
            Ok(certificates)
        }
    }
}

#[cfg(test)]
mod tests;
