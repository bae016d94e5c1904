//! Envoy json (to be written).
