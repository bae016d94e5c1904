//! `[[route]]`: conditions into tests, names of sinks into numbers.
//!
//! The grammar of a condition, in one place (see also `docs/configuration.md`):
//!
//! ```text
//! condition = literal | list | text | { not = condition } | { absent = true|false }
//! list      = [ literal or exact text, … ]                   one of these
//! text      = "!" text                                       not
//!           | "=" rest                                       exactly this text
//!           | "glob:" pattern | "match:" wildcard | "prefix:" rest | "regex:" expression
//!           | ">" n | ">=" n | "<" n | "<=" n | n ".." n     numbers; ".." includes both ends, either may be left out
//!           | anything else                                  exactly this text; for `tag` a glob
//! ```

use std::collections::HashMap;

use super::Builder;
use crate::config::document::Path;
use crate::config::problem::must_be_one_of;
use crate::config::raw::OneOrMany;
use crate::config::raw::route as raw_route;
use crate::config::raw::route::Condition as Raw;
use crate::pattern::Pattern;
use crate::route::{Condition, Config, Rule, Test};
use crate::sink;

/// What `log_type` can be in a record that meshlens recognised.
const LOG_TYPES: [&str; 2] = ["access", "envoy"];
/// In a condition: neither of these.
const OTHER: &str = "other";

impl Builder<'_> {
    pub(super) fn route(&mut self, raw: Vec<raw_route::Rule>, sinks: &HashMap<&str, usize>) -> Config {
        let list = Path::root().key("route");
        let places = self.kept_places(&list);
        let last = raw.len().saturating_sub(1);
        let mut rules = Vec::new();
        let mut decided = None;
        for (number, (rule, place)) in raw.into_iter().zip(places).enumerate() {
            let path = list.index(place);
            if let Some(earlier) = &decided {
                self.warn(format!("{path} is never reached: {earlier} matches everything"));
            }
            let rule = self.rule(&path, rule, number == last, sinks);
            if rule.when.is_empty() && !rule.and_continue && decided.is_none() && !self.is_set(&path.key("when")) {
                decided = Some(path);
            }
            rules.push(rule);
        }
        Config { rules }
    }

    fn rule(&mut self, path: &Path, raw: raw_route::Rule, is_last: bool, sinks: &HashMap<&str, usize>) -> Rule {
        let drops = raw.drop.unwrap_or(false);
        let and_continue = raw.r#continue.unwrap_or(false);
        let to_path = path.key("to");
        let to = match &raw.to {
            Some(names) => self.sink_numbers(&to_path, names, sinks),
            None => {
                if !drops && !self.is_set(&path.key("drop")) {
                    self.refuse(&to_path, "must name sinks, or be [] to leave the record out");
                }
                Vec::new()
            }
        };
        if drops && raw.to.as_ref().is_some_and(|to| !to.as_slice().is_empty()) {
            self.refuse(&path.key("drop"), "must not be set beside `to`: a record goes on or is left out");
        }
        if and_continue && to.is_empty() && raw.to.as_ref().is_none_or(|to| to.as_slice().is_empty()) {
            self.refuse(&path.key("continue"), "must not be set on a rule that leaves the record out");
        }
        let sample = raw.sample.filter(|sample| *sample != 1.0);
        if sample.is_some_and(|sample| !(0.0..=1.0).contains(&sample)) {
            self.refuse(&path.key("sample"), "must be between 0.0 and 1.0");
        }
        let else_path = path.key("else");
        let otherwise = raw.r#else.map(|names| {
            if !is_last {
                self.refuse(&else_path, "must stand on the last rule only: until there, later rules decide");
            }
            self.sink_numbers(&else_path, &names, sinks)
        });
        if otherwise.is_some() && raw.when.is_none() && !self.is_set(&path.key("when")) {
            self.refuse(&else_path, "must not be set on a rule without `when`, which matches everything");
        }
        let when_path = path.key("when");
        let when = raw.when.unwrap_or_default().0;
        let when =
            when.into_iter().filter_map(|(field, raw)| self.condition(&when_path.key(&field), field, &raw)).collect();
        Rule { when, to, sample, and_continue, otherwise }
    }

    fn sink_numbers(&mut self, path: &Path, names: &OneOrMany, sinks: &HashMap<&str, usize>) -> Vec<usize> {
        let places = self.kept_places(path);
        let mut numbers = Vec::new();
        for (nth, name) in names.as_slice().iter().enumerate() {
            match sinks.get(name.as_str()) {
                Some(number) if numbers.contains(number) => {}
                Some(number) => numbers.push(*number),
                // Refused itself, and reported there.
                None if self.is_set(&Path::root().key("sink").key(name)) => {}
                None => {
                    let element = places.get(nth).map_or_else(|| path.clone(), |place| path.index(*place));
                    let mut known: Vec<&str> = sinks.keys().copied().collect();
                    known.sort_unstable();
                    self.refuse(&element, format!("no sink has this name: {}", must_be_one_of(name, &known)));
                }
            }
        }
        numbers
    }

    fn condition(&mut self, path: &Path, field: String, raw: &Raw) -> Option<Condition> {
        if field.is_empty() {
            self.refuse(path, "must have the name of a field as its key");
        }
        let test = self.test(path, &field, raw)?;
        Some(Condition { test: if field == "log_type" { self.log_type(path, test) } else { test }, field })
    }

    fn test(&mut self, path: &Path, field: &str, raw: &Raw) -> Option<Test> {
        match raw {
            Raw::Literal(text) => Some(Test::OneOf(vec![text.clone()])),
            Raw::Text(text) => self.text(path, field, text),
            Raw::Many(list) => self.one_of(path, list),
            Raw::Not(inner) => Some(Test::Not(Box::new(self.test(path, field, inner)?))),
            Raw::Absent(true) => Some(Test::Absent),
            Raw::Absent(false) => Some(Test::Not(Box::new(Test::Absent))),
        }
    }

    fn one_of(&mut self, path: &Path, list: &[Raw]) -> Option<Test> {
        let mut values = Vec::with_capacity(list.len());
        for raw in list {
            match raw {
                Raw::Literal(text) => values.push(text.clone()),
                Raw::Text(text) if !is_pattern(text) => values.push(text.strip_prefix('=').unwrap_or(text).to_owned()),
                _ => {
                    self.refuse(path, "must hold exact values only; patterns stand alone, in a rule each");
                    return None;
                }
            }
        }
        if values.is_empty() {
            self.refuse(path, "must hold at least one value");
            return None;
        }
        Some(Test::OneOf(values))
    }

    fn text(&mut self, path: &Path, field: &str, text: &str) -> Option<Test> {
        if let Some(inner) = text.strip_prefix('!') {
            return Some(Test::Not(Box::new(self.text(path, field, inner)?)));
        }
        if let Some(exact) = text.strip_prefix('=') {
            return Some(Test::OneOf(vec![exact.to_owned()]));
        }
        if let Some(prefix) = text.strip_prefix("prefix:") {
            return Some(Test::Prefix(prefix.to_owned()));
        }
        if let Some(pattern) = text.strip_prefix("glob:") {
            return self.glob(path, pattern);
        }
        if let Some(wildcard) = text.strip_prefix("match:") {
            return Some(Test::Wildcard(wildcard.to_owned()));
        }
        if let Some(expression) = text.strip_prefix("regex:") {
            return self.regex(path, expression);
        }
        if text.starts_with(['<', '>']) || looks_like_range(text) {
            let range = range(text);
            if range.is_none() {
                self.refuse(path, "must be a range of numbers, such as \">=500\", \"<400\" or \"500..599\"");
            }
            return range;
        }
        if field == "tag" {
            return self.glob(path, text);
        }
        Some(Test::OneOf(vec![text.to_owned()]))
    }

    fn glob(&mut self, path: &Path, pattern: &str) -> Option<Test> {
        if let Err(error) = globset::Glob::new(pattern) {
            self.refuse(path, format!("must be a glob: {}", error.kind()));
            return None;
        }
        Some(Test::Glob(pattern.to_owned()))
    }

    fn regex(&mut self, path: &Path, expression: &str) -> Option<Test> {
        match Pattern::rust(expression) {
            Ok(_) => Some(Test::Regex(expression.to_owned())),
            Err(error) => {
                self.refuse(path, format!("must be a regular expression: {error}"));
                None
            }
        }
    }

    /// `other` stands for every record that was not recognised, which has no `log_type`.
    fn log_type(&mut self, path: &Path, test: Test) -> Test {
        match test {
            Test::Not(inner) => Test::Not(Box::new(self.log_type(path, *inner))),
            Test::OneOf(values) => {
                let known = [LOG_TYPES[0], LOG_TYPES[1], OTHER];
                for value in values.iter().filter(|value| !known.contains(&value.as_str())) {
                    self.refuse(path, must_be_one_of(value, &known));
                }
                if !values.iter().any(|value| value == OTHER) {
                    return Test::OneOf(values);
                }
                let left_out = LOG_TYPES.into_iter().filter(|name| !values.iter().any(|value| value == name));
                Test::Not(Box::new(Test::OneOf(left_out.map(str::to_owned).collect())))
            }
            test => test,
        }
    }

    /// A sink that no rule names gets nothing, which is seldom meant.
    pub(super) fn warn_of_idle_sinks(&mut self, route: &Config, sinks: &[sink::Config]) {
        if route.rules.is_empty() {
            return;
        }
        for (number, sink) in sinks.iter().enumerate() {
            let named = |rule: &Rule| {
                rule.to.contains(&number) || rule.otherwise.as_ref().is_some_and(|sinks| sinks.contains(&number))
            };
            if !route.rules.iter().any(named) {
                self.warn(format!("sink.{} receives nothing: no route names it", sink.name));
            }
        }
    }
}

fn is_pattern(text: &str) -> bool {
    text.starts_with(['!', '<', '>'])
        || ["glob:", "match:", "prefix:", "regex:"].iter().any(|word| text.starts_with(word))
        || looks_like_range(text)
}

/// Digits, dots and signs alone, with `..` among them.
fn looks_like_range(text: &str) -> bool {
    text.contains("..") && text.len() > 2 && text.bytes().all(|b| b.is_ascii_digit() || b".-+eE ".contains(&b))
}

fn range(text: &str) -> Option<Test> {
    if let Some((low, high)) = text.split_once("..") {
        let bound = |text: &str| match text.trim() {
            "" => Some(None),
            text => number(text).map(|number| Some((number, true))),
        };
        let (low, high) = (bound(low)?, bound(high)?);
        let is_empty = matches!((low, high), (Some((low, _)), Some((high, _))) if low > high);
        return (!is_empty && (low.is_some() || high.is_some())).then_some(Test::Range { low, high });
    }
    let (rest, inclusive) = match text.get(1..)?.strip_prefix('=') {
        Some(rest) => (rest, true),
        None => (text.get(1..)?, false),
    };
    let bound = Some((number(rest.trim())?, inclusive));
    Some(match text.as_bytes().first()? {
        b'>' => Test::Range { low: bound, high: None },
        _ => Test::Range { low: None, high: bound },
    })
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let bounds = |low, high| Some(Test::Range { low, high });
        assert_eq!(range(">=500"), bounds(Some((500.0, true)), None));
        assert_eq!(range("> 1.5"), bounds(Some((1.5, false)), None));
        assert_eq!(range("<500"), bounds(None, Some((500.0, false))));
        assert_eq!(range("<=-1"), bounds(None, Some((-1.0, true))));
        assert_eq!(range("500..599"), bounds(Some((500.0, true)), Some((599.0, true))));
        assert_eq!(range("500.."), bounds(Some((500.0, true)), None));
        assert_eq!(range("..499"), bounds(None, Some((499.0, true))));
        for text in [">", ">=x", "<inf", "599..500", "1..2..3", "..", ">=NaN"] {
            assert_eq!(range(text), None, "{text}");
        }
        assert!(!looks_like_range("../etc") && !looks_like_range("a..b") && looks_like_range("1..2"));
    }
}
