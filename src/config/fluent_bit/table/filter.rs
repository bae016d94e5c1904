//! `[FILTER]`.

use super::{Key, Plugin, To, better, ignored, noted, same, warned};

/// Keys that every filter has.
pub const COMMON: &[Key] = &[
    same("match", To::Text("match")),
    same("match_regex", To::Text("match_regex")),
    ignored("alias", "Filters need no name."),
    ignored("log_level", "One level for all: `[SERVICE]`."),
    ignored("log_suppress_interval", "Our log repeats nothing by itself."),
];

const EMITTER: &str = "Records go on in the same chunk; there is no second input to buffer them.";

/// The filters that we know.
pub const PLUGINS: &[Plugin] = &[
    Plugin {
        name: "grep",
        becomes: "filter `grep`",
        keys: &[
            same("regex", To::Each("regex")),
            same("exclude", To::Each("exclude")),
            same("logical_op", To::Text("logical_op")),
        ],
    },
    Plugin {
        name: "record_modifier",
        becomes: "filter `record_modifier`",
        keys: &[
            noted(
                "record",
                To::Code,
                "A value that is empty because its variable is not set: the field is left out, where Fluent Bit does not start.",
            ),
            same("remove_key", To::Each("remove_key")),
            same("allowlist_key", To::Each("allowlist_key")),
            same("whitelist_key", To::Each("allowlist_key")),
            same("uuid_key", To::Text("uuid_key")),
        ],
    },
    Plugin {
        name: "modify",
        becomes: "filter `modify`",
        keys: &[
            same("condition", To::Code),
            same("set", To::Rule("rule")),
            same("add", To::Rule("rule")),
            same("add_if_not_present", To::Code),
            same("remove", To::Rule("rule")),
            same("remove_wildcard", To::Rule("rule")),
            same("remove_regex", To::Rule("rule")),
            same("rename", To::Rule("rule")),
            same("hard_rename", To::Rule("rule")),
            same("copy", To::Rule("rule")),
            same("hard_copy", To::Rule("rule")),
            same("move_to_start", To::Rule("rule")),
            same("move_to_end", To::Rule("rule")),
        ],
    },
    Plugin {
        name: "nest",
        becomes: "filter `nest`",
        keys: &[
            same("operation", To::Text("operation")),
            same("wildcard", To::Each("wildcard")),
            same("nest_under", To::Text("nest_under")),
            same("nested_under", To::Text("nested_under")),
            same("add_prefix", To::Text("add_prefix")),
            same("remove_prefix", To::Text("remove_prefix")),
        ],
    },
    Plugin {
        name: "parser",
        becomes: "filter `parser`",
        keys: &[
            same("key_name", To::Text("key_name")),
            same("parser", To::Each("parser")),
            same("reserve_data", To::Bool("reserve_data")),
            same("preserve_key", To::Bool("preserve_key")),
            ignored("unescape_key", "No effect in Fluent Bit either."),
        ],
    },
    Plugin {
        name: "multiline",
        becomes: "filter `multiline`. Lines that Docker split at 16 KiB are joined without it.",
        keys: &[
            same("multiline.key_content", To::Text("multiline_key_content")),
            same("multiline.parser", To::Words("multiline_parser")),
            same("mode", To::Text("mode")),
            same("flush_ms", To::Count("flush_ms")),
            ignored("buffer", "Lines are always put together across chunks, for each stream."),
            ignored("debug_flush", "For Fluent Bit's own developers."),
            ignored("emitter_name", EMITTER),
            ignored("emitter_storage.type", EMITTER),
            ignored("emitter_mem_buf_limit", EMITTER),
        ],
    },
    Plugin {
        name: "rewrite_tag",
        becomes: "filter `rewrite_tag`",
        keys: &[
            same("rule", To::Each("rule")),
            ignored("emitter_name", EMITTER),
            ignored("emitter_storage.type", EMITTER),
            better("emitter_mem_buf_limit", To::Nothing, EMITTER),
        ],
    },
    Plugin {
        name: "aws",
        becomes: "`enrich.metadata`, for all records: the EC2 metadata service is not asked. The generated configuration adds `ec2_instance_id` on EC2; the task's metadata knows the availability zone and the account.",
        keys: &[
            noted("az", To::Code, "From the task's metadata."),
            noted("ec2_instance_id", To::Code, "From the generated configuration, on EC2 only."),
            noted("account_id", To::Code, "From the task's metadata."),
            ignored("imds_version", "The EC2 metadata service is not asked."),
            warned("ec2_instance_type", "The task's metadata does not know it."),
            warned("private_ip", "The task's metadata does not say it for the host."),
            warned("vpc_id", "The task's metadata does not say it on Fargate."),
            warned("ami_id", "The task's metadata does not know it."),
            warned("hostname", "The task's metadata does not know the host's."),
            warned("tags_enabled", "The tags of the instance are not read."),
            ignored("tags_include", "The tags of the instance are not read."),
            ignored("tags_exclude", "The tags of the instance are not read."),
            ignored("retry_interval_s", "The metadata is read again until it is known."),
            ignored("enable_entity", "Entities are not sent."),
        ],
    },
    Plugin {
        name: "ecs",
        becomes: "`enrich.metadata`, for all records: from the task's metadata, not from the agent's introspection port. For the router's own task.",
        keys: &[
            noted(
                "add",
                To::Code,
                "`$ClusterName`, `$TaskARN`, `$TaskID`, `$TaskDefinitionFamily`, `$TaskDefinitionVersion`, `$ECSContainerName`, `$ContainerID`, `$ContainerInstanceArn`, `$ContainerInstanceID`, in a text too. What is made of others is not added, with a warning.",
            ),
            ignored("ecs_tag_prefix", "The router's own task is meant."),
            ignored("cluster_metadata_only", "Names in `add` say what is wanted."),
            ignored("ecs_meta_cache_ttl", "A task's metadata does not change."),
            ignored("ecs_meta_host", "The introspection port is not asked."),
            ignored("ecs_meta_port", "The introspection port is not asked."),
            ignored("agent_endpoint_retries", "The metadata is read again until it is known."),
        ],
    },
];
