//! Where a query ends in running text: at a blank, or at the quote that closes what was opened before the query.
//!
//! Text comes from formats that escape nothing (Envoy's access log), formats that do (JSON), JSON within JSON (`\"`), and
//! dumps (`':path', '/x?a=b'`). A quote may also be part of the query. So a quote ends a query only if
//!
//! 1. the same quote (kind, and number of backslashes before it) was opened before the query began,
//! 2. no quote opened within the query waits for it (`?a={"b":"c"}`), and all quotes within the query pair up without doubt,
//!    and
//! 3. it does not look like the beginning of a string (`:"`), except where a parameter is empty (`?a="`), and
//! 4. what follows is what may follow a closed quote: the end, a blank, an escaped blank, the end of the string around; or any
//!    number of brackets and separators, the first of them one of `,;:)]}>|`, and then one of the former, or for `"` a plain
//!    word in quotes (`","status":`).
//!
//! In doubt the query goes on to the next blank: redaction fails closed.

/// Quotes remembered as open at one time; older ones are forgotten, and then close nothing.
const OPEN_MAX: usize = 8;

/// One kind of quote: the character and the number of backslashes before it.
type Quote = (u8, usize);

/// Quotes that are open, outermost first.
#[derive(Clone, Copy)]
struct Open {
    quotes: [Quote; OPEN_MAX],
    count: usize,
    /// Whether it can no longer be told what is open.
    lost: bool,
}

impl Open {
    const NONE: Self = Self { quotes: [(0, 0); OPEN_MAX], count: 0, lost: false };

    fn position(&self, quote: Quote) -> Option<usize> {
        self.quotes[..self.count].iter().rposition(|&open| open == quote)
    }

    fn push(&mut self, quote: Quote) {
        if self.count == OPEN_MAX {
            self.quotes.rotate_left(1);
            self.count -= 1;
            self.lost = true;
        }
        self.quotes[self.count] = quote;
        self.count += 1;
    }
}

/// What was read of the text before a query, fed piece by piece.
pub(super) struct Context {
    open: Open,
    /// The last byte that is no backslash.
    previous: u8,
    /// Backslashes since.
    backslashes: usize,
}

impl Context {
    pub fn new() -> Self {
        Self { open: Open::NONE, previous: b' ', backslashes: 0 }
    }

    /// Reads on.
    pub fn feed(&mut self, text: &[u8]) {
        for &byte in text {
            if byte == b'\\' {
                self.backslashes += 1;
                continue;
            }
            if is_quote(byte) {
                let quote = (byte, self.backslashes);
                if let Some(at) = self.open.position(quote) {
                    self.open.count = at;
                } else if comes_before_opening(self.previous) {
                    self.open.push(quote);
                }
            }
            self.previous = byte;
            self.backslashes = 0;
        }
    }

    /// Where a value that may hold blanks ends: with the line, or at a quote that closes what was opened before.
    pub fn end_of_line(&self, text: &[u8], from: usize) -> usize {
        let mut backslashes = 0;
        for (at, &byte) in text.iter().enumerate().skip(from) {
            match byte {
                b'\n' | b'\r' => return at,
                b'n' | b'r' if backslashes > 0 => return at - backslashes,
                b'\\' => {
                    backslashes += 1;
                    continue;
                }
                _ if is_quote(byte) => {
                    let quote = (byte, backslashes);
                    if self.open.position(quote).is_some() && may_follow_closed(quote, text, at + 1) {
                        return at - backslashes;
                    }
                }
                _ => {}
            }
            backslashes = 0;
        }
        text.len()
    }

    /// Where the query that begins at `from` ends.
    pub fn end_of_query(&self, text: &[u8], from: usize) -> usize {
        let mut nested = Open::NONE;
        let mut previous = b'=';
        let mut backslashes = 0;
        for (at, &byte) in text.iter().enumerate().skip(from) {
            if is_blank(byte) {
                return at;
            }
            if byte == b'\\' {
                backslashes += 1;
                continue;
            }
            if is_quote(byte) {
                let quote = (byte, backslashes);
                if let Some(place) = nested.position(quote) {
                    nested.count = place;
                    // This one looks like the beginning of a string, and `""` is the only string that ends so.
                    nested.lost |= previous != byte && comes_before_opening(previous);
                } else if !nested.lost
                    && self.open.position(quote).is_some()
                    && !OPENING.contains(&previous)
                    && may_follow_closed(quote, text, at + 1)
                {
                    return at - backslashes;
                } else if comes_before_opening(previous) {
                    nested.push(quote);
                }
            }
            previous = byte;
            backslashes = 0;
        }
        text.len()
    }
}

pub(super) fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// ASCII white space, the vertical tab included. No other control byte ends a query.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// What stands before the beginning of a string, and hardly ever ends one.
pub(super) const OPENING: &[u8] = b":,;([{<|";

fn comes_before_opening(byte: u8) -> bool {
    is_blank(byte) || is_quote(byte) || byte == b'=' || OPENING.contains(&byte)
}

/// What may stand between two strings, or behind the last.
const SEPARATORS: &[u8] = b",;:()[]{}<>|";

/// What of it may stand right behind a string.
const CLOSING: &[u8] = b",;:)]}>|";

/// A name of a member, or a short value, is not longer than this, in bytes.
const WORD_BYTES_MAX: usize = 64;

/// Whether the text from `at` on looks as if the `quote` before it closed something.
fn may_follow_closed((quote, level): Quote, text: &[u8], at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default();
    let is_closing = rest.first().is_some_and(|byte| CLOSING.contains(byte));
    let separators = if is_closing { rest.iter().take_while(|byte| SEPARATORS.contains(byte)).count() } else { 0 };
    let rest = &rest[separators..];
    let backslashes = rest.iter().take_while(|&&byte| byte == b'\\').count();
    match rest.get(backslashes) {
        None => true,
        Some(&next) if backslashes == 0 && is_blank(next) => true,
        Some(b'n' | b'r' | b't') if backslashes > 0 => true,
        // The end of the string around this one.
        Some(&next) if next == quote && backslashes < level => may_follow_outer(&rest[backslashes + 1..]),
        // `","`, and not `','`: what writes that, writes blanks too, and dumps of headers do not.
        Some(&next) => is_closing && next == quote && quote == b'"' && is_word(&rest[backslashes + 1..], backslashes),
    }
}

/// Whether the text begins with a plain word and the quote that ends it, which has so many backslashes.
fn is_word(text: &[u8], backslashes: usize) -> bool {
    let is_plain = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-.@$/ ".contains(byte);
    let length = text.iter().take(WORD_BYTES_MAX).take_while(is_plain).count();
    let escapes = text[length..].iter().take_while(|&&byte| byte == b'\\').count();
    let after = &text[length + escapes..];
    escapes == backslashes && after.first() == Some(&b'"') && may_follow_outer(&after[1..])
}

/// Whether the text begins with what may follow a quote: the end, a blank, a separator or an escape.
fn may_follow_outer(text: &[u8]) -> bool {
    text.first().is_none_or(|byte| is_blank(*byte) || SEPARATORS.contains(byte) || *byte == b'\\')
}
