//! The file sink: the layouts of the services under a local directory, without an AWS account.
//!
//! ```text
//! cloudwatch_logs   DIR/GROUP/STREAM.jsonl                     appended to once a second, in time order within that
//! firehose          DIR/STREAM/YYYY/MM/DD/HH/STREAM-1-…        arrival time; a file ends at 5 MiB
//! s3                DIR/KEY                                    the very objects and keys of the S3 sink
//! ```
//!
//! The last two are stored as objects are: a file grows under a name of its own (`.NAME.part`), is synced, and appears under
//! its name when it is whole, after 60 s at the latest. A file that is there is never written over.
//! A process that is killed leaves its `.….part` files behind; with a journal on disk the next one removes them, and publishes
//! no record twice (see [`directory`]). A file that is counted as delivered survives a loss of power.
//!
//! No name leaves the directory: values of records are rendered as parts of one path component, and [`place`] lets no `..`
//! through that the template itself may hold. Nothing is made before [`run`].
//!
//! When the disk is full or fails, that is said, and tried again until it works or the process ends; the records stay pending.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::retry::{self, Retrier};
use super::s3::lines::Lines;
use super::s3::naming::Naming;
use super::s3::notes::{self, Notes};
use super::s3::objects::{Dates, Plan};
use super::s3::{Compression, OBJECT_BYTES_DEFAULT, OPEN_OBJECTS_DEFAULT, deliver};
use super::template::{Template, path_component};
use super::{Context, Error};

mod directory;
mod streams;

use directory::Directory;

/// What is buffered of a growing file before it is written, in bytes.
const PART_BYTES: usize = 256 << 10;

/// Firehose: the default buffer size for objects, in bytes.
const FIREHOSE_OBJECT_BYTES: u64 = 5 << 20;

/// The age at which a growing file is finished; the services' default is 300 s, but here nobody pays for objects.
const FILE_AGE: Duration = Duration::from_secs(60);

/// The longest path component, in bytes: 255 on Linux file systems, less what the name of a growing file adds.
const COMPONENT_BYTES_MAX: usize = 240;

/// Files written to at once.
const CONCURRENCY: usize = 4;

/// How files are laid out.
#[derive(Clone, Debug, PartialEq)]
pub enum Layout {
    /// `DIR/GROUP/STREAM.jsonl`, one `{"timestamp":…,"message":"…"}` a line, as `GetLogEvents` shows events.
    CloudwatchLogs {
        /// Log group name.
        group: Template,
        /// Log stream name.
        stream: Template,
    },
    /// `DIR/STREAM/YYYY/MM/DD/HH/…`, records as Firehose writes them to its bucket.
    Firehose {
        /// Delivery stream name.
        stream: String,
    },
    /// `DIR/KEY`, objects as the S3 sink writes them.
    S3 {
        /// Key up to the object's own name.
        key: Template,
        /// Compression.
        compression: Compression,
    },
}

/// A file sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The directory; made if missing.
    pub directory: PathBuf,
    /// The layout.
    pub layout: Layout,
}

/// Runs the sink until the journal is read to its end and all is stored, or the shutdown is over.
pub async fn run(config: Config, ctx: Context) -> Result<(), Error> {
    let retrier = Retrier::new(ctx.name.clone(), retries(), CONCURRENCY, ctx.deadline.clone());
    let root = config.directory;
    match config.layout {
        Layout::CloudwatchLogs { group, stream } => streams::run(root, group, stream, ctx, retrier).await,
        Layout::Firehose { stream } => store(firehose_plan(&stream), ctx, root, retrier).await,
        Layout::S3 { key, compression } => {
            let plan = Plan {
                key,
                lines: Lines::default(),
                dates: Dates::Event,
                naming: Naming::sequence(&ctx.instance, &ctx.name),
                compression,
                compression_level: None,
                object_bytes_max: OBJECT_BYTES_DEFAULT,
                object_age_max: FILE_AGE,
                open_objects_max: OPEN_OBJECTS_DEFAULT,
                part_bytes: PART_BYTES,
            };
            store(plan, ctx, root, retrier).await
        }
    }
}

/// Stores objects in the directory, once what an earlier process left is out of the way.
async fn store(plan: Plan, ctx: Context, root: PathBuf, retrier: Retrier) -> Result<(), Error> {
    let directory = Directory::new(root, retrier, Notes::new(ctx.reader.settler()));
    directory.clean(notes::left_uploads(&ctx.reader), &notes::planned(&ctx.reader)).await;
    deliver::run(plan, ctx, directory).await
}

fn firehose_plan(stream: &str) -> Plan {
    let mut component = String::new();
    path_component(stream, &mut component);
    // A path component holds nothing that a template would take for its own.
    let key = Template::parse(&format!("{component}/%Y/%m/%d/%H/")).unwrap_or_else(|_| Template::literal(""));
    Plan {
        key,
        lines: Lines::default(),
        dates: Dates::Arrival,
        naming: Naming::Firehose { stream: component.into() },
        compression: Compression::None,
        compression_level: None,
        object_bytes_max: FIREHOSE_OBJECT_BYTES,
        object_age_max: FILE_AGE,
        open_objects_max: 1,
        part_bytes: PART_BYTES,
    }
}

fn retries() -> retry::Config {
    retry::Config {
        cap: Duration::from_secs(5),
        // A write that hangs cannot be taken back: a second one beside it would be mixed with it.
        request_timeout: Duration::from_secs(365 * 24 * 3600),
        ..retry::Config::default()
    }
}

/// Where that name is below the directory. Slashes part its components; empty ones and `.` are left out, `..` becomes `_`,
/// as do control characters, and what is too long for a file system loses its middle.
fn place(root: &Path, name: &str) -> PathBuf {
    let mut path = root.to_owned();
    for component in name.split('/').filter(|component| !component.is_empty() && *component != ".") {
        if component == ".." {
            path.push("_");
            continue;
        }
        let component = shorten(component);
        path.push(component.replace(char::is_control, "_"));
    }
    path
}

fn shorten(component: &str) -> String {
    if component.len() <= COMPONENT_BYTES_MAX {
        return component.to_owned();
    }
    let head = component.floor_char_boundary(COMPONENT_BYTES_MAX / 2);
    let tail = component.ceil_char_boundary(component.len() - COMPONENT_BYTES_MAX / 2);
    format!("{}{}", &component[..head], &component[tail..])
}

#[cfg(test)]
#[path = "file/tests.rs"]
mod tests;
