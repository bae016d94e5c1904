//! The fault table: each row starts a router, breaks something, and shows that nothing was lost without a word.
//!
//! `benches/reliability.rs` plays the rows at full length and writes them into `docs/reliability.md`; `faults.rs` plays the same
//! rows shortened, in the test suite. What holds in every row is judged in one place, [`figures::judge`].

#![allow(dead_code, reason = "the test suite and the bench each use a part")]

pub mod figures;
pub mod rows;
pub mod scene;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::traffic::Seen;
use figures::Figures;
use scene::Scene;

/// `journal.memory_bytes_max` in every row: the default.
pub const MEMORY_MIB: u64 = 64;
/// What the process may need beside it.
pub const MEMORY_MORE_MIB: u64 = 48;

/// How long a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As the table shows it.
    Full,
    /// A second or two.
    Short,
}

/// `journal.persist`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// `never`.
    Memory,
    /// `never`, with a directory for the positions of followed files.
    Positions,
    /// `always`.
    Always,
}

/// The services that a row delivers to.
pub type Destinations = &'static [Seen];

/// One fault.
pub struct Row {
    /// What is broken, as the table names it.
    pub name: &'static str,
    /// In the table, a line for each of these; shortened, all three at once where there are several.
    pub to: &'static [Destinations],
    pub persist: &'static [Persist],
    /// Records at most, at full length and shortened.
    pub records: (u64, u64),
    /// Records a second; none = as fast as they are taken.
    pub rate: Option<u64>,
    pub play: fn(&mut Scene, u64),
}

/// Plays one line of a row.
pub fn play(row: &Row, scale: Scale, to: Destinations, persist: Persist, seed: u64) -> Figures {
    let count = if scale == Scale::Full { row.records.0 } else { row.records.1 };
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut scene = Scene::new(scale, persist, to, count, seed);
        scene.client.rate = row.rate;
        (row.play)(&mut scene, count);
        figures::judge(row.name, &scene, false)
    }));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        let (row, persist) = (row.name, persist.label());
        Figures { row, persist, problems: vec![text.to_owned()], ..Figures::default() }
    })
}
