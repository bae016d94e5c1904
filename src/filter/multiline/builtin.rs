//! The multiline parsers that Fluent Bit brings along, and `envoy`, which is ours.

use super::{Inner, Joiner, Joining, Kind, LineParser, ParserConfig};
use crate::filter::parser::{Format, Parser};
use crate::filter::{Faults, Place};

/// Their names.
pub(super) const NAMES: [&str; 7] = ["docker", "cri", "go", "java", "python", "ruby", ENVOY];

/// The one that is ours.
pub(super) const ENVOY: &str = "envoy";

/// States, pattern, next state.
type Rules = &'static [(&'static str, &'static str, &'static str)];

const GO: Rules = &[
    ("start_state", r"\bpanic: ", "go_after_panic"),
    ("start_state", r"http: panic serving", "go_goroutine"),
    ("go_after_panic, go_after_signal, go_frame_1", r"^$", "go_goroutine"),
    ("go_after_panic", r"^\[signal ", "go_after_signal"),
    ("go_goroutine", r"^goroutine \d+ \[[^\]]+\]:$", "go_frame_1"),
    ("go_frame_1", r"^(?:[^\s.:]+\.)*[^\s.():]+\(|^created by ", "go_frame_2"),
    ("go_frame_2", r"^\s", "go_frame_1"),
];

const JAVA: Rules = &[
    (
        "start_state, java_start_exception",
        r"(.)(?:Exception|Error|Throwable|V8 errors stack trace)[:\r\n]",
        "java_after_exception",
    ),
    ("java_after_exception", r"^[\t ]*nested exception is:[\t ]*", "java_start_exception"),
    ("java_after_exception", r"^[\r\n]*$", "java_after_exception"),
    ("java_after_exception, java", r"^[\t ]+(?:eval )?at ", "java"),
    ("java_after_exception, java", r"^[\t ]+--- End of inner exception stack trace ---$", "java"),
    (
        "java_after_exception, java",
        r"^--- End of stack trace from previous location where exception was thrown ---$",
        "java",
    ),
    ("java_after_exception, java", r"^[\t ]*(?:Caused by|Suppressed):", "java_after_exception"),
    ("java_after_exception, java", r"^[\t ]*... \d+ (?:more|common frames omitted)", "java"),
];

const PYTHON: Rules = &[
    ("start_state", r"^Traceback \(most recent call last\):$", "python"),
    ("python", r"^[\t ]+File ", "python_code"),
    ("python_code", r"[^\t ]", "python"),
    ("python", r"^(?:[^\s.():]+\.)*[^\s.():]+:", "start_state"),
];

const RUBY: Rules = &[
    ("start_state, ruby_start_exception", r"^.+:\d+:in\s+.*", "ruby_after_exception"),
    ("ruby_after_exception, ruby", r"^\s+from\s+.*:\d+:in\s+.*", "ruby"),
];

/// The one of that name.
pub(super) fn joiner(name: &str) -> Joiner {
    let of_rules = |rules: Rules| ParserConfig {
        rule: rules.iter().map(|(from, pattern, to)| format!("\"{from}\" \"/{pattern}/\" \"{to}\"")).collect(),
        ..ParserConfig::default()
    };
    let of_text = |kind, text: &str| ParserConfig {
        kind,
        match_string: Some(text.to_owned()),
        key_content: Some("log".into()),
        key_group: Some("stream".into()),
        ..ParserConfig::default()
    };
    if name == ENVOY {
        return Joiner { kind: Joining::Envoy, inner: None, key_content: None, key_pattern: None, key_group: None };
    }
    let (config, line) = match name {
        "docker" => (of_text(Kind::EndsWith, "\n"), Some(docker_line())),
        "cri" => (ParserConfig { key_pattern: Some("_p".into()), ..of_text(Kind::Equal, "F") }, Some(cri_line())),
        "go" => (of_rules(GO), None),
        "java" => (of_rules(JAVA), None),
        "python" => (of_rules(PYTHON), None),
        _ => (of_rules(RUBY), None),
    };
    // They compile, a test sees to it.
    let mut problems = Vec::new();
    let mut faults = Faults { place: Place::MultilineParser(name.to_owned()), problems: &mut problems };
    let mut joiner = Joiner::new(&config, |_| None, &mut faults);
    joiner.inner = line.map(|line| Inner::Own(Box::new(Parser::new(&line, &mut faults))));
    debug_assert!(problems.is_empty(), "{problems:?}");
    joiner
}

fn docker_line() -> LineParser {
    LineParser { time_format: Some("%Y-%m-%dT%H:%M:%S.%L".into()), time_keep: true, ..LineParser::default() }
}

fn cri_line() -> LineParser {
    LineParser {
        format: Format::Regex,
        regex: Some("^(?<time>.+?) (?<stream>stdout|stderr) (?<_p>F|P) (?<log>.*)$".into()),
        time_format: Some("%Y-%m-%dT%H:%M:%S.%L%z".into()),
        time_keep: true,
        skip_empty_values: false,
        ..LineParser::default()
    }
}
