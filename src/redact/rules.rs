//! The configuration, compiled, and the state of one pass over a record.

use super::action::{Action, MASK};
use super::detect::{self, Detectors};
use super::edit::rewrite;
use super::field::{FieldClass, Names, parameter};
use super::report::{Counts, Place, Rule};
use super::secret::{self, Secrets};
use super::{Config, Outcome, environment, matrix, text, url, userinfo};
use crate::record::Kind;

/// Rounds of passes over one text. Two are enough for all that anyone would write; bounds the work for what others may.
const ROUNDS_MAX: usize = 8;

/// What [`Config`] says, ready for use.
#[derive(Clone)]
pub(super) struct Rules {
    pub action: Action,
    pub names: Names,
    pub secrets: Secrets,
    pub matrix: bool,
    pub detectors: Option<Detectors>,
    /// Whether anything happens that nobody asked for by name; with that off, only what is configured.
    pub has_own: bool,
}

impl Rules {
    pub fn new(config: &Config) -> Self {
        let action = Action::new(&config.query, &config.parameters);
        let has_own = !action.is_off();
        Self {
            names: Names::new(&config.fields, &config.operators, &config.headers, has_own),
            secrets: Secrets::new(&config.headers, has_own),
            matrix: config.matrix_parameters && has_own,
            detectors: Detectors::new(&config.detectors),
            action,
            has_own,
        }
    }

    /// Whether nothing is ever redacted.
    pub fn are_off(&self) -> bool {
        !self.has_own && self.detectors.is_none() && !self.names.are_configured() && !self.secrets.are_configured()
    }

    /// Whether a value of any class but the whole ones may have something to redact, header dumps aside: a test that may say
    /// yes too often, never no.
    pub fn may_hold(&self, bytes: &[u8]) -> bool {
        url::may_hold(bytes)
            || (self.matrix && matrix::may_hold(bytes))
            || self.detectors.as_ref().is_some_and(|detectors| detectors.may_hold(bytes))
    }

    /// Whether the text may hold headers or a dump of the environment.
    pub fn may_hold_dumps(&self, text: &[u8]) -> bool {
        self.secrets.may_hold(&self.names, text) || (self.has_own && environment::may_hold(text))
    }

    /// Whether the text may hold anything to redact. `dumps`: header dumps too.
    pub fn may_hold_as_text(&self, text: &[u8], dumps: bool) -> bool {
        self.may_hold(text) || (dumps && self.may_hold_dumps(text))
    }
}

/// A field's value is read by it: the class of its name, and the name itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'n> {
    pub class: FieldClass,
    /// For the name of a parameter.
    pub name: &'n [u8],
}

impl Holder<'_> {
    pub const TEXT: Self = Self { class: FieldClass::Text, name: b"" };
}

/// One pass over a record.
pub(super) struct Scrub<'r> {
    pub rules: &'r Rules,
    pub kind: Kind,
    /// Whether header dumps and the like are looked for in the field in hand.
    pub dumps: bool,
    /// Where redactions of the field in hand are counted.
    pub place: Place,
    pub counts: Option<&'r mut Counts>,
    /// Whether they are counted: what goes out twice in other words counts once.
    pub is_counting: bool,
    /// How often something was redacted by a pass that others come before.
    pub late: usize,
    /// Room in which a text waits for the next pass over it.
    pub room: Vec<u8>,
}

impl<'r> Scrub<'r> {
    /// For text of unknown origin, which nobody counts.
    pub fn of_text(rules: &'r Rules) -> Self {
        Self {
            rules,
            kind: Kind::Other,
            dumps: true,
            place: Place::OTHER,
            counts: None,
            is_counting: false,
            late: 0,
            room: Vec::new(),
        }
    }

    /// Something was redacted.
    pub fn count(&mut self, rule: Rule) {
        self.late += usize::from(!matches!(rule, Rule::Query | Rule::Fragment));
        if let Some(counts) = self.counts.as_mut().filter(|_| self.is_counting) {
            counts.add(rule, self.place);
        }
    }

    /// Scrubs a value. `depth` counts the documents that it was found in as text.
    pub fn value(&mut self, holder: Holder<'_>, input: &[u8], out: &mut Vec<u8>, depth: usize) -> Outcome {
        match holder.class {
            FieldClass::Text => text::scrub(self, input, out, depth),
            FieldClass::Secret => self.secret(input, out),
            FieldClass::Parameter => self.parameter(holder.name, input, out),
            class => self.rounds(input, out, |scrub, input, out| scrub.shaped(class, input, out)),
        }
    }

    /// One round over a value of known shape.
    fn shaped(&mut self, class: FieldClass, input: &[u8], out: &mut Vec<u8>) -> Outcome {
        let start = out.len();
        let outcome = match class {
            _ if !self.rules.has_own => Outcome::Same,
            FieldClass::Url => url::scrub(self, input, out),
            FieldClass::RequestLine => url::scrub_request_line(self, input, out),
            FieldClass::Authority => url::scrub_authority(self, input),
            FieldClass::Query => url::scrub_query(self, input, out),
            FieldClass::Text | FieldClass::Secret | FieldClass::Parameter => Outcome::Same,
        };
        // A URL within a path, perhaps encoded as a whole.
        let mut outcome = outcome;
        if self.rules.has_own && userinfo::may_hold(outcome.left(input, &out[start..])) {
            outcome = self.then(input, outcome, start, out, users);
        }
        if self.rules.detectors.is_some() {
            outcome = self.then(input, outcome, start, out, detect);
        }
        outcome
    }

    /// One more pass over what the last one left of `input`; what it wrote stands at the end of `out`, from `start` on.
    pub fn then(
        &mut self,
        input: &[u8],
        outcome: Outcome,
        start: usize,
        out: &mut Vec<u8>,
        mut pass: impl FnMut(&mut Self, &[u8], &mut Vec<u8>) -> Outcome,
    ) -> Outcome {
        match outcome {
            Outcome::Same => pass(self, input, out),
            Outcome::Part(part) => match pass(self, &input[part.clone()], out) {
                Outcome::Same => Outcome::Part(part),
                Outcome::Part(inner) => Outcome::Part(part.start + inner.start..part.start + inner.end),
                Outcome::Written => Outcome::Written,
            },
            Outcome::Written => {
                let mut room = std::mem::take(&mut self.room);
                room.clear();
                room.extend_from_slice(&out[start..]);
                out.truncate(start);
                match pass(self, &room, out) {
                    Outcome::Same => out.extend_from_slice(&room),
                    Outcome::Part(part) => out.extend_from_slice(&room[part]),
                    Outcome::Written => {}
                }
                self.room = room;
                Outcome::Written
            }
        }
    }

    /// Passes over what the last pass left for as long as that finds something.
    pub fn rounds(
        &mut self,
        text: &[u8],
        out: &mut Vec<u8>,
        mut pass: impl FnMut(&mut Self, &[u8], &mut Vec<u8>) -> Outcome,
    ) -> Outcome {
        let start = out.len();
        let mut outcome = Outcome::Same;
        for _ in 0..ROUNDS_MAX {
            let before = self.late;
            outcome = self.then(text, outcome, start, out, &mut pass);
            if self.late == before {
                break;
            }
        }
        outcome
    }

    fn secret(&mut self, value: &[u8], out: &mut Vec<u8>) -> Outcome {
        if is_nothing(value) || value == MASK {
            return Outcome::Same;
        }
        self.count(Rule::Secret);
        out.extend_from_slice(MASK);
        Outcome::Written
    }

    fn parameter(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Outcome {
        if is_nothing(value) {
            return Outcome::Same;
        }
        let start = out.len();
        let name = parameter(name);
        if self.rules.action.keeps(name) {
            // Whoever keeps a parameter has not asked for what a URL in it holds.
            return self.rounds(value, out, |scrub, value, out| scrub.shaped(FieldClass::Url, value, out));
        }
        self.rules.action.write_value(name, value, out);
        if out[start..] == *value {
            out.truncate(start);
            return Outcome::Same;
        }
        self.count(Rule::Parameter);
        Outcome::Written
    }
}

/// Whether a format printed that there is no value.
pub(super) fn is_nothing(value: &[u8]) -> bool {
    matches!(value, b"" | b"-")
}

/// User information of URLs in text.
pub(super) fn users(scrub: &mut Scrub<'_>, text: &[u8], out: &mut Vec<u8>) -> Outcome {
    rewrite(scrub, text, out, userinfo::next)
}

/// What detectors find.
pub(super) fn detect(scrub: &mut Scrub<'_>, text: &[u8], out: &mut Vec<u8>) -> Outcome {
    let Some(detectors) = &scrub.rules.detectors else { return Outcome::Same };
    let mut finder = detect::Finder::new(detectors);
    rewrite(scrub, text, out, |text, from| finder.next(text, from))
}

/// Values of headers.
pub(super) fn headers(scrub: &mut Scrub<'_>, text: &[u8], out: &mut Vec<u8>) -> Outcome {
    let mut finder = secret::Finder::new(&scrub.rules.secrets, &scrub.rules.names);
    rewrite(scrub, text, out, |text, from| finder.next(text, from))
}

/// Dumps of the environment.
pub(super) fn variables(scrub: &mut Scrub<'_>, text: &[u8], out: &mut Vec<u8>) -> Outcome {
    if !scrub.rules.has_own {
        return Outcome::Same;
    }
    let mut finder = environment::Finder::default();
    rewrite(scrub, text, out, |text, from| finder.next(text, from))
}
