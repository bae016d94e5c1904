//! Acknowledgements: `{"ack": chunk}` in the client's own format.

use super::ChunkId;
use super::msgpack::{Reader, Token};
use crate::chunk::Encoding;

/// Appends the reply that tells a client that its chunk is taken over. The chunk's type (str or bin) is the client's, as in fluentd.
pub fn write_ack(chunk: &ChunkId<'_>, encoding: Encoding, out: &mut Vec<u8>) {
    match encoding {
        Encoding::ForwardJson => write_json(chunk, out),
        Encoding::Forward | Encoding::Lines | Encoding::Entries => {
            out.extend_from_slice(b"\x81\xa3ack");
            out.extend_from_slice(chunk.raw);
        }
    }
}

fn write_json(chunk: &ChunkId<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"ack\":");
    let value = match Reader::new(chunk.raw).token() {
        Ok(Token::Text(text)) => serde_json::Value::from(String::from_utf8_lossy(text)),
        Ok(Token::UInt(number)) => number.into(),
        Ok(Token::Int(number)) => number.into(),
        Ok(Token::Float(number)) => number.into(),
        Ok(Token::Bool(truth)) => truth.into(),
        Ok(_) | Err(_) => serde_json::Value::Null,
    };
    out.extend_from_slice(value.to_string().as_bytes());
    out.push(b'}');
}
