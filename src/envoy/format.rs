//! Envoy format (to be written).
