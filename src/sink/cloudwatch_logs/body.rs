//! The request body of `PutLogEvents` in AWS JSON 1.1, framed straight from the blocks.
//!
//! `{"logGroupName":"…","logStreamName":"…","logEvents":[{"timestamp":1764000000000,"message":"…"},…]}`

use std::ops::Range;

use super::batch::{Batch, Event};

/// Bytes of an event in the body beside its message: `{"timestamp":1764000000000,"message":""},`.
const EVENT_FRAME_BYTES: usize = 41;

/// The body with those events of the batch.
pub(super) fn frame(batch: &Batch, events: Range<usize>) -> Vec<u8> {
    let events = &batch.events[events];
    let message_bytes = match events.len() == batch.events.len() {
        true => batch.message_bytes,
        false => events.iter().map(Event::len).sum(),
    };
    // JSON lines hold a quote or backslash each eight bytes or so, and each takes a byte more in the body.
    let estimate = message_bytes + message_bytes / 6 + events.len() * EVENT_FRAME_BYTES + 1_200;
    let mut body = Vec::with_capacity(estimate);
    body.extend_from_slice(b"{\"logGroupName\":\"");
    escape(batch.target.group.as_bytes(), &mut body);
    body.extend_from_slice(b"\",\"logStreamName\":\"");
    escape(batch.target.stream.as_bytes(), &mut body);
    body.extend_from_slice(b"\",\"logEvents\":[");
    let mut number = itoa::Buffer::new();
    for (place, event) in events.iter().enumerate() {
        body.extend_from_slice(if place == 0 { b"{\"timestamp\":" } else { b",{\"timestamp\":" });
        body.extend_from_slice(number.format(event.time_ms).as_bytes());
        body.extend_from_slice(b",\"message\":\"");
        let message = batch.message(event);
        if event.is_escaped() {
            body.extend_from_slice(message);
        } else {
            escape(message, &mut body);
        }
        body.extend_from_slice(b"\"}");
    }
    body.extend_from_slice(b"]}");
    body
}

/// What stands after the backslash for each byte that needs one: 0 none, `u` a `\u00XX`.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table
};

/// Appends `text` as the inside of a JSON string.
///
/// A JSON line has a quote each nine bytes or so, too near for runs to be worth a call to copy them: eight bytes are stored at
/// once, and the first of them that needs an escape is written over. 1.5 times as fast as [`escape_slowly`] on access lines.
pub(super) fn escape(text: &[u8], body: &mut Vec<u8>) {
    let start = body.len();
    // Twice the text at most, and the eight bytes stored beyond what is kept.
    body.resize(start + 2 * text.len() + 8, 0);
    let out = &mut body[start..];
    let (mut at, mut end) = (0, 0);
    while let Some(eight) = text[at..].first_chunk::<8>() {
        let Some(room) = out.get_mut(end..end + 8) else { break };
        room.copy_from_slice(eight);
        let special = specials(u64::from_le_bytes(*eight));
        if special == 0 {
            at += 8;
            end += 8;
            continue;
        }
        let place = (special.trailing_zeros() / 8) as usize;
        let escape = ESCAPES[usize::from(eight[place])];
        let Some(pair) = out.get_mut(end + place..end + place + 2) else { break };
        if escape == b'u' {
            break;
        }
        pair.copy_from_slice(&[b'\\', escape]);
        at += place + 1;
        end += place + 2;
    }
    body.truncate(start + end);
    escape_slowly(&text[at..], body);
}

/// The lowest bit set stands in the first byte that is a quote, a backslash or below a blank; none set = there is none.
/// ("Determine if a word has a zero byte", Bit Twiddling Hacks; what it finds beyond the first byte may be wrong.)
fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let found = (quote.wrapping_sub(ONES) & !quote)
        | (backslash.wrapping_sub(ONES) & !backslash)
        | (word.wrapping_sub(ONES * 0x20) & !word);
    found & (ONES * 0x80)
}

/// The same byte by byte: the end of a text, and texts with control characters.
fn escape_slowly(text: &[u8], body: &mut Vec<u8>) {
    let mut copied = 0;
    for (at, &byte) in text.iter().enumerate() {
        let escape = ESCAPES[usize::from(byte)];
        if escape == 0 {
            continue;
        }
        body.extend_from_slice(&text[copied..at]);
        copied = at + 1;
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            body.extend_from_slice(b"\\u00");
            body.extend_from_slice(&digits);
        } else {
            body.extend_from_slice(&[b'\\', escape]);
        }
    }
    body.extend_from_slice(&text[copied..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_escaped_reads_back(text in "\\PC*|[\\x00-\\x7f]*") {
            let mut body = b"\"".to_vec();
            escape(text.as_bytes(), &mut body);
            body.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&body).unwrap(), text);
        }

        #[test]
        fn both_ways_of_escaping_agree_on_any_bytes(
            text in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'!'), Just(b'#')], 0..70),
        ) {
            let (mut fast, mut slow) = (b"x".to_vec(), b"x".to_vec());
            escape(&text, &mut fast);
            escape_slowly(&text, &mut slow);
            prop_assert_eq!(fast, slow);
        }
    }
}
