//! Values of several words, as Fluent Bit splits them.

/// A word and the rest behind one blank: `KEY PATTERN` of grep. What follows, blanks included, belongs to the rest.
pub(super) fn key_and_rest(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let (key, rest) = text.split_once([' ', '\t'])?;
    (!rest.is_empty()).then_some((key, rest))
}

/// The next word and what is behind it; a word in double quotes may hold blanks, and `\"`.
pub(super) fn word(text: &str) -> Option<(String, &str)> {
    word_in_quotes(text, "\"")
}

/// As [`word`], with the quotes that may stand around it. A quote without its end is part of the word.
fn word_in_quotes<'t>(text: &'t str, quotes: &str) -> Option<(String, &'t str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let first = text.chars().next()?;
    if let Some(quoted) = quotes.contains(first).then(|| text.get(1..)).flatten()
        && let Some((word, rest)) = until_quote(quoted, first)
    {
        return Some((word, rest.trim_start_matches([' ', '\t'])));
    }
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    Some((word.to_owned(), rest.trim_start_matches([' ', '\t'])))
}

fn until_quote(quoted: &str, quote: char) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        let behind = quoted.get(at + 1..).unwrap_or_default();
        match character {
            '\\' if behind.starts_with(quote) => {
                word.push(quote);
                characters.next();
            }
            _ if character == quote => return Some((word, behind)),
            _ => word.push(character),
        }
    }
    None
}

/// A word, and a value: `KEY VALUE` of record_modifier. The value may stand in double quotes. Several words without quotes, which
/// Fluent Bit would refuse, are one value.
pub(super) fn key_and_value(text: &str) -> Option<(String, String)> {
    let (key, rest) = word(text)?;
    let rest = rest.trim_end_matches([' ', '\t']);
    let value = match word(rest) {
        Some((value, "")) => value,
        _ => rest.to_owned(),
    };
    (!rest.is_empty()).then_some((key, value))
}

/// All words; each may stand in double or single quotes.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some((word, behind)) = word_in_quotes(rest, "\"'") {
        words.push(word);
        rest = behind;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_keeps_its_blanks() {
        assert_eq!(key_and_rest("log ^a  b$"), Some(("log", "^a  b$")));
        assert_eq!(key_and_rest("log  x"), Some(("log", " x")), "only one blank parts them, as in Fluent Bit");
        assert_eq!(key_and_rest("log"), None);
        assert_eq!(key_and_rest("log "), None);
    }

    #[test]
    fn values_may_stand_in_quotes() {
        let pair = |text| key_and_value(text).map(|(key, value)| format!("{key}={value}"));
        assert_eq!(pair("a b").as_deref(), Some("a=b"));
        assert_eq!(pair("a  \"b  \\\"c\" ").as_deref(), Some("a=b  \"c"));
        assert_eq!(pair("a b c").as_deref(), Some("a=b c"));
        assert_eq!(pair("a \"\"").as_deref(), Some("a="));
        assert_eq!(pair("a"), None);
        assert_eq!(words("x 'y z' \"q\" it's"), ["x", "y z", "q", "it's"]);
    }
}
