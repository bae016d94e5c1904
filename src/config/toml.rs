//! TOML (to be written).
