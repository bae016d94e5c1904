//! The syntax of Ruby's Onigmo, as Fluent Bit compiles patterns with it, rewritten for the `regex` and `fancy-regex` crates.
//!
//! | in Ruby | here |
//! |---|---|
//! | `/…/`, with `i`, `m`, `x` behind it | the inside, with flags; any other letter there makes the slashes part of the pattern |
//! | `^`, `$` | at every line: flag `m` |
//! | `m` as a flag | `s`: `.` is a newline too |
//! | `x` as a flag | blanks and comments are left out here, for in Ruby they stay within a class |
//! | `\d \w \s \h` and their opposites | ASCII, spelled out |
//! | `[[:alpha:]]`, `\p{Alpha}` | of Unicode |
//! | `(?<name>…)`, `(?'name'…)` | numbered groups; plain groups do not capture beside them; names may repeat |
//! | `*+`, `++`, `?+`; `{n}+` | possessive; a repetition of a repetition |
//! | `{` that starts no quantifier, `}`, `]` | themselves |
//! | `\Z`, `\R`, `\e`, `\uXXXX`, `\033`, `\cX` | spelled out |
//! | `\g<name>`, `\X`, `(?~…)` | refused |

use std::iter::Peekable;
use std::str::CharIndices;

use super::classes::{class_of, posix, starts_with_shorthand};
use super::{GROUPS_MAX, PatternError};

/// What a pattern was rewritten to.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) text: String,
    /// Named groups in the order written, with their numbers.
    pub(super) names: Vec<(Box<str>, usize)>,
    /// Groups, the whole match included.
    pub(super) groups: usize,
    /// It needs an engine that backtracks.
    pub(super) backtracks: bool,
}

/// Rewrites a pattern, for text of characters (`unicode`) or of bytes.
pub(super) fn translate(source: &str, unicode: bool) -> Result<Translated, PatternError> {
    let (inside, flags) = delimited(source);
    let mut translator = Translator {
        source: inside,
        rest: inside.char_indices().peekable(),
        out: String::with_capacity(inside.len() + 16),
        unicode,
        has_names: has_names(inside),
        names: Vec::new(),
        groups: 1,
        backtracks: false,
        extended: flags.contains('x'),
        open: Vec::new(),
        atom: None,
        quantified: false,
    };
    translator.out.push_str("(?m");
    translator.out.extend(flags.contains('i').then_some('i'));
    translator.out.extend(flags.contains('m').then_some('s'));
    translator.out.push(')');
    translator.run()?;
    let Translator { out, names, groups, backtracks, .. } = translator;
    if groups > GROUPS_MAX {
        return Err(PatternError(format!("it has more than {} groups", GROUPS_MAX - 1)));
    }
    Ok(Translated { text: out, names, groups, backtracks })
}

/// The inside of `/…/flags`, and the flags.
fn delimited(source: &str) -> (&str, &str) {
    let Some(inside) = source.strip_prefix('/') else { return (source, "") };
    match inside.rsplit_once('/') {
        // `o` is known to Ruby and means nothing here.
        Some((inside, flags)) if flags.chars().all(|flag| matches!(flag, 'i' | 'm' | 'x' | 'o')) => (inside, flags),
        _ => (source, ""),
    }
}

/// Whether any group has a name, so that plain ones do not capture.
fn has_names(source: &str) -> bool {
    let bytes = source.as_bytes();
    let (mut at, mut class) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'[' => class += 1,
            b']' => class = class.saturating_sub(1),
            b'(' if class == 0 => {
                let rest = bytes.get(at + 1..).unwrap_or_default();
                let named = rest.starts_with(b"?<") && !matches!(rest.get(2), Some(b'=' | b'!'));
                if named || rest.starts_with(b"?'") {
                    return true;
                }
            }
            _ => {}
        }
        at += 1;
    }
    false
}

struct Translator<'p> {
    source: &'p str,
    rest: Peekable<CharIndices<'p>>,
    out: String,
    unicode: bool,
    has_names: bool,
    names: Vec<(Box<str>, usize)>,
    groups: usize,
    backtracks: bool,
    /// Blanks and comments are left out (`x`).
    extended: bool,
    /// Open groups: where each starts in `out`, and what `extended` was before it.
    open: Vec<(usize, bool)>,
    /// Where in `out` the last thing starts that can be repeated.
    atom: Option<usize>,
    /// A quantifier stands behind it already.
    quantified: bool,
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), PatternError> {
        while let Some((at, character)) = self.rest.next() {
            match character {
                '\\' => self.escape()?,
                '[' => {
                    self.begin_atom();
                    self.class(0)?;
                }
                '(' => self.open(at)?,
                ')' => {
                    let Some((start, extended)) = self.open.pop() else {
                        return Err(PatternError("unmatched `)`".into()));
                    };
                    self.out.push(')');
                    self.extended = extended;
                    self.atom = Some(start);
                    self.quantified = false;
                }
                '*' | '+' | '?' => self.quantify(&character.to_string(), true)?,
                '{' => self.braces(at)?,
                '}' | ']' => {
                    self.begin_atom();
                    self.literal(character);
                }
                '|' => {
                    self.atom = None;
                    self.out.push('|');
                }
                ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' if self.extended => {}
                '#' if self.extended => while self.rest.next().is_some_and(|(_, c)| c != '\n') {},
                '^' | '$' | '.' => {
                    self.begin_atom();
                    self.out.push(character);
                }
                _ => {
                    self.begin_atom();
                    self.literal(character);
                }
            }
        }
        match self.open.is_empty() {
            true => Ok(()),
            false => Err(PatternError("unclosed group".into())),
        }
    }

    fn begin_atom(&mut self) {
        self.atom = Some(self.out.len());
        self.quantified = false;
    }

    fn literal(&mut self, character: char) {
        if is_meta(character) {
            self.out.push('\\');
        }
        self.out.push(character);
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, character)| *character)
    }

    fn take_if(&mut self, wanted: char) -> bool {
        self.rest.next_if(|(_, character)| *character == wanted).is_some()
    }

    /// Writes a quantifier, with the `?` or `+` that may follow it.
    fn quantify(&mut self, quantifier: &str, plus_is_possessive: bool) -> Result<(), PatternError> {
        let Some(start) = self.atom else {
            return Err(PatternError(format!("`{quantifier}` has nothing before it to repeat")));
        };
        if self.quantified {
            self.out.insert_str(start, "(?:");
            self.out.push(')');
        }
        self.out.push_str(quantifier);
        if self.take_if('?') {
            self.out.push('?');
        } else if plus_is_possessive && self.take_if('+') {
            self.out.insert_str(start, "(?>");
            self.out.push(')');
            self.backtracks = true;
        }
        self.quantified = true;
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}`, `{,m}`; anything else is a brace.
    fn braces(&mut self, at: usize) -> Result<(), PatternError> {
        let behind = self.source.get(at + 1..).unwrap_or_default();
        let inside = behind.split_once('}').map(|(inside, _)| inside);
        let quantifier = inside.and_then(|inside| {
            let digits = |text: &str| text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
            match inside.split_once(',') {
                None if !inside.is_empty() && digits(inside) => Some(format!("{{{inside}}}")),
                Some((low, high)) if digits(low) && digits(high) && (!low.is_empty() || !high.is_empty()) => {
                    Some(format!("{{{},{high}}}", if low.is_empty() { "0" } else { low }))
                }
                _ => None,
            }
        });
        match (quantifier, inside) {
            (Some(quantifier), Some(inside)) if self.atom.is_some() => {
                for _ in 0..=inside.len() {
                    self.rest.next();
                }
                self.quantify(&quantifier, false)
            }
            _ => {
                self.begin_atom();
                self.literal('{');
                Ok(())
            }
        }
    }

    /// A group, at its parenthesis.
    fn open(&mut self, at: usize) -> Result<(), PatternError> {
        let start = self.out.len();
        let behind = self.source.get(at + 1..).unwrap_or_default();
        let Some(kind) = behind.strip_prefix('?') else {
            self.begin(start, if self.has_names { "(?:" } else { "(" }, 0);
            self.groups += usize::from(!self.has_names);
            return Ok(());
        };
        for look in ["?=", "?!", "?<=", "?<!", "?>"] {
            if behind.starts_with(look) {
                self.backtracks = true;
                self.begin(start, &format!("({look}"), look.len());
                return Ok(());
            }
        }
        if kind.starts_with(':') {
            self.begin(start, "(?:", 2);
            return Ok(());
        }
        for (prefix, end) in [("<", '>'), ("'", '\'')] {
            if let Some(named) = kind.strip_prefix(prefix) {
                let Some((name, _)) = named.split_once(end).filter(|(name, _)| !name.is_empty()) else {
                    return Err(PatternError("a group's name is empty or has no end".into()));
                };
                self.names.push((name.into(), self.groups));
                self.groups += 1;
                self.begin(start, "(", 3 + name.chars().count());
                return Ok(());
            }
        }
        if kind.starts_with('#') {
            while self.rest.next().is_some_and(|(_, c)| c != ')') {}
            return Ok(());
        }
        if kind.starts_with('(') {
            self.backtracks = true;
            return Err(PatternError("conditions `(?(…)…)` are not supported".into()));
        }
        self.flags(start, kind)
    }

    fn begin(&mut self, start: usize, written: &str, skip: usize) {
        for _ in 0..skip {
            self.rest.next();
        }
        self.out.push_str(written);
        self.open.push((start, self.extended));
        self.atom = None;
    }

    /// `(?imx-imx)` and `(?imx-imx:…)`.
    fn flags(&mut self, start: usize, kind: &str) -> Result<(), PatternError> {
        let end = kind.find([':', ')']).unwrap_or(kind.len());
        let (flags, behind) = kind.split_at(end);
        let is_flags = flags.chars().all(|flag| matches!(flag, 'i' | 'm' | 'x' | '-' | 'a' | 'u' | 'd'));
        if !is_flags || behind.is_empty() {
            let shown: String = kind.chars().take(2).collect();
            return Err(PatternError(format!("`(?{shown}` is not supported")));
        }
        let (on, off) = flags.split_once('-').unwrap_or((flags, ""));
        let kept = |flags: &str| -> String {
            let one = |flag| match flag {
                'i' => Some('i'),
                'm' => Some('s'),
                _ => None,
            };
            flags.chars().filter_map(one).collect()
        };
        let (on_kept, off_kept) = (kept(on), kept(off));
        let before = self.extended;
        let extended = (before || on.contains('x')) && !off.contains('x');
        let mut written = format!("(?{on_kept}");
        if !off_kept.is_empty() {
            written.push('-');
            written.push_str(&off_kept);
        }
        let is_group = behind.starts_with(':');
        for _ in 0..flags.len() + 2 {
            self.rest.next();
        }
        self.extended = extended;
        if is_group {
            self.out.push_str(&written);
            self.out.push(':');
            self.open.push((start, before));
        } else if written.len() > 2 {
            self.out.push_str(&written);
            self.out.push(')');
        }
        self.atom = None;
        Ok(())
    }

    /// An escape outside of a class, behind its backslash.
    fn escape(&mut self) -> Result<(), PatternError> {
        let Some((at, character)) = self.rest.next() else {
            return Err(PatternError("it ends in a backslash".into()));
        };
        self.begin_atom();
        match character {
            'A' | 'z' | 'b' | 'B' => {
                self.out.push('\\');
                self.out.push(character);
            }
            'Z' => {
                self.backtracks = true;
                self.out.push_str(r"(?=\n?\z)");
            }
            'G' | 'K' => {
                self.backtracks = true;
                self.out.push('\\');
                self.out.push(character);
            }
            'R' if self.unicode => self.out.push_str(r"(?:\r\n|[\n\x0b\x0c\r\x{85}\x{2028}\x{2029}])"),
            'R' => self.out.push_str(r"(?:\r\n|[\n\x0b\x0c\r])"),
            'k' => self.named_reference(at)?,
            'g' | 'X' => return Err(PatternError(format!("`\\{character}` is not supported"))),
            '1'..='9' if !self.is_octal(at) => {
                let number: usize = self.digits(at, 10, 3).parse().unwrap_or(usize::MAX);
                if number >= self.groups {
                    return Err(PatternError(format!("`\\{number}` refers to a group that is not before it")));
                }
                self.backtracks = true;
                self.out.push_str(&format!(r"(?:\{number})"));
            }
            _ => match class_of(character) {
                Some(class) => self.out.push_str(&format!("[{class}]")),
                None => self.character(at, character)?,
            },
        }
        Ok(())
    }

    /// `\k<name>` or `\k'name'`.
    fn named_reference(&mut self, at: usize) -> Result<(), PatternError> {
        let behind = self.source.get(at + 1..).unwrap_or_default();
        let name = ['<', '\''].into_iter().zip(['>', '\'']).find_map(|(open, close)| {
            behind.strip_prefix(open).and_then(|behind| behind.split_once(close)).map(|(name, _)| name)
        });
        let name = name.ok_or_else(|| PatternError(r"`\k` must be followed by a name in angle brackets".into()))?;
        let known = self.names.iter().rev().find(|(known, _)| **known == *name).map(|(_, number)| *number);
        let number = known.or_else(|| name.parse().ok().filter(|number| *number > 0 && *number < self.groups));
        let Some(number) = number else {
            return Err(PatternError(format!(r"`\k<{name}>` refers to a group that is not before it")));
        };
        for _ in 0..name.chars().count() + 2 {
            self.rest.next();
        }
        self.backtracks = true;
        self.out.push_str(&format!(r"(?:\{number})"));
        Ok(())
    }

    /// Whether digits after a backslash are a character: more than one, and no group that is there before.
    fn is_octal(&self, at: usize) -> bool {
        let digits: String =
            self.source.get(at..).unwrap_or_default().chars().take(3).take_while(char::is_ascii_digit).collect();
        digits.len() > 1
            && digits.parse::<usize>().is_ok_and(|number| number >= self.groups)
            && digits.starts_with(|digit| digit < '8')
    }

    /// Digits from the character at `at` on, which was taken; takes the others.
    fn digits(&mut self, at: usize, radix: u32, count_max: usize) -> &str {
        let text = self.source.get(at..).unwrap_or_default();
        let count = text.chars().take(count_max).take_while(|character| character.is_digit(radix)).count();
        for _ in 1..count {
            self.rest.next();
        }
        self.source.get(at..at + count).unwrap_or_default()
    }

    /// An escape that stands for one character (or, for `\p`, a property), in a class or outside.
    fn character(&mut self, at: usize, character: char) -> Result<(), PatternError> {
        match character {
            'n' | 't' | 'r' | 'f' | 'v' | 'a' => {
                self.out.push('\\');
                self.out.push(character);
            }
            'e' => self.out.push_str(r"\x1b"),
            '0'..='7' => {
                let code = u32::from_str_radix(self.digits(at, 8, 3), 8).unwrap_or_default();
                self.code(code)?;
            }
            'x' | 'u' => {
                let braced = self.source.get(at + 1..).and_then(|behind| behind.strip_prefix('{'));
                let digits = match braced.and_then(|braced| braced.split_once('}')) {
                    Some((digits, _)) => {
                        for _ in 0..digits.chars().count() + 2 {
                            self.rest.next();
                        }
                        digits
                    }
                    None => {
                        if self.rest.next().is_none() {
                            return Err(PatternError(format!("`\\{character}` needs digits")));
                        }
                        let count_max = if character == 'x' { 2 } else { 4 };
                        self.digits(at + 1, 16, count_max)
                    }
                };
                let code = u32::from_str_radix(digits.trim(), 16);
                let code = code.map_err(|_| PatternError(format!("`\\{character}` needs hexadecimal digits")))?;
                self.code(code)?;
            }
            'c' => match self.rest.next() {
                Some((_, letter)) if letter.is_ascii() => self.code(u32::from(letter) & 0x1f)?,
                _ => return Err(PatternError(r"`\c` needs a letter".into())),
            },
            'p' | 'P' => self.property(at, character)?,
            // Within a class, and an escaped letter that means nothing: itself.
            'b' => self.out.push_str(r"\x08"),
            _ => self.literal(character),
        }
        Ok(())
    }

    fn code(&mut self, code: u32) -> Result<(), PatternError> {
        // Over 0x7f it is a byte of a character for Onigmo; as text in UTF-8 it cannot be told from the character.
        if char::from_u32(code).is_none() {
            return Err(PatternError(format!("{code:#x} is no character")));
        }
        self.out.push_str(&if self.unicode || code > 0xff {
            format!(r"\x{{{code:x}}}")
        } else {
            format!(r"\x{code:02x}")
        });
        Ok(())
    }

    /// `\p{Alpha}`, `\p{^Alpha}`, `\P{Alpha}`; the names of POSIX brackets become these, others are left to the engine.
    fn property(&mut self, at: usize, character: char) -> Result<(), PatternError> {
        let braced = self.source.get(at + 1..).and_then(|behind| behind.strip_prefix('{'));
        let Some((name, _)) = braced.and_then(|braced| braced.split_once('}')) else {
            return Err(PatternError(format!("`\\{character}` needs a name in braces")));
        };
        for _ in 0..name.chars().count() + 2 {
            self.rest.next();
        }
        let (plain, inverted) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
        let not = (character == 'P') != inverted;
        match posix(&plain.to_ascii_lowercase(), self.unicode) {
            Some(class) => self.out.push_str(&format!("[{}{class}]", if not { "^" } else { "" })),
            None => self.out.push_str(&format!(r"\{}{{{plain}}}", if not { 'P' } else { 'p' })),
        }
        Ok(())
    }

    /// A class behind its bracket, up to the one that closes it.
    fn class(&mut self, depth: usize) -> Result<(), PatternError> {
        const DEPTH_MAX: usize = 16;
        if depth > DEPTH_MAX {
            return Err(PatternError("classes nest too deep".into()));
        }
        let unclosed = || PatternError("unclosed character class".into());
        self.out.push('[');
        if self.take_if('^') {
            self.out.push('^');
        }
        // Right at the start it is itself.
        if self.take_if(']') {
            self.out.push_str(r"\]");
        }
        // Whether a `-` may make a range of what was last written.
        let mut ranges = false;
        loop {
            let (at, character) = self.rest.next().ok_or_else(unclosed)?;
            match character {
                ']' => {
                    self.out.push(']');
                    return Ok(());
                }
                '[' => {
                    let behind = self.source.get(at + 1..).unwrap_or_default();
                    match behind.strip_prefix(':').and_then(|behind| behind.split_once(":]")) {
                        Some((name, _)) if name.len() <= 8 => self.posix_bracket(name)?,
                        _ => self.class(depth + 1)?,
                    }
                    ranges = false;
                }
                '&' if self.peek() == Some('&') => {
                    self.rest.next();
                    self.out.push_str("&&");
                    ranges = false;
                }
                '-' => {
                    let next = self.source.get(at + 1..).unwrap_or_default();
                    let is_range = ranges && !next.starts_with([']', '[']) && !starts_with_shorthand(next);
                    self.out.push_str(if is_range { "-" } else { r"\-" });
                    if is_range {
                        self.class_item()?;
                    }
                    ranges = false;
                }
                _ => ranges = self.class_character(character)?,
            }
        }
    }

    /// The end of a range.
    fn class_item(&mut self) -> Result<(), PatternError> {
        match self.rest.next() {
            Some((_, character)) => self.class_character(character).map(drop),
            None => Err(PatternError("unclosed character class".into())),
        }
    }

    /// One character or escape of a class; says whether a range may start with it.
    fn class_character(&mut self, character: char) -> Result<bool, PatternError> {
        if character != '\\' {
            if matches!(character, '^' | '&' | '~') {
                self.out.push('\\');
            }
            self.out.push(character);
            return Ok(true);
        }
        let Some((at, character)) = self.rest.next() else {
            return Err(PatternError("it ends in a backslash".into()));
        };
        match class_of(character) {
            Some(class) if class.starts_with('^') => self.out.push_str(&format!("[{class}]")),
            Some(class) => self.out.push_str(class),
            None => {
                self.character(at, character)?;
                return Ok(!matches!(character, 'p' | 'P'));
            }
        }
        Ok(false)
    }

    /// `[:name:]` in a class, behind its bracket.
    fn posix_bracket(&mut self, name: &str) -> Result<(), PatternError> {
        for _ in 0..name.chars().count() + 3 {
            self.rest.next();
        }
        let (plain, not) = name.strip_prefix('^').map_or((name, ""), |name| (name, "^"));
        let class = posix(plain, self.unicode)
            .ok_or_else(|| PatternError(format!("`[:{name}:]` is no class of characters")))?;
        self.out.push_str(&format!("[{not}{class}]"));
        Ok(())
    }
}

/// Whether a character means more than itself to the engines.
fn is_meta(character: char) -> bool {
    matches!(
        character,
        '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '#' | '&' | '-' | '~'
    )
}
