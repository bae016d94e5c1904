//! Times on the hot path: RFC 3339 to nanoseconds, without a calendar library.
