//! One object of S3, read before there are sinks: a configuration file that a FireLens container names by its URL or ARN.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata as _};

use super::{CONNECT_TIMEOUT, endpoint_from_environment, http_client, is_amazon};

/// One attempt; the SDK makes three.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// All of it.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The header in which S3 says where a bucket is.
const REGION_HEADER: &str = "x-amz-bucket-region";
/// The region that knows of all others.
const FIRST_REGION: &str = "us-east-1";

/// The content of an object of at most `bytes_max` bytes, with the credentials of the SDK's chain. A bucket in another region
/// is asked there.
///
/// # Errors
/// Why there is none, in words.
pub async fn object(bucket: &str, key: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
    let get = Box::pin(get(bucket, key, bytes_max));
    tokio::time::timeout(TIMEOUT, get)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
}

async fn get(bucket: &str, key: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut region = None;
    loop {
        let client = client(region.clone()).await?;
        let error = match client.get_object().bucket(bucket).key(key).send().await {
            Ok(object) => {
                if object
                    .content_length()
                    .is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > bytes_max))
                {
                    return Err(format!("larger than {bytes_max} bytes"));
                }
                let body = object.body.collect().await.map_err(|error| error.to_string())?;
                return Ok(body.into_bytes().to_vec());
            }
            Err(error) => error,
        };
        let elsewhere =
            error.raw_response().and_then(|response| response.headers().get(REGION_HEADER)).map(str::to_owned);
        match elsewhere {
            Some(elsewhere) if region.as_deref() != Some(&elsewhere) && error.code() != Some("AccessDenied") => {
                region = Some(elsewhere);
            }
            _ => return Err(DisplayErrorContext(error).to_string()),
        }
    }
}

async fn client(region: Option<String>) -> Result<aws_sdk_s3::Client, String> {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts);
    if let Some(client) = http_client().await.map_err(|failure| failure.to_string())? {
        loader = loader.http_client(client);
    }
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    let sdk = loader.load().await;
    let sdk = match sdk.region() {
        Some(_) => sdk,
        None => sdk.into_builder().region(Region::new(FIRST_REGION)).build(),
    };
    let mut builder = aws_sdk_s3::config::Builder::from(&sdk);
    if endpoint_from_environment("AWS_ENDPOINT_URL_S3", &sdk).is_some_and(|url| !is_amazon(&url)) {
        builder = builder.force_path_style(true);
    }
    Ok(aws_sdk_s3::Client::from_conf(builder.build()))
}
