//! Compressed bodies, inflated under a limit that holds while inflating.

use std::io::Read;

use thiserror::Error;

use super::{Compression, Limits};

/// What a reader wants to have free to see the end.
const SPARE_BYTES: usize = 64;

/// Why a compressed body is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InflateError {
    /// It grows over [`Limits::decompressed_bytes_max`].
    #[error("body larger than decompressed_bytes_max = {bytes_max}")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// It is not what the message says it is, or cut off.
    #[error("body is not valid {}", match .compression { Compression::Gzip => "gzip", Compression::Zstd => "zstd" })]
    Corrupt {
        /// What it should be.
        compression: Compression,
    },
}

/// Inflates a body, of several members or frames if need be, into `out`, which is emptied first and never holds much more than the limit.
///
/// # Errors
/// The body is corrupt or too large.
pub fn decompress(
    compression: Compression,
    bytes: &[u8],
    limits: &Limits,
    out: &mut Vec<u8>,
) -> Result<(), InflateError> {
    out.clear();
    Inflater::new(compression, bytes, limits)?.fill(limits.decompressed_bytes_max, out).map(drop)
}

/// A body being inflated piece by piece, so that one can ask for memory as it grows.
pub struct Inflater<'a> {
    compression: Compression,
    decoder: Decoder<'a>,
    bytes_max: usize,
}

enum Decoder<'a> {
    Gzip(Box<flate2::read::MultiGzDecoder<&'a [u8]>>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
}

impl<'a> Inflater<'a> {
    /// At its beginning.
    ///
    /// # Errors
    /// The body is corrupt, or there is no memory for its window.
    pub fn new(compression: Compression, bytes: &'a [u8], limits: &Limits) -> Result<Self, InflateError> {
        let bytes_max = limits.decompressed_bytes_max;
        let decoder = match compression {
            Compression::Gzip => Decoder::Gzip(Box::new(flate2::read::MultiGzDecoder::new(bytes))),
            Compression::Zstd => {
                let corrupt = |_| InflateError::Corrupt { compression };
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(corrupt)?;
                decoder.window_log_max(window_log_max(bytes_max)).map_err(corrupt)?;
                Decoder::Zstd(decoder)
            }
        };
        Ok(Self { compression, decoder, bytes_max })
    }

    /// Inflates until `out` holds `bytes` or a little more, or the limit is passed. True at the end of the body.
    ///
    /// # Errors
    /// The body is corrupt or too large; `out` is then empty.
    pub fn fill(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<bool, InflateError> {
        let wanted = bytes.min(self.bytes_max).saturating_sub(out.len());
        if !out.is_empty() {
            // It is large: what may come at once, since doubling would take twice as much in the end.
            out.reserve_exact(wanted + SPARE_BYTES);
        }
        // One byte over the limit tells "full" from "too large".
        let take = wanted as u64 + 1;
        let read = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.take(take).read_to_end(out),
            Decoder::Zstd(decoder) => decoder.take(take).read_to_end(out),
        };
        let result = match read {
            Err(_) => Err(InflateError::Corrupt { compression: self.compression }),
            Ok(_) if out.len() > self.bytes_max => Err(InflateError::TooLarge { bytes_max: self.bytes_max }),
            Ok(read) => Ok((read as u64) < take),
        };
        if result.is_err() {
            out.clear();
        }
        result
    }
}

/// A frame may ask for a window of up to 128 MiB before its first byte. Not more is granted than the body may need, yet always the 8 MiB that
/// level 19 asks for when its encoder does not know how little will come.
fn window_log_max(bytes_max: usize) -> u32 {
    bytes_max.max(1).ilog2().saturating_add(1).clamp(23, 27)
}
