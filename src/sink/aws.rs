//! What the AWS sinks share: clients from the SDK's default chain, and what its errors mean.

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
