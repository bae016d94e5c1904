//! The loop that AWS sinks share: read blocks, batch, send with retries, settle.
