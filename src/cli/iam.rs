//! The IAM actions that a configuration needs, by sink.

use crate::config::document::{Node, Path, Value};
use crate::sink::{Config, Kind};

/// What one sink's role must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The sink.
    pub sink: String,
    /// Who needs it: the task role, or the role that the sink assumes.
    pub role: String,
    /// The actions.
    pub actions: Vec<&'static str>,
    /// On what.
    pub resource: String,
}

/// What every sink needs, in the order of the configuration. `document` has the names as they were written.
pub fn permissions(sinks: &[Config], document: &Node) -> Vec<Permission> {
    sinks.iter().flat_map(|sink| of_sink(sink, document)).collect()
}

fn of_sink(sink: &Config, document: &Node) -> Vec<Permission> {
    let (aws, mut needs) = match &sink.kind {
        Kind::CloudwatchLogs(logs) => {
            let groups = ["group", "group_fallback"].map(|key| written(document, &sink.name, key));
            let mut actions = vec!["logs:PutLogEvents", "logs:CreateLogStream"];
            if logs.create_group {
                actions.push("logs:CreateLogGroup");
            }
            if logs.create_group && logs.retention_days.is_some() {
                actions.push("logs:PutRetentionPolicy");
            }
            let need = |group: &String| (actions.clone(), format!("arn:aws:logs:*:*:log-group:{}:*", pattern(group)));
            (&logs.aws, groups.iter().flatten().map(need).collect())
        }
        Kind::Firehose(firehose) => {
            let resource = format!("arn:aws:firehose:*:*:deliverystream/{}", firehose.stream);
            (&firehose.aws, vec![(vec!["firehose:PutRecordBatch"], resource)])
        }
        Kind::S3(s3) => {
            let key = written(document, &sink.name, if s3.is_whole_key { "object_key" } else { "key" });
            let key = pattern(key.as_deref().map_or(crate::config::build::S3_KEY, |key| key.trim_start_matches('/')));
            let key = if key.ends_with('*') { key } else { format!("{key}*") };
            let resource = format!("arn:aws:s3:::{}/{key}", s3.bucket);
            let mut actions = vec!["s3:PutObject", "s3:AbortMultipartUpload"];
            if s3.canned_acl.is_some() {
                actions.push("s3:PutObjectAcl");
            }
            let mut needs = vec![(actions, resource)];
            if s3.server_side_encryption.as_deref().is_some_and(|method| method.starts_with("aws:kms")) {
                let kms = s3.kms_key_id.clone().unwrap_or_else(|| "the bucket's KMS key".to_owned());
                needs.push((vec!["kms:GenerateDataKey", "kms:Decrypt"], kms));
            }
            (&s3.aws, needs)
        }
        Kind::Forward(_) | Kind::File(_) | Kind::Stdout | Kind::Discard | Kind::Unsupported(_) => return Vec::new(),
    };
    let role = aws.role_arn.clone().unwrap_or_else(|| "task role".to_owned());
    let mut permissions = Vec::new();
    if let Some(arn) = &aws.role_arn {
        let actions = vec!["sts:AssumeRole"];
        permissions.push(Permission {
            sink: sink.name.clone(),
            role: "task role".into(),
            actions,
            resource: arn.clone(),
        });
    }
    permissions.extend(needs.drain(..).map(|(actions, resource)| {
        let (sink, role) = (sink.name.clone(), role.clone());
        Permission { sink, role, actions, resource }
    }));
    permissions
}

/// A sink's key as it was written.
pub(super) fn written(document: &Node, sink: &str, key: &str) -> Option<String> {
    match &document.at(&Path::root().key("sink").key(sink).key(key))?.value {
        Value::Text(text) => Some(text.clone()),
        _ => document.at(&Path::root().key("sink").key(sink).key(key))?.bare.as_deref().map(str::to_owned),
    }
}

/// A template as an IAM pattern: `*` from the first part on that is not fixed.
fn pattern(template: &str) -> String {
    match template.find(['{', '%']) {
        Some(at) => format!("{}*", &template[..at]),
        None => template.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{flags::Flags, load_text};

    fn of(text: &str) -> Vec<String> {
        let loaded = load_text(Some(("t.toml", text)), &Flags::default(), &|_| None).unwrap();
        let permissions = permissions(&loaded.config.sinks, &loaded.document);
        permissions.iter().map(|p| format!("{} {} {} {}", p.sink, p.role, p.actions.join(","), p.resource)).collect()
    }

    #[test]
    fn each_kind_of_sink_names_its_actions() {
        assert_eq!(
            of("[sink.l]\ntype='cloudwatch_logs'\ngroup='/a/{tag}'\nretention_days=7\n[sink.o]\ntype='stdout'\n"),
            ["l task role logs:PutLogEvents,logs:CreateLogStream,logs:CreateLogGroup,logs:PutRetentionPolicy \
              arn:aws:logs:*:*:log-group:/a/*:*"]
        );
        let groups = of("[sink.l]\ntype='cloudwatch_logs'\ncreate_group=false\ngroup='/a/{x}'\ngroup_fallback='/b'\n");
        assert_eq!(groups.len(), 2, "{groups:?}");
        assert!(groups[1].ends_with("arn:aws:logs:*:*:log-group:/b:*"), "{groups:?}");
        assert_eq!(
            of("[sink.f]\ntype='firehose'\nstream='s'\nrole_arn='arn:aws:iam::1:role/r'\n"),
            [
                "f task role sts:AssumeRole arn:aws:iam::1:role/r",
                "f arn:aws:iam::1:role/r firehose:PutRecordBatch arn:aws:firehose:*:*:deliverystream/s"
            ]
        );
        assert_eq!(
            of("[sink.s]\ntype='s3'\nbucket='bbb'\nkms_key_id='k'\n"),
            [
                "s task role s3:PutObject,s3:AbortMultipartUpload arn:aws:s3:::bbb/year=*",
                "s task role kms:GenerateDataKey,kms:Decrypt k"
            ]
        );
        assert_eq!(
            of("[sink.s]\ntype='s3'\nbucket='bbb'\nobject_key='/logs/$/{tag}'\ncanned_acl='private'\n"),
            ["s task role s3:PutObject,s3:AbortMultipartUpload,s3:PutObjectAcl arn:aws:s3:::bbb/logs/$/*"]
        );
    }
}
