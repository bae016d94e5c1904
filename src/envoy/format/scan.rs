//! Cuts a format string into literals and operators, as Envoy does.

use super::error::{FormatError, FormatErrorKind};
use crate::envoy::operator::{Argument, Operator};
use crate::envoy::shape::Shape;
use crate::envoy::time::TimeFormat;

/// A part of a format string.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'f> {
    /// What stands there as it is, `%%` resolved; never empty.
    Literal(Box<[u8]>),
    /// An operator.
    Operator(Found<'f>),
}

/// An operator as it stands in a format string.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'f> {
    /// Where its first percent sign stands.
    pub at: usize,
    /// What stands between the percent signs.
    pub text: &'f str,
    /// Its name.
    pub name: &'f str,
    /// What stands in its parentheses, if there are any.
    pub argument: Option<&'f str>,
    /// What stands behind the colon.
    pub length: Option<&'f str>,
}

/// The parts of a format string, up to the first that is none.
pub(super) fn pieces(format: &str) -> impl Iterator<Item = Result<Piece<'_>, FormatError>> {
    let mut at = 0;
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over || at == format.len() {
            return None;
        }
        let piece = match literal(format, &mut at) {
            Some(text) => Ok(Piece::Literal(text)),
            None => operator(format, &mut at).map(Piece::Operator),
        };
        is_over = piece.is_err();
        Some(piece)
    })
}

fn literal(format: &str, at: &mut usize) -> Option<Box<[u8]>> {
    let mut text = Vec::new();
    loop {
        let rest = &format[*at..];
        let end = rest.find('%').unwrap_or(rest.len());
        text.extend_from_slice(&rest.as_bytes()[..end]);
        *at += end;
        if !format[*at..].starts_with("%%") {
            break;
        }
        text.push(b'%');
        *at += 2;
    }
    (!text.is_empty()).then(|| text.into())
}

fn operator<'f>(format: &'f str, at: &mut usize) -> Result<Found<'f>, FormatError> {
    let start = *at;
    let fail = |kind| Err(FormatError { at: start, kind });
    let inside = &format[start + 1..];
    let is_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    let name = &inside[..inside.bytes().take_while(is_name).count()];
    if name.is_empty() {
        return fail(FormatErrorKind::NoName);
    }
    let mut rest = &inside[name.len()..];
    let mut argument = None;
    if let Some(behind) = rest.strip_prefix('(') {
        let Some(end) = end_of_argument(behind) else {
            return fail(FormatErrorKind::UnclosedArgument(name.to_owned()));
        };
        argument = Some(&behind[..end]);
        rest = &behind[end + 1..];
    }
    let Some(end) = rest.find('%') else { return fail(FormatErrorKind::Unclosed(name.to_owned())) };
    let length = match rest[..end].strip_prefix(':') {
        None if end == 0 => None,
        Some(length) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => Some(length),
        Some(length) => return fail(FormatErrorKind::Length(name.to_owned(), shorten(length))),
        None => return fail(FormatErrorKind::Unclosed(format!("{name}{}", shorten(&rest[..end])))),
    };
    let text = &inside[..inside.len() - rest.len() + end];
    *at = start + 1 + text.len() + 1;
    Ok(Found { at: start, text, name, argument, length })
}

/// The parenthesis behind which the operator ends: an argument may hold others (`CEL`, `COALESCE`), and percent signs.
fn end_of_argument(text: &str) -> Option<usize> {
    let closes = |at: &usize| {
        let rest = &text[at + 1..];
        let digits =
            rest.strip_prefix(':').map(|digits| digits.trim_start_matches(|digit: char| digit.is_ascii_digit()));
        rest.starts_with('%') || digits.is_some_and(|rest| rest.starts_with('%'))
    };
    let places = || text.bytes().enumerate().filter(|(_, byte)| *byte == b')').map(|(at, _)| at);
    // None that closes well: the first one, for the message.
    places().find(closes).or_else(|| places().next())
}

/// Enough of a text to recognise it in a message.
fn shorten(text: &str) -> String {
    text.chars().take(20).collect()
}

/// Whether argument and length are such as the operator takes.
pub(super) fn check(found: &Found<'_>, operator: &Operator) -> Result<(), FormatError> {
    let name = || found.name.to_owned();
    let fail = |kind| Err(FormatError { at: found.at, kind });
    let argument = found.argument.unwrap_or_default();
    match operator.argument {
        Argument::None if !argument.is_empty() => {
            return fail(FormatErrorKind::Argument(name(), shorten(argument)));
        }
        Argument::Selects | Argument::Header if argument.is_empty() => {
            return fail(FormatErrorKind::NoArgument(name()));
        }
        Argument::Header if !is_header(argument) => {
            return fail(FormatErrorKind::Header(name(), shorten(argument)));
        }
        _ => {}
    }
    match found.length {
        Some(length) if !operator.has_length => {
            fail(FormatErrorKind::NoLength(name(), length.parse().unwrap_or(usize::MAX)))
        }
        _ => Ok(()),
    }
}

/// One header, or two with `?` between them.
fn is_header(argument: &str) -> bool {
    let mut names = argument.split('?');
    let is_name = |name: &str| {
        let name = name.strip_prefix(':').unwrap_or(name);
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"():,?\"".contains(&byte))
    };
    names.clone().count() <= 2 && names.all(is_name)
}

/// How a time with that argument looks. The compiled format lives as long as the process, as the layout does that holds it.
pub(super) fn time_shape(found: &Found<'_>, argument: &str) -> Result<Shape, FormatError> {
    if argument.is_empty() {
        return Ok(Shape::Time);
    }
    match TimeFormat::compile(argument) {
        Ok(format) => Ok(Shape::TimeBy(Box::leak(Box::new(format)))),
        Err(conversion) => Err(FormatError { at: found.at, kind: FormatErrorKind::Conversion(conversion) }),
    }
}
