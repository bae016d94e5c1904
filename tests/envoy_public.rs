//! Lines from public sources and lines made after their form, against values that were written down from the formats.
//! See `tests/data/envoy-public/README.md`. The scores of `docs/scores.md` come from here too; `UPDATE_SCORES=1` writes them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

#[path = "support/envoy_answers.rs"]
mod envoy_answers;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use envoy_answers::{answer_name, data, lines, manifest};
use meshlens::envoy::Parser;
use meshlens::envoy::format::Options;
use meshlens::envoy::formats::Formats;
use meshlens::pattern::{Groups, Pattern};
use meshlens::record::{KEYS, Key, Kind, Name, Record, Value};
use meshlens::timestamp::parse_rfc3339_ns;
use serde_json::{Map, Value as Json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What a line is, as it was written down.
struct Expected {
    /// `access`, `envoy` or `other`.
    kind: String,
    fields: Map<String, Json>,
    time_ns: Option<i64>,
    /// The line without its wrappers, of Envoy's own log.
    log: Option<String>,
}

/// A line and what it is.
type Line = (Vec<u8>, Expected);

/// The format of a file's lines, for files whose layout has to be told; see `formats.json`.
fn formats() -> BTreeMap<String, String> {
    serde_json::from_slice(&fs::read(Path::new(ROOT).join("tests/data/envoy-public/formats.json")).unwrap()).unwrap()
}

fn public_files() -> BTreeMap<String, Vec<Line>> {
    let root = Path::new(ROOT).join("tests/data/envoy-public");
    let in_directory = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let all = in_directory(root.clone()).chain(in_directory(root.join("synthetic")));
    let logs = all.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.map(|path| (path.strip_prefix(&root).unwrap().with_extension("").display().to_string(), read(&path))).collect()
}

fn read(path: &Path) -> Vec<Line> {
    let log = fs::read(path).unwrap();
    let expected = fs::read(path.with_extension("expected.ndjson")).unwrap();
    let found: Vec<_> =
        lines(&log).zip(lines(&expected)).map(|(line, expected)| (line.to_vec(), told(expected))).collect();
    assert_eq!((found.len(), found.len()), (lines(&log).count(), lines(&expected).count()), "{}", path.display());
    found
}

fn told(expected: &[u8]) -> Expected {
    let mut told: Map<String, Json> = serde_json::from_slice(expected).unwrap();
    let text =
        |told: &mut Map<String, Json>, name: &str| told.remove(name).map(|text| text.as_str().unwrap().to_owned());
    Expected {
        kind: text(&mut told, "kind").unwrap(),
        time_ns: text(&mut told, "time").map(|time| parse_rfc3339_ns(time.as_bytes()).unwrap()),
        log: text(&mut told, "log"),
        fields: told.remove("fields").map(|fields| fields.as_object().unwrap().clone()).unwrap_or_default(),
    }
}

/// The generated corpus in the same form; its answers do not have everything that its lines have.
fn generated_files() -> BTreeMap<String, Vec<Line>> {
    let file = |(name, about): (String, Json)| {
        let without_query = about["format"].to_string().contains("REQ_WITHOUT_QUERY");
        let log = data(&format!("{name}.log.gz"));
        let answers = data(&format!("{name}.truth.jsonl.gz"));
        let mut answers = lines(&answers).map(|line| serde_json::from_slice::<Json>(line).unwrap());
        let is_access = |line: &[u8]| line.starts_with(b"[2026-11-22T") || line.starts_with(b"{");
        let line = |line: &[u8]| {
            let answer = is_access(line).then(|| answers.next().unwrap());
            let kind = match (&answer, line.starts_with(b"[2026-11-22 ")) {
                (Some(_), _) => "access",
                (None, true) => "envoy",
                (None, false) => "other",
            };
            let field = |key: Key| {
                let answer = answer.as_ref().filter(|_| !answer_name(key).is_empty())?;
                Some((key.name().to_owned(), envoy_answers::expected(answer, key, without_query)?))
            };
            let fields = KEYS.into_iter().filter_map(field).collect();
            (line.to_vec(), Expected { kind: kind.to_owned(), fields, time_ns: None, log: None })
        };
        let found = lines(&log).map(line).collect();
        (format!("generated/{name}"), found)
    };
    manifest().into_iter().map(file).collect()
}

/// The values of a record's parsed part, by name; a name's second value under `name#2`.
fn fields(record: &Record<'_>) -> Map<String, Json> {
    let mut fields = Map::new();
    for field in &record.parsed {
        let name = match field.name {
            Name::Json(inside) => serde_json::from_str(&format!("\"{}\"", str::from_utf8(inside).unwrap())).unwrap(),
            ref name => String::from_utf8(record.name_bytes(name).to_vec()).unwrap(),
        };
        let name = if fields.contains_key(&name) { format!("{name}#2") } else { name };
        fields.insert(name, value(record, field.value));
    }
    fields
}

fn value(record: &Record<'_>, value: Value<'_>) -> Json {
    match value {
        Value::Scratch(span) => envoy_answers::rendered(Value::Text(&record.scratch[span.range()])),
        Value::ScratchJson(span) => serde_json::from_slice(&record.scratch[span.range()]).unwrap(),
        Value::JsonValue(json) => serde_json::from_slice(json).unwrap(),
        Value::Bool(truth) => truth.into(),
        other => envoy_answers::rendered(other),
    }
}

fn same(found: &Json, expected: &Json) -> bool {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => found == expected,
        _ => found == expected,
    }
}

/// The parser that a file's lines are given to: by the format of `formats.json` where the layout has to be told, and by all that
/// are known.
fn parser_for(name: &str) -> Parser {
    let Some(format) = self::formats().remove(name) else { return Parser::default() };
    let mut formats = Formats::default();
    for spec in [&format, "auto"] {
        formats.add(name, spec, &Options::default()).unwrap();
    }
    Parser::new(Arc::new(formats))
}

/// What was made of the lines of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Score {
    lines: usize,
    access: usize,
    exact: usize,
    marked: usize,
    unparsed: usize,
    /// Which, and in what.
    wrong: Vec<String>,
}

/// Names in which a reading and the answer differ. What is absent need not be named, where that is not what is asked.
fn differences(found: &Map<String, Json>, expected: &Map<String, Json>, is_complete: bool) -> Vec<String> {
    let differs =
        |name: &&String| !same(found.get(*name).unwrap_or(&Json::Null), expected.get(*name).unwrap_or(&Json::Null));
    let surplus = found.keys().filter(|name| is_complete && !expected.contains_key(*name));
    let known = expected.keys().filter(|name| is_complete || found.contains_key(*name));
    known.chain(surplus).filter(differs).cloned().collect()
}

fn score(name: &str, lines: &[Line], is_complete: bool) -> Score {
    let mut score = Score { lines: lines.len(), ..Score::default() };
    let mut parser = parser_for(name);
    let mut record = Record::new();
    for (line, expected) in lines {
        record.clear();
        record.push_envelope(Name::Known(Key::Log), Value::Text(line));
        parser.parse(line, &mut record);
        let shown = format!("{name}: {}", String::from_utf8_lossy(line));
        let kind = record.kind.log_type().unwrap_or("other");
        let found = fields(&record);
        let differences = differences(&found, &expected.fields, is_complete);
        if expected.kind != "access" {
            assert_eq!(kind, expected.kind, "{shown}");
            if is_complete {
                assert!(differences.is_empty(), "{differences:?} {shown}");
                let log = value(&record, record.envelope[0].value);
                assert_eq!(log, expected.log.clone().unwrap_or(String::from_utf8(line.clone()).unwrap()), "{shown}");
                assert_eq!(record.time_ns, expected.time_ns.unwrap_or(0), "{shown}");
            }
            continue;
        }
        score.access += 1;
        let is_marked = |name: &String| {
            let mut others = record.ambiguous_others().map(|field| record.name_bytes(&field.name));
            record.ambiguous_keys().any(|key| key.name() == name) || others.any(|other| other == name.as_bytes())
        };
        if record.kind == Kind::Other {
            score.unparsed += 1;
        } else if kind != "access" || !differences.iter().all(is_marked) {
            score.wrong.push(format!("{differences:?} {shown}"));
        } else if record.is_ambiguous() {
            score.marked += 1;
        } else {
            score.exact += 1;
        }
        if record.kind == Kind::Access {
            assert_eq!(record.time_ns, expected.time_ns.unwrap_or(record.time_ns), "{shown}");
        }
    }
    score
}

#[test]
fn what_others_wrote_down_of_the_same_lines_agrees() {
    let upstream = |name: &str| -> Vec<BTreeMap<String, Json>> {
        let path = Path::new(ROOT).join(format!("tests/data/envoy-public/{name}.upstream.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let files = public_files();
    let check = |name: &str, names: &[(&str, &[&str])]| {
        let mut compared = 0;
        for ((_, ours), theirs) in files[name].iter().zip(upstream(name)) {
            for (their_name, our_names) in names {
                let Some(theirs) = theirs.get(*their_name) else { continue };
                let ours = our_names.iter().find_map(|name| ours.fields.get(*name)).unwrap();
                let shown = ours.as_str().map_or_else(|| ours.to_string(), str::to_owned);
                let shown = if ours.is_null() { "-".to_owned() } else { shown };
                assert_eq!(Some(shown.as_str()), theirs.as_str(), "{name} {their_name}");
                compared += 1;
            }
        }
        compared
    };
    let crowdsec: [(&str, &[&str]); 10] = [
        ("parsed.request", &["path", "x-envoy-origin-path"]),
        ("parsed.status", &["response_code"]),
        ("parsed.verb", &["method"]),
        ("parsed.stream", &["source"]),
        ("parsed.target_fqdn", &["authority", ":authority"]),
        ("parsed.time", &["start_time"]),
        ("parsed.http_user_agent", &["user_agent", "user-agent"]),
        ("parsed.x_forwarded_for", &["forwarded_for"]),
        ("parsed.upstream_host", &["upstream_host"]),
        ("parsed.duration", &["duration"]),
    ];
    assert_eq!(check("envoygateway-json-and-text-cri", &crowdsec), 82);
    let axslog: [(&str, &[&str]); 8] = [
        ("Path", &["path"]),
        ("ResponseCodeDetails", &["response_code_details"]),
        ("BytesSent", &["bytes_sent"]),
        ("XRequestId", &["request_id"]),
        ("UpstreamCluster", &["upstream_cluster"]),
        ("DownstreamRemoteAddress", &["downstream_remote_address"]),
        ("RequestedServerName", &["requested_server_name"]),
        ("RouteName", &["route_name"]),
    ];
    assert_eq!(check("istio-text-axslog", &axslog), 16);
}

/// Exact, wrong, and unmatched access lines of one expression; what it makes of any other line is wrong.
type TheirScore = [usize; 3];

const THEIR_PARSERS: [&str; 2] = ["envoy", "istio-envoy-proxy"];

/// The expressions of a Fluent Bit configuration of parsers.
fn expressions(path: &str) -> Vec<Pattern> {
    let text = fs::read_to_string(path).unwrap();
    let of = |name: &str| {
        let mut sections = text.split("[PARSER]");
        let values = |section: &str, key: &str| -> Option<String> {
            section
                .lines()
                .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(' ').map(|value| value.trim().to_owned()))
        };
        let section = sections.find(|section| values(section, "Name").as_deref() == Some(name)).unwrap();
        Pattern::new(&values(section, "Regex").unwrap()).unwrap()
    };
    THEIR_PARSERS.map(of).into()
}

/// Their names for what has another one here.
fn our_name(name: &str) -> &str {
    match name {
        "code" => "response_code",
        "x_envoy_upstream_service_time" => "upstream_service_time",
        "x_forwarded_for" => "forwarded_for",
        "x_request_id" => "request_id",
        other => other,
    }
}

fn their_score(pattern: &Pattern, lines: &[Line]) -> TheirScore {
    let mut score = [0; 3];
    let mut groups = Groups::default();
    for (line, expected) in lines {
        let is_access = expected.kind == "access";
        if !pattern.captures(line, &mut groups) {
            score[2] += usize::from(is_access);
            continue;
        }
        let is_right = |(name, group): &(Box<str>, usize)| {
            let found = groups.get(*group).map_or(&[][..], |range| &line[range]);
            let found = envoy_answers::rendered(Value::Text(found));
            let found = found.as_str().unwrap();
            match expected.fields.get(our_name(name)) {
                // The answers do not have it.
                None => true,
                Some(Json::Null) => found == "-",
                Some(Json::String(text)) => found == text,
                Some(number) => found.parse().is_ok_and(|found: Json| same(&found, number)),
            }
        };
        let is_right = is_access && pattern.names().iter().all(is_right);
        score[usize::from(!is_right)] += 1;
    }
    score
}

fn scores_file() -> PathBuf {
    Path::new(ROOT).join("tests/data/envoy-public/fluent-bit-scores.json")
}

fn page(ours: &BTreeMap<String, Score>, theirs: &BTreeMap<String, [TheirScore; 2]>) -> String {
    let mut page = String::from(HEAD);
    let mut total = (Score::default(), [[0; 3]; 2]);
    let mut row = |name: &str, ours: &Score, theirs: &[TheirScore; 2]| {
        let Score { lines, access, exact, marked, unparsed, wrong } = ours;
        let wrong = wrong.len();
        let [[a, b, c], [d, e, f]] = theirs;
        writeln!(page, "| {name} | {lines} | {access} | {exact} | {marked} | {unparsed} | {wrong} | {a} / {b} / {c} | {d} / {e} / {f} |").unwrap();
    };
    for (name, ours) in ours {
        let theirs = theirs.get(name).copied().unwrap_or_default();
        row(name, ours, &theirs);
        let (sum, their_sum) = &mut total;
        sum.lines += ours.lines;
        sum.access += ours.access;
        sum.exact += ours.exact;
        sum.marked += ours.marked;
        sum.unparsed += ours.unparsed;
        their_sum.iter_mut().flatten().zip(theirs.iter().flatten()).for_each(|(sum, more)| *sum += more);
    }
    row("**all**", &total.0, &total.1);
    page
}

const HEAD: &str = "\
# Scores

What meshlens makes of lines from public sources, of lines made after their form, and of a corpus printed by a real Envoy, held
against values that no parser of ours has made; and what Fluent Bit's stock expressions make of the same lines. Written by
`UPDATE_SCORES=1 cargo test --test envoy_public`, checked by that test.

- *exact*: every field is as it should be, and none is marked.
- *marked*: the line can be read in more than one way; the fields concerned are named in `parse_ambiguous`, all others are right.
- *unparsed*: no layout that is known; the line passes as it is, redacted. Two files have a layout that only its format string tells
  (`tests/data/envoy-public/formats.json`).
- *wrong*: a field that is not marked differs, or a line is taken for what it is not. Must be 0.
- `envoy`, `istio-envoy-proxy`: the expressions of these names in Fluent Bit's `conf/parsers.conf`, run over the lines as they
  stand: exact / wrong (a field differs, or the line is no access log) / unmatched. That all their values are text counts as
  right. In `istio-envoy-proxy` the quote before the authority is missing, so that no authority is right.

Lines that are no access logs must be told apart by kind and level; the test fails if one is not. `synthetic/…` stands for sources
without a licence: lines of the same form with values of our own.

| file | lines | access | exact | marked | unparsed | wrong | `envoy` | `istio-envoy-proxy` |
|---|---|---|---|---|---|---|---|---|
";

#[test]
fn no_line_is_read_wrongly_and_the_scores_are_those_of_the_page() {
    let mut files = public_files();
    assert!(formats().keys().all(|name| files.contains_key(name)));
    let mut ours: BTreeMap<String, Score> =
        files.iter().map(|(name, lines)| (name.clone(), score(name, lines, true))).collect();
    let generated = generated_files();
    ours.extend(generated.iter().map(|(name, lines)| (name.clone(), score(name, lines, false))));
    files.extend(generated);
    for (name, score) in &ours {
        assert!(score.wrong.is_empty(), "{name}: {:#?}", score.wrong);
    }
    let is_update = std::env::var_os("UPDATE_SCORES").is_some();
    if is_update && let Ok(path) = std::env::var("FLUENT_BIT_PARSERS") {
        let patterns = expressions(&path);
        let of = |lines: &Vec<Line>| [0, 1].map(|number: usize| their_score(&patterns[number], lines));
        let theirs: BTreeMap<&String, [TheirScore; 2]> = files.iter().map(|(name, lines)| (name, of(lines))).collect();
        let rows: Vec<String> =
            theirs.iter().map(|(name, scores)| format!("  {name:?}: {}", serde_json::json!(scores))).collect();
        fs::write(scores_file(), format!("{{\n{}\n}}\n", rows.join(",\n"))).unwrap();
    }
    let theirs: BTreeMap<String, [TheirScore; 2]> = serde_json::from_slice(&fs::read(scores_file()).unwrap()).unwrap();
    assert!(ours.keys().eq(theirs.keys()), "scores of Fluent Bit for other files");
    let path = Path::new(ROOT).join("docs/scores.md");
    let page = page(&ours, &theirs);
    if is_update {
        fs::write(path, page).unwrap();
    } else {
        assert_eq!(fs::read_to_string(path).unwrap(), page, "run with UPDATE_SCORES=1 and look at the difference");
    }
}
