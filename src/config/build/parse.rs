//! `[parse]`: format strings, compiled once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Builder;
use crate::config::document::Path;
use crate::config::raw::parse as raw;
use crate::envoy::format::Options;
use crate::envoy::formats::Formats;
use crate::process::Parse;

/// More formats than this are not tried: each costs something on a line that has none of them.
const FORMATS_MAX: usize = 64;

impl Builder<'_> {
    pub(super) fn parse(&mut self, raw: raw::Parse) -> Parse {
        let named = raw.format.unwrap_or_default().0;
        let table = Path::root().key("parse");
        let formats = match raw.formats {
            None => {
                for (name, _) in &named {
                    self.warn(format!("parse.format.{name} is not used: parse.formats does not name it"));
                }
                Formats::auto()
            }
            Some(list) => Arc::new(self.formats(&table, &list, &named)),
        };
        Parse { envoy: raw.envoy.unwrap_or(true), application: raw.application.unwrap_or(true), formats }
    }

    fn formats(&mut self, table: &Path, list: &[String], named: &[(String, raw::AccessLogFormat)]) -> Formats {
        let mut formats = Formats::default();
        let path = table.key("formats");
        if list.is_empty() || list.len() > FORMATS_MAX {
            self.refuse(
                &path,
                format!("must name 1 to {FORMATS_MAX} formats; [\"auto\"] stands for all that are known"),
            );
            return formats;
        }
        let places = self.kept_places(&path);
        for (spec, place) in list.iter().zip(places) {
            let path = path.index(place);
            let added = match named.iter().find(|(name, _)| name == spec) {
                Some((name, format)) => self.named_format(&mut formats, &table.key("format").key(name), name, format),
                None => match formats.add(&format!("format {}", place + 1), spec, &Options::default()) {
                    Ok(warnings) => Some((path, warnings)),
                    Err(error) => {
                        self.refuse(&path, error.to_string());
                        None
                    }
                },
            };
            if let Some((path, warnings)) = added {
                warnings.iter().for_each(|warning| self.warn(format!("{path}: {warning}")));
            }
        }
        for (name, _) in named.iter().filter(|(name, _)| !list.contains(name)) {
            self.warn(format!("parse.format.{name} is not used: parse.formats does not name it"));
        }
        formats
    }

    fn named_format(
        &mut self,
        formats: &mut Formats,
        table: &Path,
        name: &str,
        raw: &raw::AccessLogFormat,
    ) -> Option<(Path, Vec<crate::envoy::format::FormatWarning>)> {
        let options = Options {
            keys: self.keys(table, raw.keys.as_ref()),
            omit_empty_values: raw.omit_empty_values.unwrap_or(false),
            is_named: true,
        };
        if raw.json.is_some() && raw.keys.is_some() {
            self.warn(format!("{table}.keys is not used: a JSON format has its own keys"));
        }
        let (key, added) = match (&raw.text, &raw.json) {
            (Some(text), None) => ("text", formats.add_text(name, text, &options)),
            (None, Some(json)) => ("json", formats.add_json(name, json, &options)),
            _ => {
                self.refuse(table, "must have either `text` or `json`");
                return None;
            }
        };
        match added {
            Ok(warnings) => Some((table.key(key), warnings)),
            Err(error) => {
                self.refuse(&table.key(key), error.to_string());
                None
            }
        }
    }

    fn keys(&mut self, table: &Path, keys: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
        let Some(keys) = keys else { return BTreeMap::new() };
        for (operator, key) in keys {
            if key.is_empty() {
                self.refuse(&table.key("keys").key(operator), "must not be empty");
            }
        }
        keys.clone()
    }
}
