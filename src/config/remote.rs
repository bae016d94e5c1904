//! Configuration files that are no files: `s3://BUCKET/KEY`, the ARN of an object, `env:VARIABLE`.
//!
//! Fargate's agent gives a FireLens container files of its image only. The text of a variable comes from SSM Parameter Store or
//! Secrets Manager if the task definition says so (`secrets`), without a permission of the task's own. S3 is asked once, before
//! anything is bound, for 20 seconds at most.

use super::build::Variables;

/// A configuration may be this large.
const BYTES_MAX: usize = 4 << 20;

/// Where a configuration is that is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// `env:VARIABLE`
    Variable(String),
    /// `s3://BUCKET/KEY` or `arn:aws:s3:::BUCKET/KEY`
    Object {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
    },
}

impl Remote {
    /// What a path says, if it is none of a file.
    pub fn parse(path: &str) -> Option<Self> {
        if let Some(name) = path.strip_prefix("env:").filter(|name| !name.is_empty()) {
            return Some(Self::Variable(name.to_owned()));
        }
        // arn:PARTITION:s3:::BUCKET/KEY
        let arn = path.strip_prefix("arn:").and_then(|rest| rest.split_once(":s3:::")).map(|(_, rest)| rest);
        let (bucket, key) = path.strip_prefix("s3://").or(arn)?.split_once('/')?;
        let is_whole = !bucket.is_empty() && !key.is_empty();
        is_whole.then(|| Self::Object { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// The text there.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn read(&self, variables: Variables<'_>) -> Result<String, String> {
        match self {
            Self::Variable(name) => variables(name).ok_or_else(|| format!("variable {name} is not set")),
            Self::Object { bucket, key } => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| error.to_string())?;
                let bytes = runtime.block_on(crate::sink::aws::object(bucket, key, BYTES_MAX))?;
                String::from_utf8(bytes).map_err(|error| format!("not UTF-8: {}", error.utf8_error()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_are_no_files() {
        let object = |key: &str| Some(Remote::Object { bucket: "b".into(), key: key.into() });
        assert_eq!(Remote::parse("s3://b/x/y.conf"), object("x/y.conf"));
        assert_eq!(Remote::parse("arn:aws-cn:s3:::b/y.conf"), object("y.conf"));
        assert_eq!(Remote::parse("env:CONFIG"), Some(Remote::Variable("CONFIG".into())));
        for none in ["/etc/x.toml", "s3://b", "s3:///x", "arn:aws:s3:::b", "env:", "a.toml"] {
            assert_eq!(Remote::parse(none), None, "{none}");
        }
        let set = |name: &str| (name == "A").then(|| "text".to_owned());
        assert_eq!(Remote::Variable("A".into()).read(&set), Ok("text".into()));
        assert!(Remote::Variable("B".into()).read(&set).is_err());
    }
}
