//! What meshlens says of itself: the account of every record, and the log on stderr.

pub mod account;
pub mod logs;
pub mod sparing;
