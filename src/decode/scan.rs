//! Finds where messages end in bytes that arrive piece by piece.
//!
//! The scanner remembers its place, so that each byte's head is looked at once however the bytes are cut. Texts and binaries are passed
//! over by their length, before they have arrived. It checks no more than it needs to find the end; [`super::message`] checks the rest.

use memchr::memchr2;

use super::msgpack::{Fault, head};
use super::{FrameError, FrameErrorKind, Limits};
use crate::chunk::Encoding;

/// Where messages end, for one connection.
///
/// Whether it speaks MessagePack or JSON is decided by the first byte, as fluentd does: `{` and `[` are small integers in
/// MessagePack and start no message there.
#[derive(Clone, Debug)]
pub struct FrameScanner {
    frame_bytes_max: usize,
    /// Bytes taken off the front so far.
    consumed: u64,
    /// Where the current message starts: before it, all messages are whole.
    start: usize,
    /// Where the next head stands; may lie behind what has arrived.
    at: usize,
    format: Format,
    /// An error found behind whole messages; said once they are taken.
    failed: Option<FrameError>,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Unknown,
    MessagePack {
        /// Values still to come in the current message.
        pending: u64,
    },
    Json {
        /// Brackets open in the current message.
        depth: usize,
        in_string: bool,
        /// The next byte is escaped.
        escaped: bool,
    },
}

impl FrameScanner {
    /// At the start of a connection.
    pub fn new(limits: &Limits) -> Self {
        Self {
            frame_bytes_max: limits.frame_bytes_max,
            consumed: 0,
            start: 0,
            at: 0,
            format: Format::Unknown,
            failed: None,
        }
    }

    /// How many bytes at the front of `unread` are whole messages. `unread` holds what was given before, less what was
    /// [consumed](Self::consumed), and what has arrived since.
    ///
    /// # Errors
    /// The next message is broken or too large. Whole messages before it are returned first; the error comes with the call after that.
    pub fn scan(&mut self, unread: &[u8]) -> Result<usize, FrameError> {
        if self.failed.is_none()
            && let Err((at, kind)) = self.advance(unread)
        {
            self.failed = Some(FrameError { offset: self.consumed + at as u64, kind });
        }
        match self.failed {
            Some(error) if self.start == 0 => Err(error),
            _ => Ok(self.start),
        }
    }

    /// As [`Self::scan`], but no more than the first message, so that what follows may be read by other rules.
    ///
    /// # Errors
    /// The message is broken or too large.
    pub fn scan_one(&mut self, unread: &[u8]) -> Result<usize, FrameError> {
        // Its end shows as soon as the byte before it has arrived: what is behind cannot move it.
        for arrived in self.at.max(1)..=unread.len() {
            let whole = self.scan(&unread[..arrived])?;
            if whole > 0 {
                return Ok(whole);
            }
        }
        Ok(0)
    }

    /// The caller took `bytes` off the front of what is unread: no more than [`Self::scan`] said.
    pub fn consumed(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.start, "only whole messages are taken");
        self.consumed += bytes as u64;
        self.start = self.start.saturating_sub(bytes);
        self.at = self.at.saturating_sub(bytes);
    }

    /// Bytes taken so far: the offset of the front of what is unread within the connection.
    pub fn offset(&self) -> u64 {
        self.consumed
    }

    /// How many bytes behind the `unread` ones are known to belong to the current message.
    pub fn missing(&self, unread_bytes: usize) -> usize {
        self.at.saturating_sub(unread_bytes)
    }

    /// What the messages of this connection are written in.
    pub fn encoding(&self) -> Encoding {
        match self.format {
            Format::Json { .. } => Encoding::ForwardJson,
            Format::Unknown | Format::MessagePack { .. } => Encoding::Forward,
        }
    }

    fn advance(&mut self, unread: &[u8]) -> Result<(), (usize, FrameErrorKind)> {
        loop {
            match self.format {
                Format::MessagePack { pending } => return self.advance_messagepack(unread, pending),
                Format::Json { .. } => return self.advance_json(unread),
                Format::Unknown => match unread.first() {
                    None => return Ok(()),
                    Some(b'{' | b'[') => self.format = Format::Json { depth: 0, in_string: false, escaped: false },
                    Some(_) => self.format = Format::MessagePack { pending: 0 },
                },
            }
        }
    }

    fn advance_messagepack(&mut self, unread: &[u8], mut pending: u64) -> Result<(), (usize, FrameErrorKind)> {
        let bytes_max = self.frame_bytes_max as u64;
        while self.at <= unread.len() {
            if pending == 0 {
                self.start = self.at;
                match unread.get(self.at) {
                    None => break,
                    Some(0x90..=0x9f | 0xdc | 0xdd | 0xc0) => pending = 1,
                    Some(&first_byte) => return Err((self.at, FrameErrorKind::NotAMessage { first_byte })),
                }
            }
            match head(&unread[self.at..]) {
                Ok((size, children)) => {
                    pending = pending - 1 + children;
                    let at = self.at as u64 + size;
                    // Every value to come takes a byte at least, so a giant is known by its announcement.
                    if at - self.start as u64 + pending > bytes_max {
                        return Err((self.start, FrameErrorKind::TooLarge { bytes_max: self.frame_bytes_max }));
                    }
                    self.at = at as usize;
                }
                Err(Fault::Short) => break,
                Err(Fault::Reserved) => return Err((self.at, FrameErrorKind::Reserved)),
            }
        }
        self.format = Format::MessagePack { pending };
        Ok(())
    }

    fn advance_json(&mut self, unread: &[u8]) -> Result<(), (usize, FrameErrorKind)> {
        let Format::Json { mut depth, mut in_string, mut escaped } = self.format else { return Ok(()) };
        while let Some(&byte) = unread.get(self.at) {
            if self.at - self.start >= self.frame_bytes_max {
                return Err((self.start, FrameErrorKind::TooLarge { bytes_max: self.frame_bytes_max }));
            }
            if in_string {
                if escaped {
                    escaped = false;
                    self.at += 1;
                    continue;
                }
                let rest = &unread[self.at..];
                let plain = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                match rest.get(plain) {
                    Some(b'"') => in_string = false,
                    Some(_) => escaped = true,
                    None => {
                        self.at += plain;
                        continue;
                    }
                }
                self.at += plain + 1;
                continue;
            }
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    if depth == 0 {
                        self.start = self.at + 1;
                    }
                }
                b'"' if depth > 0 => in_string = true,
                // Between messages: blanks belong to what was before.
                b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => self.start = self.at + 1,
                _ if depth == 0 => return Err((self.at, FrameErrorKind::Json)),
                _ => {}
            }
            self.at += 1;
        }
        self.format = Format::Json { depth, in_string, escaped };
        if self.at - self.start > self.frame_bytes_max {
            return Err((self.start, FrameErrorKind::TooLarge { bytes_max: self.frame_bytes_max }));
        }
        Ok(())
    }
}
