//! The configuration as users meet it: what is accepted, what is said of what is wrong, and that the reference is whole.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use meshlens::config::flags::{Flags, QUICKSTART};
use meshlens::config::problem::Problems;
use meshlens::config::{Config, Loaded, load_text, raw};
use meshlens::redact::{Policy, Secret};
use meshlens::route::{Condition, Rule, Test};
use meshlens::sink::file::Layout;
use meshlens::{journal, sink, source};
use serde_json::Value as Json;

fn load(text: &str, flags: &Flags, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    load_text(Some(("meshlens.toml", text)), flags, &lookup)
}

fn good(text: &str) -> Config {
    load(text, &Flags::default(), &[]).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn problems(text: &str) -> String {
    load(text, &Flags::default(), &[]).expect_err("must be refused").to_string()
}

fn flags_only(flags: &Flags) -> Result<Config, String> {
    load_text(None, flags, &|_| None).map(|loaded| loaded.config).map_err(|problems| problems.to_string())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn every_problem_is_said_at_once_with_file_line_key_value_and_what_is_allowed() {
    let text = include_str!("data/config/many-errors.toml");
    let flags = Flags {
        set: texts(&["sink.s3.part_bytes=1", "journal.memory_bytes_max=lots", "nokey", "sink.s3.x.y=1", "a..b=1"]),
        grace: Some("never".into()),
        follow: true,
        ..Flags::default()
    };
    let problems = load(text, &flags, &[]).unwrap_err();
    insta::assert_snapshot!("many_errors", problems.to_string());
}

#[test]
fn wrong_flags_are_named_as_flags() {
    let flags = Flags {
        forward: texts(&["1.2.3:4", "nowhere"]),
        admin: Some("host:1".into()),
        input: texts(&["-", "-", "/nonexistent"]),
        to: texts(&[
            "s3://b?compression=zip",
            "s3://bucket?compression=zip",
            "kafka:x",
            "firehose:bad/name",
            "stdout",
            "stdout",
        ]),
        ..Flags::default()
    };
    insta::assert_snapshot!("wrong_flags", flags_only(&flags).unwrap_err());
}

#[test]
fn syntax_errors_come_together_and_hide_what_depends_on_them() {
    let said = problems("[sink.a]\ntype = \"s3\nbucket = \n[sink.b\nx=1\n[shutdown]\ngrace = \"soon\"\nfoo = 1\n");
    assert!(said.contains("meshlens.toml:2: not valid TOML"), "{said}");
    assert!(said.contains("meshlens.toml:3: not valid TOML"), "{said}");
    assert!(said.contains("meshlens.toml:7: shutdown.grace = \"soon\": must be a duration"), "{said}");
    assert!(said.contains("meshlens.toml:8: shutdown.foo: unknown key"), "{said}");
    assert!(!said.contains("is missing"), "{said}");
}

#[test]
fn no_secret_is_printed_however_it_is_misplaced() {
    let cases = [
        "[source.f]\ntype='forward'\nshared_key = ['sesame']\n",
        "[source.f]\ntype='forward'\nshared_kye = 'sesame'\n",
        "[source.f]\ntype='forward'\nusers = ['sesame']\n",
        "[source.f]\ntype='forward'\nusers = [{ name = 'a', password = 'sesame', x = 1 }]\n",
        "[source.f]\ntype='forwrad'\nshared_key = 'sesame'\n",
        "source = [{ shared_key = 'sesame' }]\n",
        "[redact]\nhash_key = 'sesame'\n",
        "[redact]\nquery='hash'\nhash_key = { a = 'sesame' }\n",
        "[sink.s]\ntype='s3'\nbucket='bbb'\nendpoint_url='http://me:sesame@host/'\n",
        "[source.f]\ntype='forward'\nshared_key = \"sesame\n",
    ];
    for text in cases {
        let said = problems(text);
        assert!(!said.contains("sesame") && !said.is_empty(), "{text}: {said}");
    }
    for set in [
        "source.f.shared_key=[\"sesame\"]",
        "source.f.shared_kye=sesame",
        "source.f={ type = \"forward\", shared_key = \"sesame\", nesting_max = 0 }",
        "redact.hash_key=sesame",
        "redact.hash_key=\"sesame",
    ] {
        let flags = Flags { set: texts(&[set]), ..Flags::default() };
        let said = flags_only(&flags).expect_err(set);
        assert!(!said.contains("sesame") && !said.is_empty(), "{set}: {said}");
    }
}

#[test]
fn what_is_refused_does_not_cause_further_errors() {
    // The bucket is there, only wrong; the sink is there, only of no known kind.
    assert_eq!(
        problems("[sink.a]\ntype='s3'\nbucket=1\n[sink.b]\ntype='s4'\n[[route]]\nto=['a','b']\n"),
        "meshlens.toml:3: sink.a.bucket = 1: must be text in quotes\n\
         meshlens.toml:5: sink.b.type = \"s4\": must be one of `cloudwatch_logs`, `firehose`, `s3`, `forward`, `file`, `stdout`, \
         `discard` or `unsupported`; did you mean `s3`?"
    );
}

#[test]
fn defaults_stand_in_for_sources_and_sinks() {
    let config = good("");
    let source::Kind::Forward(forward) = &config.sources[0].kind else { panic!("{config:?}") };
    assert_eq!(forward.listen, Some("127.0.0.1:24224".parse().unwrap()));
    assert_eq!(config.sinks.len(), 4);
    let layouts: Vec<_> = config
        .sinks
        .iter()
        .filter_map(|sink| match &sink.kind {
            sink::Kind::File(file) => Some(&file.layout),
            _ => None,
        })
        .collect();
    assert!(matches!(layouts.as_slice(), [Layout::CloudwatchLogs { .. }, Layout::Firehose { .. }, Layout::S3 { .. }]));
    assert_eq!((config.grace, config.quiet), (Duration::from_secs(25), Duration::from_secs(1)));
    assert_eq!(config.journal, journal::Config::default());
    assert_eq!(config.redact.query, Policy::Strip);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_built_in_configuration_is_the_quick_start() {
    let root = env!("CARGO_MANIFEST_DIR");
    assert_eq!(QUICKSTART, std::fs::read_to_string(Path::new(root).join("config/quickstart.toml")).unwrap());
}

#[test]
fn flags_make_sources_and_sinks_and_replace_the_files() {
    let file = "[source.old]\ntype='forward'\n[sink.old]\ntype='discard'\n[[route]]\nto='old'\n";
    let flags = Flags {
        forward: texts(&["127.0.0.1:0"]),
        forward_unix: texts(&["/tmp/a.sock", "/tmp/b.sock"]),
        input: texts(&["-"]),
        to: texts(&[
            "s3://bucket/logs?compression=zstd",
            "cloudwatch:/a/b/c",
            "s3://bucket2",
            "file:no-such-directory?layout=firehose",
        ]),
        set: texts(&["sink.s3-2.object_age_max=1m", "sink.cloudwatch_logs.stream=123", "source.input.tag=t"]),
        grace: Some("100".into()),
        ..Flags::default()
    };
    let config = load(file, &flags, &[]).unwrap_or_else(|problems| panic!("{problems}")).config;
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["forward", "forward-2", "input"]);
    let source::Kind::Forward(both) = &config.sources[0].kind else { panic!() };
    assert_eq!((both.listen.map(|a| a.port()), both.unix_path.as_deref()), (Some(0), Some(Path::new("/tmp/a.sock"))));
    let source::Kind::Forward(unix) = &config.sources[1].kind else { panic!() };
    assert_eq!(unix.listen, None);
    let source::Kind::Lines(lines) = &config.sources[2].kind else { panic!() };
    assert_eq!((&lines.input, lines.tag.as_str()), (&source::lines::Input::Stdin, "t"));
    let names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["s3", "cloudwatch_logs", "s3-2", "file"]);
    let sink::Kind::S3(s3) = &config.sinks[0].kind else { panic!() };
    assert_eq!(s3.compression, sink::s3::Compression::Zstd);
    let sink::Kind::S3(s3) = &config.sinks[2].kind else { panic!() };
    assert_eq!(s3.object_age_max, Duration::from_secs(60));
    assert!(config.route.rules.is_empty());
    assert_eq!(config.grace, Duration::from_secs(100));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn set_applies_over_file_and_flags_and_may_make_everything() {
    let flags = Flags {
        set: texts(&[
            "source.in.type=forward",
            "source.in.listen=127.0.0.1:7",
            "sink.out.type=discard",
            "redact.query=mask",
            "route=[{ to = [\"out\"], sample = 0.5 }]",
            "route.0.sample=0.25",
            "enrich.fields={ env = \"prod\", level = 3 }",
        ]),
        ..Flags::default()
    };
    let config = flags_only(&flags).unwrap();
    assert_eq!((config.sources.len(), config.sinks.len()), (1, 1));
    assert_eq!(config.redact.query, Policy::Mask);
    assert_eq!(config.route.rules[0].sample, Some(0.25));
    assert_eq!(config.enrich.fields, [("env".into(), Json::from("prod")), ("level".into(), Json::from(3))]);
}

fn conditions(when: &str) -> Vec<(String, Test)> {
    let config = good(&format!("[sink.s]\ntype='discard'\n[[route]]\nwhen = {when}\nto='s'\n"));
    config.route.rules[0].when.iter().map(|Condition { field, test }| (field.clone(), test.clone())).collect()
}

#[test]
fn conditions_have_one_grammar() {
    let one_of = |values: &[&str]| Test::OneOf(texts(values));
    let not = |test| Test::Not(Box::new(test));
    let cases = [
        ("'access'", one_of(&["access"])),
        ("200", one_of(&["200"])),
        ("true", one_of(&["true"])),
        ("['GET', '=>1', 3]", one_of(&["GET", ">1", "3"])),
        ("'>=500'", Test::Range { low: Some((500.0, true)), high: None }),
        ("'500..599'", Test::Range { low: Some((500.0, true)), high: Some((599.0, true)) }),
        ("'glob:/api/*'", Test::Glob("/api/*".into())),
        ("'prefix:/api'", Test::Prefix("/api".into())),
        ("'regex:^a+$'", Test::Regex("^a+$".into())),
        ("'!GET'", not(one_of(&["GET"]))),
        ("'!glob:*x'", not(Test::Glob("*x".into()))),
        ("'=!x'", one_of(&["!x"])),
        ("{ not = ['a', 'b'] }", not(one_of(&["a", "b"]))),
        ("{ not = '>=5' }", not(Test::Range { low: Some((5.0, true)), high: None })),
        ("{ absent = true }", Test::Absent),
        ("{ absent = false }", not(Test::Absent)),
        ("'a*b'", one_of(&["a*b"])),
    ];
    for (written, test) in cases {
        assert_eq!(conditions(&format!("{{ f = {written} }}")), [("f".into(), test)], "{written}");
    }
    assert_eq!(conditions("{ tag = 'a-*' }"), [("tag".into(), Test::Glob("a-*".into()))]);
    assert_eq!(conditions("{ tag = ['a-*'] }"), [("tag".into(), one_of(&["a-*"]))]);
    assert_eq!(conditions("{ log_type = 'other' }"), [("log_type".into(), not(one_of(&["access", "envoy"])))]);
    assert_eq!(conditions("{ log_type = ['access', 'other'] }"), [("log_type".into(), not(one_of(&["envoy"])))]);
    for wrong in ["[]", "['glob:x']", "'>'", "'regex:('", "'glob:['", "{ nor = 1 }", "{}", "{ absent = 1 }", "[['a']]"]
    {
        problems(&format!("[sink.s]\ntype='discard'\n[[route]]\nwhen = {{ f = {wrong} }}\nto='s'\n"));
    }
}

#[test]
fn rules_become_sets_of_sinks() {
    let text = "[sink.a]\ntype='stdout'\n[sink.b]\ntype='discard'\n\
                [[route]]\nwhen={ x = 1 }\ndrop=true\n\
                [[route]]\nwhen={ x = 2 }\nto=[]\n\
                [[route]]\nwhen={ x = 3 }\nto=['b','a','b']\ncontinue=true\n\
                [[route]]\nwhen={ x = 4 }\nto='a'\nelse=['b']\n";
    let rules = good(text).route.rules;
    let outline = |rule: &Rule| (rule.to.clone(), rule.and_continue, rule.otherwise.clone());
    assert_eq!(
        rules.iter().map(outline).collect::<Vec<_>>(),
        [(vec![], false, None), (vec![], false, None), (vec![1, 0], true, None), (vec![0], false, Some(vec![1]))]
    );
}

#[test]
fn inputs_of_fluent_bit_have_its_defaults() {
    let config = good(
        "[source.a]\ntype='tcp'\n[source.b]\ntype='tail'\npath='/var/log/*.log'\ndb='/data/tail.db'\n\
         [source.c]\ntype='dummy'\n[source.d]\ntype='forward'\nunix_path='/tmp/x'\ntag_prefix='p.'\n\
         [admin]\nlisten='off'\nfluent_bit_listen='127.0.0.1:2020'\nfluent_bit_health={ period = 30 }\n",
    );
    let source::Kind::Tcp(tcp) = &config.sources[0].kind else { panic!() };
    assert_eq!(*tcp, source::tcp::Config { tag: "a".into(), ..source::tcp::Config::default() });
    let source::Kind::Tail(tail) = &config.sources[1].kind else { panic!() };
    assert_eq!(
        (tail.tag.as_str(), &tail.paths[..], tail.read_from_head),
        ("b", &["/var/log/*.log".to_owned()][..], false)
    );
    assert_eq!(config.journal.dir.as_deref(), Some(Path::new("/data/tail.db.meshlens")));
    let source::Kind::Dummy(dummy) = &config.sources[2].kind else { panic!() };
    assert_eq!((dummy.rate, dummy.samples), (1, None));
    let source::Kind::Forward(forward) = &config.sources[3].kind else { panic!() };
    assert_eq!((forward.tag.as_deref(), forward.tag_prefix.as_deref()), (None, Some("p.")));
    assert_eq!(config.admin.fluent_bit_listen, "127.0.0.1:2020".parse().ok());
    let health = config.admin.fluent_bit_health.unwrap();
    assert_eq!((health.errors_max, health.retry_failures_max, health.period), (5, 5, Duration::from_secs(30)));
}

#[test]
fn what_is_wrong_with_these_inputs_is_all_told() {
    let said = problems(
        "[source.a]\ntype='tcp'\nlisten='nowhere'\nseparator='x'\nrecord_bytes_max='1B'\n\
         [source.b]\ntype='tail'\nexclude_path='/a['\npath_key=''\n[source.c]\ntype='dummy'\ndummy='[1]'\nrate=0\n\
         [source.d]\ntype='forward'\nlisten='127.0.0.1:5170'\ntag='t'\ntag_prefix='p'\n[source.e]\ntype='tcp'\n\
         [admin]\nfluent_bit_listen='127.0.0.1:5170'\n",
    );
    for wrong in [
        "source.a.listen",
        "source.a.separator",
        "source.a.record_bytes_max",
        "source.b.path",
        "source.b.exclude_path",
        "source.b.path_key",
        "source.c.dummy",
        "source.c.rate",
        "source.d.tag_prefix",
        "source.e.listen",
        "admin.fluent_bit_listen",
    ] {
        assert!(said.contains(wrong), "{wrong} in {said}");
    }
    assert!(problems("[admin]\nfluent_bit_health={}\n").contains("admin.fluent_bit_health"));
}

#[test]
fn secrets_come_from_the_environment() {
    let text = "[source.f]\ntype='forward'\nshared_key_env='KEY'\nusers=[{ name='u', password_env='PASSWORD' }]\n\
                [redact]\nquery='hash'\nhash_key_env='HASH'\n[enrich]\nenv={ a='A', b='B' }\n";
    let variables = [("KEY", "k"), ("PASSWORD", "p"), ("HASH", "h"), ("A", "1")];
    let loaded = load(text, &Flags::default(), &variables).unwrap_or_else(|problems| panic!("{problems}"));
    let source::Kind::Forward(forward) = &loaded.config.sources[0].kind else { panic!() };
    let secret = |text: &str| Secret(text.as_bytes().into());
    assert_eq!(forward.shared_key, Some(secret("k")));
    assert_eq!(forward.users, [("u".to_owned(), secret("p"))]);
    assert_eq!(loaded.config.redact.query, Policy::Hash { key: secret("h") });
    assert_eq!(loaded.config.enrich.fields, [("a".into(), Json::from("1"))]);
    assert_eq!(loaded.config.warnings.len(), 1, "{:?}", loaded.config.warnings);
    let said = problems(text);
    for key in ["shared_key_env", "password_env", "hash_key_env"] {
        assert!(said.contains(key), "{said}");
    }
}

#[test]
fn metadata_is_automatic_inside_ecs_only() {
    let inside = [("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x")];
    let ecs = |text: &str, variables: &[(&str, &str)]| load(text, &Flags::default(), variables).unwrap().config.enrich;
    assert_eq!(ecs("", &inside).ecs, ["ecs_cluster", "ecs_task_arn", "ecs_task_definition"]);
    assert_eq!(ecs("", &inside).metadata_uri.as_deref(), Some(inside[0].1));
    assert_eq!((ecs("", &[]).ecs.len(), ecs("", &[]).metadata_uri), (0, None));
    assert_eq!(ecs("[enrich]\necs='none'\n", &inside).ecs.len(), 0);
    assert_eq!(ecs("[enrich]\necs=['ecs_task_id']\n", &inside).ecs, ["ecs_task_id"]);
}

#[test]
fn admin_endpoints_are_there_inside_ecs_and_where_asked_for() {
    let listen = |text: &str, flag: Option<&str>, variables: &[(&str, &str)]| {
        let flags = Flags { admin: flag.map(str::to_owned), ..Flags::default() };
        let listen = load(text, &flags, variables).unwrap_or_else(|problems| panic!("{problems}")).config.admin.listen;
        listen.map(|listen| (listen.address.to_string(), listen.is_asked))
    };
    let inside = [("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x")];
    let off = "[admin]\nlisten='off'\n";
    let default = Some(("127.0.0.1:24220".to_owned(), false));
    assert_eq!((listen("", None, &[]), listen("", None, &inside)), (None, default));
    assert_eq!((listen(off, None, &[]), listen(off, None, &inside)), (None, None));
    let asked = |address: &str| Some((address.to_owned(), true));
    for (flag, address) in [("9000", "127.0.0.1:9000"), (":9000", "127.0.0.1:9000"), ("[::1]:0", "[::1]:0")] {
        assert_eq!(listen(off, Some(flag), &inside), asked(address));
    }
    assert_eq!(listen("[admin]\nlisten='localhost:1'\n", None, &[]), asked("127.0.0.1:1"));
    let warnings = good("[admin]\nlisten='0.0.0.0:24220'\n").warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("other hosts"), "{warnings:?}");
    assert_eq!(
        problems(
            "[source.f]\ntype='forward'\nlisten='127.0.0.1:7'\n[sink.s]\ntype='s3'\nbucket='bbb'\n[admin]\nlisten='7'\n\
             unhealthy_after='5m'\nport=1\n"
        ),
        "meshlens.toml:8: admin.listen = \"7\": must not be what source.f listens on\n\
         meshlens.toml:9: admin.unhealthy_after = \"5m\": must be more than sink.s.object_age_max, which is 5m\n\
         meshlens.toml:10: admin.port: unknown key, must be one of `listen`, `unhealthy_after`, `fluent_bit_listen` or `fluent_bit_health`"
    );
    assert_eq!(good("[admin]\nunhealthy_after='5m'\n").admin.unhealthy_after, Some(Duration::from_secs(300)));
}

#[test]
fn defaults_that_do_not_fit_are_adjusted_and_values_that_do_not_fit_are_refused() {
    let adjusted = good(
        "[sink.f]\ntype='firehose'\nstream='s'\nbatch_bytes_max='16KiB'\nretry={ cap='100ms' }\n[shutdown]\ngrace='500ms'\n",
    );
    let sink::Kind::Firehose(firehose) = &adjusted.sinks[0].kind else { panic!() };
    assert_eq!(firehose.record_bytes_max, 16 << 10);
    assert_eq!(firehose.retry.base, Duration::from_millis(100));
    assert_eq!(adjusted.quiet, Duration::from_millis(500));
    assert_eq!(adjusted.warnings.len(), 3, "{:?}", adjusted.warnings);
    let said = problems(
        "[sink.f]\ntype='firehose'\nstream='s'\nbatch_bytes_max='16KiB'\nrecord_bytes_max='17KiB'\n\
         retry={ cap='100ms', base='1s' }\n[shutdown]\ngrace='500ms'\nquiet=1\n",
    );
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
fn dead_letters_need_a_directory() {
    assert_eq!(good("").dead_letters, None);
    let kept = good("[dead_letters]\ndir = \"/var/lib/dead\"\n").dead_letters.unwrap();
    assert_eq!((kept.dir.to_str(), kept.bytes_max), (Some("/var/lib/dead"), 256 << 20));
    let kept = good("[dead_letters]\ndir = \"d\"\nbytes_max = \"1MiB\"\n").dead_letters.unwrap();
    assert_eq!(kept.bytes_max, 1 << 20);
    let text = problems("[dead_letters]\nbytes_max = \"1KiB\"\n");
    assert!(text.contains("dead_letters.dir") && text.contains("must be a directory"), "{text}");
    assert!(text.contains("must be between 1MiB and 16384GiB"), "{text}");
}

#[test]
fn what_is_open_to_others_or_pointless_is_warned_of() {
    let config = good(
        "[source.f]\ntype='forward'\nlisten='0.0.0.0:24224'\n[sink.a]\ntype='stdout'\n[sink.b]\ntype='discard'\n\
         [[route]]\nto='a'\n[[route]]\nwhen={ x=1 }\nto='a'\n",
    );
    let said = config.warnings.join("\n");
    assert_eq!(config.warnings.len(), 3, "{said}");
    assert!(
        said.contains("0.0.0.0:24224") && said.contains("sink.b receives nothing") && said.contains("never reached")
    );
}

#[test]
fn there_are_at_most_64_sinks() {
    let sinks =
        |count: usize| (0..count).fold(String::new(), |text, n| text + &format!("[sink.s{n}]\ntype='discard'\n"));
    assert_eq!(good(&sinks(64)).sinks.len(), 64);
    assert!(problems(&sinks(65)).contains("must be at most 64"));
}

#[test]
fn the_name_of_what_an_earlier_run_left_is_taken() {
    assert_eq!(
        problems("[source.journal]\ntype='forward'\n"),
        "meshlens.toml:1: source.journal = { type = \"forward\" }: must have another name: that is the account's, of what an earlier run left"
    );
}

#[test]
fn inputs_are_not_shared() {
    let said = problems(
        "[source.a]\ntype='forward'\n[source.b]\ntype='forward'\nlisten='localhost:24224'\n\
         [source.c]\ntype='lines'\npath='-'\n[source.d]\ntype='lines'\npath='-'\n",
    );
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("source.b.listen") && said.contains("source.d.path"), "{said}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        drop(load(&text, &Flags::default(), &[]));
    }

    #[test]
    fn no_document_makes_the_reader_panic(
        lines in proptest::collection::vec(
            proptest::sample::select(vec![
                "[source.a]", "[sink.a]", "[sink.b]", "[[route]]", "[redact]", "[enrich]", "[shutdown]", "type='s3'",
                "type='forward'", "type='cloudwatch_logs'", "type='file'", "type=3", "bucket='x'", "group='{'", "key='%'",
                "to=['a', 1]", "to='zz'", "when={ tag='[' }", "when=4", "sample=nan", "else=['b']", "drop=true",
                "continue=true", "query='hash'", "grace='1ms'", "users=[{}]", "tls={}", "fields={ a = inf }", "= 3", "[",
            ]),
            0..12,
        ),
        set in proptest::collection::vec("[a-z.0-9\"]{0,12}=[a-z0-9\\[{\"']{0,6}", 0..3),
    ) {
        let flags = Flags { set, ..Flags::default() };
        drop(load(&lines.join("\n"), &flags, &[]));
    }

    #[test]
    fn no_flag_makes_the_reader_panic(to in "(s3://|file:|cloudwatch:|firehose:)?\\PC{0,20}", key in "\\PC{0,20}") {
        let flags = Flags { to: vec![to.clone()], forward: vec![key.clone()], set: vec![key, to], ..Flags::default() };
        drop(flags_only(&flags));
    }
}

// The reference in docs/configuration.md.

const BEGIN: &str = "<!-- reference: begin";
const END: &str = "<!-- reference: end -->";

#[test]
fn the_reference_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the reference begins");
    let (mark, _) = rest.split_once('\n').unwrap();
    let (_, tail) = rest.split_once(END).expect("the reference ends");
    let fresh = format!("{head}{BEGIN}{mark}\n{}{END}{tail}", reference(&raw::schema()));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    assert!(
        text == fresh || std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/configuration.md is old: run with UPDATE_DOCS=1"
    );
}

#[test]
fn every_key_has_a_description() {
    let mut keys = BTreeSet::new();
    undescribed(&raw::schema(), "", &mut keys);
    assert!(keys.is_empty(), "{keys:?}");
}

fn undescribed(schema: &Json, at: &str, found: &mut BTreeSet<String>) {
    match schema {
        Json::Array(list) => list.iter().for_each(|schema| undescribed(schema, at, found)),
        Json::Object(object) => {
            for (name, below) in object {
                if name == "properties" {
                    for (key, property) in below.as_object().unwrap() {
                        let is_word = key == "type" || at.ends_with("Condition/anyOf");
                        if property.get("description").is_none() && !is_word {
                            found.insert(format!("{at}/{key}"));
                        }
                    }
                }
                undescribed(below, &format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
}

/// Tables of all keys, from the schema.
fn reference(schema: &Json) -> String {
    let defs = &schema["$defs"];
    let mut out = String::from("\n## Reference\n\nTop level:\n\n");
    table(&mut out, &schema["properties"], defs);
    for (heading, name) in [("[source.NAME]", "Source"), ("[sink.NAME]", "Sink"), ("[[filter]]", "Filter")] {
        for variant in defs[name]["oneOf"].as_array().unwrap() {
            let kind = variant["properties"]["type"]["const"].as_str().unwrap();
            writeln!(out, "### `{heading}` with `type = \"{kind}\"`\n\n{}\n", description(variant)).unwrap();
            if variant["properties"].as_object().unwrap().len() > 1 {
                table(&mut out, &variant["properties"], defs);
            } else {
                out.push_str("No other keys.\n\n");
            }
        }
    }
    let tables = BTreeMap::from([
        ("DeadLetters", "`[dead_letters]`"),
        ("Derive", "`[derive]`"),
        ("DeriveRoute", "`[derive.route]`"),
        ("TruncateAddresses", "`[derive.truncate_addresses]`"),
        ("Enrich", "`[enrich]`"),
        ("Journal", "`[journal]`"),
        ("Log", "`[log]`"),
        ("Parse", "`[parse]`"),
        ("AccessLogFormat", "`[parse.format.NAME]`"),
        ("MultilineParser", "`[multiline_parser.NAME]`"),
        ("Parser", "`[parser.NAME]`"),
        ("Redact", "`[redact]`"),
        ("ParameterRules", "`[redact.parameters]`"),
        ("Retry", "`[sink.NAME.retry]`"),
        ("Rule", "`[[route]]`"),
        ("Shutdown", "`[shutdown]`"),
        ("Admin", "`[admin]`"),
        ("FluentBitHealth", "`[admin.fluent_bit_health]`"),
        ("Tls", "`[source.NAME.tls]`"),
        ("User", "`users` of a forward source"),
    ]);
    for (name, def) in defs.as_object().unwrap() {
        if def.get("properties").is_some() {
            let heading = tables.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no heading"));
            writeln!(out, "### {heading}\n\n{}\n", description(def)).unwrap();
            table(&mut out, &def["properties"], defs);
        }
    }
    out
}

fn description(schema: &Json) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn table(out: &mut String, properties: &Json, defs: &Json) {
    out.push_str("| key | value | meaning |\n|---|---|---|\n");
    for (key, property) in properties.as_object().unwrap() {
        if property.get("const").is_some() {
            continue;
        }
        let meaning = description(property).replace('|', "\\|");
        writeln!(out, "| `{key}` | {} | {meaning} |", kind(property, defs)).unwrap();
    }
    out.push('\n');
}

fn kind(schema: &Json, defs: &Json) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        let def = &defs[name];
        let words: Vec<&str> = match (&def["enum"], &def["oneOf"]) {
            (Json::Array(words), _) => words.iter().filter_map(Json::as_str).collect(),
            (_, Json::Array(words)) => words.iter().filter_map(|word| word["const"].as_str()).collect(),
            _ => Vec::new(),
        };
        return match words.is_empty() {
            true if def.get("properties").is_some() => "table".to_owned(),
            true => name.to_lowercase(),
            false => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        };
    }
    let name = |kind: &Json| match kind.as_str() {
        Some("string") => "text",
        Some("integer" | "number") => "number",
        Some("boolean") => "true or false",
        Some("array") => "list",
        Some("object") => "table",
        _ => "any",
    };
    match &schema["type"] {
        Json::Array(kinds) => kinds.iter().map(name).collect::<Vec<_>>().join(" or "),
        one => name(one).to_owned(),
    }
}
