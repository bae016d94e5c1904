//! Every row of the fault table, shortened: what `docs/reliability.md` shows at length holds in every run of the tests.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use crate::reliability::figures::{Figures, HEADING};
use crate::reliability::rows::{ALL, ROWS};
use crate::reliability::{Destinations, Persist, Row, Scale, play};

/// Rows at once: each waits more than it works.
const AT_ONCE: usize = 3;

/// Only rows whose name holds this text.
const ONLY: &str = "MESHLENS_E2E_ROW";

#[test]
fn every_row_of_the_fault_table_holds() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let only = std::env::var(ONLY).unwrap_or_default();
    let lines: Vec<(&Row, Destinations, Persist)> = ROWS
        .iter()
        .filter(|row| row.name.contains(&only))
        .flat_map(|row| row.persist.iter().map(move |persist| (row, shortened(row), *persist)))
        .collect();
    assert!(!lines.is_empty(), "no row is named so: {only}");
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(lines.len()) {
            scope.spawn(|| {
                while let Some((row, to, persist)) = lines.get(next.fetch_add(1, SeqCst)) {
                    let begun = Instant::now();
                    let figures = play(row, Scale::Short, to, *persist, seed);
                    eprintln!("{} {:.1?}", figures.line(), begun.elapsed());
                    done.lock().unwrap().push(figures);
                }
            });
        }
    });
    eprintln!("{HEADING}");
    let done = done.into_inner().unwrap();
    let broken: Vec<&Figures> = done.iter().filter(|figures| !figures.problems.is_empty()).collect();
    let told: Vec<String> =
        broken.iter().map(|figures| format!("{}\n  {}", figures.line(), figures.problems.join("\n  "))).collect();
    assert!(broken.is_empty(), "seed {seed}\n{}", told.join("\n"));
}

/// A row that has a line for each service is played with all of them at once.
fn shortened(row: &Row) -> Destinations {
    if row.to.len() > 1 { ALL } else { row.to[0] }
}
