use proptest::prelude::*;

use super::*;

/// 2024-02-29T03:04:05.678901234Z, day 60 of a leap year.
const TIME_NS: i64 = 1_709_175_845_678_901_234;

fn partition(tag: &str, values: &[&str]) -> Partition {
    Partition { tag: tag.into(), values: values.iter().map(|v| Box::from(*v)).collect() }
}

fn render(text: &str, tag: &str, fields: &[(&str, &str)], ecs: &[(&str, &str)], style: Style) -> String {
    let keys: Vec<Box<str>> = fields.iter().map(|(key, _)| Box::from(*key)).collect();
    let values: Vec<&str> = fields.iter().map(|(_, value)| *value).collect();
    let values_of = ecs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let scope = Scope {
        partition: &partition(tag, &values),
        partition_keys: &keys,
        metadata: &Metadata { values: values_of, ..Metadata::default() },
        hostname: "host-1",
        time_ns: TIME_NS,
    };
    let mut out = String::new();
    Template::parse(text).unwrap().render_into(&scope, style, &mut out);
    out
}

#[test]
fn values_stand_where_they_are_named() {
    let plain = |text: &str| {
        let fields = [("container_name", "web"), ("a.b-c", "x/y"), ("none", "")];
        render(text, "app.web.1", &fields, &[("ecs_cluster_name", "prod")], Style::Plain)
    };
    assert_eq!(plain(""), "");
    assert_eq!(plain("/ecs/{container_name}"), "/ecs/web");
    assert_eq!(plain("{tag}/{tag[0]}/{tag[2]}/{tag[3]}/{tag[3]|z}"), "app.web.1/app/1/unknown/z");
    assert_eq!(plain("{hostname}{ecs_cluster_name}"), "host-1prod");
    assert_eq!(plain("{a.b-c}"), "x/y");
    assert_eq!(plain("{none|no}|{missing}|{missing|a|b}"), "no|unknown|a|b");
    assert_eq!(plain("{{{container_name}}}"), "{web}");
    assert_eq!(plain("100%% {{x}}"), "100% {x}");
}

#[test]
fn another_template_may_stand_for_the_whole() {
    let template = Template::parse("{a}.{tag[1]|none}").unwrap().or(Template::parse("else-{tag}-{b}-%Y").unwrap());
    assert_eq!(template.record_fields(), ["a", "b"]);
    assert!(template.has_dates());
    let keys: [Box<str>; 2] = ["a".into(), "b".into()];
    let render = |tag: &str, a: &str, b: &str| {
        let (partition, metadata) = (partition(tag, &[a, b]), Metadata::default());
        template.render(&Scope {
            partition: &partition,
            partition_keys: &keys,
            metadata: &metadata,
            hostname: "h",
            time_ns: TIME_NS,
        })
    };
    assert_eq!(render("t.x", "1", ""), "1.x");
    assert_eq!(render("t", "1", ""), "1.none", "a text of its own is enough");
    assert_eq!(render("t", "", "2"), "else-t-2-2024");
    assert_eq!(render("t", "", ""), "else-t-unknown-2024");
}

#[test]
fn dates_are_in_utc() {
    let date = |text: &str| render(text, "t", &[], &[], Style::Plain);
    assert_eq!(date("year=%Y/month=%m/day=%d/hour=%H/"), "year=2024/month=02/day=29/hour=03/");
    assert_eq!(date("%M%S %y %j %%Y"), "0405 24 060 %Y");
}

#[test]
fn the_task_id_is_read_off_a_firelens_tag() {
    let id = "3f1c0b9de0d2402b9f3cbb1a6a4d1c0e";
    let text = "{ecs_task_id|none}";
    let from_tag = |tag: &str| render(text, tag, &[], &[], Style::Plain);
    assert_eq!(from_tag(&format!("web-firelens-{id}")), id);
    assert_eq!(from_tag(&format!("a-firelens-b-firelens-{id}")), id);
    assert_eq!(from_tag("web-firelens-../x"), "none");
    assert_eq!(from_tag("web-firelens-"), "none");
    assert_eq!(from_tag("-firelens-abc"), "none");
    assert_eq!(from_tag("app"), "none");
    let tag = format!("web-firelens-{id}");
    assert_eq!(render(text, &tag, &[], &[("ecs_task_id", "meta")], Style::Plain), "meta");
    assert_eq!(render("{ecs_cluster}", &tag, &[], &[], Style::Plain), "unknown");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let at = |text: &str| {
        let error = Template::parse(text).unwrap_err();
        (error.at, error.message)
    };
    assert_eq!(at("ab{tag").0, 2);
    assert_eq!(at("ab}").0, 2);
    assert_eq!(at("ab{}").0, 3);
    assert_eq!(at("ab{|x}").0, 3);
    assert_eq!(at("ab{x|}").0, 2);
    assert_eq!(at("{a{b}").0, 2);
    assert_eq!(at("{tag[x]}").0, 1);
    assert_eq!(at("{tag[+1]}").0, 1);
    assert_eq!(at("{tag[]}").0, 1);
    assert_eq!(at("{a[0]}").0, 1);
    assert_eq!(at("{ a }").0, 1);
    assert_eq!(at("{a|\n}").0, 3);
    assert_eq!(at("é%").0, 2);
    let (place, message) = at("year=%Y/%q");
    assert_eq!(place, 8);
    assert!(message.starts_with("unknown date conversion `%q`; allowed are %Y %m %d"), "{message}");
}

#[test]
fn parts_of_a_tag_stand_between_the_given_delimiters() {
    let part = |text: &str, tag: &str| {
        let (partition, metadata) = (&partition(tag, &[]), &Metadata::default());
        let scope = Scope { partition, partition_keys: &[], metadata, hostname: "h", time_ns: 0 };
        Template::parse_with(text, Some(".-")).unwrap().render(&scope)
    };
    assert_eq!(part("{tag[0]}/{tag[1]}/{tag[2]}", "app-firelens-0123.x"), "app/firelens/0123");
    assert_eq!(part("{tag[1]}|{tag[3]}", "a--.b-c"), "b|unknown");
}

#[test]
fn the_key_of_an_object_and_what_its_records_have_in_common() {
    let template = Template::parse("{tag}/%Y%S-{uuid}.{index}.gz").unwrap();
    assert!(template.names_objects() && template.has_uuid());
    let (partition, metadata) = (&partition("a/b", &[]), &Metadata::default());
    let scope = |time_ns| Scope { partition, partition_keys: &[], metadata, hostname: "h", time_ns };
    let name = ObjectName { uuid: "Zz09".into(), index: 7 };
    let (mut key, mut group, mut other) = (String::new(), String::new(), String::new());
    template.render_object(&scope(TIME_NS), &name, &mut key);
    template.render_group(&scope(TIME_NS), &mut group);
    template.render_group(&scope(0), &mut other);
    assert_eq!(key, "a_b/202405-Zz09.7.gz");
    assert_eq!((&*group, &*other), ("a_b/\0\0-\0.\0.gz", &*group));
}

#[test]
fn task_metadata_may_come_with_the_record() {
    let field = [("ecs_cluster", "mine")];
    assert_eq!(render("{ecs_cluster}", "t", &field, &[], Style::Plain), "mine");
    assert_eq!(render("{ecs_cluster}", "t", &field, &[("ecs_cluster", "known")], Style::Plain), "known");
    // What the ECS agent's generated configuration adds holds them.
    let added = [
        ("ecs_cluster", "arn:aws:ecs:eu-central-1:1:cluster/mine"),
        ("ecs_task_arn", "arn:aws:ecs:eu-central-1:1:task/mine/0b"),
    ];
    let text = "{ecs_cluster_name}/{ecs_task_id}";
    assert_eq!(render(text, "t", &added, &[], Style::Plain), "mine/0b");
    assert_eq!(
        Template::parse(text).unwrap().record_fields(),
        ["ecs_cluster_name", "ecs_cluster", "ecs_task_id", "ecs_task_arn"]
    );
}

#[test]
fn fields_dates_and_waiting_are_known_before_rendering() {
    let template = Template::parse("{a}/{b}/{a}/{tag}/{ecs_cluster}/%H").unwrap();
    assert_eq!(template.record_fields(), ["a", "b", "ecs_cluster"]);
    assert_eq!(template.date_period_ms(), Some(3_600_000));
    assert_eq!(Template::parse("%Y-%M").unwrap().date_period_ms(), Some(60_000));
    assert_eq!(Template::parse("%m").unwrap().date_period_ms(), Some(86_400_000));
    assert!(!Template::parse("%%Y{a}").unwrap().has_dates());

    let mut metadata = Metadata::default();
    assert!(template.waits_for(&metadata));
    assert!(!Template::parse("{a}").unwrap().waits_for(&metadata));
    metadata.values.insert("ecs_cluster".to_owned(), String::new());
    assert!(template.waits_for(&metadata));
    metadata.complete = true;
    assert!(!template.waits_for(&metadata), "nothing more is expected");
    metadata.complete = false;
    metadata.values.insert("ecs_cluster".to_owned(), "c".to_owned());
    assert!(!template.waits_for(&metadata));
}

#[test]
fn a_literal_is_not_parsed() {
    let scope_free = Template::literal("{tag}%Y");
    assert!(scope_free.record_fields().is_empty() && !scope_free.has_dates());
    assert_eq!(scope_free, Template::parse("{{tag}}%%Y").unwrap());
    assert_eq!(Template::literal(""), Template::parse("").unwrap());
}

#[test]
fn values_cannot_leave_their_component() {
    let path = |value: &str| render("logs/{v}/x", "t", &[("v", value)], &[], Style::Path);
    assert_eq!(path("10.0.0.1:80"), "logs/10.0.0.1:80/x");
    assert_eq!(path("../../etc/passwd"), "logs/___.__etc_passwd/x");
    assert_eq!(path("."), "logs/_/x");
    assert_eq!(path("a.."), "logs/a._/x");
    assert_eq!(path("year=2020"), "logs/year_2020/x");
    assert_eq!(path("a\0b\u{7f}\\c"), "logs/a_b__c/x");
    assert_eq!(path("grün"), "logs/grün/x");
    // Two dots from two values, or from a value and the template, are no parent directory.
    assert_eq!(render("{v}{v}/.{v}./", "t", &[("v", ".")], &[], Style::Path), "__/._./");
    assert_eq!(render("a/{v|b/c}", "t", &[], &[], Style::Path), "a/b/c", "the template's own text is its author's");
}

proptest! {
    #[test]
    fn any_value_is_one_harmless_component(value in any::<String>(), long in 0usize..300) {
        let value = value + &"é".repeat(long);
        let mut out = String::new();
        path_component(&value, &mut out);
        prop_assert!(!out.is_empty());
        prop_assert!(out.len() <= VALUE_BYTES_MAX);
        prop_assert!(!out.contains(['/', '\\', '=', '\0', '\n']));
        prop_assert!(!out.contains("..") && !out.starts_with('.') && !out.ends_with('.'));
    }

    #[test]
    fn parsing_is_total_and_text_without_signs_is_itself(text in any::<String>(), plain in "[^{}%]*") {
        if let Err(error) = Template::parse(&text) {
            prop_assert!(text.is_char_boundary(error.at), "{error}");
        }
        prop_assert_eq!(Template::parse(&plain).unwrap(), Template::literal(&plain));
    }

    #[test]
    fn a_period_holds_the_same_dates(time in 0i64..4_000_000_000_000, offset in 0i64..86_400_000) {
        for text in ["%Y%m%d%H%M%S", "%Y%m%d%H%M", "%y%j%H", "%Y%m%d"] {
            let template = Template::parse(text).unwrap();
            let period = template.date_period_ms().unwrap();
            let start = time / period * period;
            let (partition, metadata) = (Partition::default(), Metadata::default());
            let name = |time_ms: i64| {
                let time_ns = time_ms * 1_000_000;
                let (partition, metadata) = (&partition, &metadata);
                template.render(&Scope { partition, partition_keys: &[], metadata, hostname: "h", time_ns })
            };
            prop_assert_eq!(name(start), name(start + offset % period));
            prop_assert_ne!(name(start), name(start + period));
        }
    }
}
