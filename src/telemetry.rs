//! What meshlens says of itself: the account of every record, and the log on stderr.
//!
//! Imports nothing of ours but [`crate::chunk::SourceId`]'s meaning (an index).

pub mod account;
pub mod logs;
