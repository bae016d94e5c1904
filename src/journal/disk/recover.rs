//! What a start finds: reads all segments, and derives from them alone what is still to be delivered.
//!
//! Two passes. The first checks every frame and collects what was said about blocks (settled, notes, positions), in order; the
//! second counts the records that are left, now that it is known which are. Both read each file once, from its beginning; what is
//! kept meanwhile is a few numbers a segment and the facts, not the blocks.
//!
//! Sinks and sources are known by name: their numbers may have changed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{Directory, OpenError, VERSION};
use super::frame::{self, Fact, Head, Kind, Stored};
use super::segment::{self, Frames, Header, Names, Next, Segment};
use crate::journal::block::SinkSet;
use crate::journal::span::SpanSet;
use crate::journal::track::{POSITIONS_MAX, Positions, stand};
use crate::journal::{EPOCH_BITS, Sequence};

/// Ids of messages that are remembered for each source.
const CHUNK_IDS_MAX: usize = 4096;

/// Numbers of a segment's sinks and keys in the present configuration.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// By number in the segment: the present number, if there is such a sink.
    sinks: Vec<Option<u8>>,
    /// By present key: its place in the segment.
    keys: Vec<Option<usize>>,
    is_same: bool,
}

impl Mapping {
    fn new(then: &Names, now: &Names) -> Self {
        let place = |names: &[String], name: &String| names.iter().position(|other| other == name);
        let sinks = then.sinks.iter().map(|name| place(&now.sinks, name).map(|place| place as u8)).collect();
        let keys = now.keys.iter().map(|key| place(&then.keys, key)).collect();
        Self { sinks, keys, is_same: then.sinks == now.sinks && then.keys == now.keys }
    }

    /// The present numbers of sinks.
    fn sinks(&self, then: SinkSet) -> SinkSet {
        if self.is_same {
            return then;
        }
        self.pairs().filter(|(old, _)| then & (1 << old) != 0).fold(0, |now, (_, new)| now | 1 << new)
    }

    /// The numbers that the present sinks had.
    pub fn sinks_then(&self, now: SinkSet) -> SinkSet {
        if self.is_same {
            return now;
        }
        self.pairs().filter(|(_, new)| now & (1 << new) != 0).fold(0, |then, (old, _)| then | 1 << old)
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        self.sinks.iter().enumerate().filter_map(|(old, new)| new.map(|new| (old, new)))
    }

    /// Puts a block into present numbers.
    pub fn apply(&self, stored: &mut Stored) {
        let block = &mut stored.block;
        for entry in &mut block.index {
            entry.sinks = self.sinks(entry.sinks & stored.open);
        }
        block.sinks = block.index.iter().fold(0, |sinks, entry| sinks | entry.sinks);
        stored.open = self.sinks(stored.open);
        if !self.is_same {
            for partition in &mut block.partitions {
                let value = |place: &Option<usize>| place.and_then(|at| partition.values.get(at).cloned());
                partition.values = self.keys.iter().map(|place| value(place).unwrap_or_default()).collect();
            }
        }
    }
}

/// A segment with what is left in it.
#[derive(Debug)]
pub struct Left {
    /// The file.
    pub segment: Segment,
    /// Its numbers.
    pub mapping: Arc<Mapping>,
    /// Number of the first block it may hold.
    pub first: Sequence,
    /// Number of its last block.
    pub last: Sequence,
    /// By sink: blocks and records not settled.
    pub unread: Vec<(u32, u64)>,
}

/// Bytes in the middle of a segment that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap {
    /// The file.
    pub path: PathBuf,
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Segments with records to deliver, in order.
    pub segments: VecDeque<Left>,
    /// By sink: records that are settled though their blocks are not.
    pub settled: Vec<SpanSet>,
    /// By sink.
    pub notes: Vec<BTreeMap<String, Vec<u8>>>,
    /// By name of the source.
    pub positions: HashMap<String, Positions>,
    /// By name of the source: ids of messages, oldest first.
    pub chunk_ids: HashMap<String, VecDeque<Box<[u8]>>>,
    /// Records to deliver, each once however many sinks it goes to.
    pub records: u64,
    /// Records that only sinks which are gone had not settled.
    pub orphans: u64,
    /// Damage.
    pub gaps: Vec<Gap>,
    /// When blocks came: number and milliseconds since 1970 UTC, one for each second.
    pub times: VecDeque<(Sequence, i64)>,
    /// Files in which nothing is left.
    pub empty: Vec<PathBuf>,
    /// The first number that was never given to a block.
    pub end: Sequence,
}

/// Facts by the names of their sinks.
#[derive(Default)]
struct Facts {
    settled: HashMap<String, SpanSet>,
    notes: HashMap<String, BTreeMap<String, Vec<u8>>>,
    positions: HashMap<String, Positions>,
}

impl Facts {
    fn add(&mut self, fact: Fact, names: &Names) {
        let sink = |number: u16| names.sinks.get(usize::from(number)).cloned();
        match fact {
            Fact::Settled { sink: number, spans } => {
                if let Some(sink) = sink(number) {
                    let settled = self.settled.entry(sink).or_default();
                    spans.into_iter().for_each(|span| settled.insert(span));
                }
            }
            Fact::Note { sink: number, key, value } => {
                if let Some(sink) = sink(number) {
                    self.notes.entry(sink).or_default().insert(key, value);
                }
            }
            Fact::Forgotten { sink: number, key } => {
                if let Some(notes) = sink(number).and_then(|sink| self.notes.get_mut(&sink)) {
                    notes.remove(&key);
                }
            }
            Fact::Position { source, position } => {
                if let Some(source) = names.sources.get(usize::from(source)) {
                    stand(self.positions.entry(source.clone()).or_default(), position, POSITIONS_MAX);
                }
            }
        }
    }
}

/// A file as the first pass leaves it.
struct Scanned {
    segment: Segment,
    names: Names,
    first: Sequence,
    last: Option<Sequence>,
}

/// Reads the directory's segments.
///
/// # Errors
/// A segment of another version; or of the file system.
pub fn recover(directory: &Directory, now: &Names) -> Result<Recovered, OpenError> {
    let failed = |source| OpenError::Io { path: directory.path().into(), source };
    let mut recovered = Recovered::default();
    let mut facts = Facts::default();
    let mut scanned = Vec::new();
    let mut files = Vec::new();
    // All headers first: nothing is changed before it is known that all can be read.
    for (first, path) in directory.segments().map_err(failed)? {
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        match segment::header(&file).map_err(failed)? {
            Header::OtherVersion(version) => {
                return Err(OpenError::Refused {
                    path,
                    why: format!("is of version {version}, and this program reads version {VERSION}"),
                });
            }
            header => files.push((first, path, file, header)),
        }
    }
    for (first, path, file, header) in files {
        recovered.end = recovered.end.max(first + 1);
        match header {
            Header::Good(names, start) => {
                let one = scan(first, path, file, names, start, &mut facts, &mut recovered).map_err(failed)?;
                recovered.end = recovered.end.max(one.last.map_or(0, |last| last + 1));
                scanned.push(one);
            }
            Header::OtherVersion(_) | Header::Damaged => {
                let bytes = file.metadata().map_err(failed)?.len();
                if matches!(Frames::new(&file, 0, bytes).read_next().map_err(failed)?, Next::Torn { .. } | Next::End) {
                    // The header is synced before anything else is written: this one never came so far.
                    tracing::info!(file = %path.display(), bytes, "journal: a segment that was just begun holds nothing");
                    recovered.empty.push(path);
                    continue;
                }
                tracing::error!(file = %path.display(), bytes, "journal: a segment has no header and cannot be read");
                recovered.gaps.push(Gap { path: path.clone(), offset: 0, bytes });
                set_aside(&path).map_err(failed)?;
            }
        }
    }
    // The next run's numbers are far from all that were ever given.
    recovered.end = ((recovered.end >> EPOCH_BITS) + 1) << EPOCH_BITS;
    for one in scanned {
        count(one, now, &facts, &mut recovered).map_err(failed)?;
    }
    recovered.settled = now.sinks.iter().map(|sink| facts.settled.remove(sink).unwrap_or_default()).collect();
    recovered.notes = now.sinks.iter().map(|sink| facts.notes.remove(sink).unwrap_or_default()).collect();
    recovered.positions = facts.positions;
    Ok(recovered)
}

/// A file that cannot be read stays for whoever wants to look at it, and is not looked at again.
fn set_aside(path: &Path) -> io::Result<()> {
    std::fs::rename(path, path.with_extension("damaged"))
}

/// The first pass over one file.
fn scan(
    first: Sequence,
    path: PathBuf,
    file: File,
    names: Names,
    start: u64,
    facts: &mut Facts,
    recovered: &mut Recovered,
) -> io::Result<Scanned> {
    let mut bytes = file.metadata()?.len();
    let mut last = None;
    let mut is_damaged = false;
    let mut frames = Frames::new(&file, start, bytes);
    let mut torn = None;
    loop {
        match frames.read_next()? {
            Next::End => break,
            Next::Frame(Head { kind: Kind::Block, sequence, .. }, body) => {
                last = last.max(Some(sequence));
                if let Some(stored) = frame::block(body) {
                    remember(sequence, &stored, &names, facts, recovered);
                }
            }
            Next::Frame(Head { kind: Kind::Snapshot, .. }, body) => {
                *facts = Facts::default();
                frame::snapshot(body).into_iter().flatten().for_each(|fact| facts.add(fact, &names));
            }
            Next::Frame(head, body) => {
                if let Some(fact) = frame::fact(head.kind, body) {
                    facts.add(fact, &names);
                }
            }
            Next::Gap { offset, bytes } => {
                is_damaged = true;
                tracing::error!(
                    file = %path.display(), offset, bytes,
                    "journal: damaged bytes in the middle of a segment; what is before and after them is delivered"
                );
                recovered.gaps.push(Gap { path: path.clone(), offset, bytes });
            }
            Next::Torn { offset, bytes } => torn = Some((offset, bytes)),
        }
    }
    if let Some((offset, torn_bytes)) = torn {
        tracing::warn!(
            file = %path.display(), offset, bytes = torn_bytes,
            "journal: cut after the last whole block; what was being written at the end was never acknowledged"
        );
        file.set_len(offset)?;
        file.sync_data()?;
        bytes = offset;
    }
    let segment = Segment { file: Arc::new(file), path, bytes, start, is_damaged };
    Ok(Scanned { segment, names, first, last })
}

/// What a block says beside its records.
fn remember(sequence: Sequence, stored: &Stored, names: &Names, facts: &mut Facts, recovered: &mut Recovered) {
    let Some(source) = names.sources.get(usize::from(stored.block.source)) else { return };
    if let Some(position) = stored.block.position {
        stand(facts.positions.entry(source.clone()).or_default(), position, POSITIONS_MAX);
    }
    if !stored.block.chunk_ids.is_empty() {
        let ids = recovered.chunk_ids.entry(source.clone()).or_default();
        ids.extend(stored.block.chunk_ids.iter().cloned());
        ids.drain(..ids.len().saturating_sub(CHUNK_IDS_MAX));
    }
    if recovered.times.back().is_none_or(|(_, time)| stored.received_ms >= time + 1000) {
        recovered.times.push_back((sequence, stored.received_ms));
    }
}

/// The second pass over one file.
fn count(one: Scanned, now: &Names, facts: &Facts, recovered: &mut Recovered) -> io::Result<()> {
    let mapping = Mapping::new(&one.names, now);
    let mut unread = vec![(0, 0); now.sinks.len()];
    let mut frames = Frames::new(&one.segment.file, one.segment.start, one.segment.bytes);
    loop {
        let (sequence, mut stored) = match frames.read_next()? {
            Next::End => break,
            Next::Frame(head, body) if head.kind == Kind::Block => match frame::block(body) {
                Some(stored) => (head.sequence, stored),
                None => continue,
            },
            _ => continue,
        };
        for (number, sink) in one.names.sinks.iter().enumerate() {
            if let Some(settled) = facts.settled.get(sink) {
                clear(&mut stored, sequence, number, settled);
            }
        }
        let left: Vec<SinkSet> = stored.block.index.iter().map(|entry| entry.sinks & stored.open).collect();
        mapping.apply(&mut stored);
        for (entry, left) in stored.block.index.iter().zip(left) {
            recovered.records += u64::from(left != 0);
            recovered.orphans += u64::from(left != 0 && entry.sinks == 0);
        }
        for (sink, (blocks, records)) in unread.iter_mut().enumerate() {
            let found = stored.block.records_for(sink) as u64;
            *records += found;
            *blocks += u32::from(found > 0);
        }
    }
    match one.last {
        Some(last) if unread.iter().any(|(blocks, _)| *blocks > 0) => {
            let mapping = Arc::new(mapping);
            recovered.segments.push_back(Left { segment: one.segment, mapping, first: one.first, last, unread });
        }
        _ => recovered.empty.push(one.segment.path),
    }
    Ok(())
}

/// Takes from the entries of a block what a sink has settled.
pub fn clear(stored: &mut Stored, sequence: Sequence, sink: usize, settled: &SpanSet) {
    for records in settled.records_of(sequence) {
        let end = (records.end as usize).min(stored.block.index.len());
        for entry in stored.block.index.get_mut(records.start as usize..end).unwrap_or_default() {
            entry.sinks &= !(1 << sink);
        }
    }
}
