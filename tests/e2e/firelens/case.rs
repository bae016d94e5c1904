//! A generated file with its task definition, and what must arrive where.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::scene::METADATA;
use super::{Delivered, HOSTNAME, INSTANCE, LINES, Members, TASK, TASK_ARN, data, member, read};
use crate::ordered::{Json, json, key_shape};

/// A container whose lines go to the router.
pub(super) struct Sender {
    pub(super) name: String,
    pub(super) options: BTreeMap<String, String>,
}

/// A generated file and the task definition it was generated for.
pub(super) struct Case {
    /// Name of both.
    pub(super) name: String,
    /// Name of the generated file.
    pub(super) file: String,
    pub(super) generated: String,
    /// A: options alone. B: with included files. C: with parts that are out of scope.
    pub(super) level: String,
    pub(super) task: Value,
}

impl Case {
    pub(super) fn of(path: &Path) -> Self {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let name = file.split('.').next().unwrap().to_owned();
        // Captured from a task of this definition.
        let name = if name == "real-fluent-bit" { "uth-generated-fluentbit".to_owned() } else { name };
        let directory = data("task-definitions").join(&name);
        let document = |name: &str| serde_json::from_str::<Value>(&read(&directory.join(name))).unwrap();
        let level = document("case.json")["level"].as_str().unwrap().to_owned();
        let task = document("task-definition.json");
        let task = task.get("taskDefinition").cloned().unwrap_or(task);
        Self { name, file, generated: read(path), level, task }
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &Value> {
        self.task["containerDefinitions"].as_array().unwrap().iter()
    }

    pub(super) fn senders(&self) -> Vec<Sender> {
        let sends = |container: &&Value| container["logConfiguration"]["logDriver"] == "awsfirelens";
        self.containers()
            .filter(sends)
            .map(|container| Sender {
                name: container["name"].as_str().unwrap().to_owned(),
                options: container["logConfiguration"]["options"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
                    .collect(),
            })
            .collect()
    }

    pub(super) fn router(&self) -> &Value {
        self.containers().find(|container| container.get("firelensConfiguration").is_some()).unwrap()
    }

    pub(super) fn is_fluentd(&self) -> bool {
        self.router()["firelensConfiguration"]["type"] == "fluentd"
    }

    /// The variables of the router's container.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let own = self.router()["environment"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut all: Vec<_> = own.map(|pair| (text(&pair["name"]), text(&pair["value"]))).collect();
        for (index, container) in self.containers().enumerate() {
            for secret in container["logConfiguration"]["secretOptions"].as_array().into_iter().flatten() {
                all.push((format!("{}_{index}", secret["name"].as_str().unwrap()), "a secret".to_owned()));
            }
        }
        let mut set = |name: &str, value: &str| {
            all.retain(|(known, _)| known != name);
            all.push((name.to_owned(), value.to_owned()));
        };
        match self.name.as_str() {
            // Its image begins with this file of its own.
            "emf-over-tcp-bridge" => set("aws_fluent_bit_init_file_1", "/extra.conf"),
            "oomkill-memory-full" => {
                set("aws_fluent_bit_init_file_1", "/extra.conf");
                set("aws_fluent_bit_init_ignore_firelens_config", "true");
            }
            // Where the load tests have another destination each.
            "load-test-cloudwatch-tcp" => set("OUTPUT_PLUGIN", "cloudwatch"),
            "load-test-firehose-tcp" => set("OUTPUT_PLUGIN", "firehose"),
            _ => {}
        }
        if self.name.starts_with("load-test") {
            // The sample has none of the `/` that Fluent Bit insists on.
            set("CUSTOM_S3_OBJECT_NAME", "/custom/%Y/%m/%d/$UUID");
        }
        all.push(("HOSTNAME".to_owned(), HOSTNAME.to_owned()));
        all.push(("ECS_CONTAINER_METADATA_URI_V4".to_owned(), format!("http://{}/v4/x", *METADATA)));
        all
    }

    /// A file of the case.
    pub(super) fn own(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(data("task-definitions").join(&self.name).join(name)).ok()
    }

    /// The files that it includes, by their places in the container.
    pub(super) fn files(&self) -> Vec<(&'static str, String)> {
        const EXTERNAL: &str = "/fluent-bit/etc/external.conf";
        let named: &[(&str, &str)] = match self.name.as_str() {
            "config-file-type-file" | "emf-over-tcp-bridge" | "oomkill-memory-full" => &[("/extra.conf", "extra.conf")],
            "efs-config-file" => &[("/configs/extra.conf", "extra.conf")],
            "crash-repro-template" => &[("/extra.conf", "extra.conf"), ("/parser.conf", "parser.conf")],
            "multiline-regex" => {
                &[("/extra.conf", "extra.conf"), ("/parsers_multiline.conf", "parsers_multiline.conf")]
            }
            "split-streams-fluentbit" => &[
                ("/fluent-bit.conf", "fluent-bit.conf"),
                ("/parser.conf", "parser.conf"),
                ("/stream_processing.conf", "stream_processing.conf"),
            ],
            "health-output-metrics" => {
                &[("/fluent-bit/configs/output-metrics-healthcheck.conf", "output-metrics-healthcheck.conf")]
            }
            "internal-metrics-to-cw" => &[
                ("/fluent-bit/configs/plugin-metrics-to-cloudwatch.conf", "plugin-metrics-to-cloudwatch.conf"),
                ("/fluent-bit/configs/plugin-metrics-parser.conf", "plugin-metrics-parser.conf"),
            ],
            "log-collection-tail" => &[(EXTERNAL, "tail.conf")],
            "log-collection-tcp" => &[(EXTERNAL, "tcp.conf")],
            name if name.starts_with("load-test") => &[(EXTERNAL, "fluent.conf")],
            // Never published; its image has none of its own then.
            "uth-generated-fluentbit" => return vec![("/fluent-bit.conf", "# nothing\n".to_owned())],
            "uth-generated-fluentd" => return vec![("/fluentd/etc/external.conf", "# nothing\n".to_owned())],
            _ if self.own("extra.conf").is_some() => &[(EXTERNAL, "extra.conf")],
            _ => &[],
        };
        named.iter().map(|(place, name)| (*place, self.own(name).unwrap())).collect()
    }

    /// Objects of S3 that the init image would fetch.
    pub(super) fn objects(&self) -> Vec<(String, String, String)> {
        let arn = |(name, value): (String, String)| {
            let place = value.strip_prefix("arn:aws:s3:::").filter(|_| name.starts_with("aws_fluent_bit_init_s3"))?;
            let (bucket, key) = place.split_once('/')?;
            Some((bucket.to_owned(), key.to_owned(), self.own(key).unwrap()))
        };
        self.variables().into_iter().filter_map(arn).collect()
    }

    /// The keys of ECS, as the file itself has them.
    pub(super) fn metadata(&self) -> Members {
        let mut members = Vec::new();
        if self.name == "oomkill-memory-full" {
            return members;
        }
        if self.file == "real-fluent-bit.conf" {
            let arn = "arn:aws:ecs:ap-south-1:144718711470:task/737d73bf-8c6e-44f1-aa86-7b3ae3922011";
            return vec![
                member("ec2_instance_id", "i-01dce3798d7c17a58"),
                member("ecs_cluster", "furrlens"),
                member("ecs_task_arn", arn),
                member("ecs_task_definition", "firelens-example-twitch-session:5"),
            ];
        }
        if !self.file.contains(".awsvpc.") {
            members.push(member("ec2_instance_id", INSTANCE));
        }
        let definition = format!("{}:7", self.task["family"].as_str().unwrap());
        members.push(member("ecs_cluster", "demo-cluster"));
        members.push(member("ecs_task_arn", TASK_ARN));
        members.push(member("ecs_task_definition", &definition));
        members
    }

    /// What the filters of included files make of a record; none where they leave it out.
    pub(super) fn filtered(&self, mut record: Members) -> Members {
        let position = |record: &Members, name: &str| record.iter().position(|(key, _)| key == name);
        let log = match position(&record, "log").map(|at| record[at].1.clone()) {
            Some(Json::Text(log)) => log,
            _ => String::new(),
        };
        match self.name.as_str() {
            "add-keys-firehose" | "config-file-type-file" => record.push(member("app-version", "v1.1.14")),
            "internal-metrics-to-cw" => record.push(member("hostname", HOSTNAME)),
            "parse-json" | "split-streams-fluentbit" => {
                if let Json::Object(parsed) = json(&log) {
                    record.retain(|(key, _)| key != "log");
                    record.splice(0..0, parsed);
                }
            }
            "parse-apache" if log == LINES[2] => {
                record.retain(|(key, _)| key != "log");
                let parsed = [
                    ("host", "127.0.0.1"),
                    ("user", "frank"),
                    ("method", "GET"),
                    ("path", "/apache_pb.gif"),
                    ("code", "200"),
                    ("size", "2326"),
                ];
                record.splice(0..0, parsed.map(|(name, value)| member(name, value)));
            }
            _ => {}
        }
        record
    }

    /// Where outputs of included files put a record, and the key that they take of it, if not all.
    pub(super) fn included_outputs(&self, tag: &str) -> Vec<(String, Option<&'static str>)> {
        let is_app = tag.starts_with("app-firelens");
        let tutorial = |stream: &str| {
            let stream = if self.file.contains(".awsvpc.") {
                // Without an instance, the plugin's default name stands for the whole.
                "/fluentbit-default".to_owned()
            } else {
                stream.replace("ID", &format!("{INSTANCE}-{TASK}"))
            };
            vec![(format!("logs firelens-tutorial-demo-cluster {stream}"), None)]
        };
        match self.name.as_str() {
            "efs-config-file" => vec![("firehose my-stream".to_owned(), None)],
            "multiple-destinations" => vec![
                ("firehose stream-one".to_owned(), None),
                ("firehose stream-two".to_owned(), None),
                (format!("logs /aws/ecs/app-cluster {tag}"), Some("log")),
            ],
            "oomkill-memory-full" => vec![(format!("logs firelens-tutorial /logs/{HOSTNAME}"), None)],
            "log-collection-tcp" => tutorial("/logs/ID"),
            "log-collection-tail" if is_app => tutorial("/logs/app/ID"),
            "log-collection-tail" => tutorial("/logs/service/ID"),
            "emf-over-tcp-bridge" if tag.starts_with("emf-") => {
                vec![(format!("logs aws-emf-ecs-firelens-example-metrics from-fluent-bit-{tag}"), Some("log"))]
            }
            "multi-config-init" if tag == "app" => {
                let key = "/your-bucket/fluent-bit-logs/app/2026/01/01/00/00/00-object12345678";
                vec![(format!("s3 {}", key_shape(key)), None)]
            }
            "load-test-cloudwatch-tcp" if tag == "cloudwatch" => {
                vec![("logs load-test-group custom-1".to_owned(), Some("log"))]
            }
            "load-test-firehose-tcp" if tag == "firehose" => vec![("firehose custom-ds-1".to_owned(), None)],
            _ => Vec::new(),
        }
    }

    /// Where a container's own output puts its records, and the key that it takes of them, if not all.
    pub(super) fn own_output(&self, sender: &Sender, tag: &str) -> Option<(String, Option<&'static str>)> {
        if self.name == "oomkill-memory-full" {
            return None;
        }
        let option = |name: &str| sender.options.get(name).map(String::as_str);
        let kind = option("Name").or_else(|| option("@type"))?;
        let log_key = option("log_key").map(|key| if key == "log" { "log" } else { panic!("{key}") });
        let place = match kind {
            "cloudwatch" | "cloudwatch_logs" => {
                let known = |text: &str| {
                    let named = [("$(ecs_cluster)", "demo-cluster"), ("$(ecs_task_id)", TASK)];
                    let set = [("${ECS_CLUSTER}", "demo-cluster"), ("${ECS_TASK_ID}", TASK)];
                    let named = if kind == "cloudwatch" { named } else { set };
                    named.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
                };
                let stream = match (option("log_stream_name"), option("log_stream_prefix")) {
                    (Some(name), _) => known(name),
                    (None, prefix) => format!("{}{tag}", prefix.unwrap_or_default()),
                };
                format!("logs {} {stream}", known(option("log_group_name").unwrap()))
            }
            "firehose" | "kinesis_firehose" => {
                format!("firehose {}", option("delivery_stream").or_else(|| option("delivery_stream_name")).unwrap())
            }
            "s3" => {
                let format = option("s3_key_format").unwrap_or("/fluent-bit-logs/$TAG/%Y/%m/%d/%H/%M/%S");
                let dated =
                    ["%Y", "%m", "%d", "%H", "%M", "%S"].iter().fold(format.replace("$TAG", tag), |key, part| {
                        key.replace(part, if *part == "%Y" { "2026" } else { "01" })
                    });
                format!("s3 {}", key_shape(&format!("/{}{dated}-object12345678", option("bucket").unwrap())))
            }
            _ => return None,
        };
        Some((place, log_key))
    }

    /// A record as it must arrive, everywhere it must.
    pub(super) fn arrives(&self, tag: &str, record: Members, sender: Option<&Sender>, all: &mut Vec<Delivered>) {
        let pattern = sender.and_then(|sender| sender.options.get("include-pattern"));
        let at = record.iter().position(|(key, _)| key == "log").unwrap();
        let Json::Text(log) = &record[at].1 else { unreachable!() };
        if pattern.is_some_and(|pattern| {
            assert_eq!(pattern, "[Ee]rror");
            !log.contains("error") && !log.contains("Error")
        }) {
            return;
        }
        let access = access_log(log);
        let mut record = record;
        record.extend(self.metadata());
        let mut record = self.filtered(record);
        if let Some(fields) = access {
            // In the place of the line, or of what a filter made of the line.
            let first = record.iter().position(|(key, _)| key == "log");
            let first = first.unwrap_or_else(|| record.iter().position(|(key, _)| *key == fields[0].0).unwrap());
            let count = if record[first].0 == "log" { 1 } else { fields.len() };
            record.splice(first..first + count, fields);
            record.push(member("log_type", "access"));
        }
        let own = sender.and_then(|sender| self.own_output(sender, tag));
        for (place, key) in self.included_outputs(tag).into_iter().chain(own) {
            let what = match key {
                None => Json::Object(record.clone()),
                // CloudWatch Logs takes no empty message, nor does Fluent Bit send one.
                Some(key) => match record.iter().find(|(name, _)| name == key) {
                    Some((_, Json::Text(text))) if !text.is_empty() => json(text),
                    // An access log is parsed: it has no such key, and is sent whole.
                    None => Json::Object(record.clone()),
                    _ => continue,
                },
            };
            all.push(Delivered { place, what });
        }
    }
}

/// The fields of an access log, without its query string.
pub(super) fn access_log(line: &str) -> Option<Members> {
    let Json::Object(mut fields) = json(line) else { return None };
    let (_, path) = fields.iter_mut().find(|(key, _)| key == "path")?;
    let Json::Text(text) = path else { return None };
    let end = ["?", "%3F", "%253F"].iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    text.truncate(end);
    Some(fields)
}
