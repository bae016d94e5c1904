//! Lines of pairs: logfmt (`key=value key="value" key`) and LTSV (`key:value`, tabs between), by Fluent Bit's grammar.

/// A value as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// No value: `key`, or `key=`.
    None,
    /// As it is.
    Text(&'a [u8]),
    /// In quotes, with backslashes.
    Escaped(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::None => b"",
            Self::Text(bytes) | Self::Escaped(bytes) => bytes,
        }
    }
}

/// What keys and values without quotes are made of.
fn is_ident(byte: u8) -> bool {
    byte > b' ' && byte != b'"' && byte != b'='
}

/// Calls `each` for the pairs of the first line, as long as it says true; false if it did not, or a key has no `=` though all must.
pub(super) fn logfmt<'a>(text: &'a [u8], bare_keys: bool, mut each: impl FnMut(&'a [u8], Value<'a>) -> bool) -> bool {
    let mut rest = text;
    loop {
        rest = skip(rest, |byte| !is_ident(byte)).1;
        if rest.is_empty() {
            return true;
        }
        let (key, behind) = skip(rest, is_ident);
        rest = behind;
        let mut value = Value::None;
        match rest.strip_prefix(b"=") {
            Some(behind) => match behind.strip_prefix(b"\"") {
                Some(quoted) => (value, rest) = until_quote(quoted),
                None => {
                    let (plain, behind) = skip(behind, is_ident);
                    value = if plain.is_empty() { Value::None } else { Value::Text(plain) };
                    rest = behind;
                }
            },
            None if !bare_keys => return false,
            None => {}
        }
        if !each(key, value) {
            return false;
        }
        if matches!(rest.first(), Some(b'\r' | b'\n')) {
            return true;
        }
    }
}

fn until_quote(quoted: &[u8]) -> (Value<'_>, &[u8]) {
    let mut at = 0;
    let mut escaped = false;
    while let Some(byte) = quoted.get(at) {
        match byte {
            b'"' => break,
            b'\\' => {
                escaped = true;
                at += 2;
            }
            _ => at += 1,
        }
    }
    let (inside, behind) = quoted.split_at(at.min(quoted.len()));
    let value = if escaped { Value::Escaped(inside) } else { Value::Text(inside) };
    (value, behind.strip_prefix(b"\"").unwrap_or(behind))
}

/// Calls `each` for the pairs of the first line, as long as it says true; false if it did not.
pub(super) fn ltsv<'a>(text: &'a [u8], mut each: impl FnMut(&'a [u8], &'a [u8]) -> bool) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let (label, behind) = skip(rest, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        let Some(behind) = behind.strip_prefix(b":") else { return true };
        let (field, behind) = skip(behind, |byte| !matches!(byte, 0 | b'\t' | b'\n' | b'\r'));
        rest = behind;
        if !label.is_empty() && !each(label, field) {
            return false;
        }
        match rest.strip_prefix(b"\t") {
            Some(behind) => rest = behind,
            None => return true,
        }
    }
    true
}

/// The bytes at the front that are such, and the rest.
fn skip(text: &[u8], is_such: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !is_such(*byte)).unwrap_or(text.len()))
}
