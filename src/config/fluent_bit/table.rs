//! What becomes of each key of a Fluent Bit configuration: data that translates, and that `docs/firelens.md` is made from.
//!
//! Names and defaults are those of Fluent Bit 5.1 (`plugins/*`, `src/flb_{input,filter,output,config}.c`) and of the Go
//! plugins `cloudwatch` and `firehose` of aws-for-fluent-bit.

use std::fmt::Write as _;

pub mod filter;
pub mod input;
pub mod output;
pub mod service;

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `[INPUT]`
    Input,
    /// `[FILTER]`
    Filter,
    /// `[OUTPUT]`
    Output,
}

/// A plugin that we know, with its keys.
#[derive(Debug)]
pub struct Plugin {
    /// Its name in Fluent Bit.
    pub name: &'static str,
    /// What it becomes.
    pub becomes: &'static str,
    /// Its own keys.
    pub keys: &'static [Key],
}

/// A key and what becomes of it.
#[derive(Debug)]
pub struct Key {
    /// Lower case; `x.*` stands for all keys that begin with `x.`.
    pub name: &'static str,
    /// In one word.
    pub fate: Fate,
    /// Into what it is translated.
    pub to: To,
    /// Why, or what is different.
    pub note: &'static str,
}

/// What becomes of a key, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It means what it means in Fluent Bit.
    Same,
    /// As good or better.
    Better,
    /// No effect; nothing is lost by that.
    Ignored,
    /// No effect, and a warning, since the output differs.
    Warned,
    /// The configuration is refused.
    Refused,
}

/// Into what a key is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The text, at this key of ours.
    Text(&'static str),
    /// On, off, true, false, yes or no.
    Bool(&'static str),
    /// A size.
    Size(&'static str),
    /// A time.
    Time(&'static str),
    /// A whole number.
    Count(&'static str),
    /// Each occurrence is one element of a list.
    Each(&'static str),
    /// Words between commas, and each occurrence, are elements of a list.
    Words(&'static str),
    /// Each occurrence, with the key before it in lower case, is one element of a list.
    Rule(&'static str),
    /// By code that knows the plugin.
    Code,
    /// Nothing.
    Nothing,
}

/// A key that means the same.
pub const fn same(name: &'static str, to: To) -> Key {
    Key { name, fate: Fate::Same, to, note: "" }
}

/// A key that means the same, with something to know.
pub const fn noted(name: &'static str, to: To, note: &'static str) -> Key {
    Key { name, fate: Fate::Same, to, note }
}

/// A key that we serve as well or better.
pub const fn better(name: &'static str, to: To, note: &'static str) -> Key {
    Key { name, fate: Fate::Better, to, note }
}

/// A key without effect here.
pub const fn ignored(name: &'static str, note: &'static str) -> Key {
    Key { name, fate: Fate::Ignored, to: To::Nothing, note }
}

/// A key whose effect is missing.
pub const fn warned(name: &'static str, note: &'static str) -> Key {
    Key { name, fate: Fate::Warned, to: To::Nothing, note }
}

/// A key that cannot be served, and without which the result would be wrong.
pub const fn refused(name: &'static str, note: &'static str) -> Key {
    Key { name, fate: Fate::Refused, to: To::Nothing, note }
}

/// Keys that every plugin of a stage has.
pub fn common(stage: Stage) -> &'static [Key] {
    match stage {
        Stage::Input => input::COMMON,
        Stage::Filter => filter::COMMON,
        Stage::Output => output::COMMON,
    }
}

/// The plugin of this name, in any letter case.
pub fn plugin(stage: Stage, name: &str) -> Option<&'static Plugin> {
    plugins(stage).iter().find(|plugin| plugin.name.eq_ignore_ascii_case(name))
}

/// All plugins of a stage that we know.
pub fn plugins(stage: Stage) -> &'static [Plugin] {
    match stage {
        Stage::Input => input::PLUGINS,
        Stage::Filter => filter::PLUGINS,
        Stage::Output => output::PLUGINS,
    }
}

/// The key of this name among those of several tables; earlier tables come first.
pub fn find(tables: &[&'static [Key]], name: &str) -> Option<&'static Key> {
    let is = |key: &&Key| match key.name.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => key.name == name,
    };
    tables.iter().find_map(|keys| keys.iter().find(is))
}

/// All of this as Markdown, for `docs/firelens.md`.
pub fn markdown() -> String {
    let mut out = String::new();
    let sections = [
        ("Outputs", "every output", Stage::Output),
        ("Filters", "every filter", Stage::Filter),
        ("Inputs", "every input", Stage::Input),
    ];
    for (heading, all, stage) in sections {
        // Writing to a String cannot fail.
        writeln!(out, "### {heading}\n").ok();
        for plugin in plugins(stage) {
            keys(&mut out, &format!("`{}`: {}", plugin.name, plugin.becomes), plugin.keys);
        }
        keys(&mut out, &format!("Keys of {all}"), common(stage));
    }
    out.push_str("### Other sections\n\n");
    for (name, table) in service::SECTIONS {
        keys(&mut out, &format!("`[{name}]`"), table);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn keys(out: &mut String, heading: &str, keys: &[Key]) {
    writeln!(out, "**{heading}**\n").ok();
    if keys.is_empty() {
        return;
    }
    out.push_str("| key | | becomes | |\n|---|---|---|---|\n");
    for key in keys {
        let fate = match key.fate {
            Fate::Same => "same",
            Fate::Better => "better",
            Fate::Ignored => "ignored",
            Fate::Warned => "ignored, with a warning",
            Fate::Refused => "refused",
        };
        let to = match key.to {
            To::Text(to) | To::Bool(to) | To::Size(to) | To::Time(to) | To::Count(to) => format!("`{to}`"),
            To::Each(to) | To::Words(to) | To::Rule(to) => format!("`{to}`"),
            To::Code | To::Nothing => String::new(),
        };
        let note = key.note.replace('|', "\\|");
        writeln!(out, "| `{}` | {fate} | {to} | {note} |", key.name).ok();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_once_and_what_is_not_the_same_says_why() {
        for stage in [Stage::Input, Stage::Filter, Stage::Output] {
            let own = plugins(stage).iter().map(|plugin| plugin.keys);
            for keys in own.chain([common(stage)]).chain(service::SECTIONS.iter().map(|(_, keys)| *keys)) {
                for (place, key) in keys.iter().enumerate() {
                    assert_eq!(key.name, key.name.to_lowercase());
                    assert!(keys[..place].iter().all(|other| other.name != key.name), "{} twice", key.name);
                    assert!(key.fate == Fate::Same || !key.note.is_empty(), "{} does not say why", key.name);
                }
            }
        }
    }

    #[test]
    fn keys_are_found_by_name_or_prefix() {
        assert_eq!(find(&[output::COMMON], "net.keepalive").map(|key| key.name), Some("net.*"));
        assert!(find(&[output::COMMON], "network").is_none());
        assert!(plugin(Stage::Output, "CloudWatch_Logs").is_some());
    }
}
