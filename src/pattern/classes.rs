//! Classes of characters that have names in Ruby, as the engines write them.

/// Whether the next is an escape that stands for many characters.
pub(super) fn starts_with_shorthand(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next() == Some('\\')
        && characters
            .next()
            .is_some_and(|letter| matches!(letter, 'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'h' | 'H' | 'p' | 'P'))
}

/// The inside of the class that an escape stands for. In Ruby these know ASCII only.
pub(super) fn class_of(letter: char) -> Option<&'static str> {
    Some(match letter {
        'd' => "0-9",
        'D' => "^0-9",
        'w' => "a-zA-Z0-9_",
        'W' => "^a-zA-Z0-9_",
        's' => r"\t\n\x0b\x0c\r\x20",
        'S' => r"^\t\n\x0b\x0c\r\x20",
        'h' => "0-9a-fA-F",
        'H' => "^0-9a-fA-F",
        _ => return None,
    })
}

/// The inside of the class that a POSIX name stands for. In Ruby these know Unicode.
pub(super) fn posix(name: &str, unicode: bool) -> Option<&'static str> {
    Some(match (name, unicode) {
        ("alpha", true) => r"\p{Alphabetic}",
        ("alpha", false) => "a-zA-Z",
        ("digit", true) => r"\p{Nd}",
        ("digit", false) => "0-9",
        ("alnum", true) => r"\p{Alphabetic}\p{Nd}",
        ("alnum", false) => "a-zA-Z0-9",
        ("upper", true) => r"\p{Uppercase}",
        ("upper", false) => "A-Z",
        ("lower", true) => r"\p{Lowercase}",
        ("lower", false) => "a-z",
        ("space", true) => r"\s",
        ("space", false) => r"\t\n\x0b\x0c\r\x20",
        ("word", true) => r"\w",
        ("word", false) => "a-zA-Z0-9_",
        ("punct", true) => r"\p{P}\$\+<=>\^`\|\~",
        ("punct", false) => r"!-/:-@\[-`\{-\~",
        ("blank", _) => r"\x20\t",
        ("cntrl", true) => r"\p{Cc}",
        ("cntrl", false) => r"\x00-\x1f\x7f",
        ("xdigit", _) => "0-9a-fA-F",
        ("graph", true) => r"[^\s\p{Cc}\p{Cn}]",
        ("graph", false) => r"!-\~",
        ("print", true) => r"[^\p{Cc}\p{Cn}]",
        ("print", false) => r"\x20-\~",
        ("ascii", _) => r"\x00-\x7f",
        _ => return None,
    })
}
