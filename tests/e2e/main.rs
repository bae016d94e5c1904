//! Through the binary: real sockets, files and signals, and a strict fake of the AWS services.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a failed assumption here is a failed test"
)]

mod client;
mod exposition;
mod fake_aws;
mod ordered;
mod process;
mod sender;
mod traffic;

mod reliability;
mod stage;

mod admin;
mod broken;
mod derive;
mod fake_aws_selftest;
mod fault_table;
mod faults;
mod firelens;
mod follow;
mod hostile;
mod inputs;
mod journal;
mod kill;
mod million;
mod objects;
mod oneoff;
mod redaction;
mod reference;
mod shutdown;
mod start;
mod traps;
