//! The `meshlens` binary: allocator and exit code; all else is in the library.

use std::process::ExitCode;

/// Gives memory back to the system after a burst, and costs less CPU under many threads than the C library's.
///
/// Built without huge pages (`no_thp`): with them a byte in use keeps 2 MiB resident. Measured in the row `answers after 500 ms,
/// full speed` of `docs/reliability.md`: 108, 136, 128 and 153 MiB at the peak with them, 77, 90, 79 and 108 without.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    meshlens::cli::main()
}
