//! Raw values into built ones: limits, names, relations between keys, secrets from the environment.
//!
//! Whatever is wrong is noted and building goes on with a stand-in, so that one run tells everything. A value set by hand that
//! cannot be is refused; a default that does not fit beside what was set is adjusted, with a warning.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::document::{Node, Path, Value};
use super::problem::{Problem, Problems};
use super::quantity::{Count, Period, Size};
use super::raw;
use crate::journal;
use crate::process::field_classes;
use crate::redact::Secret;
use crate::sink::dead_letters;
use crate::telemetry::logs;

mod admin;
mod derive;
mod enrich;
mod file_sink;
mod filter;
mod forward_sink;
mod parse;
mod redact;
mod route;
mod s3_sink;
mod sink;
mod source;

pub use s3_sink::S3_KEY;

/// Where `tail` sources keep their positions that ask for it: beside what they name.
fn positions_dir(sources: &[crate::source::Config]) -> Option<PathBuf> {
    sources.iter().find_map(|source| match &source.kind {
        crate::source::Kind::Tail(crate::source::lines::tail::Config { db: Some(db), .. }) => {
            let mut dir = db.clone().into_os_string();
            dir.push(".meshlens");
            Some(dir.into())
        }
        _ => None,
    })
}

/// Looks up an environment variable.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const MIB: u64 = 1 << 20;

/// Files of a journal at most.
const SEGMENTS_MAX: u64 = 1024;

/// What every part of the building needs, and what it leaves behind.
pub struct Builder<'a> {
    /// Where values stand; refused ones included.
    tree: &'a Node,
    variables: Variables<'a>,
    /// What is wrong.
    pub problems: Problems,
    /// What is well but should be known.
    pub warnings: Vec<String>,
}

impl<'a> Builder<'a> {
    /// Starts with what reading has found.
    pub fn new(tree: &'a Node, variables: Variables<'a>, problems: Problems, warnings: Vec<String>) -> Self {
        Self { tree, variables, problems, warnings }
    }

    /// Builds everything; the result is only good if no problem came up.
    pub fn build(&mut self, root: raw::Root) -> Config {
        let hostname = self.hostname(root.hostname);
        let sources = self.sources(root.source.unwrap_or_default(), &hostname);
        let sinks = self.sinks(root.sink.unwrap_or_default());
        let names: HashMap<&str, usize> =
            sinks.iter().enumerate().map(|(number, sink)| (sink.name.as_str(), number)).collect();
        let mut filter = self.filters(
            root.filter.unwrap_or_default(),
            root.parser.unwrap_or_default(),
            root.multiline_parser.unwrap_or_default(),
        );
        if root.parse.as_ref().is_some_and(|parse| parse.join_lines == Some(true)) {
            filter.filters.push(crate::filter::multiline::of_envoy());
        }
        let route = self.route(root.route.unwrap_or_default(), &names);
        self.warn_of_idle_sinks(&route, &sinks);
        let admin = self.admin(root.admin.unwrap_or_default(), &sources, &sinks);
        let mut journal = self.journal(&root.journal.unwrap_or_default());
        if !self.is_set(&Path::root().key("journal").key("dir")) {
            journal.dir = journal.dir.or_else(|| positions_dir(&sources));
        }
        let (grace, quiet) = self.shutdown(root.shutdown.unwrap_or_default());
        let parse = self.parse(root.parse.unwrap_or_default());
        let mut redact = self.redact(root.redact.unwrap_or_default());
        // Behind what the user says of the same names.
        redact.operators.extend(field_classes(&parse.formats));
        let derive = self.derive(root.derive.unwrap_or_default(), parse.envoy);
        Config {
            sources,
            parse,
            redact,
            derive,
            enrich: self.enrich(root.enrich.unwrap_or_default()),
            filter,
            route,
            journal,
            dead_letters: root.dead_letters.and_then(|raw| self.dead_letters(raw)),
            sinks,
            grace,
            quiet,
            admin,
            log: self.log(&root.log.unwrap_or_default()),
            hostname,
            warnings: Vec::new(),
        }
    }

    /// Notes that the value at a path cannot be, or is missing. A value refused in reading was reported there.
    fn refuse(&mut self, path: &Path, must: impl AsRef<str>) {
        if !self.tree.at(path).is_some_and(|node| node.refused) {
            self.problems.push(Problem::of_value(self.tree, path, must.as_ref()));
        }
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Whether the user wrote this key, rightly or not.
    fn is_set(&self, path: &Path) -> bool {
        self.tree.at(path).is_some()
    }

    /// A text that has to be there and not be empty.
    fn required(&mut self, table: &Path, key: &str, value: Option<String>, must: &str) -> String {
        let value = value.unwrap_or_default();
        if value.is_empty() {
            self.refuse(&table.key(key), must);
        }
        value
    }

    /// A value between two bounds, or the default; both bounds belong.
    fn within<T: PartialOrd + Display + Copy>(
        &mut self,
        path: &Path,
        value: Option<T>,
        default: T,
        low: T,
        high: T,
    ) -> T {
        let Some(value) = value else { return default };
        if value < low || value > high {
            self.refuse(path, format!("must be between {low} and {high}"));
            return default;
        }
        value
    }

    fn bytes(&mut self, table: &Path, key: &str, value: Option<Size>, default: u64, low: u64, high: u64) -> u64 {
        self.within(&table.key(key), value, Size(default), Size(low), Size(high)).0
    }

    /// As [`Self::bytes`], for what is kept in memory.
    fn bytes_usize(
        &mut self,
        table: &Path,
        key: &str,
        value: Option<Size>,
        default: u64,
        low: u64,
        high: u64,
    ) -> usize {
        usize::try_from(self.bytes(table, key, value, default, low, high)).unwrap_or(usize::MAX)
    }

    fn count(&mut self, table: &Path, key: &str, value: Option<Count>, default: u64, low: u64, high: u64) -> usize {
        let count = self.within(&table.key(key), value, Count(default), Count(low), Count(high)).0;
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    fn period(
        &mut self,
        table: &Path,
        key: &str,
        value: Option<Period>,
        default: Duration,
        low: Duration,
        high: Duration,
    ) -> Duration {
        self.within(&table.key(key), value, Period(default), Period(low), Period(high)).0
    }

    /// A secret given as it is, or by the name of an environment variable (`KEY_env`), or not at all.
    fn secret(&mut self, table: &Path, key: &str, value: Option<String>, variable: Option<String>) -> Option<Secret> {
        let variable_key = format!("{key}_env");
        let variable_path = table.key(&variable_key);
        let text = match (value, variable) {
            (Some(_), Some(_)) => {
                self.refuse(&variable_path, format!("must not be set beside `{key}`"));
                return None;
            }
            (None, None) => return None,
            (Some(value), None) => {
                if value.is_empty() {
                    self.refuse(&table.key(key), "must not be empty");
                }
                value
            }
            (None, Some(variable)) => match (self.variables)(&variable).filter(|value| !value.is_empty()) {
                Some(value) => value,
                None => {
                    self.refuse(&variable_path, "must name an environment variable that is set and not empty");
                    return None;
                }
            },
        };
        Some(Secret(text.into_bytes().into()))
    }

    /// The places of those list elements that reading has let through.
    fn kept_places(&self, path: &Path) -> Vec<usize> {
        match self.tree.at(path).map(|node| &node.value) {
            Some(Value::List(list)) => {
                list.iter().enumerate().filter(|(_, node)| !node.refused).map(|(place, _)| place).collect()
            }
            _ => Vec::new(),
        }
    }

    fn hostname(&mut self, value: Option<String>) -> String {
        let path = Path::root().key("hostname");
        match value {
            Some(name) if name.is_empty() || name.len() > 253 || name.chars().any(char::is_control) => {
                self.refuse(&path, "must be a host name of 1 to 253 bytes");
                name
            }
            Some(name) => name,
            None => system_hostname(self.variables),
        }
    }

    fn journal(&mut self, raw: &raw::Journal) -> journal::Config {
        let table = Path::root().key("journal");
        let default = journal::Config::default();
        let persist = match raw.persist {
            None | Some(raw::Persist::Never) => journal::Persist::Never,
            Some(raw::Persist::Overflow) => journal::Persist::Overflow,
            Some(raw::Persist::Always) => journal::Persist::Always,
        };
        let dir = raw.dir.as_deref().filter(|dir| !dir.is_empty()).map(PathBuf::from);
        if dir.is_none() && persist != journal::Persist::Never {
            self.refuse(&table.key("persist"), "needs `dir`, a directory to write to");
        }
        let disk_bytes_max =
            self.bytes(&table, "disk_bytes_max", raw.disk_bytes_max, default.disk_bytes_max, 4 * MIB, 256 << 30);
        // A few segments at least, so that what is delivered gives room again piece by piece.
        let segment_bytes_max = (disk_bytes_max / 4).min(1 << 30);
        // Each is an open file.
        let segment_bytes_min = (disk_bytes_max / SEGMENTS_MAX).clamp(MIB, segment_bytes_max);
        let segment_default = default.segment_bytes.clamp(segment_bytes_min, segment_bytes_max);
        let segment_bytes = self.bytes(
            &table,
            "segment_bytes",
            raw.segment_bytes,
            segment_default,
            segment_bytes_min,
            segment_bytes_max,
        );
        journal::Config {
            memory_bytes_max: self.bytes_usize(
                &table,
                "memory_bytes_max",
                raw.memory_bytes_max,
                default.memory_bytes_max as u64,
                MIB,
                64 << 30,
            ),
            when_full: match raw.when_full {
                None | Some(raw::WhenFull::Block) => journal::WhenFull::Block,
                Some(raw::WhenFull::DropOldest) => journal::WhenFull::DropOldest,
            },
            persist,
            dir,
            disk_bytes_max,
            disk_free_bytes_min: raw
                .disk_free_bytes_min
                .map(|size| self.bytes(&table, "disk_free_bytes_min", Some(size), 0, 0, 16 << 40)),
            segment_bytes,
        }
    }

    fn dead_letters(&mut self, raw: raw::DeadLetters) -> Option<dead_letters::Config> {
        let table = Path::root().key("dead_letters");
        let default = dead_letters::Config::BYTES_MAX_DEFAULT;
        let bytes_max = self.bytes(&table, "bytes_max", raw.bytes_max, default, MIB, 16 << 40);
        let dir = self.required(&table, "dir", raw.dir, "must be a directory");
        (!dir.is_empty()).then(|| dead_letters::Config { dir: PathBuf::from(dir), bytes_max })
    }

    fn shutdown(&mut self, raw: raw::Shutdown) -> (Duration, Duration) {
        let table = Path::root().key("shutdown");
        let grace = self.period(&table, "grace", raw.grace, 25 * SECOND, Duration::ZERO, HOUR);
        let mut quiet = self.period(&table, "quiet", raw.quiet, SECOND, Duration::ZERO, HOUR);
        if quiet > grace {
            if raw.quiet.is_some() {
                self.refuse(&table.key("quiet"), format!("must not be more than `grace`, which is {}", Period(grace)));
            } else {
                self.warn(format!("shutdown.quiet is {0} instead of 1s, since shutdown.grace is {0}", Period(grace)));
                quiet = grace;
            }
        }
        (grace, quiet)
    }

    fn log(&mut self, raw: &raw::Log) -> logs::Config {
        let level = match raw.level.unwrap_or(raw::Level::Info) {
            raw::Level::Off => logs::Level::OFF,
            raw::Level::Error => logs::Level::ERROR,
            raw::Level::Warn => logs::Level::WARN,
            raw::Level::Info => logs::Level::INFO,
            raw::Level::Debug => logs::Level::DEBUG,
            raw::Level::Trace => logs::Level::TRACE,
        };
        let level = match (self.variables)(logs::LEVEL_VARIABLE).filter(|text| !text.is_empty()) {
            None => level,
            Some(text) => text.parse().unwrap_or_else(|_| {
                self.problems.push(Problem::general(format!(
                    "environment variable {} = {text:?}: must be one of `off`, `error`, `warn`, `info`, `debug` or `trace`",
                    logs::LEVEL_VARIABLE
                )));
                level
            }),
        };
        let format = match raw.format {
            None | Some(raw::LogFormat::Text) => logs::Format::Text,
            Some(raw::LogFormat::Json) => logs::Format::Json,
        };
        logs::Config { format, level }
    }
}

/// The kernel's name of this host, which in a container is the container's; else `HOSTNAME`, else `localhost`.
pub fn system_hostname(variables: Variables<'_>) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    kernel
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| variables("HOSTNAME").filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Whether a name of a source or sink can stand in metrics, templates and `--set` without quotes.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}
