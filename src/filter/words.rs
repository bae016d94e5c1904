//! Values of several words, as Fluent Bit splits them.

/// A word and the rest behind one blank: `KEY PATTERN` of grep. What follows, blanks included, belongs to the rest.
pub(super) fn key_and_rest(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let (key, rest) = text.split_once([' ', '\t'])?;
    (!rest.is_empty()).then_some((key, rest))
}

/// The next word and what is behind it; a word in double quotes may hold blanks, and `\"`.
pub(super) fn word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return (!word.is_empty()).then(|| (word.to_owned(), rest.trim_start_matches([' ', '\t'])));
    };
    let mut word = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let rest = quoted.get(at + 1..).unwrap_or_default();
                return Some((word, rest.trim_start_matches([' ', '\t'])));
            }
            '\\' if quoted.get(at + 1..).is_some_and(|rest| rest.starts_with('"')) => {
                word.push('"');
                characters.next();
            }
            _ => word.push(character),
        }
    }
    // Without an end it is as it stands.
    Some((word, ""))
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

/// All words.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some((word, behind)) = word(rest) {
        words.push(word);
        rest = behind;
    }
    words
}
