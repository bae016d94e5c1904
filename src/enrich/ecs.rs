//! ECS task metadata, from the task metadata endpoint version 4 and the environment.
//!
//! [`watch()`] returns at once with what the environment says, and reads the endpoint in the background: the
//! container's own document and the task's (`/task`), again and again with full-jitter backoff until nothing more
//! is to be expected. Each answer may be late, an error, half filled or nonsense: what is once known stays known,
//! newer answers replace it name by name.
//!
//! # Where a value comes from
//!
//! The first that has it: the task document; the container document; the labels of that container; the environment
//! (the variables that the init image of aws-for-fluent-bit exports, and `AWS_REGION`); on Fargate the endpoint's
//! own URL, which ends with the container's id. What ARNs hold is taken from them: partition, region, account,
//! cluster, task id. `AWS_REGION` counts only where no ARN tells the region: it may be set to where the logs go.
//!
//! # When it ends
//!
//! [`Metadata::complete`] is set, and reading stops, once the container itself and the names wanted are known and
//! the task says that it runs (before, containers are still missing). Names that do not come although it runs (a
//! task without a service has no service name) are waited for during [`Pace::rereads_max`] more readings. What is
//! read does not change in the life of a task. The endpoint has no container instance: `ecs_container_instance_*`
//! come from the variable `ECS_CONTAINER_INSTANCE_ARN` only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

mod document;
mod endpoint;

use document::Facts;
use endpoint::Endpoint;

/// Names that [`super::Config::ecs`] may list.
pub const NAMES: &[&str] = &[
    "ecs_cluster",
    "ecs_task_arn",
    "ecs_task_definition",
    "ecs_task_id",
    "ecs_service_name",
    "ecs_cluster_arn",
    "ecs_cluster_name",
    "ecs_task_definition_arn",
    "ecs_task_definition_family",
    "ecs_task_definition_revision",
    "ecs_launch_type",
    "ecs_availability_zone",
    "ecs_container_id",
    "ecs_container_name",
    "ecs_container_arn",
    "ecs_container_instance_arn",
    "ecs_container_instance_id",
    "aws_region",
    "aws_account_id",
];

/// Names that no document of the endpoint holds: not waited for.
const NEVER_READ: [&str; 2] = ["ecs_container_instance_arn", "ecs_container_instance_id"];

/// Waited for in any case.
const ALWAYS_WANTED: [&str; 3] = ["ecs_task_arn", "ecs_container_id", "ecs_container_name"];

/// The variables that [`Environment::from_process`] keeps.
const VARIABLES: &[&str] = &[
    "AWS_AVAILABILITY_ZONE",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "ECS_CLUSTER",
    "ECS_CONTAINER_INSTANCE_ARN",
    "ECS_CONTAINER_METADATA_URI_V4",
    "ECS_FAMILY",
    "ECS_LAUNCH_TYPE",
    "ECS_REVISION",
    "ECS_SERVICE_NAME",
    "ECS_TASK_ARN",
    "ECS_TASK_DEFINITION",
    "ECS_TASK_ID",
];

/// What is known of the task at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Values by name of [`NAMES`].
    pub values: BTreeMap<String, String>,
    /// The containers of the task that the endpoint has listed so far.
    pub containers: Vec<Container>,
    /// Nothing more is expected.
    pub complete: bool,
}

impl Metadata {
    /// The value of one of [`NAMES`], if known.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The container with that id, as the log driver writes it into `container_id`: 64 hexadecimal digits on EC2,
    /// `<task id>-<number>` on Fargate and Managed Instances.
    pub fn container(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.id == id)
    }
}

/// A container of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// `DockerId`: what records carry as `container_id`.
    pub id: String,
    /// Its name in the task definition.
    pub name: String,
    /// What the container runtime calls it: `ecs-<family>-<revision>-<name>-<hex>` on EC2; empty if not told.
    pub docker_name: String,
    /// Its ARN; empty if not told.
    pub arn: String,
}

/// The variables of the process that concern the task; never read but here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process, as far as they concern the task.
    pub fn from_process() -> Self {
        VARIABLES.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?))).collect()
    }

    /// The value of a variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Where the ECS agent says that the endpoint version 4 is; for [`super::Config::metadata_uri`].
    pub fn metadata_uri(&self) -> Option<&str> {
        self.get("ECS_CONTAINER_METADATA_URI_V4")
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// How often the endpoint is asked, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Longest pause after the first reading; doubled after each. The pause is a random part of it (full jitter).
    pub pause_first: Duration,
    /// Longest pause of all.
    pub pause_max: Duration,
    /// How long a request may take at first, from connecting to the last byte; doubled when a reading fails.
    pub timeout_first: Duration,
    /// How long a request may take at last: twice the agent's own limit of 5 s.
    pub timeout_max: Duration,
    /// Readings without news, of a task that runs, after which what is missing is not waited for any more.
    pub rereads_max: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pause_first: Duration::from_millis(200),
            pause_max: Duration::from_secs(30),
            timeout_first: Duration::from_secs(2),
            timeout_max: Duration::from_secs(10),
            rereads_max: 10,
        }
    }
}

impl Pace {
    /// The pause after that many readings.
    fn pause(&self, readings: u32) -> Duration {
        let longest = self.pause_first.saturating_mul(1 << readings.min(20)).min(self.pause_max);
        // A floor under the jitter: the agent allows 40 requests a second for the whole instance.
        longest.mul_f64(fastrand::f64()).max(self.pause_first / 4)
    }

    /// The time a request gets after that many failed readings.
    fn timeout(&self, failures: u32) -> Duration {
        self.timeout_first.saturating_mul(1 << failures.min(20)).min(self.timeout_max)
    }
}

/// Metadata as it becomes known. Returns at once, with what the environment says; a background task reads the rest,
/// which ends when all receivers are gone. Must be called within a Tokio runtime.
pub fn watch(config: &super::Config, environment: &Environment) -> watch::Receiver<Arc<Metadata>> {
    watch_at(config, environment, Pace::default())
}

/// As [`watch()`], at another pace.
pub fn watch_at(config: &super::Config, environment: &Environment, pace: Pace) -> watch::Receiver<Arc<Metadata>> {
    let endpoint = config.metadata_uri.as_deref().and_then(|uri| match Endpoint::new(uri) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            tracing::warn!(%error, "ecs task metadata endpoint cannot be used");
            None
        }
    });
    let is_read = |name: &&str| NAMES.contains(name) && !NEVER_READ.contains(name);
    let wanted = config.wanted().filter(is_read).map(str::to_owned).collect();
    let mut task = Task {
        environment: Facts::from_environment(environment, config.metadata_uri.as_deref()),
        container: Facts::default(),
        task: Facts::default(),
        wanted,
        quiet: 0,
        metadata: Metadata::default(),
    };
    task.metadata = task.derive();
    task.metadata.complete = endpoint.is_none();
    let (sender, receiver) = watch::channel(Arc::new(task.metadata.clone()));
    tokio::spawn(async move {
        if let Some(endpoint) = endpoint {
            tokio::select! {
                () = sender.closed() => return,
                () = task.read(&endpoint, &sender, pace) => {}
            }
        }
        // A receiver that waits for a change would spin if the sender were gone.
        sender.closed().await;
    });
    receiver
}

/// What is known of the task, and what is still to come.
struct Task {
    environment: Facts,
    container: Facts,
    task: Facts,
    wanted: Vec<String>,
    /// Readings since the last news, of a task that runs.
    quiet: u32,
    metadata: Metadata,
}

impl Task {
    /// Reads until nothing more is to be expected.
    async fn read(&mut self, endpoint: &Endpoint, sender: &watch::Sender<Arc<Metadata>>, pace: Pace) {
        let mut failures = 0;
        for readings in 0.. {
            let timeout = pace.timeout(failures);
            let (container, task) = tokio::join!(endpoint.container(timeout), endpoint.task(timeout));
            let failed = container.as_ref().err().or(task.as_ref().err());
            if let Some(error) = failed {
                // Each doubling of the count: 1, 2, 4, …
                if (failures + 1u32).is_power_of_two() {
                    tracing::warn!(%error, failures = failures + 1, "ecs task metadata not read, will try again");
                }
                failures = failures.saturating_add(1);
            }
            let answered = task.is_ok();
            if let Ok(container) = container {
                self.container.learn(Facts::from_container(&container));
            }
            if let Ok(task) = task {
                self.task.learn(Facts::from_task(&task));
            }
            self.publish(sender, answered, pace.rereads_max);
            if self.metadata.complete {
                tracing::info!(readings = readings + 1, "ecs task metadata complete");
                return;
            }
            tokio::time::sleep(pace.pause(readings)).await;
        }
    }

    /// Tells the receivers what is new, and decides whether that is all. `answered`: the task's document was read
    /// just now.
    fn publish(&mut self, sender: &watch::Sender<Arc<Metadata>>, answered: bool, rereads_max: u32) {
        let mut metadata = self.derive();
        let found = |name: &str| metadata.get(name).is_some();
        let itself = ALWAYS_WANTED.into_iter().all(found);
        let wanted = self.wanted.iter().all(|name| found(name));
        let settled = answered && itself && self.task.runs != Some(false);
        self.quiet = if settled && metadata == self.metadata { self.quiet + 1 } else { 0 };
        metadata.complete = settled && (wanted && self.task.runs.is_some() || self.quiet >= rereads_max);
        if metadata != self.metadata {
            self.metadata = metadata.clone();
            sender.send_replace(Arc::new(metadata));
        }
    }

    fn derive(&self) -> Metadata {
        let mut facts = self.environment.clone();
        facts.learn(self.container.clone());
        facts.learn(self.task.clone());
        Metadata { values: facts.values(), containers: facts.containers, complete: false }
    }
}
