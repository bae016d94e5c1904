//! One file of the journal: a header that names sinks, sources and keys, and frames.
//!
//! ```text
//! header   "meshlens-segment" | version u32 | length u32 | checksum u32 | JSON {"sinks":[…],"sources":[…],"keys":[…]}
//! frame*   see `frame`
//! ```
//!
//! Written by one thread, append only; read by any. After an error it is not written to any more.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::directory::{Directory, VERSION};
use super::frame::{self, HEAD_BYTES, Head, Kind, MAGIC};
use crate::journal::Sequence;
use crate::journal::block::SinkSet;

const TITLE: &[u8; 16] = b"meshlens-segment";
const HEADER_BYTES: usize = 16 + 12;

/// No list of names is longer.
const NAMES_BYTES_MAX: usize = 16 << 20;

/// What the numbers in a segment stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Names {
    /// Sinks by number.
    pub sinks: Vec<String>,
    /// Sources by number.
    pub sources: Vec<String>,
    /// Keys of partitions in their order.
    pub keys: Vec<String>,
}

/// A segment as its readers see it.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its file.
    pub file: Arc<File>,
    /// Where that is.
    pub path: PathBuf,
    /// Bytes of header and whole frames.
    pub bytes: u64,
    /// Where the first frame begins.
    pub start: u64,
    /// Bytes in it could not be read: heads of frames are not believed without their bodies.
    pub is_damaged: bool,
}

/// Makes a segment that begins with that block, with its header; it is durable.
///
/// # Errors
/// Of the file system.
pub fn create(directory: &Directory, first: Sequence, names: &Names) -> io::Result<Segment> {
    let (path, file) = directory.create(first)?;
    let json = serde_json::to_vec(names)?;
    let mut header = TITLE.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(json.len() as u32).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    header.extend_from_slice(&json);
    let made = (&file).write_all(&header).and_then(|()| file.sync_data()).and_then(|()| directory.sync());
    if let Err(error) = made {
        // Half a header would be taken for damage at the next start.
        std::fs::remove_file(&path).ok();
        return Err(error);
    }
    Ok(Segment {
        file: Arc::new(file),
        path,
        bytes: header.len() as u64,
        start: header.len() as u64,
        is_damaged: false,
    })
}

/// What the beginning of a file is.
#[derive(Debug)]
pub enum Header {
    /// A segment's; frames begin after so many bytes.
    Good(Names, u64),
    /// Another version's.
    OtherVersion(u32),
    /// None that could be read.
    Damaged,
}

/// Reads the header of a segment. Another version is only believed where all else is as this one writes it: a directory of
/// another version says so in its mark, so that a header which is wrong in more than that is damaged.
///
/// # Errors
/// Of the file system.
pub fn header(file: &File) -> io::Result<Header> {
    let mut fixed = [0; HEADER_BYTES];
    if !read_exact_at(file, &mut fixed, 0)? || fixed[..16] != *TITLE {
        return Ok(Header::Damaged);
    }
    let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let length = number(20) as usize;
    let mut json = vec![0; length.min(NAMES_BYTES_MAX)];
    if length > NAMES_BYTES_MAX || !read_exact_at(file, &mut json, HEADER_BYTES as u64)? {
        return Ok(Header::Damaged);
    }
    if crc32fast::hash(&json) != number(24) {
        return Ok(Header::Damaged);
    }
    let Ok(names) = serde_json::from_slice(&json) else { return Ok(Header::Damaged) };
    if number(16) != VERSION {
        return Ok(Header::OtherVersion(number(16)));
    }
    Ok(Header::Good(names, (HEADER_BYTES + length) as u64))
}

/// False if the file ends before.
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a file's frames in order.
pub struct Frames<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
    body: Vec<u8>,
}

/// What stands at a place of a segment.
pub enum Next<'a> {
    /// A whole frame.
    Frame(Head, &'a [u8]),
    /// Bytes that are no frame, with frames behind them.
    Gap {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Bytes that are no frame, to the end.
    Torn {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// The end.
    End,
}

impl<'a> Frames<'a> {
    /// From `offset` to before `end`.
    pub fn new(file: &'a File, offset: u64, end: u64) -> Self {
        Self { file, offset, end, body: Vec::new() }
    }

    /// Where the next frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The head of the next frame, without its body; none if there is no frame.
    ///
    /// # Errors
    /// Of the file system.
    pub fn head(&self) -> io::Result<Option<Head>> {
        let mut bytes = [0; HEAD_BYTES];
        if self.offset + HEAD_BYTES as u64 > self.end || !read_exact_at(self.file, &mut bytes, self.offset)? {
            return Ok(None);
        }
        let head = Head::read(&bytes);
        Ok(head.filter(|head| self.offset + (HEAD_BYTES + head.length) as u64 <= self.end))
    }

    /// Which sinks had not settled the next frame's block when it was written.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open_of_block(&self) -> io::Result<SinkSet> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, self.offset + HEAD_BYTES as u64)?;
        Ok(SinkSet::from_le_bytes(bytes))
    }

    /// Goes past the next frame.
    pub fn skip(&mut self, head: &Head) {
        self.offset += (HEAD_BYTES + head.length) as u64;
    }

    /// The next frame, or what stands in its place.
    ///
    /// # Errors
    /// Of the file system.
    pub fn read_next(&mut self) -> io::Result<Next<'_>> {
        if self.offset >= self.end {
            return Ok(Next::End);
        }
        if let Some(head) = self.head()?
            && self.read(&head)?
        {
            self.skip(&head);
            return Ok(Next::Frame(head, &self.body));
        }
        let offset = self.offset;
        let found = self.search(offset + 1)?;
        self.offset = found.unwrap_or(self.end);
        let bytes = self.offset - offset;
        Ok(if found.is_some() { Next::Gap { offset, bytes } } else { Next::Torn { offset, bytes } })
    }

    /// Reads the body behind the next head; false if it is not its body.
    fn read(&mut self, head: &Head) -> io::Result<bool> {
        self.body.resize(head.length, 0);
        Ok(read_exact_at(self.file, &mut self.body, self.offset + HEAD_BYTES as u64)? && head.is_over(&self.body))
    }

    /// Where the first whole frame from there on begins.
    fn search(&mut self, from: u64) -> io::Result<Option<u64>> {
        const WINDOW_BYTES: usize = 1 << 20;
        let magic = MAGIC.to_le_bytes();
        let finder = memchr::memmem::Finder::new(&magic);
        let mut window = vec![0; WINDOW_BYTES];
        let mut start = from;
        let here = self.offset;
        while start + (HEAD_BYTES as u64) <= self.end {
            let bytes = WINDOW_BYTES.min(usize::try_from(self.end - start).unwrap_or(WINDOW_BYTES));
            if !read_exact_at(self.file, &mut window[..bytes], start)? {
                break;
            }
            for at in finder.find_iter(&window[..bytes]) {
                self.offset = start + at as u64;
                if let Some(head) = self.head()?
                    && self.read(&head)?
                {
                    let found = self.offset;
                    self.offset = here;
                    return Ok(Some(found));
                }
            }
            // A magic number cut by the window's end is found by the next.
            start += (bytes - (magic.len() - 1)).max(1) as u64;
        }
        self.offset = here;
        Ok(None)
    }
}

/// Reads the next block for the sinks in `wanted`, with a number of `from` at least, and where the frame after it begins. Frames that are
/// damaged are passed over. The block's lines are in `buffer` then, if they fit there.
///
/// # Errors
/// Of the file system.
pub fn read_block(
    segment: &Segment,
    offset: u64,
    from: Sequence,
    wanted: SinkSet,
    buffer: Vec<u8>,
) -> io::Result<(Option<(Sequence, frame::Stored)>, u64)> {
    let mut frames = Frames { body: buffer, ..Frames::new(&segment.file, offset, segment.bytes) };
    loop {
        if let Some(head) = frames.head()?
            && !segment.is_damaged
        {
            let is_other = head.kind != Kind::Block
                || head.sequence < from
                || (head.length >= 8 && frames.open_of_block()? & wanted == 0);
            if is_other {
                frames.skip(&head);
                continue;
            }
        }
        let head = match frames.read_next()? {
            Next::End => return Ok((None, segment.bytes)),
            Next::Frame(head, _) => head,
            Next::Gap { offset, bytes } | Next::Torn { offset, bytes } => {
                tracing::error!(file = %segment.path.display(), offset, bytes, "journal: damaged bytes passed over");
                continue;
            }
        };
        if head.kind == Kind::Block
            && head.sequence >= from
            && let Some(stored) = frame::into_block(std::mem::take(&mut frames.body))
            && stored.open & stored.block.sinks & wanted != 0
        {
            return Ok((Some((head.sequence, stored)), frames.offset()));
        }
    }
}
