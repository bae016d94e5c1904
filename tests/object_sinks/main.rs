//! The S3 sink against a store of our own that keeps S3's rules, and the file sink on a real directory: every record is
//! stored once, whatever fails on the way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a failed assumption in a test is a failed test; seeds are told"
)]

mod file;
mod restart;
mod rig;
mod s3;
mod store;
