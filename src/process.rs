//! The pass that joins decode, parse, redact, enrich, route and encode: one chunk in, one block out.

use crate::chunk::Chunk;

/// What came of a chunk.
#[derive(Debug, Default)]
pub struct Submitted {
    /// Acknowledgements to write back to the sender, already serialized; the records behind them are as durable as the
    /// journal promises.
    pub replies: Vec<u8>,
    /// Why the rest of the chunk could not be decoded; the connection is to be closed.
    pub broken: Option<String>,
}

/// The way of one source's connection into the pipeline: processes chunks and appends their blocks to the journal.
pub struct Intake {}

impl Intake {
    /// Processes a chunk and appends its block; waits while the journal is full.
    pub async fn submit(&mut self, _chunk: Chunk) -> Submitted {
        Submitted::default()
    }
}
