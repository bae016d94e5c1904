//! The stdout sink: one JSON object a line; and discard, which only counts.
//!
//! Both read the journal themselves: there is nothing to batch and nothing to retry. A block's lines go out in one write.

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::journal::block::Block;

use super::retry::shutdown_over;
use super::{Context, Error};

/// Writes every record to standard output. Ends with an error when it can no longer be written (closed pipe, full disk).
pub async fn run(ctx: Context) -> Result<(), Error> {
    write_all(ctx, tokio::io::stdout()).await
}

/// Counts every record as delivered.
pub async fn discard(mut ctx: Context) -> Result<(), Error> {
    let settler = ctx.reader.settler();
    while let Some((sequence, block)) = ctx.reader.next().await {
        ctx.ledger.deliver(block.records_for(ctx.id) as u64);
        settler.settle(sequence);
    }
    Ok(())
}

async fn write_all(mut ctx: Context, mut output: impl AsyncWrite + Unpin) -> Result<(), Error> {
    let settler = ctx.reader.settler();
    let mut selected = Vec::new();
    let mut deadline = ctx.deadline.clone();
    let over = shutdown_over(&mut deadline);
    tokio::pin!(over);
    while let Some((sequence, block)) = ctx.reader.next().await {
        let records = block.records_for(ctx.id);
        let lines = lines(&block, ctx.id, records, &mut selected);
        let written = async {
            output.write_all(lines).await?;
            output.flush().await
        };
        tokio::select! {
            biased;
            written = written => written
                .map_err(|source| Error::Io { what: "writing to standard output".to_owned(), source })?,
            // A reader that does not read must not keep the process from ending; the records stay pending.
            () = &mut over => return Ok(()),
        }
        ctx.ledger.deliver(records as u64);
        settler.settle(sequence);
    }
    Ok(())
}

/// The lines of the records for sink `sink`: the block's own bytes if that is all, else put together in `selected`.
fn lines<'a>(block: &'a Block, sink: usize, records: usize, selected: &'a mut Vec<u8>) -> &'a [u8] {
    if records == block.index.len() {
        return &block.bytes;
    }
    selected.clear();
    for (i, entry) in block.index.iter().enumerate() {
        if entry.sinks & (1 << sink) != 0 {
            selected.extend_from_slice(block.line(i));
        }
    }
    selected
}

#[cfg(test)]
mod tests;
