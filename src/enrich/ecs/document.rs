//! What the documents of the endpoint, and the environment, say; and the names that follow from it.
//!
//! Documents are read leniently: a field of the wrong type, or an empty one, is a field that is not there. Fields
//! may be added to them at any time (Amazon ECS developer guide), so that unknown ones mean nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Container, Environment};

/// Bytes of a value; an ARN is at most 2048. Longer values are not taken.
const VALUE_BYTES_MAX: usize = 2048;

/// Containers of a task that are remembered. A task definition has at most 10, and the agent adds some of its own.
const CONTAINERS_MAX: usize = 256;

/// A document of the endpoint.
pub(super) type Document = serde_json::Map<String, Value>;

/// What one source says. Everything else follows from these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Name or ARN.
    cluster: Option<String>,
    task_arn: Option<String>,
    task_id: Option<String>,
    family: Option<String>,
    revision: Option<String>,
    service: Option<String>,
    launch_type: Option<String>,
    zone: Option<String>,
    region: Option<String>,
    container_id: Option<String>,
    container_name: Option<String>,
    container_arn: Option<String>,
    container_instance_arn: Option<String>,
    /// The containers of the task.
    pub(super) containers: Vec<Container>,
    /// Whether the task says that it runs, or has run: then all its containers are listed.
    pub(super) runs: Option<bool>,
}

impl Facts {
    /// What the variables say, and the endpoint's URL: on Fargate it ends with the container's id, `<task
    /// id>-<number>`.
    pub(super) fn from_environment(environment: &Environment, uri: Option<&str>) -> Self {
        let get = |name| environment.get(name).filter(|value| value.len() <= VALUE_BYTES_MAX).map(str::to_owned);
        let definition = get("ECS_TASK_DEFINITION");
        let (family, revision) = definition.as_deref().and_then(|text| text.rsplit_once(':')).unzip();
        let container_id =
            uri.and_then(|uri| uri.trim_end_matches('/').rsplit('/').next()).filter(|id| is_fargate_id(id));
        Self {
            cluster: get("ECS_CLUSTER"),
            task_arn: get("ECS_TASK_ARN").filter(|arn| Arn::parse(arn).is_some()),
            task_id: get("ECS_TASK_ID").or_else(|| Some(container_id?.split_once('-')?.0.to_owned())),
            family: get("ECS_FAMILY").or(family.map(str::to_owned)),
            revision: get("ECS_REVISION").or(revision.map(str::to_owned)),
            service: get("ECS_SERVICE_NAME"),
            launch_type: get("ECS_LAUNCH_TYPE"),
            zone: get("AWS_AVAILABILITY_ZONE"),
            region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")),
            container_id: container_id.map(str::to_owned),
            container_instance_arn: get("ECS_CONTAINER_INSTANCE_ARN"),
            ..Self::default()
        }
    }

    /// What the container's own document says; of the task what its labels say.
    pub(super) fn from_container(document: &Document) -> Self {
        let label = |name: &str| text(document.get("Labels")?.as_object()?, &format!("com.amazonaws.ecs.{name}"));
        Self {
            cluster: label("cluster"),
            task_arn: label("task-arn").filter(|arn| Arn::parse(arn).is_some()),
            family: label("task-definition-family"),
            revision: label("task-definition-version"),
            container_id: text(document, "DockerId"),
            container_name: text(document, "Name"),
            container_arn: text(document, "ContainerARN"),
            containers: container(document).into_iter().collect(),
            ..Self::default()
        }
    }

    /// What the task's document says.
    pub(super) fn from_task(document: &Document) -> Self {
        let listed = document.get("Containers").and_then(Value::as_array);
        let containers = listed.into_iter().flatten().filter_map(Value::as_object).filter_map(container);
        Self {
            cluster: text(document, "Cluster"),
            task_arn: text(document, "TaskARN").filter(|arn| Arn::parse(arn).is_some()),
            family: text(document, "Family"),
            revision: text(document, "Revision"),
            service: text(document, "ServiceName"),
            launch_type: text(document, "LaunchType"),
            zone: text(document, "AvailabilityZone"),
            containers: containers.take(CONTAINERS_MAX).collect(),
            runs: text(document, "KnownStatus").map(|status| has_run(&status)),
            ..Self::default()
        }
    }

    /// Takes over what `other` says; keeps what it does not say.
    pub(super) fn learn(&mut self, other: Self) {
        let replace = |known: &mut Option<String>, news: Option<String>| {
            if news.is_some() {
                *known = news;
            }
        };
        replace(&mut self.cluster, other.cluster);
        replace(&mut self.task_arn, other.task_arn);
        replace(&mut self.task_id, other.task_id);
        replace(&mut self.family, other.family);
        replace(&mut self.revision, other.revision);
        replace(&mut self.service, other.service);
        replace(&mut self.launch_type, other.launch_type);
        replace(&mut self.zone, other.zone);
        replace(&mut self.region, other.region);
        replace(&mut self.container_id, other.container_id);
        replace(&mut self.container_name, other.container_name);
        replace(&mut self.container_arn, other.container_arn);
        replace(&mut self.container_instance_arn, other.container_instance_arn);
        self.runs = other.runs.or(self.runs);
        for news in other.containers {
            self.learn_container(news);
        }
    }

    fn learn_container(&mut self, news: Container) {
        let Some(known) = self.containers.iter_mut().find(|known| known.id == news.id) else {
            if self.containers.len() < CONTAINERS_MAX {
                self.containers.push(news);
            }
            return;
        };
        known.name = news.name;
        for (known, news) in [(&mut known.docker_name, news.docker_name), (&mut known.arn, news.arn)] {
            if !news.is_empty() {
                *known = news;
            }
        }
    }

    /// Values by name of [`super::NAMES`].
    pub(super) fn values(&self) -> BTreeMap<String, String> {
        let task = self.task_arn.as_deref().and_then(Arn::parse);
        let cluster = self.cluster.as_deref().and_then(Arn::parse);
        let arn = task.or(cluster).or_else(|| self.container_arn.as_deref().and_then(Arn::parse));
        let cluster_name = match (&cluster, &self.cluster) {
            (Some(arn), _) => Some(arn.last()),
            (None, Some(name)) => Some(name.as_str()),
            (None, None) => task.and_then(Arn::task_cluster),
        };
        let cluster_arn = match (cluster, cluster_name, task) {
            (Some(_), ..) => self.cluster.clone(),
            (None, Some(name), Some(task)) => Some(task.sibling(&format!("cluster/{name}"))),
            _ => None,
        };
        let definition = self
            .family
            .as_deref()
            .zip(self.revision.as_deref())
            .map(|(family, revision)| format!("{family}:{revision}"));
        let own = self.container_id.as_deref().and_then(|id| self.containers.iter().find(|other| other.id == id));
        let own_arn = own.map(|own| own.arn.as_str()).filter(|arn| !arn.is_empty());
        let instance = self.container_instance_arn.as_deref();
        let pairs = [
            ("ecs_cluster", cluster_name.map(str::to_owned)),
            ("ecs_cluster_name", cluster_name.map(str::to_owned)),
            ("ecs_cluster_arn", cluster_arn),
            ("ecs_task_arn", self.task_arn.clone()),
            ("ecs_task_id", task.map(|arn| arn.last().to_owned()).or_else(|| self.task_id.clone())),
            (
                "ecs_task_definition_arn",
                arn.zip(definition.as_deref()).map(|(arn, name)| arn.sibling(&format!("task-definition/{name}"))),
            ),
            ("ecs_task_definition", definition),
            ("ecs_task_definition_family", self.family.clone()),
            ("ecs_task_definition_revision", self.revision.clone()),
            ("ecs_service_name", self.service.clone()),
            ("ecs_launch_type", self.launch_type.clone()),
            ("ecs_availability_zone", self.zone.clone()),
            ("ecs_container_id", self.container_id.clone()),
            ("ecs_container_name", self.container_name.clone().or_else(|| Some(own?.name.clone()))),
            ("ecs_container_arn", self.container_arn.clone().or_else(|| own_arn.map(str::to_owned))),
            ("ecs_container_instance_arn", instance.map(str::to_owned)),
            ("ecs_container_instance_id", instance.and_then(|arn| arn.rsplit('/').next()).map(str::to_owned)),
            ("aws_region", arn.map(|arn| arn.region.to_owned()).or_else(|| self.region.clone())),
            ("aws_account_id", arn.map(|arn| arn.account.to_owned())),
        ];
        pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// `arn:partition:service:region:account:resource`, every part there.
#[derive(Clone, Copy)]
struct Arn<'a> {
    partition: &'a str,
    service: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("arn:")?.splitn(5, ':').filter(|part| !part.is_empty());
        let mut part = || parts.next();
        Some(Self { partition: part()?, service: part()?, region: part()?, account: part()?, resource: part()? })
    }

    /// The last part of the resource: the id of a task, the name of a cluster.
    fn last(&self) -> &'a str {
        self.resource.rsplit('/').next().unwrap_or(self.resource)
    }

    /// The cluster in a task's ARN: `task/cluster/id`; the form before 2018, `task/id`, has none.
    fn task_cluster(self) -> Option<&'a str> {
        self.resource.strip_prefix("task/")?.split_once('/').map(|(cluster, _)| cluster)
    }

    /// The ARN of another resource of the same service, region and account.
    fn sibling(&self, resource: &str) -> String {
        format!("arn:{}:{}:{}:{}:{resource}", self.partition, self.service, self.region, self.account)
    }
}

/// A field that is a text, or a number where a text is meant, and not empty.
fn text(document: &Document, name: &str) -> Option<String> {
    let text = match document.get(name)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty() && text.len() <= VALUE_BYTES_MAX).then_some(text)
}

/// A container that has an id by now, and a name.
fn container(document: &Document) -> Option<Container> {
    Some(Container {
        id: text(document, "DockerId")?,
        name: text(document, "Name")?,
        docker_name: text(document, "DockerName").unwrap_or_default(),
        arn: text(document, "ContainerARN").unwrap_or_default(),
    })
}

/// A task is as far as its last container: one that runs has them all.
fn has_run(status: &str) -> bool {
    matches!(status, "RUNNING" | "DEACTIVATING" | "STOPPING" | "DEPROVISIONING" | "STOPPED" | "DELETED")
}

/// 32 hexadecimal digits, `-`, a number. On EC2 the URL ends with a UUID instead.
fn is_fargate_id(id: &str) -> bool {
    id.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32
            && task.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
