//! Through the binary: real sockets, files and signals, and a strict fake of the AWS services.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a failed assumption here is a failed test"
)]

mod exposition;
mod fake_aws;
mod process;
mod sender;
mod traffic;

mod stage;

mod admin;
mod broken;
mod fake_aws_selftest;
mod faults;
mod follow;
mod hostile;
mod journal;
mod million;
mod oneoff;
mod redaction;
mod shutdown;
mod start;
