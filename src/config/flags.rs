//! Command line flags (to be written).
