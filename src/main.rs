//! The `meshlens` binary: allocator and exit code; all else is in the library.

use std::process::ExitCode;

/// Gives memory back to the system after a burst, and costs less CPU under many threads than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    meshlens::cli::main()
}
