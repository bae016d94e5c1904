//! Envoy presets (to be written).
