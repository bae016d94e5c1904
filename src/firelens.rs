//! What the ECS agent makes of a task definition: which container is the router, and the configuration that it is given.
//!
//! `meshlens check --task-definition` reads one with [`task::read`], writes with [`generate`] what the agent would write, and checks that
//! as it would check the file itself. Source: aws/amazon-ecs-agent, `agent/taskresource/firelens/firelensconfig_unix.go`, and the templates of
//! awslabs/go-config-generator-for-fluentd-and-fluentbit. Two things the agent decides by chance or at run time are fixed here: containers stand in
//! the order of the task definition, and the task's identity is a made-up one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

pub mod task;

use task::{Container, Flavour, NetworkMode, TaskDefinition};

/// Where the agent puts the file, in the router's container.
pub const FLUENT_BIT_FILE: &str = "/fluent-bit/etc/fluent-bit.conf";
/// The same for fluentd.
pub const FLUENTD_FILE: &str = "/fluentd/etc/fluent.conf";

/// Memory of the router that the agent assumes for half of it where the task definition says nothing, in MiB.
const MEM_BUF_LIMIT_DEFAULT_MIB: u64 = 25;

/// Options that the agent interprets itself and does not hand on.
const INTERPRETED: [&str; 3] = ["include-pattern", "exclude-pattern", "log-driver-buffer-limit"];

/// A cluster and a task that do not exist, as the agent would write them.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster: String,
    /// ARN of the task.
    pub task_arn: String,
    /// On EC2, the instance.
    pub instance_id: Option<String>,
}

/// What the agent would write, or why the task would not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Where it stands in the router's container.
    pub path: &'static str,
    /// The file.
    pub text: String,
    /// The file it includes: where it is looked for, and where it comes from.
    pub included: Option<Included>,
}

/// A file that the generated one includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// Its path in the router's container.
    pub path: String,
    /// The ARN it is downloaded from, if it is.
    pub arn: Option<String>,
}

/// Writes what the agent would write for that task.
///
/// # Errors
/// Why ECS would not start the task; all reasons.
pub fn generate(task: &TaskDefinition, identity: &Identity) -> Result<Generated, Vec<String>> {
    let Some((router, firelens)) = task.router() else {
        return Err(vec!["no container has a firelensConfiguration: there is no router".to_owned()]);
    };
    let mut problems = Vec::new();
    let option = |name: &str| firelens.options.get(name).map(String::as_str);
    let (path, external) = match firelens.flavour {
        Flavour::FluentBit => (FLUENT_BIT_FILE, "/fluent-bit/etc/external.conf"),
        Flavour::Fluentd => (FLUENTD_FILE, "/fluentd/etc/external.conf"),
    };
    let included = match (option("config-file-type"), option("config-file-value")) {
        (None, None) => None,
        (Some("file"), Some(value)) => Some(Included { path: value.to_owned(), arn: None }),
        (Some("s3"), Some(value)) => {
            if task.is_fargate {
                problems.push(format!(
                    "{}: config-file-type \"s3\" works on EC2 only; Fargate takes \"file\"",
                    router.name
                ));
            }
            Some(Included { path: external.to_owned(), arn: Some(value.to_owned()) })
        }
        (kind, value) => {
            problems.push(format!(
                "{}: config-file-type = {kind:?}, config-file-value = {value:?}: must be \"file\" or \"s3\" with a value beside it",
                router.name
            ));
            None
        }
    };
    for container in task.senders() {
        let named = if firelens.flavour == Flavour::FluentBit { "Name" } else { "@type" };
        if !container.options.is_empty() && !container.options.contains_key(named) {
            problems
                .push(format!("{}: logConfiguration.options has no {named:?} (missing output key)", container.name));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let writing = Writing { task, router, identity, included: included.as_ref() };
    let text = match firelens.flavour {
        Flavour::FluentBit => writing.fluent_bit(firelens.adds_metadata()),
        Flavour::Fluentd => writing.fluentd(firelens.adds_metadata()),
    };
    Ok(Generated { path, text, included })
}

/// The options that become keys of the output, in byte order, secrets as the variables that the agent makes of them.
pub fn output_options<'t>(
    task: &'t TaskDefinition,
    container: &'t Container,
    flavour: Flavour,
) -> BTreeMap<&'t str, String> {
    let place = task.containers.iter().position(|other| std::ptr::eq(other, container)).unwrap_or_default();
    let plain = container.options.iter().map(|(key, value)| (key.as_str(), value.clone()));
    let secrets = container.secret_options.iter().map(|name| {
        let value = match flavour {
            Flavour::FluentBit => format!("${{{name}_{place}}}"),
            Flavour::Fluentd => format!("\"#{{ENV['{name}_{place}']}}\""),
        };
        (name.as_str(), value)
    });
    plain.chain(secrets).filter(|(key, _)| !INTERPRETED.contains(key)).collect()
}

struct Writing<'t> {
    task: &'t TaskDefinition,
    router: &'t Container,
    identity: &'t Identity,
    included: Option<&'t Included>,
}

impl Writing<'_> {
    /// The address of the TCP listener, where there is one.
    fn listen(&self) -> Option<&'static str> {
        match self.task.network_mode {
            NetworkMode::Bridge => Some("0.0.0.0"),
            NetworkMode::Awsvpc => Some("127.0.0.1"),
            NetworkMode::Other => None,
        }
    }

    /// Keys that every record gets.
    fn metadata(&self) -> Vec<(&'static str, String)> {
        let task = self.task;
        let instance = self.identity.instance_id.as_ref().map(|id| ("ec2_instance_id", id.clone()));
        let definition = format!("{}:{}", task.family, task.revision.unwrap_or(1));
        let rest = [
            ("ecs_cluster", self.identity.cluster.clone()),
            ("ecs_task_arn", self.identity.task_arn.clone()),
            ("ecs_task_definition", definition),
        ];
        instance.into_iter().chain(rest).collect()
    }

    /// Containers with that option, and its value.
    fn patterns(&self, option: &str) -> impl Iterator<Item = (&str, &str)> {
        self.task.senders().filter_map(move |each| Some((each.name.as_str(), each.options.get(option)?.as_str())))
    }

    fn fluent_bit(&self, adds_metadata: bool) -> String {
        let memory_mib = self.router.memory_reservation_mib.or(self.router.memory_mib).map(|mib| mib / 2);
        let limit = memory_mib.unwrap_or(MEM_BUF_LIMIT_DEFAULT_MIB);
        let mut sections = vec![format!(
            "[INPUT]\n    Name forward\n    Mem_Buf_Limit {limit}MB\n    unix_path /var/run/fluent.sock\n"
        )];
        if let Some(listen) = self.listen() {
            sections.push(format!("[INPUT]\n    Name forward\n    Listen {listen}\n    Port 24224\n"));
            sections.push(
                "[INPUT]\n    Name tcp\n    Tag firelens-healthcheck\n    Listen 127.0.0.1\n    Port 8877\n".to_owned(),
            );
        }
        for (name, pattern) in self.patterns("include-pattern") {
            sections.push(format!("[FILTER]\n    Name   grep\n    Match {name}-firelens*\n    Regex  log {pattern}\n"));
        }
        for (name, pattern) in self.patterns("exclude-pattern") {
            sections
                .push(format!("[FILTER]\n    Name   grep\n    Match {name}-firelens*\n    Exclude log {pattern}\n"));
        }
        if adds_metadata {
            let mut section = "[FILTER]\n    Name record_modifier\n    Match *\n".to_owned();
            for (key, value) in self.metadata() {
                // Writing to a String cannot fail.
                writeln!(section, "    Record {key} {value}").ok();
            }
            sections.push(section);
        }
        if let Some(included) = self.included {
            sections.push(format!("@INCLUDE {}\n", included.path));
        }
        if self.listen().is_some() {
            sections.push("[OUTPUT]\n    Name null\n    Match firelens-healthcheck\n".to_owned());
        }
        for container in self.task.senders().filter(|each| !each.options.is_empty()) {
            let mut options = output_options(self.task, container, Flavour::FluentBit);
            let plugin = options.remove("Name").unwrap_or_default();
            let mut section = format!("[OUTPUT]\n    Name {plugin}\n    Match {}-firelens*\n", container.name);
            for (key, value) in options {
                writeln!(section, "    {key} {value}").ok();
            }
            sections.push(section);
        }
        sections.iter().map(|section| format!("\n{section}")).collect()
    }

    fn fluentd(&self, adds_metadata: bool) -> String {
        let mut sections = vec!["<source>\n    @type unix\n    path /var/run/fluent.sock\n</source>\n".to_owned()];
        if let Some(listen) = self.listen() {
            sections.push(format!("<source>\n    @type forward\n    bind {listen}\n    port 24224\n</source>\n"));
        }
        for (option, kind) in [("include-pattern", "regexp"), ("exclude-pattern", "exclude")] {
            for (name, pattern) in self.patterns(option) {
                sections.push(format!(
                    "<filter {name}-firelens**>\n    @type  grep\n    <{kind}>\n        key log\n        pattern {pattern}\n    </{kind}>\n</filter>\n"
                ));
            }
        }
        if adds_metadata {
            let mut section = "<filter **>\n    @type record_transformer\n    <record>\n".to_owned();
            for (key, value) in self.metadata() {
                writeln!(section, "        {key} {value}").ok();
            }
            section.push_str("    </record>\n</filter>\n");
            sections.push(section);
        }
        if let Some(included) = self.included {
            sections.push(format!("@include {}\n", included.path));
        }
        for container in self.task.senders().filter(|each| !each.options.is_empty()) {
            let mut options = output_options(self.task, container, Flavour::Fluentd);
            let plugin = options.remove("@type").unwrap_or_default();
            let mut section = format!("<match {}-firelens**>\n    @type {plugin}\n", container.name);
            for (key, value) in options {
                writeln!(section, "    {key} {value}").ok();
            }
            section.push_str("</match>\n");
            sections.push(section);
        }
        sections.iter().map(|section| format!("\n{section}")).collect()
    }
}

#[cfg(test)]
mod tests;
