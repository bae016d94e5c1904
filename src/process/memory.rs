//! Memory that senders can make connections hold beyond what they have sent: inflated bodies, and lines whose pieces are not all there.
//!
//! Each is bounded for one connection by a limit of its own; here, over all connections. A body is inflated step by step: the first
//! [`BODY_BYTES_FREE`] are free for all, [`LARGE_BODIES_MAX`] may grow to [`LARGE_BODY_BYTES`], and one at a time to its limit. Who waits
//! for the second step holds none, and who waits for the third holds the second, which those who have the third do not
//! wait for: nobody waits in a circle.
//!
//! Open lines of all connections may hold [`PIECES_BYTES_MAX`]; a connection that brings more passes its own on as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::decode::{Compression, InflateError, Inflater, Limits, Rejoiner};

/// What a body may take without asking, in bytes.
const BODY_BYTES_FREE: usize = 512 << 10;
/// What a large body may take, in bytes; the chunks of the batching clients in the field are smaller.
const LARGE_BODY_BYTES: usize = 8 << 20;
/// Large bodies at once.
const LARGE_BODIES_MAX: usize = 4;
const _: () = assert!(BODY_BYTES_FREE < LARGE_BODY_BYTES);

/// Open lines of all connections, in bytes.
const PIECES_BYTES_MAX: usize = 32 << 20;

/// What all connections of the process share.
#[derive(Debug)]
pub(super) struct Memory {
    large_bodies: Semaphore,
    giant_body: Semaphore,
    pieces_bytes: AtomicUsize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            large_bodies: Semaphore::new(LARGE_BODIES_MAX),
            giant_body: Semaphore::new(1),
            pieces_bytes: AtomicUsize::new(0),
        }
    }
}

/// To be held for as long as a body is.
#[derive(Debug, Default)]
pub(super) struct BodyPermit<'m> {
    _large: Option<SemaphorePermit<'m>>,
    _giant: Option<SemaphorePermit<'m>>,
}

impl Memory {
    /// Inflates a body; waits where that takes more memory than there is.
    pub(super) async fn inflate(
        &self,
        compression: Compression,
        bytes: &[u8],
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<BodyPermit<'_>, InflateError> {
        let mut permit = BodyPermit::default();
        let result = self.grow(compression, bytes, limits, out, &mut permit).await;
        if result.is_err() {
            // Before the permit goes to the next one.
            *out = Vec::new();
        }
        result.map(|()| permit)
    }

    async fn grow<'m>(
        &'m self,
        compression: Compression,
        bytes: &[u8],
        limits: &Limits,
        out: &mut Vec<u8>,
        permit: &mut BodyPermit<'m>,
    ) -> Result<(), InflateError> {
        out.clear();
        let mut inflater = Inflater::new(compression, bytes, limits)?;
        if inflater.fill(BODY_BYTES_FREE, out)? {
            return Ok(());
        }
        // Nobody closes the semaphores.
        permit._large = self.large_bodies.acquire().await.ok();
        if inflater.fill(LARGE_BODY_BYTES, out)? {
            return Ok(());
        }
        permit._giant = self.giant_body.acquire().await.ok();
        inflater.fill(usize::MAX, out).map(drop)
    }
}

/// One connection's part in the open lines.
#[derive(Debug)]
pub(super) struct Pieces {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Pieces {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, bytes: 0 }
    }

    /// Counts the connection's open lines; makes them give way if all connections together hold too much.
    pub(super) fn count(&mut self, rejoiner: &mut Rejoiner) {
        if self.bytes == rejoiner.open_bytes() {
            return;
        }
        self.set(rejoiner.open_bytes());
        if self.memory.pieces_bytes.load(Relaxed) > PIECES_BYTES_MAX {
            rejoiner.give_way();
            self.set(0);
        }
    }

    fn set(&mut self, bytes: usize) {
        // The sum wraps where the difference is negative.
        self.memory.pieces_bytes.fetch_add(bytes.wrapping_sub(self.bytes), Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn body(bytes: usize) -> Vec<u8> {
        zstd::encode_all(&vec![b'x'; bytes][..], 1).unwrap()
    }

    #[test]
    fn small_bodies_are_free_large_ones_few_and_giants_alone() {
        let memory = Memory::default();
        let limits = Limits { decompressed_bytes_max: 3 * LARGE_BODY_BYTES, ..Limits::default() };
        let inflate = |size: usize| {
            let mut out = Vec::new();
            let permit = now_or_never(memory.inflate(Compression::Zstd, &body(size), &limits, &mut out))?.unwrap();
            assert_eq!(out.len(), size);
            Some(permit)
        };
        let giant = inflate(3 * LARGE_BODY_BYTES).unwrap();
        let _large: Vec<_> = (1..LARGE_BODIES_MAX).map(|_| inflate(BODY_BYTES_FREE + 2).unwrap()).collect();
        assert!(inflate(BODY_BYTES_FREE + 2).is_none());
        for _ in 0..10 {
            inflate(BODY_BYTES_FREE).unwrap();
        }
        drop(giant);
        inflate(3 * LARGE_BODY_BYTES).unwrap();
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_gives_back() {
        let memory = Memory::default();
        let limits = Limits { decompressed_bytes_max: LARGE_BODY_BYTES, ..Limits::default() };
        for _ in 0..2 * LARGE_BODIES_MAX {
            let mut out = Vec::new();
            let bomb = body(LARGE_BODY_BYTES + 1);
            let inflated = now_or_never(memory.inflate(Compression::Zstd, &bomb, &limits, &mut out)).expect("room");
            assert_eq!(inflated.unwrap_err(), InflateError::TooLarge { bytes_max: LARGE_BODY_BYTES });
            assert!(out.is_empty());
        }
    }
}
