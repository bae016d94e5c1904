//! Redaction of query strings: policies, and the marks they leave on a record.

/// What happens to a query string.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Removed, from the `?` on. The default.
    #[default]
    Strip,
    /// Kept: the listed parameters only, with their values; every parameter if the list is empty (redaction is then off).
    Keep(Vec<String>),
    /// Parameter names stay, values become `***`.
    Mask,
    /// Parameter names stay, values become a keyed hash, so that equal values stay equal.
    Hash {
        /// The key of the HMAC; never printed.
        key: Secret,
    },
}

/// A value that Debug does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Box<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// How to redact.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// What happens to query strings.
    pub query: Policy,
}
