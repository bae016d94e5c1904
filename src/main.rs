//! The `meshlens` binary: allocator and exit code; all else is in the library.

fn main() {}
