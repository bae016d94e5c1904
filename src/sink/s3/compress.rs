//! Compression of one object as it grows: bytes in, a buffer of stored bytes that is taken away part by part.
//!
//! An object is one gzip member or one Zstandard frame, ended by [`Compressor::finish`]; without it nobody may publish it.

use std::io::{self, Write};

use flate2::{Compression as GzipLevel, GzBuilder, write::GzEncoder};
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::Compression;

/// Window of a Zstandard frame, as a power of two: 512 KiB. The library's own choice (2 MiB at level 3, up to 128 MiB at
/// 22) would cost that much for each open object; log lines repeat within far less.
const ZSTD_WINDOW_LOG: u32 = 19;

/// gzip's level unless configured otherwise. Measured on one core (release build): records of this crate's bench at level 1
/// 568 MB/s and a ratio of 6.9, at 2 268 MB/s and 10.1, at 3 172 MB/s and 10.2, at 6 (the library's default) 64 MB/s and 11.2;
/// logs of a live Envoy at 2 109 to 267 MB/s and 3.9 to 5.2, at 6 75 to 122 MB/s and 4.3 to 6.2. A tenth more in S3 costs
/// less than twice to four times the CPU beside the application.
pub const GZIP_LEVEL_DEFAULT: i32 = 2;

/// Zstandard's level unless configured otherwise. The same records at level 1 428 MB/s and 12.3, at 3 308 MB/s and 11.5; the
/// same logs at either as small as gzip's level 6, at 500 MB/s.
pub const ZSTD_LEVEL_DEFAULT: i32 = 1;

/// The state of a gzip encoder, in bytes: window, hash chains, pending output (32 Ki positions, memory level 8).
const GZIP_STATE_BYTES: usize = 320 << 10;

/// The state of a Zstandard encoder at its default level with our window, in bytes: window and tables 1.3 MiB, buffers.
const ZSTD_STATE_BYTES: usize = 3 << 19;

/// First size of a buffer: an object of a few lines costs little.
const BUFFER_BYTES: usize = 16 << 10;

/// Compresses one object.
pub struct Compressor {
    encoder: Encoder,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    None(Vec<u8>),
}

impl Compressor {
    /// A new object. A level outside the library's range is moved into it; none = the default of this module.
    pub fn new(compression: Compression, level: Option<i32>) -> io::Result<Self> {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        let encoder = match compression {
            Compression::Gzip => {
                let level = GzipLevel::new(level.unwrap_or(GZIP_LEVEL_DEFAULT).clamp(0, 9).unsigned_abs());
                // No name and no time in the header: equal records make equal bytes.
                Encoder::Gzip(GzBuilder::new().write(buffer, level))
            }
            Compression::Zstd => {
                let range = zstd::compression_level_range();
                let level = level.unwrap_or(ZSTD_LEVEL_DEFAULT).clamp(*range.start(), *range.end());
                let mut encoder = ZstdEncoder::new(buffer, level)?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
            Compression::None => Encoder::None(buffer),
        };
        Ok(Self { encoder })
    }

    /// Adds bytes. After an error the object is of no use any more.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        make_room(self.buffer_mut(), bytes.len());
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            Encoder::None(buffer) => {
                buffer.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Stored bytes in the buffer; what the encoder still holds back is not among them.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer().len()
    }

    /// What it costs to keep, in bytes.
    pub fn cost_bytes(&self) -> usize {
        let state = match self.encoder {
            Encoder::Gzip(_) => GZIP_STATE_BYTES,
            Encoder::Zstd(_) => ZSTD_STATE_BYTES,
            Encoder::None(_) => 0,
        };
        state + self.buffer().capacity()
    }

    /// Takes the stored bytes so far; the object goes on.
    pub fn take(&mut self) -> Vec<u8> {
        let mut part = std::mem::replace(self.buffer_mut(), Vec::with_capacity(BUFFER_BYTES));
        // It may wait for its upload for long.
        part.shrink_to_fit();
        part
    }

    /// Ends the object and gives its last stored bytes.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        let mut buffer = match self.encoder {
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::None(buffer) => buffer,
        };
        buffer.shrink_to_fit();
        Ok(buffer)
    }

    fn buffer_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
            Encoder::None(buffer) => buffer,
        }
    }

    fn buffer(&self) -> &Vec<u8> {
        match &self.encoder {
            Encoder::Gzip(encoder) => encoder.get_ref(),
            Encoder::Zstd(encoder) => encoder.get_ref(),
            Encoder::None(buffer) => buffer,
        }
    }
}

/// Grows the buffer by a quarter where it would double: a part of 5 MiB costs 6, not 8 MiB.
fn make_room(buffer: &mut Vec<u8>, bytes: usize) {
    if buffer.capacity() - buffer.len() < bytes {
        buffer.reserve_exact(bytes.max(buffer.len() / 4));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// What an object's bytes hold; an error if they are cut off or more than one member or frame.
    pub(crate) fn decompress(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match compression {
            Compression::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(bytes);
                decoder.read_to_end(&mut out)?;
                if !decoder.into_inner().is_empty() {
                    return Err(io::Error::other("bytes after the first gzip member"));
                }
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame();
                decoder.read_to_end(&mut out)?;
                if !decoder.finish().is_empty() {
                    return Err(io::Error::other("bytes after the first frame"));
                }
            }
            Compression::None => out.extend_from_slice(bytes),
        }
        Ok(out)
    }

    fn compressions() -> impl Strategy<Value = Compression> {
        prop_oneof![Just(Compression::Gzip), Just(Compression::Zstd), Just(Compression::None)]
    }

    proptest! {
    // Encoders are slow to make, above all at high levels.
    #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn parts_joined_are_the_object(
            compression in compressions(),
            level in prop::sample::select(vec![None, Some(-3), Some(1), Some(6), Some(12), Some(30)]),
            writes in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()), 0..20),
        ) {
            let mut compressor = Compressor::new(compression, level).unwrap();
            let (mut stored, mut plain) = (Vec::new(), Vec::new());
            for (bytes, take) in &writes {
                compressor.write(bytes).unwrap();
                plain.extend_from_slice(bytes);
                if *take {
                    stored.extend(compressor.take());
                    prop_assert_eq!(compressor.buffered_bytes(), 0);
                }
            }
            stored.extend(compressor.finish().unwrap());
            prop_assert_eq!(decompress(compression, &stored).unwrap(), plain);
            if compression != Compression::None && !stored.is_empty() {
                prop_assert!(decompress(compression, &stored[..stored.len() - 1]).is_err(), "the end is checked");
            }
        }
    }

    #[test]
    fn equal_records_make_equal_bytes() {
        let stored = |compression| {
            let mut compressor = Compressor::new(compression, None).unwrap();
            compressor.write(&b"{\"a\":1}\n".repeat(1000)).unwrap();
            compressor.finish().unwrap()
        };
        assert_eq!(stored(Compression::Gzip), stored(Compression::Gzip));
        assert_eq!(stored(Compression::Zstd), stored(Compression::Zstd));
        assert!(stored(Compression::Gzip).len() < 200);
    }
}
