//! Compressed bodies, inflated under a limit that holds while inflating.

use std::io::Read;

use thiserror::Error;

use super::{Compression, Limits};

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
    let bytes_max = limits.decompressed_bytes_max;
    let corrupt = |_| InflateError::Corrupt { compression };
    // One byte over the limit tells "full" from "too large".
    let take = bytes_max as u64 + 1;
    match compression {
        Compression::Gzip => flate2::read::MultiGzDecoder::new(bytes).take(take).read_to_end(out).map_err(corrupt)?,
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(corrupt)?;
            decoder.window_log_max(window_log_max(bytes_max)).map_err(corrupt)?;
            decoder.take(take).read_to_end(out).map_err(corrupt)?
        }
    };
    if out.len() > bytes_max {
        out.clear();
        return Err(InflateError::TooLarge { bytes_max });
    }
    Ok(())
}

/// A frame may ask for a window of up to 128 MiB before its first byte. Not more is granted than the body may need, yet always the 8 MiB that
/// level 19 asks for when its encoder does not know how little will come.
fn window_log_max(bytes_max: usize) -> u32 {
    bytes_max.max(1).ilog2().saturating_add(1).clamp(23, 27)
}
