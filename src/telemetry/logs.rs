//! meshlens's own log: tracing to stderr, text or JSON, with repeats limited. Never a record's content.
