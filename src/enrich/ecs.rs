//! ECS task metadata, from the task metadata endpoint version 4 and the environment.

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

/// What is known of the task at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Values by name of [`NAMES`].
    pub values: std::collections::BTreeMap<String, String>,
    /// Nothing more is expected.
    pub complete: bool,
}

impl Metadata {
    /// The value of one of [`NAMES`], if known.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}
