//! `decode_field` and `decode_field_as`: what a field holds in turn, escaped text or JSON.
//!
//! A rule is `DECODER KEY [ACTION]`. The rules of a key run in order, those of `decode_field_as` first, until one succeeds; with the action
//! `do_next` the next runs on what the one before it made, with `try_next` the next runs if one fails. What `decode_field_as` makes takes the
//! field's place; the members that `decode_field` finds are added behind the others, and the field stays.

use super::ParserConfig;
use crate::filter::field_name::FieldName;
use crate::filter::members::{object_members, of_token, resolved, text};
use crate::filter::words::words;
use crate::filter::{Arena, Fault, Faults};
use crate::record::{Field, Name, Value};

/// Compiled rules, by key.
#[derive(Debug)]
pub(super) struct Decoders(Box<[(FieldName, Vec<Rule>)]>);

#[derive(Debug)]
struct Rule {
    decoder: Decoder,
    /// It takes the field's place.
    replaces: bool,
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Decoder {
    Json,
    Escaped,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Stop,
    TryNext,
    DoNext,
}

impl Decoders {
    pub(super) fn new(config: &ParserConfig, faults: &mut Faults<'_>) -> Self {
        let mut decoders: Vec<(FieldName, Vec<Rule>)> = Vec::new();
        let lists = [("decode_field_as", &config.decode_field_as, true), ("decode_field", &config.decode_field, false)];
        for (key, list, replaces) in lists {
            for (place, text) in list.iter().enumerate() {
                let Some((name, rule)) = faults.unless(key, Some(place), rule(text, replaces)) else { continue };
                match decoders.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, rules)) => rules.push(rule),
                    None => decoders.push((name, vec![rule])),
                }
            }
        }
        Self(decoders.into())
    }

    /// Runs the rules over the fields from `start` on.
    pub(super) fn apply<'a>(&self, fields: &mut Vec<Field<'a>>, start: usize, arena: &'a Arena) {
        if self.0.is_empty() {
            return;
        }
        for place in start..fields.len() {
            let Some((_, rules)) = self.0.iter().find(|(name, _)| name.is(&fields[place].name)) else { continue };
            let Some(content) = text(&fields[place].value, arena) else { continue };
            let (value, added) = decode(rules, content, arena);
            if let Some(value) = value {
                fields[place].value = value;
            }
            if let Some(object) = added {
                object_members(object, |name, token| {
                    fields.push(Field { name: Name::json(name), value: of_token(token) });
                });
            }
        }
    }
}

/// What takes the field's place, and the object whose members are added.
fn decode<'a>(rules: &[Rule], content: &'a [u8], arena: &'a Arena) -> (Option<Value<'a>>, Option<&'a [u8]>) {
    let mut content = content;
    let (mut replaced, mut added) = (None, None);
    for rule in rules {
        if !rule.replaces && rule.action == Action::DoNext && added.is_some() {
            continue;
        }
        // An object is the end of what can be decoded.
        if matches!(replaced, Some(Value::JsonValue(_))) {
            continue;
        }
        let decoded = match rule.decoder {
            Decoder::Json => object(content).map(Value::JsonValue),
            Decoder::Escaped => Some(Value::Text(resolved(content, arena))),
        };
        let Some(decoded) = decoded else {
            if rule.action == Action::Stop {
                break;
            }
            continue;
        };
        match decoded {
            _ if rule.replaces => {
                if let Value::Text(text) = decoded {
                    content = text;
                }
                replaced = Some(decoded);
            }
            Value::JsonValue(object) => added = Some(object),
            // Text has no members to add.
            _ => {}
        }
        if rule.action != Action::DoNext {
            break;
        }
    }
    (replaced, added)
}

/// The text, if it is one JSON object.
fn object(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii();
    (text.starts_with(b"{") && object_members(text, |_, _| {})).then_some(text)
}

fn rule(text: &str, replaces: bool) -> Result<(FieldName, Rule), Fault> {
    let words = words(text);
    let [decoder, key, rest @ ..] = words.as_slice() else {
        return Err(Fault("must be \"DECODER KEY\", with json, escaped or escaped_utf8 as the decoder".into()));
    };
    let decoder = match decoder.to_ascii_lowercase().as_str() {
        "json" => Decoder::Json,
        "escaped" | "escaped_utf8" => Decoder::Escaped,
        _ => return Err(Fault("must begin with a decoder: json, escaped or escaped_utf8".into())),
    };
    let action = match rest.first().map(|action| action.to_ascii_lowercase()).as_deref() {
        None => Action::Stop,
        Some("try_next") => Action::TryNext,
        Some("do_next") => Action::DoNext,
        Some(_) => return Err(Fault("must end in an action, try_next or do_next, or in the key".into())),
    };
    Ok((FieldName::new(key), Rule { decoder, replaces, action }))
}
