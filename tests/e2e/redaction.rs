//! Lines of every kind with a marked query string, or another marked secret, somewhere in them: no byte of the mark leaves the
//! process, by whatever door.

use std::io::Read as _;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::fake_aws::object_text;
use crate::process::{Exit, Run};
use crate::sender::{Connection, Mode, Target, write_event, write_str};
use crate::stage::{SOON, Stage};
use crate::traffic::{MARK, timestamp};

const LINES: usize = 3_000;

/// A query string that holds `@` in place of the mark. `free` adds characters that end a query string in running text, or
/// are best taken to.
fn query(structured: bool) -> impl Strategy<Value = String> {
    let value = if structured { r"[A-Za-z0-9._~+/;:,!$*()'%=-]{0,12}" } else { r"[A-Za-z0-9._~+/;:,!$*%=-]{0,12}" };
    let begin = prop::sample::select(vec!["?", "?", "?", "?", "??", "%3F", "%3f", "%253F", "?&"]);
    let name = "[A-Za-z_][A-Za-z0-9_.-]{0,10}";
    (begin, prop::collection::vec((name, value), 0..3), name, value, value, prop::collection::vec((name, value), 0..3))
        .prop_map(|(begin, before, name, left, right, after)| {
            let before: String = before.iter().map(|(name, value)| format!("{name}={value}&")).collect();
            let after: String = after.iter().map(|(name, value)| format!("&{name}={value}")).collect();
            format!("{begin}{before}{name}={left}@{right}{after}")
        })
}

fn path() -> impl Strategy<Value = String> {
    r"(/[A-Za-z0-9._~:;@$-]{0,8}){1,4}".prop_map(|path| path.replace('@', "a"))
}

/// A target of a request, in a place of its own in the line.
fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (path(), query(true)).prop_map(|(path, query)| format!("{path}{query}")),
        1 => (path(), query(true)).prop_map(|(path, query)| format!("https://api.example.com{path}{query}")),
        1 => path().prop_map(|path| format!("{path}?@")),
    ]
}

/// A URL in running text.
fn url() -> impl Strategy<Value = String> {
    (prop::sample::select(vec!["", "https://h.example", "http://10.0.0.1:80", "h.example:8080"]), path(), query(false))
        .prop_map(|(origin, path, query)| format!("{origin}{path}{query}"))
}

/// Bytes around a URL: anything but a line feed and what would continue the URL's own characters.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop_oneof![
        Just(Vec::new()),
        r#"[A-Za-z0-9 "'=<>{}\[\]|,.:;\\-]{0,40}"#.prop_map(String::into_bytes),
        r"\PC{0,12}".prop_map(|text| text.replace('\n', " ").into_bytes()),
        prop::collection::vec(any::<u8>().prop_map(|byte| if byte == b'\n' { b' ' } else { byte }), 0..20),
    ];
    // `@` is the place of the mark.
    noise.prop_map(|bytes| bytes.into_iter().map(|byte| if byte == b'@' { b'a' } else { byte }).collect())
}

fn now() -> String {
    let ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    timestamp(ms as i64)
}

fn json_line() -> impl Strategy<Value = Vec<u8>> {
    let key =
        prop::sample::select(vec!["path", "path", "path", "user_agent", "referer", "x", "authority", "upstream_host"]);
    let wrapped =
        prop::sample::select(vec!["\"#\"", "\"#\"", "[\"#\"]", "{\"deep\":{\"url\":\"#\"}}", "\"see # or not\""]);
    let escape = prop::sample::select(vec!["?", "?", r"\u003f", r"\u003F"]);
    (key, wrapped, target(), escape, any::<bool>()).prop_map(|(key, wrapped, target, escape, cut)| {
        let value = wrapped.replace('#', &target.replace('?', escape));
        let line = format!(
            r#"{{"start_time":"{}","method":"GET","protocol":"HTTP/1.1","{key}":{value},"response_code":200,"bytes_sent":1}}"#,
            now()
        );
        let whole = line.len();
        line.into_bytes()[..if cut { whole - 5 } else { whole }].to_vec()
    })
}

fn text_line() -> impl Strategy<Value = Vec<u8>> {
    let agent = prop_oneof![
        Just("curl/8".to_owned()),
        url().prop_map(|url| format!("bot (+{url})")),
        Just(r#"a" "b" 200 - "#.to_owned()),
    ];
    (target(), agent, any::<bool>()).prop_map(|(target, agent, whole)| {
        let head = format!(r#"[{}] "GET {target} HTTP/1.1" 200 "#, now());
        let tail = format!(r#"0 5 1 1 "-" "{agent}" "id-1" "h.example" "10.0.0.1:80""#);
        if whole { head + &tail } else { head }.into_bytes()
    })
}

fn envoy_line() -> impl Strategy<Value = Vec<u8>> {
    let forms = vec![
        "[debug][http] [source/common/http/conn_manager_impl.cc:1] [C1][S2] request headers complete: ':path', '#' ':method', 'GET'",
        "[debug][router] [source/common/router/router.cc:1] [C1][S2] cluster 'app' match for URL '#'",
        "[info][main] # ",
    ];
    (prop::sample::select(forms), url())
        .prop_map(|(form, url)| format!("[2026-11-22 02:31:33.634][7768]{}", form.replace('#', &url)).into_bytes())
}

fn free_line() -> impl Strategy<Value = Vec<u8>> {
    let border = prop::sample::select(vec![" ", "\"", "\t", "=", "(", "<", "'"]);
    (noise(), border, url(), prop::sample::select(vec![" ", "\"", "\t", ">", " \" "]), noise()).prop_map(
        |(before, border, url, end, after)| {
            [&before[..], border.as_bytes(), url.as_bytes(), end.as_bytes(), &after].concat()
        },
    )
}

/// Secrets that are no queries, where redaction knows them.
fn secret_line() -> impl Strategy<Value = Vec<u8>> {
    let value =
        (r"[A-Za-z0-9._~+/=-]{0,12}", r"[A-Za-z0-9._~+=-]{0,12}").prop_map(|(left, right)| format!("{left}@{right}"));
    let forms = vec![
        "[2026-11-22 02:31:33.634][7768][debug][http] [x.cc:1] [C1][S2] request headers complete: ':path', '/' 'authorization', 'Bearer $'",
        "'cookie', 'a=b; session=$'",
        r#"time="2026-11-22T02:31:33Z" level=info msg="Envoy Environment Variables: [A=b ENVOY_TOKEN=$ C=d]""#,
        "> Authorization: Basic $",
        r#"sent {"x-api-key": "$", "n": 1} to it"#,
        "redirected to https://h.example/cb#access_token=$ now",
        r#"{"start_time":"NOW","method":"GET","protocol":"HTTP/1.1","path":"/","cookie":"$","response_code":200,"bytes_sent":1}"#,
        r#"{"start_time":"NOW","method":"GET","protocol":"HTTP/1.1","path":"/cb#access_token=$","response_code":200,"bytes_sent":1}"#,
        r#"{"msg":"called","request":{"headers":{"X-Amz-Security-Token":["$"]}}}"#,
        r#"{"msg":"called https://user:p$@h.example/x"}"#,
    ];
    (prop::sample::select(forms), value).prop_map(|(form, value)| {
        // In a URL a slash ends what is before the host.
        let value = if form.contains("user:") { value.replace('/', "") } else { value };
        form.replace('$', &value).replace("NOW", &now()).into_bytes()
    })
}

/// Lines, each with its own mark.
fn lines() -> Vec<Vec<u8>> {
    let kinds = prop_oneof![json_line(), text_line(), envoy_line(), free_line(), secret_line()];
    let mut runner = TestRunner::deterministic();
    (0..LINES)
        .map(|n| {
            let line = kinds.new_tree(&mut runner).unwrap().current();
            let place = line.iter().position(|byte| *byte == b'@').unwrap_or(line.len());
            let mark = format!("{MARK}{n:06}");
            [&line[..place], mark.as_bytes(), &line[(place + 1).min(line.len())..]].concat()
        })
        .collect()
}

/// Asserts that none of these bytes hold a mark; shows the lines whose mark came through.
fn assert_clean(what: &str, bytes: &[u8], lines: &[Vec<u8>]) {
    let mut shown = String::new();
    let leaks: Vec<usize> = memchr::memmem::find_iter(bytes, MARK.as_bytes()).collect();
    for leak in leaks.iter().take(10) {
        let digits = &bytes[leak + MARK.len()..(leak + MARK.len() + 6).min(bytes.len())];
        let n = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
        let line = n.and_then(|n| lines.get(n)).map(|line| line.escape_ascii().to_string());
        shown += &format!("\n  sent: {}", line.unwrap_or_else(|| "?".into()));
        let around = &bytes[leak.saturating_sub(120)..(leak + 60).min(bytes.len())];
        shown += &format!("\n  got:  {}", around.escape_ascii());
    }
    assert!(leaks.is_empty(), "{what}: {} marks came through{shown}", leaks.len());
}

fn assert_all_clean(stage: &Stage, exit: &Exit, files: &Path, lines: &[Vec<u8>]) {
    // Not 0 where a broken frame was dropped.
    assert!(exit.code.is_some(), "{}", exit.stderr);
    assert_clean("own log", exit.stderr.as_bytes(), lines);
    assert_clean("stdout", &exit.stdout, lines);
    for_each_file(files, &mut |path, bytes| assert_clean(&path.display().to_string(), &object_text(bytes), lines));
    let events: String = stage
        .fake
        .logs()
        .groups
        .values()
        .flat_map(|group| group.streams.values().flatten())
        .map(|event| event.message.clone() + "\n")
        .collect();
    assert_clean("CloudWatch Logs", events.as_bytes(), lines);
    assert_clean(
        "Firehose",
        &stage.fake.firehose().streams.values().flatten().flatten().copied().collect::<Vec<_>>(),
        lines,
    );
    for (key, object) in stage.fake.s3().buckets.values().flatten() {
        assert_clean(&format!("S3 {key}"), &object_text(&object.body), lines);
    }
    assert_eq!(stage.fake.leaks(), Vec::<String>::new());
}

/// Calls with each file below a directory.
pub fn for_each_file(directory: &Path, call: &mut dyn FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for_each_file(&path, call);
        } else {
            let mut bytes = Vec::new();
            std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            call(&path, &bytes);
        }
    }
}

fn sinks(stage: &Stage) -> Vec<String> {
    let files = format!("file:{}", stage.directory.path().join("out").display());
    let mut flags: Vec<String> = Stage::aws_flags().into();
    flags.extend(["--to".into(), "stdout".into(), "--to".into(), files]);
    flags
}

#[test]
fn no_query_string_of_stdin_leaves_the_process() {
    let (stage, lines) = (Stage::keeping(), lines());
    let mut input = lines.join(&b'\n');
    input.push(b'\n');
    let run = Run::new(["run", "--input", "-"]).with(sinks(&stage)).environment(stage.fake.environment());
    let exit = run.stdin(input).start().wait(SOON);
    assert_all_clean(&stage, &exit, &stage.directory.path().join("out"), &lines);
    // Redacted, not left out: a record for each line, each a JSON object.
    let records = exit.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records: Vec<serde_json::Map<String, serde_json::Value>> =
        records.map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(records.len(), lines.len());
    exit.account.assert_adds_up();
}

#[test]
fn no_query_string_of_a_forward_peer_leaves_the_process() {
    let (stage, lines) = (Stage::keeping(), lines());
    let run = Run::new(["run", "--forward", &stage.address.to_string()]).with(sinks(&stage));
    let process = stage.start(run.environment(stage.fake.environment()));
    let mut bytes = Vec::new();
    let ms = stage.traffic.base_ms;
    for (n, line) in lines.iter().enumerate() {
        bytes.push(0x94);
        write_str(&mut bytes, b"app");
        match n % 4 {
            // Fields other than `log` are not safe either: a flat one, and a map in a map.
            0 => write_event(&mut bytes, ms, &[("url", line), ("log", b"short")]),
            1 => {
                write_event(&mut bytes, ms, &[]);
                bytes.pop();
                bytes.push(0x81);
                write_str(&mut bytes, b"http");
                bytes.push(0x81);
                write_str(&mut bytes, b"target");
                bytes.push(0x92);
                write_str(&mut bytes, b"x");
                write_str(&mut bytes, line);
            }
            _ => write_event(&mut bytes, ms, &[("container_name", b"/c"), ("log", line)]),
        }
        bytes.push(0x80);
    }
    let mut connection = Connection::open(&Target::Tcp(stage.address)).unwrap();
    connection.write_all(&bytes).unwrap();
    connection.finish().unwrap();
    // A frame that breaks in the middle of a record: what is said of it shows nothing of it.
    let mut broken = Vec::new();
    let sender = stage.sender(Mode::Message);
    sender.message(&stage.traffic, &[0], None, &mut broken);
    let place = memchr::memmem::find(&broken, MARK.as_bytes()).unwrap();
    broken.truncate(place + MARK.len() + 1);
    broken.push(0xc1);
    let mut connection = Connection::open(&Target::Tcp(stage.address)).unwrap();
    connection.write_all(&broken).unwrap();
    connection.write_all(format!("?token={MARK}\n").as_bytes()).unwrap();
    drop(connection);

    let exit = process.terminate(SOON);
    assert_all_clean(&stage, &exit, &stage.directory.path().join("out"), &lines);
    exit.account.assert_adds_up();
    assert_eq!(exit.account.part("cloudwatch").of("delivered"), lines.len() as u64);
}

#[test]
fn parse_redacts_as_run_does() {
    let lines = lines();
    let mut input = lines.join(&b'\n');
    input.push(b'\n');
    let exit = Run::new(["parse", "--stats"]).stdin(input).start().wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_clean("stdout", &exit.stdout, &lines);
    assert_clean("stderr", exit.stderr.as_bytes(), &lines);
    assert_eq!(memchr::memchr_iter(b'\n', &exit.stdout).count(), lines.len());
    let report = exit.stderr.lines().find_map(|line| line.strip_prefix("redacted: ")).unwrap();
    for rule in ["query path=", "fragment path=", "userinfo log=", "secret log=", "header log=", "environment log="] {
        assert!(report.contains(rule), "no {rule} in {report}");
    }
}

/// What an operator prints is redacted by what the operator is, whatever its key is called.
#[test]
fn operators_of_a_format_say_what_is_secret() {
    let format =
        r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(:PATH)%" "%QUERY_PARAM(token)%" "%ENVIRONMENT(KEY)%" %RESPONSE_CODE%"#;
    let line = format!("[{}] \"GET /a\" \"{MARK}1\" \"{MARK}2\" 200\n", now());
    let run = Run::new(["parse", "--stats", "--format", format]).stdin(line.clone().into_bytes());
    let exit = run.start().wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let lines = [line.into_bytes()];
    assert_clean("stdout", &exit.stdout, &lines);
    assert!(
        exit.stderr.contains("access=1") && exit.stderr.contains("redacted: parameter other=1, secret other=1"),
        "{}",
        exit.stderr
    );
}
