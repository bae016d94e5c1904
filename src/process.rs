//! The pass that joins decode, parse, redact, enrich, route and encode: one chunk in, one block out.
