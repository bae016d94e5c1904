//! Builds the pipeline from the configuration, runs it, drains it: the only file that knows all others.
