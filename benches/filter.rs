//! Filters, in time per record: a tag that no filter matches, what the ECS agent generates (grep and record_modifier), and a JSON line of
//! 20 members through `parser`.
//!
//! `cargo bench --bench filter`

#![allow(clippy::expect_used, reason = "a failed assumption is a failed bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meshlens::filter::parser::ParserConfig;
use meshlens::filter::{
    Arena, Config, FilterConfig, Filters, Kind, Lost, Out, Pending, Tags, grep, parser, record_modifier,
};
use meshlens::record::{Name, Record, Value};

const RECORDS: usize = 500;
const TAG: &[u8] = b"app-firelens-4b1f0c9e8d7a46b5a3c2d1e0f9a8b7c6";

struct Count(usize);

impl<'a> Out<'a> for Count {
    fn pass(&mut self, _: &'a [u8], record: &mut Record<'a>) {
        black_box(&record.envelope);
        self.0 += 1;
    }

    fn lose(&mut self, _: Lost) {}
}

fn filter(wildcard: &str, kind: Kind) -> FilterConfig {
    FilterConfig { tags: Tags::Wildcard(wildcard.into()), kind }
}

fn exclude(pattern: &str) -> Kind {
    let rule = grep::Rule { action: grep::Action::Exclude, key: None, place: 0, text: format!("log {pattern}") };
    Kind::Grep(grep::Config { rules: vec![rule], ..grep::Config::default() })
}

fn metadata() -> Kind {
    let record = [
        "ecs_cluster prod",
        "ecs_task_arn arn:aws:ecs:eu-central-1:111122223333:task/prod/4b1f0c9e8d7a46b5a3c2d1e0f9a8b7c6",
        "ecs_task_definition app:7",
    ];
    let record = record.map(String::from).to_vec();
    Kind::RecordModifier(record_modifier::Config { record, ..record_modifier::Config::default() })
}

fn json() -> Kind {
    Kind::Parser(parser::Config {
        key_name: "log".into(),
        parser: vec!["json".into()],
        reserve_data: true,
        preserve_key: false,
    })
}

fn line() -> String {
    let members: Vec<String> = (0..20).map(|nth| format!(r#""member_{nth}":"value {nth} of some length""#)).collect();
    format!("{{{}}}", members.join(","))
}

fn bench(c: &mut Criterion) {
    let line = line();
    let mut group = c.benchmark_group("filter");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (name, filters) in [
        ("no filter for the tag", vec![filter("other-*", exclude("x"))]),
        ("generated: record_modifier", vec![filter("*", metadata())]),
        ("generated: grep, record_modifier", vec![filter("app-firelens*", exclude("health")), filter("*", metadata())]),
        ("grep with look-ahead", vec![filter("app-firelens*", exclude("^(?=.*ELB-HealthChecker\\/2\\.0).*$"))]),
        ("parser json", vec![filter("app-firelens*", json())]),
    ] {
        let parsers = vec![("json".to_owned(), ParserConfig::default())];
        let config = Config { filters, parsers, ..Config::default() };
        let filters = Filters::new(&config).expect("filters compile");
        let mut pending = Pending::default();
        group.bench_function(name, |b| {
            let mut arena = Arena::new();
            b.iter(|| {
                arena.reset();
                let view = filters.for_tag(TAG);
                let mut record = Record::new();
                let mut out = Count(0);
                for _ in 0..RECORDS {
                    record.clear();
                    record.push_envelope(Name::text(b"container_id"), Value::Text(&[b'4'; 64]));
                    record.push_envelope(
                        Name::text(b"container_name"),
                        Value::Text(b"/ecs-app-1-app-a0b1c2d3e4f5a6b7c801"),
                    );
                    record.push_envelope(Name::text(b"source"), Value::Text(b"stdout"));
                    record.push_envelope(Name::text(b"log"), Value::Text(black_box(line.as_bytes())));
                    filters.run(&arena, &mut pending, TAG, &view, &mut record, 0, &mut out);
                }
                assert_eq!(out.0, RECORDS);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
