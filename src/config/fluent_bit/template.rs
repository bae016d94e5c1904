//! Names with variables: Fluent Bit's three notations into that of [`crate::sink::template`].
//!
//! | notation | where | variables |
//! |---|---|---|
//! | none | `cloudwatch_logs` | none: `{`, `}` and `%` are escaped |
//! | `$(…)` | Go plugin `cloudwatch` | `$(tag)`, `$(tag[n])`, `$(uuid)`, `$(ecs_task_id)`, `$(ecs_cluster)`, `$(ecs_task_arn)`, `$(key['sub'])` |
//! | `$…` | `log_group_template` | `$TAG`, `$TAG[n]`, `$key['sub']`, up to the next `.`, `,`, blank or quote |
//! | S3 | `s3_key_format` | `$TAG`, `$TAG[n]`, `$UUID`, `$INDEX`, dates |

/// A text that stands for itself.
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_literal(text, &mut out);
    out
}

fn push_literal(text: &str, out: &mut String) {
    for c in text.chars() {
        if matches!(c, '{' | '}' | '%') {
            out.push(c);
        }
        out.push(c);
    }
}

/// A name of the Go plugin.
///
/// # Errors
/// What cannot be read, in words.
pub fn go(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("$(") {
        push_literal(&rest[..start], &mut out);
        let Some(length) = rest[start..].find(')') else { return Err("must close `$(` with `)`".to_owned()) };
        variable(&go_name(&rest[start + 2..start + length])?, &mut out);
        rest = &rest[start + length + 1..];
    }
    push_literal(rest, &mut out);
    Ok(out)
}

/// What stands between `$(` and `)`.
fn go_name(inside: &str) -> Result<String, String> {
    if let Some(index) = inside.strip_prefix("tag[") {
        // The plugin reads one digit.
        return match index.bytes().next().filter(u8::is_ascii_digit) {
            Some(digit) => Ok(format!("tag[{}]", char::from(digit))),
            None => Ok("tag".to_owned()),
        };
    }
    match inside {
        "tag" | "uuid" | "ecs_task_id" | "ecs_task_arn" => return Ok(inside.to_owned()),
        // The plugin takes the name, not the ARN.
        "ecs_cluster" => return Ok("ecs_cluster_name".to_owned()),
        _ => {}
    }
    path(inside)
}

/// `key['a']['b']` as `key.a.b`.
fn path(text: &str) -> Result<String, String> {
    let (key, mut subs) = text.split_at(text.find('[').unwrap_or(text.len()));
    let mut name = key.to_owned();
    while !subs.is_empty() {
        let sub = subs.strip_prefix("['").and_then(|rest| rest.split_once("']"));
        let Some((sub, rest)) = sub else { return Err(format!("must name a key as key['sub'], not {text}")) };
        name.push('.');
        name.push_str(sub);
        subs = rest;
    }
    let is_writable = !key.is_empty() && !name.contains(['{', '}', '|']);
    if is_writable { Ok(name) } else { Err(format!("must name a key without braces and bars, not {text}")) }
}

fn variable(name: &str, out: &mut String) {
    out.push('{');
    out.push_str(name);
    out.push('}');
}

/// A record accessor, as `log_group_template` has it. A part that a tag lacks is `unknown`, and no reason for another name.
///
/// # Errors
/// What cannot be read, in words.
pub fn accessor(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        push_literal(&rest[..start], &mut out);
        let after = &rest[start + 1..];
        let (name, end) = if let Some(tag) = after.strip_prefix("TAG") {
            match tag_part(tag) {
                Some((index, length)) => (format!("tag[{index}]|unknown"), 3 + length),
                None => ("tag".to_owned(), 3),
            }
        } else {
            let end = accessor_end(after);
            // Of the record, whatever of ours has the same name.
            (format!("${}", path(&after[..end])?), end)
        };
        variable(&name, &mut out);
        rest = &after[end..];
    }
    push_literal(rest, &mut out);
    Ok(out)
}

/// Where a variable ends: at `.`, `,`, a blank or a quote outside of `['…']`, or after its last `]`.
fn accessor_end(text: &str) -> usize {
    let mut is_quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '\'' => is_quoted = !is_quoted,
            '.' | ',' | ' ' | '"' if !is_quoted => return at,
            ']' if !is_quoted && !text[at + 1..].starts_with('[') => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A record accessor over names of ours: `$ClusterName.$TaskID` as `{ecs_cluster_name}.{ecs_task_id}`.
///
/// # Errors
/// A variable that is none of `known`.
pub fn names(text: &str, known: &[(&str, &str)]) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find('$') {
        push_braced(&rest[..start], &mut out);
        let after = &rest[start + 1..];
        let end = accessor_end(after);
        let own = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(&after[..end]));
        let (_, own) = own.ok_or_else(|| after[..end].to_owned())?;
        variable(own, &mut out);
        rest = &after[end..];
    }
    push_braced(rest, &mut out);
    Ok(out)
}

/// A text that stands for itself where there are no dates.
fn push_braced(text: &str, out: &mut String) {
    for c in text.chars() {
        if matches!(c, '{' | '}') {
            out.push(c);
        }
        out.push(c);
    }
}

/// `[n]`, with its length.
fn tag_part(text: &str) -> Option<(usize, usize)> {
    let (index, _) = text.strip_prefix('[')?.split_once(']')?;
    Some((index.trim().parse().ok()?, index.len() + 2))
}

/// A key of S3. What has no `$UUID` gets one, unless `is_static`: no object may overwrite another.
///
/// # Errors
/// What cannot be read, in words.
pub fn s3_key(text: &str, is_static: bool) -> Result<String, String> {
    let Some(text) = text.strip_prefix('/') else { return Err("must begin with `/`".to_owned()) };
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(['$', '{', '}']) {
        out.push_str(&rest[..start]);
        let after = &rest[start..];
        let length = if let Some(tag) = after.strip_prefix("$TAG") {
            match tag_part(tag) {
                Some((index, length)) => {
                    variable(&format!("tag[{index}]"), &mut out);
                    4 + length
                }
                None => {
                    variable("tag", &mut out);
                    4
                }
            }
        } else if after.starts_with("$UUID") {
            variable("uuid", &mut out);
            5
        } else if after.starts_with("$INDEX") {
            variable("index", &mut out);
            6
        } else {
            push_literal(&after[..1], &mut out);
            1
        };
        rest = &after[length..];
    }
    out.push_str(rest);
    if !is_static && !text.contains("$UUID") && !text.contains("$INDEX") {
        out.push_str("-object{uuid}");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_stand_for_themselves() {
        assert_eq!(literal("/logs/{a}%Y"), "/logs/{{a}}%%Y");
    }

    #[test]
    fn names_of_the_go_plugin() {
        assert_eq!(go("app-$(ecs_cluster)/$(tag)$(tag[2])").unwrap(), "app-{ecs_cluster_name}/{tag}{tag[2]}");
        assert_eq!(go("$(pam['item2']['sub'])").unwrap(), "{pam.item2.sub}");
        assert_eq!(go("$(uuid)-%{").unwrap(), "{uuid}-%%{{");
        for wrong in ["$(tag", "$(a[b])", "$(['x'])", "$()"] {
            assert!(go(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn record_accessors() {
        let text = "app-$kubernetes['host'].$kubernetes['a.b']/$TAG[1].$TAG";
        assert_eq!(accessor(text).unwrap(), "app-{$kubernetes.host}.{$kubernetes.a.b}/{tag[1]|unknown}.{tag}");
        assert_eq!(accessor("$name").unwrap(), "{$name}");
        assert!(accessor("$").is_err());
    }

    #[test]
    fn names_of_the_filter_ecs() {
        let known = [("ClusterName", "ecs_cluster_name"), ("TaskID", "ecs_task_id")];
        let text = names("x-{$ClusterName.$TaskID,$taskid", &known).unwrap();
        assert_eq!(text, "x-{{{ecs_cluster_name}.{ecs_task_id},{ecs_task_id}");
        assert!(crate::enrich::Text::parse(&text).is_ok());
        assert_eq!(names("a$ECSAgentVersion b", &known), Err("ECSAgentVersion".to_owned()));
    }

    #[test]
    fn keys_of_s3() {
        let key = |text: &str| s3_key(text, false);
        assert_eq!(key("/fluent-bit-logs/$TAG/%Y/%m").unwrap(), "fluent-bit-logs/{tag}/%Y/%m-object{uuid}");
        assert_eq!(key("/$TAG[2]/$INDEX{x}$UUID.gz").unwrap(), "{tag[2]}/{index}{{x}}{uuid}.gz");
        assert_eq!(s3_key("/$TAGGED/$x", true).unwrap(), "{tag}GED/$x");
        assert!(key("logs").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[$()\\[\\]'TAGa.ü{}%/]*") {
            go(&text).ok();
            accessor(&text).ok();
            names(&text, &[("A", "ecs_task_id")]).ok();
            s3_key(&text, false).ok();
            s3_key(&format!("/{text}"), false).ok();
        }

        #[test]
        fn what_stands_for_itself_does(text in "\\PC*") {
            let template = crate::sink::template::Template::parse(&literal(&text)).unwrap();
            proptest::prop_assert_eq!(template, crate::sink::template::Template::literal(&text));
        }
    }
}
