//! Which formats lines are read by: those that were named, compiled once and shared by all streams.
//!
//! A format is given as one text ([`Formats::add`]): `auto` for all layouts of [`presets`], the name of a preset, the
//! `text_format` of an Envoy, or its `json_format`. Layouts that begin `[%START_TIME%] ` are kept apart: their lines are
//! known by their first bytes, and no other layout is tried on them, nor they on other lines.

use std::sync::{Arc, LazyLock};

use crate::envoy::format::{FormatError, FormatWarning, Layout, Options, compile};
use crate::envoy::json_format::{JsonFormat, JsonFormatError};
use crate::envoy::operator::Content;
use crate::envoy::presets;

/// The formats of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    /// Layouts of lines that begin `[time] `.
    pub bracketed: Vec<Layout>,
    /// Layouts of other lines.
    pub general: Vec<Layout>,
    /// Formats of JSON lines with keys of their own.
    pub json: Vec<JsonFormat>,
    /// What redaction has to know of their fields, by key.
    pub contents: Vec<(String, Content)>,
}

/// A format that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A text format.
    #[error("does not compile as a text format: {0}")]
    Text(#[from] FormatError),
    /// A JSON format.
    #[error("does not compile as a JSON format: {0}")]
    Json(#[from] JsonFormatError),
    /// Neither the name of a preset nor a format.
    #[error("is neither a format string (no % in it), nor JSON, nor one of auto, {}", preset_names())]
    Unknown,
}

fn preset_names() -> String {
    presets::PRESETS.map(|(name, ..)| name).join(", ")
}

impl Formats {
    /// What is tried where nobody says which: every layout of the presets.
    pub fn auto() -> Arc<Self> {
        static AUTO: LazyLock<Arc<Formats>> =
            LazyLock::new(|| Arc::new(Formats { bracketed: presets::layouts().to_vec(), ..Formats::default() }));
        AUTO.clone()
    }

    /// Adds a format: `auto`, the name of a preset, a JSON format, or a text format. A JSON format that is no valid JSON,
    /// since its numbers stand without quotes, is a text format.
    ///
    /// # Errors
    /// See [`SpecError`].
    pub fn add(&mut self, name: &str, spec: &str, options: &Options) -> Result<Vec<FormatWarning>, SpecError> {
        let spec_trimmed = spec.trim();
        if spec_trimmed == "auto" {
            self.add_layouts(presets::layouts().to_vec());
            return Ok(Vec::new());
        }
        if let Some(layouts) = presets::named(spec_trimmed) {
            self.add_layouts(layouts);
            return Ok(Vec::new());
        }
        if spec_trimmed.starts_with('{') && serde_json::from_str::<serde_json::Value>(spec_trimmed).is_ok() {
            return self.add_json(name, spec_trimmed, options);
        }
        if !spec.contains('%') {
            return Err(SpecError::Unknown);
        }
        self.add_text(name, spec, options)
    }

    /// Adds a text format.
    ///
    /// # Errors
    /// It does not compile.
    pub fn add_text(&mut self, name: &str, format: &str, options: &Options) -> Result<Vec<FormatWarning>, SpecError> {
        let options = Options { is_named: true, ..options.clone() };
        let compiled = compile(name, format, &options)?;
        self.contents.extend(compiled.contents);
        self.add_layouts(vec![compiled.layout]);
        Ok(compiled.warnings)
    }

    /// Adds a JSON format.
    ///
    /// # Errors
    /// It does not compile.
    pub fn add_json(&mut self, name: &str, format: &str, options: &Options) -> Result<Vec<FormatWarning>, SpecError> {
        let compiled = JsonFormat::compile(name, format, options)?;
        self.contents.extend(compiled.contents);
        self.json.push(compiled.format);
        Ok(compiled.warnings)
    }

    fn add_layouts(&mut self, layouts: Vec<Layout>) {
        for layout in layouts {
            let list = if layout.is_bracketed { &mut self.bracketed } else { &mut self.general };
            if !list.iter().any(|known| known.name == layout.name && known.slots == layout.slots) {
                list.push(layout);
            }
        }
    }

    /// Whether a line may show a secret in a place that only its format tells.
    pub fn print_secrets(&self) -> bool {
        let is_secret = |content: &Content| matches!(content, Content::Secret | Content::Parameter | Content::Query);
        self.contents.iter().any(|(_, content)| is_secret(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(spec: &str) -> (Formats, Result<Vec<FormatWarning>, SpecError>) {
        let mut formats = Formats::default();
        let added = formats.add("test", spec, &Options::default());
        (formats, added)
    }

    #[test]
    fn what_a_format_can_be() {
        assert_eq!(add("auto").0.bracketed.len(), presets::LAYOUTS.len());
        assert_eq!(add("istio").0.bracketed.len(), 1);
        assert_eq!(add("[%START_TIME%] %PROTOCOL%\n").0.bracketed.len(), 1);
        assert_eq!(add("%PROTOCOL% %DURATION%").0.general.len(), 1);
        assert_eq!(add(r#"{"a":"%PROTOCOL%"}"#).0.json.len(), 1);
        assert_eq!(add(r#"{"a":%DURATION%}"#).0.general.len(), 1);
        assert_eq!(add("haproxy").1, Err(SpecError::Unknown));
        assert!(matches!(add("%PROTOCOL").1, Err(SpecError::Text(_))));
        assert!(matches!(add(r#"{"a":"%PROTOCOL"}"#).1, Err(SpecError::Json(_))));
    }

    #[test]
    fn the_same_layout_is_there_once() {
        let mut formats = Formats::default();
        for spec in ["envoy", "gloo", "app-mesh", "auto"] {
            formats.add(spec, spec, &Options::default()).unwrap();
        }
        assert_eq!(formats.bracketed.len(), presets::LAYOUTS.len());
    }
}
