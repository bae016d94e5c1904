//! The single write: a record as one flat JSON line, straight into its block.
