//! The seeds of the fuzz targets, and a few thousand mutations of them, against the same invariants.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::let_underscore_must_use,
    reason = "a failed assumption in a test is a failed test"
)]

use std::path::Path;

use fastrand::Rng;

#[path = "support/invariants.rs"]
mod invariants;

/// Mutations of each seed.
const MUTATIONS: usize = 400;

/// A target's name, and its check.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 4] = [
    ("text", invariants::text),
    ("json", invariants::json),
    ("format", invariants::format),
    ("redact", invariants::redact),
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Bytes that matter somewhere.
const BYTES: &[u8] = b"\x01?%\\\"'{}[]:, /&=;#@-0aZ\x80\xff\t\n\0";

fn mutate(rng: &mut Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=data.len());
        match rng.u8(..5) {
            0 if at < data.len() => data[at] = BYTES[rng.usize(..BYTES.len())],
            1 if at < data.len() => drop(data.remove(at)),
            2 => data.truncate(at),
            3 if !other.is_empty() => {
                let from = rng.usize(..other.len());
                data.splice(at..at, other[from..rng.usize(from..=other.len())].iter().copied());
            }
            _ => data.insert(at, BYTES[rng.usize(..BYTES.len())]),
        }
    }
    data
}

#[test]
fn seeds_and_their_mutations_hold_what_is_promised() {
    let seed =
        std::env::var("MESHLENS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("MESHLENS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    for (name, check) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 4, "{name}");
        for seed in &seeds {
            check(seed);
            for _ in 0..MUTATIONS {
                let other = &seeds[rng.usize(..seeds.len())];
                let data = mutate(&mut rng, seed, other);
                check(&data);
            }
        }
    }
}
