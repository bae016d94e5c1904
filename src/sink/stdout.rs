//! The stdout sink: one JSON object a line; and discard, which only counts.
