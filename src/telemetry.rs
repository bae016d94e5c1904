//! What meshlens says of itself: the account of every record, the log on stderr, and its own defects.

pub mod account;
pub mod logs;
pub mod own;
pub mod panics;
pub mod sparing;

/// Name of the thread that serves the admin endpoints.
pub const ADMIN_THREAD: &str = "admin";
