//! `${NAME}` in values: from `@SET`, the environment, or what is known of the ECS task.
//!
//! As in Fluent Bit, `${NAME:-text}` stands for the text where the variable is not set or empty, and a variable that is not
//! set is empty, with a warning that names it. The value of a variable is never printed: it may be a secret (the agent writes
//! those as `${NAME_0}`).
//!
//! The init image of aws-for-fluent-bit exports names of the task ([`TASK`]). They are worked out from the fields that the
//! agent has written into the generated file, without asking anyone; only what is not there is asked of the metadata endpoint.

use super::section::{Section, Sections, place};
use crate::config::build::Variables;

/// What the init image exports.
pub const TASK: [&str; 9] = [
    "AWS_REGION",
    "AWS_AVAILABILITY_ZONE",
    "ECS_CLUSTER",
    "ECS_TASK_ARN",
    "ECS_TASK_ID",
    "ECS_FAMILY",
    "ECS_LAUNCH_TYPE",
    "ECS_REVISION",
    "ECS_TASK_DEFINITION",
];

/// Replaces variables; also returns those that are not set.
pub fn replace(text: &str, set: &[(String, String)], variables: Variables<'_>) -> (String, Vec<String>) {
    let mut out = String::with_capacity(text.len());
    let mut unset = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        let inside = &rest[start + 2..start + length];
        out.push_str(&rest[..start]);
        rest = &rest[start + length + 1..];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let own = set.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        match (own.or_else(|| variables(name)).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => unset.push(name.to_owned()),
        }
    }
    out.push_str(rest);
    (out, unset)
}

/// Replaces variables in all values; warnings name what is not set.
pub fn replace_in(
    sections: &mut [Section],
    set: &[(String, String)],
    variables: Variables<'_>,
    warnings: &mut Vec<String>,
) {
    for section in sections {
        let title = section.title();
        for entry in section.entries.iter_mut().filter(|entry| entry.value.contains("${")) {
            let (value, unset) = replace(&entry.value, set, variables);
            for name in unset {
                warnings.push(format!(
                    "{}: {title}: {}: variable ${{{name}}} is used but not set: it is empty",
                    place(&entry.origin),
                    entry.key
                ));
            }
            entry.value = value;
        }
    }
}

/// Names of variables that values use.
pub fn used(read: &Sections) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in read.sections.iter().flat_map(|section| &section.entries) {
        let (_, used) = replace(&entry.value, &[], &|_| None);
        for name in used {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// What the agent's `record_modifier` says of the task, as the variables of the init image.
pub fn of_generated(read: &Sections) -> Vec<(String, String)> {
    let records = read
        .sections
        .iter()
        .filter(|section| section.name == "FILTER" && section.plugin().eq_ignore_ascii_case("record_modifier"));
    let mut known = Vec::new();
    for entry in records.flat_map(|section| &section.entries).filter(|entry| entry.key == "record") {
        let Some((key, value)) = entry.value.split_once(' ') else { continue };
        let value = value.trim();
        match key {
            "ecs_cluster" => known.push(("ECS_CLUSTER", last(value).to_owned())),
            "ecs_task_arn" => {
                known.push(("ECS_TASK_ARN", value.to_owned()));
                known.push(("ECS_TASK_ID", last(value).to_owned()));
                // arn:aws:ecs:REGION:…
                if let Some(region) = value.split(':').nth(3).filter(|region| !region.is_empty()) {
                    known.push(("AWS_REGION", region.to_owned()));
                }
            }
            "ecs_task_definition" => {
                known.push(("ECS_TASK_DEFINITION", value.to_owned()));
                if let Some((family, revision)) = value.rsplit_once(':') {
                    known.push(("ECS_FAMILY", family.to_owned()));
                    known.push(("ECS_REVISION", revision.to_owned()));
                }
            }
            _ => {}
        }
    }
    known.retain(|(_, value)| !value.contains("${"));
    known.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What follows the last `/`: of an ARN, or of a name that may be one.
pub fn last(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_fluent_bit_does() {
        let environment = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let set = [("B".to_owned(), "b".to_owned()), ("B".to_owned(), "c".to_owned())];
        let replaced = |text: &str| replace(text, &set, &environment);
        assert_eq!(replaced("${A}-${B}-x"), ("a-c-x".into(), vec![]));
        assert_eq!(replaced("${EMPTY}${NO}"), (String::new(), vec!["EMPTY".into(), "NO".into()]));
        assert_eq!(replaced("${NO:-d}${EMPTY:-}!"), ("d!".into(), vec![]));
        assert_eq!(replaced("$A ${A"), ("$A ${A".into(), vec![]));
        assert_eq!(replaced("$(ecs_task_id)"), ("$(ecs_task_id)".into(), vec![]));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[${}a:-]*") {
            replace(&text, &[], &|_| None);
        }
    }
}
