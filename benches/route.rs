//! Routing, in time per record: a usual configuration of four rules over access records, other records, and a
//! sampled share.
//!
//! `cargo bench --bench route`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meshlens::record::{Field, KEYS, Key, Kind, Name, Record, Value};
use meshlens::route::{Condition, Config, Router, Rule, Test};

fn rule(when: &[(&str, Test)], to: &[usize]) -> Rule {
    Rule {
        when: when.iter().map(|(field, test)| Condition { field: (*field).into(), test: test.clone() }).collect(),
        to: to.to_vec(),
        sample: None,
        and_continue: false,
        otherwise: None,
    }
}

/// Health checks out; server errors everywhere; a tenth of the other access logs to one sink; the rest to another.
fn config(sample: Option<f64>) -> Config {
    let access = || ("log_type", Test::OneOf(vec!["access".into()]));
    let errors = Test::Range { low: Some((500.0, true)), high: None };
    let mut last = rule(&[access()], &[0]);
    last.sample = sample;
    last.otherwise = Some(vec![2]);
    Config {
        rules: vec![
            rule(&[("tag", Test::Glob("debug-*".into()))], &[2]),
            rule(&[access(), ("path", Test::OneOf(vec!["/health".into(), "/ready".into()]))], &[]),
            rule(&[access(), ("response_code", errors)], &[0, 1]),
            last,
        ],
    }
}

/// An access record with every field that the Service Connect format has, in its order.
fn access() -> Record<'static> {
    let mut record = Record::new();
    record.kind = Kind::Access;
    record.push_envelope(Name::Known(Key::ContainerId), Value::Text(b"0123456789abcdef"));
    record.push_envelope(Name::Known(Key::ContainerName), Value::Text(b"envoy"));
    record.push_envelope(Name::Known(Key::Source), Value::Text(b"stdout"));
    for key in KEYS.into_iter().take(Key::Log as usize) {
        let value = match key {
            Key::Path => Value::Text(b"/api/v1/orders/1234567"),
            Key::ResponseCode => Value::Number(b"200"),
            Key::RequestId => Value::Text(b"4f5a1c2e-9b3d-4e6f-8a7b-0c1d2e3f4a5b"),
            _ => Value::Text(b"value"),
        };
        record.parsed.push(Field { name: Name::Known(key), value });
    }
    record
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    let other = Record::new();
    for (name, sample, record) in
        [("access", None, &access()), ("access sampled", Some(0.1), &access()), ("other", None, &other)]
    {
        let Ok(router) = Router::new(&config(sample), 3) else {
            continue;
        };
        let view = router.for_tag(b"ecs-service-connect-firelens-0b69d5c0d6554fe4a2d2f9b5c7f6a1e3");
        group.bench_function(name, |bencher| bencher.iter(|| router.decide(black_box(&view), black_box(record))));
    }
    group.finish();
}

criterion_group!(benches, route);
criterion_main!(benches);
