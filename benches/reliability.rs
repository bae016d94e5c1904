//! The fault table of `docs/reliability.md`, and a soak: `cargo bench --bench reliability [-- WHAT]`.
//!
//! - nothing, or a part of a fault's name: plays the rows that match at full length, prints them, and exits with 1 if one does
//!   not hold. With every row played, the table in `docs/reliability.md` is written anew.
//! - `soak`: constant load for ten minutes (`MESHLENS_SOAK_SECONDS`), memory, file descriptors and disk sampled each second.
//!
//! Sender, witness and the strict fake of the AWS services run in this process; the router is the release binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unused_imports,
    reason = "unit tests of the shared modules are not built here; a failed assumption ends the bench; its result is what it prints"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

#[path = "../tests/e2e"]
mod e2e {
    pub mod client;
    pub mod fake_aws;
    pub mod process;
    pub mod reliability;
    pub mod sender;
    pub mod traffic;
}

use e2e::reliability::figures::{Figures, HEADING};
use e2e::reliability::rows::{ALL, ROWS};
use e2e::reliability::scene::Scene;
use e2e::reliability::{Persist, Scale, play};

const BEGIN: &str = "<!-- fault table: written by `cargo bench --bench reliability` -->";
const END: &str = "<!-- end of the fault table -->";
const SOAK_RATE: u64 = 20_000;

fn main() -> ExitCode {
    // Cargo adds a flag of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if wanted.first().is_some_and(|word| word == "soak") {
        soak();
        return ExitCode::SUCCESS;
    }
    let only = wanted.join(" ");
    let seed = std::env::var("MESHLENS_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("seed {seed}\n{HEADING}");
    let begun = Instant::now();
    let mut table = Vec::new();
    for row in ROWS.iter().filter(|row| row.name.contains(&only)) {
        for to in row.to {
            for persist in row.persist {
                let figures = play(row, Scale::Full, to, *persist, seed);
                println!("{}", figures.line());
                for problem in &figures.problems {
                    println!("    does not hold: {problem}");
                }
                table.push(figures);
            }
        }
    }
    let broken = table.iter().filter(|figures| !figures.problems.is_empty()).count();
    println!("{} rows in {:.0} s, {broken} do not hold", table.len(), begun.elapsed().as_secs_f64());
    if only.is_empty() {
        write(&table, seed);
    }
    if broken == 0 && !table.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Puts the table between its marks in the document.
fn write(table: &[Figures], seed: u64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the document has the first mark");
    let (_, after) = rest.split_once(END).expect("the document has the second mark");
    let lines: Vec<String> = table.iter().map(Figures::line).collect();
    let note = format!("{}; commit {}, seed {seed}.", machine(), commit());
    let text = format!("{before}{BEGIN}\n{HEADING}\n{}\n\n{note}\n{END}{after}", lines.join("\n"));
    std::fs::write(&path, text).unwrap();
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |pair| pair.1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {name}")
}

fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    output.map_or_else(|_| "?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    resident_kib: u64,
    descriptors: u64,
    disk_kib: u64,
}

impl Holding {
    fn of(id: u32, journal: &Path) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count) as u64;
        let sizes =
            std::fs::read_dir(journal).into_iter().flatten().flatten().filter_map(|entry| entry.metadata().ok());
        let disk: u64 = sizes.map(|metadata| metadata.len()).sum();
        Self {
            resident_kib: resident.and_then(|text| text.parse().ok()).unwrap_or(0),
            descriptors,
            disk_kib: disk >> 10,
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            resident_kib: self.resident_kib.max(other.resident_kib),
            descriptors: self.descriptors.max(other.descriptors),
            disk_kib: self.disk_kib.max(other.disk_kib),
        }
    }
}

fn soak() {
    let seconds: u64 = std::env::var("MESHLENS_SOAK_SECONDS").map_or(600, |text| text.parse().unwrap());
    let mut scene = Scene::new(Scale::Full, Persist::Always, ALL, seconds * SOAK_RATE, 1);
    scene.client.rate = Some(SOAK_RATE);
    scene.start();
    let journal: PathBuf = scene.journal_dir();
    let (mut first, mut last, mut most) = (Holding::default(), Holding::default(), Holding::default());
    println!("{:>8} {:>10} {:>12} {:>10}", "s", "RSS MiB", "descriptors", "disk MiB");
    scene.sending(|scene| {
        for second in 1..seconds {
            scene.pause(Duration::from_secs(1));
            last = scene.id().map(|id| Holding::of(id, &journal)).unwrap_or_default();
            most = most.max(last);
            if second == 10 {
                // Buffers, connections and credentials are there by now.
                first = last;
            }
            if second % 30 == 10 {
                show(&second.to_string(), last);
            }
        }
    });
    show("first", first);
    show("last", last);
    show("max", most);
    scene.finish();
    let figures = e2e::reliability::figures::judge("soak", &scene, false);
    println!("{HEADING}\n{}", figures.line());
    assert!(figures.problems.is_empty(), "{}", figures.problems.join("\n"));
}

fn show(when: &str, holding: Holding) {
    let mib = |kib: u64| kib as f64 / 1024.0;
    let (resident, disk) = (mib(holding.resident_kib), mib(holding.disk_kib));
    println!("{when:>8} {resident:>10.1} {:>12} {disk:>10.1}", holding.descriptors);
}
