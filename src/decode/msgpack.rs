//! MessagePack as far as we read it: one token at a time over borrowed bytes, and skipping without looking inside.
//!
//! Format: <https://github.com/msgpack/msgpack/blob/master/spec.md>. Skipping counts the values still to come and needs no stack, so that
//! no nesting can exhaust it.

/// Why bytes are not MessagePack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They end inside a value.
    Short,
    /// 0xc1.
    Reserved,
}

/// A scalar, or the head of a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Nil,
    Bool(bool),
    UInt(u64),
    /// Negative.
    Int(i64),
    Float(f64),
    /// str or bin: senders use either for the same things.
    Text(&'a [u8]),
    /// As many values follow.
    Array(u32),
    /// As many pairs of values follow.
    Map(u32),
    Ext(i8, &'a [u8]),
}

/// The bytes of a value up to its children, and the number of its children.
#[inline(always)]
pub(crate) fn head(rest: &[u8]) -> Result<(u64, u64), Fault> {
    let &first = rest.first().ok_or(Fault::Short)?;
    Ok(match first {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (1, 0),
        0x80..=0x8f => (1, 2 * u64::from(first & 0x0f)),
        0x90..=0x9f => (1, u64::from(first & 0x0f)),
        0xa0..=0xbf => (1 + u64::from(first & 0x1f), 0),
        0xc1 => return Err(Fault::Reserved),
        0xc4 | 0xd9 => (2 + big_endian::<1>(rest)?, 0),
        0xc5 | 0xda => (3 + big_endian::<2>(rest)?, 0),
        0xc6 | 0xdb => (5 + big_endian::<4>(rest)?, 0),
        0xc7 => (3 + big_endian::<1>(rest)?, 0),
        0xc8 => (4 + big_endian::<2>(rest)?, 0),
        0xc9 => (6 + big_endian::<4>(rest)?, 0),
        0xcc | 0xd0 => (2, 0),
        0xcd | 0xd1 | 0xd4 => (3, 0),
        0xd5 => (4, 0),
        0xca | 0xce | 0xd2 => (5, 0),
        0xd6 => (6, 0),
        0xcb | 0xcf | 0xd3 => (9, 0),
        0xd7 => (10, 0),
        0xd8 => (18, 0),
        0xdc => (3, big_endian::<2>(rest)?),
        0xdd => (5, big_endian::<4>(rest)?),
        0xde => (3, 2 * big_endian::<2>(rest)?),
        0xdf => (5, 2 * big_endian::<4>(rest)?),
    })
}

/// The `N` bytes after the first one, as a number.
#[inline(always)]
fn big_endian<const N: usize>(rest: &[u8]) -> Result<u64, Fault> {
    let bytes = rest.get(1..1 + N).ok_or(Fault::Short)?;
    Ok(bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// A place in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The place, in bytes from the start.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Goes to the end: nothing more can be read.
    pub(crate) fn finish(&mut self) {
        self.at = self.bytes.len();
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(length).ok_or(Fault::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Fault::Short)?;
        self.at = end;
        Ok(taken)
    }

    #[inline(always)]
    fn number<const N: usize>(&mut self) -> Result<u64, Fault> {
        Ok(self.take(N)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    #[inline(always)]
    fn text<const N: usize>(&mut self) -> Result<Token<'a>, Fault> {
        let length = self.number::<N>()? as usize;
        self.take(length).map(Token::Text)
    }

    fn extension(&mut self, length: usize) -> Result<Token<'a>, Fault> {
        let kind = self.number::<1>()? as u8 as i8;
        Ok(Token::Ext(kind, self.take(length)?))
    }

    /// Reads a scalar, or the head of a container. After an error the place is not defined.
    #[inline(always)]
    pub(crate) fn token(&mut self) -> Result<Token<'a>, Fault> {
        let first = self.take(1)?[0];
        Ok(match first {
            0x00..=0x7f => Token::UInt(u64::from(first)),
            0x80..=0x8f => Token::Map(u32::from(first & 0x0f)),
            0x90..=0x9f => Token::Array(u32::from(first & 0x0f)),
            0xa0..=0xbf => Token::Text(self.take(usize::from(first & 0x1f))?),
            0xd9 | 0xc4 => return self.text::<1>(),
            0xda | 0xc5 => return self.text::<2>(),
            0xdb | 0xc6 => return self.text::<4>(),
            0xe0..=0xff => Token::Int(i64::from(first as i8)),
            _ => return self.rare_token(first),
        })
    }

    /// What logs seldom hold, kept out of the hot function.
    #[inline(never)]
    fn rare_token(&mut self, first: u8) -> Result<Token<'a>, Fault> {
        Ok(match first {
            0xc0 => Token::Nil,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xca => Token::Float(f64::from(f32::from_bits(self.number::<4>()? as u32))),
            0xcb => Token::Float(f64::from_bits(self.number::<8>()?)),
            0xcc => Token::UInt(self.number::<1>()?),
            0xcd => Token::UInt(self.number::<2>()?),
            0xce => Token::UInt(self.number::<4>()?),
            0xcf => Token::UInt(self.number::<8>()?),
            0xd0 => signed(i64::from(self.number::<1>()? as u8 as i8)),
            0xd1 => signed(i64::from(self.number::<2>()? as u16 as i16)),
            0xd2 => signed(i64::from(self.number::<4>()? as u32 as i32)),
            0xd3 => signed(self.number::<8>()? as i64),
            0xd4 => return self.extension(1),
            0xd5 => return self.extension(2),
            0xd6 => return self.extension(4),
            0xd7 => return self.extension(8),
            0xd8 => return self.extension(16),
            0xc7 => {
                let length = self.number::<1>()? as usize;
                return self.extension(length);
            }
            0xc8 => {
                let length = self.number::<2>()? as usize;
                return self.extension(length);
            }
            0xc9 => {
                let length = self.number::<4>()? as usize;
                return self.extension(length);
            }
            0xdc => Token::Array(self.number::<2>()? as u32),
            0xdd => Token::Array(self.number::<4>()? as u32),
            0xde => Token::Map(self.number::<2>()? as u32),
            0xdf => Token::Map(self.number::<4>()? as u32),
            _ => return Err(Fault::Reserved),
        })
    }

    /// Passes over that many values, however nested, and returns their bytes. On an error the place stays.
    #[inline]
    pub(crate) fn skip(&mut self, values: u64) -> Result<&'a [u8], Fault> {
        let start = self.at;
        let mut at = start;
        let mut pending = values;
        while pending > 0 {
            let (size, children) = head(self.bytes.get(at..).ok_or(Fault::Short)?)?;
            at = at.checked_add(usize::try_from(size).map_err(|_| Fault::Short)?).ok_or(Fault::Short)?;
            // Cannot overflow: each of at most 2^64 bytes' values adds at most 2^33, and bytes run out long before.
            pending = pending - 1 + children;
        }
        let skipped = self.bytes.get(start..at).ok_or(Fault::Short)?;
        self.at = at;
        Ok(skipped)
    }

    /// The raw bytes from a place read before up to here.
    #[inline(always)]
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }
}

/// A number of a signed format, which may be positive all the same.
fn signed(number: i64) -> Token<'static> {
    u64::try_from(number).map_or(Token::Int(number), Token::UInt)
}
