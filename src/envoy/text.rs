//! Envoy text (to be written).
