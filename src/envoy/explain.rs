//! Why a line was read as it was: for people who wonder, not for the pipeline.
//!
//! Called by `meshlens parse --explain`. It names formats, keys and places; it never quotes a value of the line. Names of a JSON line's
//! members are quoted: whoever prints them redacts them.

use crate::classify::{Class, class_of};
use crate::envoy::format::{Item, Layout, Slot};
use crate::envoy::formats::Formats;
use crate::envoy::shape::Shape;
use crate::envoy::text::{Memory, Reading, judge, read_by};
use crate::envoy::wrapper;

/// What was tried on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the line's first bytes say.
    pub class: &'static str,
    /// The text layout that it is read by.
    pub chosen: Option<String>,
    /// Every other format that was tried, with the reason why it is not the one.
    pub others: Vec<(String, String)>,
}

/// Explains how one line, alone on its stream, is read.
pub fn explain(formats: &Formats, line: &[u8]) -> Explanation {
    // What a runtime or a tool has put around it is taken off where that makes it a line that is known.
    let inner = wrapper::inner(line);
    let line = if class_of(inner) == Class::Other { line } else { inner };
    let class = class_of(line);
    let (class_name, layouts, line) = match class {
        Class::JsonObject => ("begins as a JSON object", &formats.general, line),
        Class::AccessText { line, .. } => ("begins as an access log in text, `[time] `", &formats.bracketed, line),
        Class::EnvoyApplication { .. } => ("a line of Envoy's own log", &formats.general, line),
        Class::Agent { .. } => ("a line of the agent that runs Envoy", &formats.general, line),
        Class::Other => ("its first bytes say nothing", &formats.general, line),
    };
    let mut others: Vec<(String, String)> = Vec::new();
    for format in formats.json.iter().filter(|_| class == Class::JsonObject) {
        let (members, missing, foreign) = format.compare(line);
        let why = match (missing.as_slice(), foreign.as_slice()) {
            ([], []) => continue,
            (missing, []) => format!("{} of its {members} keys are missing: {}", missing.len(), missing.join(", ")),
            (_, foreign) => format!("the line has keys that it has not: {}", foreign.join(", ")),
        };
        others.push((format.name.clone(), why));
    }
    let is_own = matches!(class, Class::EnvoyApplication { .. } | Class::Agent { .. });
    let mut reading = Reading::default();
    let chosen = if is_own { None } else { judge(layouts, &mut Memory::default(), &mut reading, line) };
    for (_, layout) in layouts.iter().enumerate().filter(|(place, _)| !is_own && Some(*place) != chosen) {
        others.push((layout.name.clone(), why_not(layout, line)));
    }
    Explanation { class: class_name, chosen: chosen.map(|place| layouts[place].name.clone()), others }
}

fn why_not(layout: &Layout, line: &[u8]) -> String {
    if read_by(layout, line, &mut Reading::default()) {
        return "it fits as well, and another deserves more belief".to_owned();
    }
    let head = match forward(&layout.head, line) {
        Ok(end) => end,
        Err(why) => return why,
    };
    if layout.free.is_empty() {
        return format!("the line goes on behind byte {head}, where the format ends");
    }
    if let Err(why) = backward(&layout.tail, line) {
        return why;
    }
    let borders = layout.joints.iter().zip(layout.free.windows(2));
    let names =
        borders.map(|(joint, pair)| format!("{} {} {}", show(&pair[0]), literals(&joint.items), show(&pair[1])));
    let names: Vec<String> = names.collect();
    match names.as_slice() {
        [] => format!(
            "what is left between head and tail cannot be {}",
            layout.free.first().map_or_else(String::new, show)
        ),
        names => format!(
            "head and tail fit, but not all borders between them are there, or a value beside them cannot be one: {}",
            names.join("; ")
        ),
    }
}

fn show(slot: &Slot) -> String {
    String::from_utf8_lossy(slot.name.bytes()).into_owned()
}

fn literals(items: &[Item]) -> String {
    let parts = items.iter().map(|item| match item {
        Item::Literal(text) => format!("`{}`", String::from_utf8_lossy(text)),
        Item::Field(slot) => show(slot),
    });
    parts.collect::<Vec<_>>().join(" ")
}

fn forward(items: &[Item], line: &[u8]) -> Result<usize, String> {
    let mut at = 0;
    for item in items {
        at = match item {
            Item::Literal(text) if line[at..].starts_with(text) => at + text.len(),
            Item::Literal(text) => return Err(format!("at byte {at}: expected `{}`", String::from_utf8_lossy(text))),
            Item::Field(slot) => slot.end(line, at).ok_or_else(|| no_value(slot, at))?,
        };
    }
    Ok(at)
}

fn backward(items: &[Item], line: &[u8]) -> Result<usize, String> {
    let mut at = line.len();
    for item in items.iter().rev() {
        at = match item {
            Item::Literal(text) if line[..at].ends_with(text) => at - text.len(),
            Item::Literal(text) => {
                return Err(format!("before byte {at}: expected `{}`", String::from_utf8_lossy(text)));
            }
            Item::Field(slot) => slot.start(line, at).ok_or_else(|| no_value(slot, at))?,
        };
    }
    Ok(at)
}

fn no_value(slot: &Slot, at: usize) -> String {
    format!("at byte {at}: {} must be {}", show(slot), describe(slot.shape))
}

/// A grammar in words, for messages and for the page of operators.
pub fn describe(shape: Shape) -> &'static str {
    match shape {
        Shape::Time => "a time as in RFC 3339",
        Shape::TimeBy(_) => "a time of the format given",
        Shape::Method => "an HTTP method",
        Shape::Protocol => "an HTTP version",
        Shape::Code => "an HTTP status",
        Shape::Count => "a whole number",
        Shape::Signed => "a whole number, perhaps negative",
        Shape::Flags => "response flags in capitals",
        Shape::LongFlags => "response flags by their long names",
        Shape::GrpcStatus => "a gRPC status",
        Shape::Milliseconds => "digits",
        Shape::Label => "a name of letters, digits, `.`, `-`, `_`",
        Shape::Word => "text without blank and quote",
        Shape::Details => "text without blank and quote, but in braces",
        Shape::Sentence => "text without quote",
        Shape::Authority => "a host without blank and quote, in ASCII",
        Shape::Address => "an address with port, a URL or a path",
        Shape::Host => "an address without port",
        Shape::Free | Shape::Roomy => "any text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::format::Options;

    const LINE: &[u8] = br#"[2026-11-22T02:36:32.784Z] "GET /x?secret=1 HTTP/1.1" 200 - 0 11 1 1 "-" "curl" "3b1c4ac6-3a1e-4a8f-8a07-3c2b6a5a3c11" "app" "1.2.3.4:80""#;

    #[test]
    fn the_format_is_named_and_the_others_say_why_not() {
        let Explanation { class, chosen, others } = explain(&Formats::auto(), LINE);
        assert_eq!(class, "begins as an access log in text, `[time] `");
        assert_eq!(chosen.as_deref(), Some("envoy"));
        let why = |name: &str| others.iter().find(|(format, _)| format == name).map(|(_, why)| why.as_str()).unwrap();
        assert_eq!(why("kuma-http"), "at byte 27: expected ` \"`");
        assert_eq!(why("istio"), "before byte 137: expected ` `");
        assert!(!format!("{others:?}").contains("secret"));
    }

    #[test]
    fn json_formats_say_which_keys_differ() {
        let mut formats = Formats::default();
        formats.add("mine", r#"{"a":"%PROTOCOL%","b":"%DURATION%"}"#, &Options::default()).unwrap();
        assert_eq!(
            explain(&formats, br#"{"a":"HTTP/2"}"#).others,
            [("mine".to_owned(), "1 of its 2 keys are missing: b".to_owned())]
        );
        assert_eq!(
            explain(&formats, br#"{"a":"-","c":1}"#).others,
            [("mine".to_owned(), "the line has keys that it has not: c".to_owned())]
        );
        assert_eq!(explain(&formats, br#"{"a":"-","b":1}"#).others, []);
    }

    #[test]
    fn a_format_whose_head_fits_says_where_the_rest_does_not() {
        let mut formats = Formats::default();
        formats.add("mine", "%DURATION%ms", &Options::default()).unwrap();
        let why = |line: &[u8]| explain(&formats, line).others[0].1.clone();
        assert_eq!(why(b"12ms more"), "the line goes on behind byte 4, where the format ends");
        assert_eq!(why(b"x"), "at byte 0: duration must be a whole number");
        assert_eq!(why(b"12"), "at byte 2: expected `ms`");
    }
}
