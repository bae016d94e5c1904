//! The CloudWatch Logs layout: a file for each log stream, appended to once a second.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::journal::Sequence;
use crate::journal::block::Block;
use crate::sink::retry::{End, Retrier};
use crate::sink::s3::deliver::wait_for_metadata;
use crate::sink::template::{Scope, Style, Template};
use crate::sink::{Context, Error};

use super::directory::attempt;
use super::place;

/// How long records wait to be written together.
const BATCH_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of blocks that are written together.
const BATCH_BYTES_MAX: usize = 4 << 20;

struct Streams {
    root: PathBuf,
    group: Template,
    stream: Template,
    ctx: Context,
    retrier: Retrier,
}

/// A record of a batch: its time, its block's place in the batch, its place in the block.
type Event = (i64, usize, usize);

/// Runs the sink until the journal is read to its end and all is written, or the shutdown is over.
pub(super) async fn run(
    root: PathBuf,
    group: Template,
    stream: Template,
    mut ctx: Context,
    retrier: Retrier,
) -> Result<(), Error> {
    wait_for_metadata(&[&group, &stream], &mut ctx).await;
    let settler = ctx.reader.settler();
    let mut streams = Streams { root, group, stream, ctx, retrier };
    let mut reading = true;
    while reading {
        let mut batch = Vec::new();
        reading = streams.gather(&mut batch).await;
        match streams.write(&batch).await {
            // What is left of the batch stays pending.
            Err(_ended) => return Ok(()),
            Ok(()) => batch.iter().for_each(|(sequence, _)| settler.settle(*sequence)),
        }
    }
    Ok(())
}

impl Streams {
    /// Gathers the blocks of a batch. False if there will be no more.
    async fn gather(&mut self, batch: &mut Vec<(Sequence, Arc<Block>)>) -> bool {
        let mut bytes = 0;
        let mut until: Option<Instant> = None;
        // Of a small journal no more than it can spare: it would be full, and nothing come, until the time is over.
        let bytes_max = BATCH_BYTES_MAX.min(self.ctx.reader.held_bytes_max());
        while bytes < bytes_max {
            let ready = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.retrier.shutdown_over() => return false,
                () = ready => return true,
                block = self.ctx.reader.next() => {
                    let Some((sequence, block)) = block else { return false };
                    bytes += block.cost_bytes();
                    until.get_or_insert_with(|| Instant::now() + BATCH_TIMEOUT);
                    batch.push((sequence, block));
                }
            }
        }
        true
    }

    async fn write(&self, batch: &[(Sequence, Arc<Block>)]) -> Result<(), End> {
        for (name, mut events) in self.sort_out(batch) {
            let path = place(&self.root, &name);
            // Stable: records of one millisecond stay in the order of arrival.
            events.sort_by_key(|(time_ms, ..)| *time_ms);
            let records = events.len() as u64;
            let lines = Bytes::from(frame(batch, &events));
            attempt(&self.retrier, move || append(&path, &lines)).await?;
            self.ctx.ledger.deliver(records);
        }
        Ok(())
    }

    /// The records of each file, in the order of arrival.
    fn sort_out(&self, batch: &[(Sequence, Arc<Block>)]) -> HashMap<String, Vec<Event>> {
        let metadata = self.ctx.metadata.borrow().clone();
        let period_ms = self.group.date_period_ms().into_iter().chain(self.stream.date_period_ms()).min();
        let bit = 1 << self.ctx.id;
        let mut files: HashMap<String, Vec<Event>> = HashMap::new();
        let mut name = String::new();
        for (at, (_, block)) in batch.iter().enumerate() {
            // The partition and period that `name` is rendered for.
            let mut rendered = None;
            for (i, entry) in block.index.iter().enumerate().filter(|(_, entry)| entry.sinks & bit != 0) {
                let key = (entry.partition, period_ms.map(|period| entry.time_ms().div_euclid(period)));
                if rendered != Some(key) {
                    rendered = Some(key);
                    let scope = Scope {
                        partition: block.partition(i),
                        partition_keys: &self.ctx.partition_keys,
                        metadata: &metadata,
                        hostname: &self.ctx.hostname,
                        time_ns: entry.time_ns,
                    };
                    name.clear();
                    self.group.render_into(&scope, Style::Path, &mut name);
                    name.push('/');
                    self.stream.render_into(&scope, Style::Path, &mut name);
                    name.push_str(".jsonl");
                }
                let event = (entry.time_ms(), at, i);
                match files.get_mut(&name) {
                    Some(events) => events.push(event),
                    None => drop(files.insert(name.clone(), vec![event])),
                }
            }
        }
        files
    }
}

/// The lines of those events.
fn frame(batch: &[(Sequence, Arc<Block>)], events: &[Event]) -> Vec<u8> {
    let mut out = Vec::new();
    for (time_ms, at, i) in events {
        let line = batch[*at].1.line(*i);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        // Blocks hold JSON and so UTF-8; were it not so, the file is still readable.
        let message: Cow<'_, str> = String::from_utf8_lossy(line);
        out.extend_from_slice(b"{\"timestamp\":");
        out.extend_from_slice(itoa::Buffer::new().format(*time_ms).as_bytes());
        out.extend_from_slice(b",\"message\":");
        let written = serde_json::to_writer(&mut out, &*message);
        debug_assert!(written.is_ok(), "a vector takes every string");
        out.extend_from_slice(b"}\n");
    }
    out
}

/// Appends whole lines, or nothing: what a failed attempt wrote is cut off again.
pub(super) fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let before = file.metadata()?.len();
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if let Err(error) = written {
        file.set_len(before)?;
        return Err(error);
    }
    Ok(())
}
