//! A connection that knows whether its peer took what was written.
//!
//! Linux closes a socket whose received bytes were not read with a reset, not with a polite end. So a connection that ends by
//! a reset ends with an answer that nobody read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The stream, as the server reads and writes it.
pub struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

/// The other side, as a handler sees it.
pub struct Peer {
    socket: std::net::TcpStream,
    reset: Arc<AtomicBool>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> (Self, Peer) {
        let socket = stream.into_std().unwrap();
        let stream = TcpStream::from_std(socket.try_clone().unwrap()).unwrap();
        let reset = Arc::new(AtomicBool::new(false));
        (Self { stream, reset: Arc::clone(&reset) }, Peer { socket, reset })
    }

    fn note<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        if result.is_err() {
            self.reset.store(true, Relaxed);
        }
        Poll::Ready(result)
    }
}

impl Peer {
    /// Whether it closed its side: it waits for no answer. The socket does not block.
    pub fn is_gone(&self) -> bool {
        match self.socket.peek(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Whether the connection was ended by a reset.
    pub fn has_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, into));
        self.note(result)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
