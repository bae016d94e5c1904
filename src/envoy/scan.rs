//! A JSON scanner over borrowed bytes: one pass that validates everything and copies nothing.
//!
//! The caller hands in text that is known to be UTF-8 and walks an object's members; strings come out as what stands
//! between their quotes, numbers, objects and arrays as they are. Accepted is what RFC 8259 accepts, except for nesting
//! deeper than [`DEPTH_MAX`] and for escapes of lone surrogates, which no reader downstream could turn into text.
//!
//! [`Scanner::tolerant`] is for a second try: within strings it also takes bytes that are not UTF-8, control characters,
//! octal escapes (`\303`: so Envoy prints strings that are not UTF-8) and lone surrogates. What it yields is not JSON until
//! [`super::mend`] has made it so.
//!
//! Cost: strings are skipped eight bytes at a time; everything else is a byte at a time.

/// Objects and arrays nest no deeper than this; keeps the recursion small.
pub const DEPTH_MAX: usize = 32;

/// A scanned value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// The inside of a string, escapes kept.
    String(&'a [u8]),
    /// A number.
    Number(&'a [u8]),
    /// An object or an array.
    Nested(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// A place in a JSON text.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    tolerant: bool,
}

impl<'a> Scanner<'a> {
    /// At the start of a text, which must be UTF-8.
    pub fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), at: 0, tolerant: false }
    }

    /// At the start of any bytes; takes strings that are not JSON's.
    pub fn tolerant(text: &'a [u8]) -> Self {
        Self { text, at: 0, tolerant: true }
    }

    /// Enters the object that the text is.
    pub fn open(&mut self) -> Option<()> {
        self.skip_blanks();
        self.expect(b'{')
    }

    /// Enters the array that the text is.
    pub fn open_list(&mut self) -> Option<()> {
        self.skip_blanks();
        self.expect(b'[')
    }

    /// The array's next element, with the rules of [`Self::member`].
    pub fn element(&mut self, is_first: bool) -> Option<Option<Token<'a>>> {
        self.skip_blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            self.skip_blanks();
            return (self.at == self.text.len()).then_some(None);
        }
        if !is_first {
            self.expect(b',')?;
        }
        Some(Some(self.value(1)?))
    }

    /// The object's next member: `Some(None)` at its end, after which only blanks may follow; `None` if it is not valid.
    pub fn member(&mut self, is_first: bool) -> Option<Option<(&'a [u8], Token<'a>)>> {
        self.skip_blanks();
        if self.peek() == Some(b'}') {
            // A comma before the brace never gets here: after it a name is expected below.
            self.at += 1;
            self.skip_blanks();
            return (self.at == self.text.len()).then_some(None);
        }
        if !is_first {
            self.expect(b',')?;
            self.skip_blanks();
        }
        let name = self.string()?;
        self.skip_blanks();
        self.expect(b':')?;
        Some(Some((name, self.value(1)?)))
    }

    fn value(&mut self, depth: usize) -> Option<Token<'a>> {
        self.skip_blanks();
        let start = self.at;
        match self.peek()? {
            b'"' => self.string().map(Token::String),
            b'{' | b'[' => {
                self.nested(depth + 1)?;
                Some(Token::Nested(&self.text[start..self.at]))
            }
            b't' => self.word(b"true").map(|()| Token::Bool(true)),
            b'f' => self.word(b"false").map(|()| Token::Bool(false)),
            b'n' => self.word(b"null").map(|()| Token::Null),
            _ => self.number().map(Token::Number),
        }
    }

    fn nested(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let is_object = self.peek()? == b'{';
        let close = if is_object { b'}' } else { b']' };
        self.at += 1;
        self.skip_blanks();
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            if is_object {
                self.skip_blanks();
                self.string()?;
                self.skip_blanks();
                self.expect(b':')?;
            }
            self.value(depth)?;
            self.skip_blanks();
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                _ if next == close => return Some(()),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            self.at = end_of_plain(self.text, self.at);
            match self.peek()? {
                b'"' => {
                    let inside = &self.text[start..self.at];
                    self.at += 1;
                    return Some(inside);
                }
                b'\\' => self.escape()?,
                _ if self.tolerant => self.at += 1,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let escaped = *self.text.get(self.at + 1)?;
        self.at += 2;
        match escaped {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'0'..=b'3' if self.tolerant => {
                let rest = self.text.get(self.at..self.at + 2)?;
                self.at += 2;
                rest.iter().all(|digit| matches!(digit, b'0'..=b'7')).then_some(())
            }
            b'u' if self.tolerant => self.hex4().map(drop),
            b'u' => match self.hex4()? {
                0xd800..=0xdbff => {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    (0xdc00..=0xdfff).contains(&self.hex4()?).then_some(())
                }
                0xdc00..=0xdfff => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |number, digit| Some(number * 16 + (*digit as char).to_digit(16)?))
    }

    fn number(&mut self) -> Option<&'a [u8]> {
        let length = number_length(&self.text[self.at..])?;
        let number = &self.text[self.at..self.at + length];
        self.at += length;
        Some(number)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }
}

/// Whether the whole text is a JSON number.
pub fn is_number(text: &[u8]) -> bool {
    number_length(text) == Some(text.len())
}

/// How long the number is that the text begins with.
fn number_length(text: &[u8]) -> Option<usize> {
    let digits_from = |at: usize| text.iter().skip(at).take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits_from(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits_from(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits_from(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}

/// The first byte from `at` on that is a quote, a backslash or a control character; the text's end if there is none.
fn end_of_plain(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        // A zero byte borrows from its neighbour above, so only the lowest hit is sure; it is the only one used.
        let zeroes = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let hits = (zeroes(word ^ (ONES * b'"' as u64)) | zeroes(word ^ (ONES * b'\\' as u64)) | control) & HIGHS;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = text.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The members of an object, or none if the text is no valid object.
    fn members(text: &str) -> Option<Vec<(&[u8], Token<'_>)>> {
        let mut scanner = Scanner::new(text);
        scanner.open()?;
        let mut members = Vec::new();
        while let Some(member) = scanner.member(members.is_empty())? {
            members.push(member);
        }
        Some(members)
    }

    #[test]
    fn members_come_as_they_stand() {
        let text = r#" {"a":"x\"y","b":-1.5e+06, "c" : [1,{"d":null}],"e":{},"f":true,"g":false,"h":null} "#;
        let expected: [(&[u8], Token<'_>); 7] = [
            (b"a", Token::String(br#"x\"y"#)),
            (b"b", Token::Number(b"-1.5e+06")),
            (b"c", Token::Nested(br#"[1,{"d":null}]"#)),
            (b"e", Token::Nested(b"{}")),
            (b"f", Token::Bool(true)),
            (b"g", Token::Bool(false)),
            (b"h", Token::Null),
        ];
        assert_eq!(members(text).unwrap(), expected);
    }

    #[test]
    fn what_is_no_object() {
        for text in [
            "",
            "{",
            "}",
            "[]",
            "1",
            "{}x",
            "{} {}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":-}"#,
            r#"{"a":nul}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\303"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00\ud800"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            "{\"a\":\"\t\"}",
            r#"{"a":[1,]}"#,
            r#"{"a":[1}"#,
            r#"{"a":{"b":1]}"#,
            r#"{a:1}"#,
        ] {
            assert_eq!(members(text), None, "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(members(&nested(DEPTH_MAX)).is_some());
        assert!(members(&nested(DEPTH_MAX + 1)).is_none());
        assert!(members(&"{\"a\":".repeat(100_000)).is_none());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn agrees(text: &str) {
        let ours = members(text);
        let theirs = serde_json::from_str::<serde_json::Value>(text).ok();
        assert_eq!(ours.is_some(), theirs.is_some_and(|value| value.is_object()), "{text}");
    }

    proptest! {
        #[test]
        fn plain_text_ends_where_a_byte_loop_says(text in proptest::collection::vec(any::<u8>(), 0..40), at in 0usize..10) {
            let expected = (at..text.len()).find(|at| matches!(text[*at], b'"' | b'\\' | 0..0x20)).unwrap_or(text.len().max(at));
            prop_assert_eq!(end_of_plain(&text, at), expected);
        }

        #[test]
        fn objects_scan_as_serde_reads_them(map in proptest::collection::btree_map(any::<String>(), json(), 0..8), pretty: bool) {
            let object = serde_json::Value::Object(map.into_iter().collect());
            let text = if pretty { format!("{object:#}") } else { object.to_string() };
            // Read back, for serde does not read every double as it wrote it.
            let object: serde_json::Value = serde_json::from_str(&text).unwrap();
            let members = members(&text).unwrap();
            prop_assert_eq!(members.len(), object.as_object().unwrap().len());
            for (name, token) in members {
                let name: String = serde_json::from_str(&format!("\"{}\"", str::from_utf8(name).unwrap())).unwrap();
                let value: serde_json::Value = match token {
                    Token::String(inside) => serde_json::from_str(&format!("\"{}\"", str::from_utf8(inside).unwrap())).unwrap(),
                    Token::Number(raw) | Token::Nested(raw) => serde_json::from_slice(raw).unwrap(),
                    Token::Bool(truth) => truth.into(),
                    Token::Null => serde_json::Value::Null,
                };
                prop_assert_eq!(Some(&value), object.get(&name));
            }
        }

        #[test]
        fn damaged_objects_are_judged_as_serde_judges_them(
            map in proptest::collection::btree_map("[a-c\"\\\\u0-9]{0,4}", json(), 0..4),
            place in any::<proptest::sample::Index>(), byte in prop::sample::select(b"{}[]\",:\\ eE+-.0u1tn".to_vec()), insert: bool,
        ) {
            let mut text = serde_json::Value::Object(map.into_iter().collect()).to_string().into_bytes();
            let place = place.index(text.len());
            if insert { text.insert(place, byte) } else { text[place] = byte }
            // Numbers too large for a double are valid JSON, and an error only to serde.
            if let Ok(text) = str::from_utf8(&text) && !text.contains(['e', 'E']) {
                agrees(text);
            }
        }

        #[test]
        fn json_like_noise_is_judged_as_serde_judges_it(text in "[{}\\[\\]\",:\\\\ u0-9a-fnrtl.\\-]{0,24}") {
            agrees(&format!("{{{text}"));
        }
    }
}
