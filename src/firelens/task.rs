//! A task definition, as far as its logs are concerned.

use std::collections::BTreeMap;

use serde_json::Value;

/// A task definition, as registered or described, or as CloudFormation spells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskDefinition {
    /// Its family.
    pub family: String,
    /// Its revision, if it was registered.
    pub revision: Option<u64>,
    /// Its network mode; ECS's default on Linux is bridge, on Fargate awsvpc.
    pub network_mode: NetworkMode,
    /// Whether it asks for Fargate.
    pub is_fargate: bool,
    /// Whether it has a task role: whose permissions the router works with.
    pub has_task_role: bool,
    /// Whether it has an execution role.
    pub has_execution_role: bool,
    /// Its containers, in order.
    pub containers: Vec<Container>,
}

/// How its containers are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// Docker's bridge.
    #[default]
    Bridge,
    /// A network interface of the task's own.
    Awsvpc,
    /// `host` or `none`: there the agent configures the unix socket only.
    Other,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its log driver, if it has a log configuration.
    pub log_driver: Option<String>,
    /// Options of the log driver.
    pub options: BTreeMap<String, String>,
    /// Names of options whose values are secrets.
    pub secret_options: Vec<String>,
    /// Set on the router.
    pub firelens: Option<Firelens>,
    /// Whether the task ends with it; ECS's default is that it does.
    pub is_essential: bool,
    /// Hard limit of memory.
    pub memory_mib: Option<u64>,
    /// Memory set aside.
    pub memory_reservation_mib: Option<u64>,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_timeout_s: Option<u64>,
    /// Whether it has dependencies: then the agent adds none of its own to the router.
    pub has_dependencies: bool,
    /// The words of its health check.
    pub health_check: Vec<String>,
    /// Its user.
    pub user: Option<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Whether its root file system is read-only.
    pub is_read_only: bool,
}

/// What makes a container the router.
#[derive(Clone, Debug, PartialEq)]
pub struct Firelens {
    /// Whose configuration the agent writes.
    pub flavour: Flavour,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// Whose configuration the agent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `fluentbit`
    FluentBit,
    /// `fluentd`
    Fluentd,
}

impl Firelens {
    /// Whether the agent adds the keys of ECS. As Go's `ParseBool` reads it; what it cannot read counts as false.
    pub fn adds_metadata(&self) -> bool {
        match self.options.get("enable-ecs-log-metadata").map(String::as_str) {
            None => true,
            Some(text) => matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        }
    }
}

impl TaskDefinition {
    /// The router.
    pub fn router(&self) -> Option<(&Container, &Firelens)> {
        self.containers.iter().find_map(|container| Some((container, container.firelens.as_ref()?)))
    }

    /// Containers whose logs go to the router.
    pub fn senders(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.log_driver.as_deref() == Some("awsfirelens"))
    }
}

/// Why a document is no task definition.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// Something in it is not as it should be.
    #[error("{place}: {must}")]
    Shape {
        /// Where, as a path of keys.
        place: String,
        /// What it must be.
        must: &'static str,
    },
}

/// Reads a task definition: the document that `register-task-definition` takes, that `describe-task-definition` returns, or the
/// resource of a CloudFormation template in JSON.
///
/// # Errors
/// See [`ReadError`].
pub fn read(text: &str) -> Result<TaskDefinition, ReadError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document: Value = serde_json::from_str(text).map_err(|error| ReadError::Json(error.to_string()))?;
    let document = uncapitalised(document);
    let inner = ["taskDefinition", "properties"].iter().find_map(|key| document.get(key)).unwrap_or(&document);
    let Some(containers) = inner.get("containerDefinitions").and_then(Value::as_array) else {
        let (place, must) = ("containerDefinitions".to_owned(), "must be a list of containers");
        return Err(ReadError::Shape { place, must });
    };
    let compatible = inner.get("requiresCompatibilities").and_then(Value::as_array);
    let is_fargate = compatible.is_some_and(|list| list.iter().any(|one| one == "FARGATE"));
    let containers: Vec<Container> =
        containers.iter().enumerate().map(|(place, each)| container(place, each)).collect::<Result<_, _>>()?;
    if containers.iter().filter(|container| container.firelens.is_some()).count() > 1 {
        let (place, must) =
            ("containerDefinitions".to_owned(), "must have a firelensConfiguration in one container only");
        return Err(ReadError::Shape { place, must });
    }
    Ok(TaskDefinition {
        family: text_of(inner, "family").unwrap_or_default(),
        revision: inner.get("revision").and_then(Value::as_u64),
        network_mode: match text_of(inner, "networkMode").as_deref() {
            Some("awsvpc") => NetworkMode::Awsvpc,
            None if is_fargate => NetworkMode::Awsvpc,
            None | Some("bridge") => NetworkMode::Bridge,
            Some(_) => NetworkMode::Other,
        },
        is_fargate,
        has_task_role: inner.get("taskRoleArn").is_some_and(|role| !role.is_null()),
        has_execution_role: inner.get("executionRoleArn").is_some_and(|role| !role.is_null()),
        containers,
    })
}

fn container(place: usize, container: &Value) -> Result<Container, ReadError> {
    let at = |key: &str| format!("containerDefinitions[{place}].{key}");
    let shape = |key: &str, must| ReadError::Shape { place: at(key), must };
    let name = text_of(container, "name").ok_or_else(|| shape("name", "must be the container's name"))?;
    let log = container.get("logConfiguration");
    let firelens = match container.get("firelensConfiguration") {
        None | Some(Value::Null) => None,
        Some(firelens) => Some(Firelens {
            flavour: match text_of(firelens, "type").as_deref() {
                Some("fluentbit") => Flavour::FluentBit,
                Some("fluentd") => Flavour::Fluentd,
                _ => return Err(shape("firelensConfiguration.type", "must be \"fluentbit\" or \"fluentd\"")),
            },
            options: texts(firelens.get("options")),
        }),
    };
    let secrets = match log.and_then(|log| log.get("secretOptions")) {
        // One object in place of a list is a common slip.
        Some(one @ Value::Object(_)) => std::slice::from_ref(one),
        Some(Value::Array(list)) => list,
        _ => &[],
    };
    let environment = container.get("environment").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let health = container.get("healthCheck").and_then(|check| check.get("command")).and_then(Value::as_array);
    Ok(Container {
        name,
        log_driver: log.and_then(|log| text_of(log, "logDriver")),
        options: texts(log.and_then(|log| log.get("options"))),
        secret_options: secrets.iter().filter_map(|secret| text_of(secret, "name")).collect(),
        firelens,
        is_essential: container.get("essential").and_then(Value::as_bool).unwrap_or(true),
        memory_mib: number_of(container, "memory"),
        memory_reservation_mib: number_of(container, "memoryReservation"),
        stop_timeout_s: number_of(container, "stopTimeout"),
        has_dependencies: container.get("dependsOn").and_then(Value::as_array).is_some_and(|list| !list.is_empty()),
        health_check: health.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
        user: text_of(container, "user"),
        environment: environment
            .iter()
            .filter_map(|one| Some((text_of(one, "name")?, text_of(one, "value")?)))
            .collect(),
        is_read_only: container.get("readonlyRootFilesystem").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// Keys as the API spells them: CloudFormation begins them with a capital. Options belong to others and stay.
fn uncapitalised(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let lower = |key: String| match key.chars().next() {
                Some(first) if first.is_ascii_uppercase() => first.to_ascii_lowercase().to_string() + &key[1..],
                _ => key,
            };
            let entry = |(key, value): (String, Value)| {
                let key = lower(key);
                let value = if key == "options" { value } else { uncapitalised(value) };
                (key, value)
            };
            Value::Object(entries.into_iter().map(entry).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(uncapitalised).collect()),
        other => other,
    }
}

fn text_of(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(plain)
}

/// A text, or a number or truth value as text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn number_of(value: &Value, key: &str) -> Option<u64> {
    match value.get(key)? {
        Value::String(text) => text.trim().parse().ok(),
        number => number.as_u64(),
    }
}

fn texts(options: Option<&Value>) -> BTreeMap<String, String> {
    let entries = options.and_then(Value::as_object);
    entries.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), plain(value)?))).collect()
}
