//! Configurations of Fluent Bit, as the ECS agent writes them and as public task definitions include them: what they become.
//!
//! `tests/data/firelens` holds them, with their sources. A case runs below a root of its own: the generated file stands where the
//! agent mounts it, the files that it includes where the task definition has them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use meshlens::config::document::{Node, Value};
use meshlens::config::fluent_bit::files::Files;
use meshlens::config::fluent_bit::{Request, Translated, read, table};
use meshlens::config::fluentd;
use tempfile::TempDir;

const GENERATED: &str = "/fluent-bit/etc/fluent-bit.conf";

/// What every case may use: the variables that their task definitions set, and what the agent does.
const VARIABLES: [(&str, &str); 14] = [
    ("FLUENT_BIT_METRICS_LOG_REGION", "us-west-2"),
    ("FLUENT_BIT_METRICS_LOG_GROUP", "metrics"),
    ("HOSTNAME", "ip-10-0-0-1"),
    ("APP_VERSION", "v1.2.3"),
    ("APP_NAME", "app"),
    ("ENVIRONMENT", "test"),
    ("LOGGER_PORT", "4560"),
    ("OUTPUT_PLUGIN", "cloudwatch"),
    ("S3_BUCKET_NAME", "bucket"),
    ("CUSTOM_S3_OBJECT_NAME", "/key/$TAG/%Y"),
    ("CUSTOM_STREAM_PREFIX", "stream"),
    ("CUSTOM_DELIVERY_STREAM_PREFIX", "delivery"),
    ("CUSTOM_LOG_STREAM_NAME", "logs"),
    ("CW_LOG_GROUP_NAME", "group"),
];

/// Files below a directory that goes away.
struct Root(TempDir);

impl Root {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| root.write(path, text));
        root
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn request(&self) -> Request {
        let from = Files { root: Some(self.0.path().to_owned()), ..Files::default() };
        Request { files: vec![PathBuf::from(GENERATED)], from, ..Request::default() }
    }

    fn read(&self, variables: &[(&str, &str)]) -> Translated {
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        read(&self.request(), &lookup)
    }
}

/// A configuration in one file.
fn translate(text: &str) -> Translated {
    Root::new(&[(GENERATED, text)]).read(&[])
}

fn problems(text: &str) -> String {
    translate(text).problems.sorted().to_string()
}

/// As it is printed for people who migrate, then what is said of it.
fn shown(translated: Translated) -> String {
    let Translated { tree, problems, warnings, .. } = translated;
    let mut out = toml::to_string(&tree.to_json()).unwrap();
    for (heading, lines) in [("problems", problems.sorted().to_string()), ("warnings", warnings.join("\n"))]
        .iter()
        .filter(|(_, lines)| !lines.is_empty())
    {
        out.push_str(&format!("\n# {heading}\n"));
        lines.lines().for_each(|line| out.push_str(&format!("# {line}\n")));
    }
    out
}

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/firelens").join(path)
}

/// The files of a case, where its generated configuration looks for them.
fn case(name: &str, generated: &str) -> Root {
    let root = Root::new(&[(GENERATED, generated)]);
    let directory = data("task-definitions").join(name);
    // `@INCLUDE /x/y.conf` names the file of the case that has the same name, or its only one.
    let own: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let mut wanted: Vec<String> =
        generated.lines().filter_map(|line| line.strip_prefix("@INCLUDE ")).map(str::to_owned).collect();
    for path in &own {
        let lines = text(path);
        let files = lines.lines().map(str::trim).filter_map(|line| line.split_once(' '));
        let is_file = |key: &str| ["parsers_file", "streams_file", "@include"].contains(&key.to_lowercase().as_str());
        wanted.extend(files.filter(|(key, _)| is_file(key)).map(|(_, path)| path.trim().to_owned()));
    }
    let main = own.iter().find(|path| {
        ["extra.conf", "fluent-bit.conf", "fluent.conf", "tcp.conf", "tail.conf"].contains(&&*file_name(path))
    });
    for path in wanted
        .iter()
        .filter(|path| !path.starts_with("/fluent-bit/configs") && !path.starts_with("/fluent-bit/parsers"))
    {
        let same = own.iter().find(|own| file_name(own) == file_name(Path::new(path)));
        // A file that nobody has published says nothing.
        root.write(path, &same.or(main).map_or_else(|| "# nothing\n".to_owned(), |found| text(found)));
    }
    root
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Every configuration that the agent would write, by name.
fn derived() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = fs::read_dir(data("generated-config/derived"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !file_name(path).contains("fluentd"))
        .map(|path| (file_name(&path).trim_end_matches(".conf").to_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn every_task_definition_becomes_a_configuration_of_ours() {
    for (name, text) in derived() {
        let (case_name, mode) = name.rsplit_once('.').unwrap();
        let translated = case(case_name, &text).read(&VARIABLES);
        // One mode shows what becomes of the rest of the file; all have to be translated.
        assert!(translated.problems.is_empty(), "{name}: {}", translated.problems);
        if mode == "awsvpc" || !derived().iter().any(|(other, _)| *other == format!("{case_name}.awsvpc")) {
            insta::with_settings!({ snapshot_path => "snapshots/fluent_bit", prepend_module_to_snapshot => false }, {
                insta::assert_snapshot!(case_name, shown(translated));
            });
        }
    }
}

/// Tree, then everything that a TOML is judged by.
#[test]
fn every_translation_is_a_valid_configuration() {
    let mut wrong = String::new();
    for (name, text) in derived() {
        let Translated { tree, problems, warnings, is_whole } =
            case(name.rsplit_once('.').unwrap().0, &text).read(&VARIABLES);
        let flags = meshlens::config::flags::Flags::default();
        if let Err(problems) = meshlens::config::load_tree(Some(tree), is_whole, problems, warnings, &flags, &|_| None)
        {
            wrong.push_str(&format!("{name}:\n{problems}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The agent's own test expects `*failure*`, which is no expression, and a key that no plugin has: Fluent Bit does not start.
#[test]
fn an_expression_that_is_none_is_an_error_with_its_line() {
    let text = fs::read_to_string(data("generated-config/agent-fluentbit-config.conf")).unwrap();
    let root = Root::new(&[(GENERATED, &text), ("/fluent-bit/etc/external.conf", "# nothing\n")]);
    let Translated { tree, problems, warnings, is_whole } = root.read(&VARIABLES);
    let flags = meshlens::config::flags::Flags::default();
    let said = meshlens::config::load_tree(Some(tree), is_whole, problems, warnings, &flags, &|_| None)
        .unwrap_err()
        .to_string();
    for part in [
        "fluent-bit.conf:21: ",
        "*failure*",
        "fluent-bit.conf:26: ",
        "*success*",
        "[OUTPUT] kinesis_firehose: needs `delivery_stream`",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn the_order_of_containers_changes_nothing_but_the_order() {
    for (name, text) in derived() {
        let case_name = name.rsplit_once('.').unwrap().0;
        let mut sections: Vec<&str> = text.split("\n[").collect();
        let outputs = sections.iter().position(|section| section.starts_with("OUTPUT]")).unwrap_or(sections.len());
        sections[outputs..].reverse();
        let shuffled = sections.join("\n[");
        let routes = |text: &str| {
            let tree = case(case_name, text).read(&VARIABLES).tree;
            let json = tree.to_json();
            let sinks = json.get("sink").cloned().unwrap_or_default();
            let rules = json.get("route").and_then(|rules| rules.as_array().cloned()).unwrap_or_default();
            let mut routes: Vec<String> = rules
                .iter()
                .map(|rule| format!("{} -> {}", rule["when"], sinks[rule["to"][0].as_str().unwrap_or_default()]))
                .collect();
            routes.sort();
            routes
        };
        assert_eq!(routes(&text), routes(&shuffled), "{name}");
    }
}

#[test]
fn files_of_the_agents_own_tests() {
    for name in [
        "agent-fluentbit-config",
        "agent-fluentbit-config-default-mem-buf-limit",
        "generator-fluent-bit",
        "real-fluent-bit",
    ] {
        let text = fs::read_to_string(data("generated-config").join(format!("{name}.conf"))).unwrap();
        let root = Root::new(&[(GENERATED, &text)]);
        for path in text.lines().filter_map(|line| line.strip_prefix("@INCLUDE ")) {
            root.write(path.trim(), "# nothing\n");
        }
        insta::with_settings!({ snapshot_path => "snapshots/fluent_bit", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, shown(root.read(&VARIABLES)));
        });
    }
}

#[test]
fn every_problem_is_said_at_once_with_its_file_and_line() {
    let root = Root::new(&[
        (
            GENERATED,
            "\n[INPUT]\n    Name forward\n    Port no\n    Mem_Buf_Limit much\n\nstray value\n@INCLUDE extra.conf\n@INCLUDE missing.conf\n\
             @INCLUDE none*.conf\n@SET\n@WHAT is this\n[OUTPUT\n  [GROUP]\n",
        ),
        (
            "/fluent-bit/etc/extra.conf",
            "[SERVICE]\n  Grace soon\n  Flush 0\n  Log_Level loud\n  Parsers_File p.conf\n  HTTP_Server maybe\n@INCLUDE fluent-bit.conf\n\
             [OUTPUT]\n  Name s3\n  Match *\n  s3_key_format x\n  total_file_size 1k\n  compression arrow\n  format parquet\n\
             [OUTPUT]\n  Name cloudwatch\n  Match *\n  log_group_name $(tag\n  retry_limit often\n\
             [OUTPUT]\n  Name cloudwatch_logs\n  Match *\n  log_group_name g\n  auto_create_group 1\n  log_stream_nam x\n  log_type audit\n\
             [OUTPUT]\n  Match *\n[FILTER]\n  Name modify\n  Match *\n  Set\n[PARSER]\n  Format json\n",
        ),
    ]);
    insta::assert_snapshot!(shown(root.read(&[])));
}

#[test]
fn includes_are_found_beside_the_file_and_know_each_other() {
    let root = Root::new(&[
        (GENERATED, "@INCLUDE sub/a.conf\n@INCLUDE sub/*.conf\n[OUTPUT]\n    Name stdout\n    Match *\n"),
        ("/fluent-bit/etc/sub/a.conf", "\u{feff}[INPUT]\r\n\tName dummy\r\n\tTag a\r\n@INCLUDE c/c.conf\r\n"),
        ("/fluent-bit/etc/sub/b.conf", "[INPUT]\n  Name dummy\n  Tag b\n"),
        ("/fluent-bit/etc/sub/c/c.conf", "[INPUT]\nNAME dummy\nTAG c # not a comment\n   # a comment\n"),
    ]);
    let translated = root.read(&[]);
    assert!(translated.problems.is_empty(), "{}", translated.problems);
    let json = translated.tree.to_json();
    let tags: Vec<_> =
        json["source"].as_object().unwrap().values().map(|source| source["tag"].as_str().unwrap().to_owned()).collect();
    assert_eq!(tags, ["a", "c # not a comment", "b"]);
    assert_eq!(translated.warnings.len(), 1, "{:?}", translated.warnings);
    assert!(translated.warnings[0].contains("fluent-bit.conf:2") && translated.warnings[0].contains("was read before"));
}

#[test]
fn a_secret_that_is_not_set_is_empty_and_named_and_one_that_is_set_is_not_shown() {
    let text =
        "[OUTPUT]\n  Name datadog\n  Match app-firelens*\n  apikey ${apikey_1}\n[OUTPUT]\n  Name stdout\n  Match *\n";
    let translated = Root::new(&[(GENERATED, text)]).read(&[]);
    assert!(translated.problems.is_empty());
    // The plugin is not ours: neither is its secret.
    let warnings = translated.warnings.join("\n");
    assert!(
        warnings.contains("fluent-bit.conf:4: [OUTPUT] datadog: apikey: variable ${apikey_1} is used but not set"),
        "{warnings}"
    );
    let text = "[OUTPUT]\n  Name s3\n  Match *\n  bucket b\n  total_file_size ${apikey_1}\n";
    let translated = Root::new(&[(GENERATED, text)]).read(&[("apikey_1", "sesame")]);
    let said = shown(translated);
    assert!(said.contains("total_file_size = ${apikey_1}") && !said.contains("sesame"), "{said}");
}

#[test]
fn variables_of_the_init_image_come_from_the_generated_file_without_asking_anyone() {
    let text = "[FILTER]\n  Name record_modifier\n  Match *\n  Record ecs_cluster demo\n  Record ecs_task_arn arn:aws:ecs:us-west-2:1:task/demo/0b69\n\
                [OUTPUT]\n  Name cloudwatch_logs\n  Match *\n  log_group_name ${ECS_CLUSTER}/application\n  log_stream_name ${ECS_TASK_ID}\n  region ${AWS_REGION}\n";
    let json = translate(text).tree.to_json();
    let sink = &json["sink"]["cloudwatch_logs.0"];
    assert_eq!((sink["group"].as_str(), sink["stream"].as_str()), (Some("demo/application"), Some("0b69")));
    assert_eq!(sink["region"].as_str(), Some("us-west-2"));
}

#[test]
fn inputs_that_stand_twice_become_one() {
    let generated = fs::read_to_string(data("generated-config/derived/oomkill-memory-full.awsvpc.conf")).unwrap();
    let own = fs::read_to_string(data("task-definitions/oomkill-memory-full/extra.conf")).unwrap();
    let root = Root::new(&[(GENERATED, &format!("{generated}@INCLUDE /extra.conf\n")), ("/extra.conf", &own)]);
    let translated = root.read(&VARIABLES);
    assert_eq!(translated.warnings.iter().filter(|text| text.contains("they are one")).count(), 2);
    let json = translated.tree.to_json();
    let sources = json["source"].as_object().unwrap();
    assert_eq!(sources.keys().collect::<Vec<_>>(), ["forward.0", "forward.1", "tcp.0"]);
    assert_eq!(sources["forward.1"]["listen"], "0.0.0.0:24224");
    // 50 MB for the socket, 50 MB for the port.
    assert_eq!(json["journal"]["memory_bytes_max"], "100000000");
    assert_eq!(json["shutdown"]["grace"], "25s");
}

#[test]
fn parsers_are_found_in_any_letter_case_and_those_of_the_command_line_come_first() {
    let root = Root::new(&[
        (
            GENERATED,
            "[SERVICE]\n  Parsers_File /fluent-bit/parsers/parsers.conf\n[FILTER]\n  Name parser\n  Match **\n  Key_Name log\n  Parser JSON\n  Parser mine\n[OUTPUT]\n  Name null\n  Match *\n",
        ),
        ("/p.conf", "[PARSER]\n  Name mine\n  Format Regex\n  Regex ^(?<a>.*)$\n[OUTPUT]\n  Name s3\n"),
    ]);
    let request = Request { parsers: vec![PathBuf::from("/p.conf")], ..root.request() };
    let translated = read(&request, &|_| None);
    assert!(translated.problems.is_empty(), "{}", translated.problems);
    let json = translated.tree.to_json();
    assert_eq!(json["filter"][0]["parser"], serde_json::json!(["json", "mine"]));
    assert_eq!(json["parser"].as_object().unwrap().keys().collect::<Vec<_>>(), ["json", "mine"]);
    assert_eq!(json["parser"]["mine"]["format"], "regex");
}

#[test]
fn outputs_that_we_do_not_know_are_no_error_beside_one_that_we_do() {
    let unknown = "[OUTPUT]\n  Name datadog\n  Match app-firelens*\n";
    let health = "[OUTPUT]\n  Name null\n  Match firelens-healthcheck\n";
    assert!(problems(&format!("{unknown}{health}")).contains("[OUTPUT] datadog: there is no output that can be used"));
    assert!(problems(health).is_empty());
    let nothing = translate("[INPUT]\n  Name dummy\n");
    assert!(
        nothing.problems.is_empty() && nothing.warnings.iter().any(|text| text.contains("all records are left out"))
    );
    assert_eq!(nothing.tree.to_json()["route"][0]["drop"], true);
    let translated = translate(&format!("{unknown}{health}[OUTPUT]\n  Name stdout\n  Match *\n"));
    assert!(translated.problems.is_empty(), "{}", translated.problems);
    let json = translated.tree.to_json();
    assert_eq!(json["sink"]["datadog.0"]["type"], "unsupported");
    assert_eq!(json["route"][0]["to"][0], "datadog.0");

    let root = Root::new(&[(GENERATED, unknown)]);
    let origin = Node::table(meshlens::config::document::Origin::Flag { text: "x".into(), shows_value: true });
    let request = Request { fallback: Some(origin), ..root.request() };
    let translated = read(&request, &|_| None);
    assert!(translated.problems.is_empty(), "{}", translated.problems);
    assert_eq!(translated.tree.to_json()["route"][0]["to"][0], "fallback");

    // Where every output is known, there is no such sink, and so no warning that it gets nothing.
    let known = "[OUTPUT]\n  Name stdout\n  Alias fallback\n  Match *\n";
    let root = Root::new(&[(GENERATED, known)]);
    let translated = read(&Request { fallback: request.fallback, ..root.request() }, &|_| None);
    assert!(translated.problems.is_empty() && translated.warnings.is_empty(), "{:?}", translated.warnings);
    assert_eq!(translated.tree.to_json()["sink"].as_object().unwrap().len(), 1);
}

#[test]
fn a_toml_that_is_included_comes_first() {
    let root = Root::new(&[
        (
            GENERATED,
            "[INPUT]\n  Name forward\n  Listen 127.0.0.1\n  Port 24224\n@INCLUDE /mine.toml\n[OUTPUT]\n  Name stdout\n  Match app-firelens*\n",
        ),
        (
            "/mine.toml",
            "[source.mine]\ntype = \"forward\"\nlisten = \"0.0.0.0:24224\"\n[redact]\napplication = \"scrub\"\n[sink.access]\ntype = \"firehose\"\nstream = \"s\"\n\
             [[route]]\nwhen.log_type = \"access\"\nto = \"access\"\n",
        ),
    ]);
    let translated = root.read(&[]);
    assert!(translated.problems.is_empty(), "{}", translated.problems);
    let json = translated.tree.to_json();
    assert_eq!(json["source"].as_object().unwrap().keys().collect::<Vec<_>>(), ["mine"]);
    assert_eq!(json["redact"]["application"], "scrub");
    assert_eq!(json["route"][0]["to"], "access");
    assert_eq!(json["route"][1]["to"][0], "stdout.0");
}

#[test]
fn yaml_becomes_what_the_classic_format_does() {
    let classic = "@SET stream=logs\n[SERVICE]\n  Flush 1\n  Grace 30\n[INPUT]\n  Name forward\n  Listen 127.0.0.1\n  Port 24224\n[INPUT]\n  Name dummy\n  Tag a\n\
                   [FILTER]\n  Name grep\n  Match *\n  Regex log ^(?=.*x).*$\n  Regex level [a-c]\n[FILTER]\n  Name multiline\n  Match *\n  multiline.key_content log\n  multiline.parser go, mine\n\
                   [MULTILINE_PARSER]\n  Name mine\n  Type regex\n  Flush_timeout 1000\n  Rule \"start_state\" \"/^[0-9]/\" \"cont\"\n\
                   [OUTPUT]\n  Name cloudwatch_logs\n  Match *\n  log_group_name g\n  log_stream_name ${stream}\n  auto_create_group on\n";
    let yaml = "env:\n  stream: logs\nservice:\n  flush: 1\n  grace: 30\nincludes: [more.yaml]\npipeline:\n  inputs:\n    - {name: forward, listen: 127.0.0.1, port: 24224}\n    - name: dummy\n      tag: a\n\
                \n  filters:\n    - name: grep\n      match: '*'\n      regex:\n        - log ^(?=.*x).*$\n        - level [a-c]\n    - name: multiline\n      match: '*'\n      multiline.key_content: log\n      multiline.parser: go, mine\n\
                \n  outputs:\n    - name: cloudwatch_logs\n      match: '*'\n      logGroupName: g\n      log_stream_name: ${stream}\n      auto_create_group: on\n";
    let more = "multiline_parsers:\n  - name: mine\n    type: regex\n    flush_timeout: 1000\n    rules:\n      - state: start_state\n        regex: '/^[0-9]/'\n        next_state: cont\n";
    let classic = translate(classic);
    let root = Root::new(&[("/etc/f.yaml", yaml), ("/etc/more.yaml", more)]);
    let from = root.request().from;
    let yaml = read(&Request { files: vec!["/etc/f.yaml".into()], from, ..Request::default() }, &|_| None);
    assert_eq!((classic.problems.to_string(), yaml.problems.to_string()), (String::new(), String::new()));
    assert_eq!(classic.tree.to_json(), yaml.tree.to_json());
}

#[test]
fn the_fluentd_flavour_of_the_agent() {
    let files = [
        "derived/uth-generated-fluentd.bridge",
        "agent-fluentd-bridge-mode-config",
        "agent-fluentd-default-mode-config",
        "agent-fluentd-config-without-ecs-metadata",
    ];
    for name in files {
        let text = fs::read_to_string(data(&format!("generated-config/{name}.conf"))).unwrap();
        assert!(fluentd::is_fluentd(&text));
        let root = Root::new(&[("/fluentd/etc/fluent.conf", &text)]);
        for path in text.lines().filter_map(|line| line.strip_prefix("@include ")) {
            root.write(path.trim(), "# nothing\n");
        }
        let translated = fluentd::read(Path::new("/fluentd/etc/fluent.conf"), &root.request().from, &|_| None, None);
        let name = name.trim_start_matches("derived/");
        insta::with_settings!({ snapshot_path => "snapshots/fluent_bit", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, shown(translated));
        });
    }
}

#[test]
fn outputs_and_mistakes_of_fluentd() {
    let text = "<source>\n  @type unix\n</source>\n<source>\n  @type http\n</source>\n<system>\n  log_level fatal\n</system>\n\
                <filter a.*>\n  @type record_transformer\n  <record>\n    key \"#{ENV['KEY_1']}\"\n    now ${time}\n    name two words\n  </record>\n  remove_keys x, y\n</filter>\n\
                <filter **>\n  @type parser\n</filter>\n\
                <match {app,web}-firelens**>\n  @type copy\n  <store>\n    @type cloudwatch_logs\n    log_group_name logs-${tag[0]}\n    use_tag_as_stream true\n    auto_create_stream true\n    region eu-west-1\n    message_keys log\n  </store>\n  <store>\n    @type s3\n    s3_bucket b\n    s3_region us-east-1\n    path logs/%Y/\n    <buffer>\n      timekey 5m\n    </buffer>\n    <format>\n      @type json\n    </format>\n  </store>\n</match>\n\
                <match db**>\n  @type elasticsearch\n  host x\n</match>\n<match **>\n  @type null\n</match>\n@include missing.conf\n</match>\n<label @X>\n</label>\n<match open>\n";
    let root = Root::new(&[("/fluentd/etc/fluent.conf", text)]);
    let path = Path::new("/fluentd/etc/fluent.conf");
    insta::assert_snapshot!(shown(fluentd::read(path, &root.request().from, &|_| None, None)));
}

#[test]
fn what_stands_in_the_document_is_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/firelens.md");
    let Ok(text) = fs::read_to_string(&path) else { return };
    let (begin, end) = ("<!-- options: made from src/config/fluent_bit/table -->\n", "<!-- /options -->");
    let (Some(from), Some(to)) = (text.find(begin), text.find(end)) else {
        panic!("docs/firelens.md has no markers for its tables")
    };
    let made = format!("\n{}\n", table::markdown());
    let from = from + begin.len();
    if text[from..to] != made && std::env::var_os("MESHLENS_UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}{made}{}", &text[..from], &text[to..])).unwrap();
        return;
    }
    assert_eq!(&text[from..to], made, "MESHLENS_UPDATE_DOCS=1 writes them again");
}

/// No value of the tree stands without the line of a Fluent Bit key or section.
#[test]
fn every_value_knows_its_line() {
    fn look(node: &Node) {
        assert!(matches!(&node.origin, meshlens::config::document::Origin::File { line, .. } if *line > 0), "{node}");
        match &node.value {
            Value::List(list) => list.iter().for_each(look),
            Value::Table(entries) => entries.iter().for_each(|(_, node)| look(node)),
            _ => {}
        }
    }
    for (name, text) in derived() {
        look(&case(name.rsplit_once('.').unwrap().0, &text).read(&VARIABLES).tree);
    }
}
