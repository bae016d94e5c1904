//! What a sink of objects writes down in the journal for after a restart: which records an object holds, before it can become
//! visible; and uploads that have begun, so that nobody pays for what is left of them.
//!
//! ```text
//! object/MARK/KEY   version (1), compression (1), mark (8, little endian), first sequence, length of the prefix in KEY, further
//!              keys taken, records (LEB128 each), spans (see `spans`); MARK, since several objects may be meant for one KEY
//! upload/ID    version (1), key          ID: of the multipart upload; in a directory, the key again
//! ```
//!
//! Order is all: *note, then visible; counted, then settled, then the note removed.* So whatever is in the bucket and not
//! settled has a note. The journal keeps the order of what it is told: were a removal kept and the settling before it
//! not, an object would be stored twice. Notes that are not ours, or of a version that is not known, are left where they are.

use std::sync::Arc;

use crate::journal::{Reader, Settler};

use super::Compression;
use super::object::{Cut, Identity};
use super::spans::{Spans, put, take};

/// The version of both kinds of notes.
const VERSION: u8 = 1;

const OBJECT: &str = "object/";
const UPLOAD: &str = "upload/";

/// Where notes go.
#[derive(Clone)]
pub struct Notes {
    settler: Settler,
}

/// An object whose cut was fixed before the process was started.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What it is called; its number is yet to be given.
    pub identity: Identity,
    /// Its records.
    pub records: u64,
    /// Which they are.
    pub spans: Spans,
}

/// An upload that had begun before the process was started, and may never have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftUpload {
    /// Its id.
    pub id: String,
    /// The key of its object.
    pub key: String,
}

impl Notes {
    /// Through that settler.
    pub fn new(settler: Settler) -> Self {
        Self { settler }
    }

    /// Fixes what an object holds, before it may become visible under the first of its further keys that is not `taken`.
    pub async fn fix(&self, object: &Identity, cut: &Cut, taken: u32) {
        let value = encode(object, cut.records, &cut.spans, taken);
        self.settler.put_note(&name_of(object), value).await;
    }

    /// The records of that object are settled.
    pub fn forget(&self, object: &Identity) {
        self.settler.remove_note(&name_of(object));
    }

    /// An upload begins.
    pub async fn begin_upload(&self, id: &str, key: &str) {
        let mut value = vec![VERSION];
        value.extend_from_slice(key.as_bytes());
        self.settler.put_note(&format!("{UPLOAD}{id}"), value).await;
    }

    /// Nothing is left of an upload.
    pub fn end_upload(&self, id: &str) {
        self.settler.remove_note(&format!("{UPLOAD}{id}"));
    }
}

/// What the note about an object is known by.
fn name_of(object: &Identity) -> String {
    format!("{OBJECT}{:016x}/{}", object.mark, object.key)
}

/// The objects that were planned before the start and are not settled.
pub fn planned(reader: &Reader) -> Vec<Planned> {
    let of_objects = reader.notes().into_iter().filter_map(|(name, value)| {
        let (_mark, key) = name.strip_prefix(OBJECT)?.split_once('/')?;
        let planned = decode(key, &value);
        if planned.is_none() {
            tracing::error!(note = value.first(), "a note about an object cannot be read: it may be stored twice");
        }
        planned
    });
    of_objects.collect()
}

/// The uploads that had begun before the start.
pub fn left_uploads(reader: &Reader) -> Vec<LeftUpload> {
    let of_uploads = reader.notes().into_iter().filter_map(|(name, value)| {
        let id = name.strip_prefix(UPLOAD)?.to_owned();
        let (&VERSION, key) = value.split_first()? else { return None };
        Some(LeftUpload { id, key: String::from_utf8(key.to_vec()).ok()? })
    });
    of_uploads.collect()
}

impl Planned {
    /// The same object under a number.
    pub fn numbered(self, id: u64) -> (Arc<Identity>, u64, Spans) {
        (Arc::new(Identity { id, ..self.identity }), self.records, self.spans)
    }
}

pub(super) fn encode(object: &Identity, records: u64, spans: &Spans, taken: u32) -> Vec<u8> {
    let compression = match object.compression {
        Compression::None => 0,
        Compression::Gzip => 1,
        Compression::Zstd => 2,
    };
    let mut value = vec![VERSION, compression];
    value.extend_from_slice(&object.mark.to_le_bytes());
    for number in [object.first, object.name_at as u64, u64::from(taken), records] {
        put(number, &mut value);
    }
    spans.encode_into(&mut value);
    value
}

pub(super) fn decode(key: &str, value: &[u8]) -> Option<Planned> {
    let (head, mut rest) = value.split_at_checked(10)?;
    let (&[VERSION, compression], mark) = head.split_first_chunk()? else { return None };
    let compression = match compression {
        0 => Compression::None,
        1 => Compression::Gzip,
        2 => Compression::Zstd,
        _ => return None,
    };
    let first = take(&mut rest)?;
    let name_at = usize::try_from(take(&mut rest)?).ok().filter(|at| key.is_char_boundary(*at))?;
    let taken = u32::try_from(take(&mut rest)?).ok()?;
    let records = take(&mut rest)?;
    let identity = Identity {
        id: 0,
        key: key.to_owned(),
        name_at,
        first,
        compression,
        mark: u64::from_le_bytes(mark.try_into().ok()?),
        taken,
        is_returning: true,
    };
    let spans = Spans::decode(rest).filter(|spans| spans.end().is_some())?;
    Some(Planned { identity, records, spans })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::journal::{Place, Span};

    use super::*;

    fn object(compression: Compression) -> Identity {
        Identity {
            id: 0,
            key: "é/x.ndjson".to_owned(),
            name_at: 3,
            first: 700,
            compression,
            mark: u64::MAX - 5,
            taken: 2,
            is_returning: true,
        }
    }

    #[test]
    fn a_note_brings_the_object_back() {
        let mut spans = Spans::default();
        let place = |record| Place { sequence: 700, record };
        spans.push(Span { first: place(3), end: place(9) }, 0, 6);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let value = encode(&object(compression), 6, &spans, 2);
            let planned = decode("é/x.ndjson", &value).unwrap();
            assert_eq!(planned.identity, object(compression));
            assert_eq!((planned.records, planned.spans.end()), (6, Some(place(9))));
            for end in 0..value.len() {
                assert!(decode("é/x.ndjson", &value[..end]).is_none(), "cut at {end}");
            }
            assert!(decode("x", &value).is_none() && decode("ééé", &value).is_none(), "another's key");
            assert!(decode("é/x.ndjson", &[&[2], &value[1..]].concat()).is_none(), "a version of the future");
        }
    }

    proptest! {
        #[test]
        fn no_note_does_harm(value in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut value = value;
            if let Some(version) = value.first_mut() {
                *version = VERSION;
            }
            if let Some(planned) = decode("k", &value) {
                prop_assert!(planned.spans.end().is_some());
            }
        }
    }
}
