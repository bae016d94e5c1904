//! What lies beside a followed file: where it was renamed or copied to, and what came between it and the file of today.
//!
//! A rotated file is known by its name: that of the followed file and behind it what rotations append, a number (`.1`, higher is older),
//! a date or a time (`-20261122`, `.2026-11-22-13`), or `.old`, `.bak`, `.prev`. Compressed ones are no lines and are left alone. A file
//! that is looked for by its own number (inode) may have any name.
//!
//! Cost: two directory listings and one `stat` a file in it, at a rotation or after a restart only; [`FILES_MAX`] files at most.

use std::cmp::Reverse;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Files looked at in one directory.
const FILES_MAX: usize = 4096;

/// Looks at one directory.
const LOOKS_MAX: usize = 5;

/// Larger numbers behind a name are dates.
const NUMBER_MAX: u64 = 9_999;

/// A file, whatever it is called: device and inode.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// What a rotation made of the name. Those of the same kind can be put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rotated {
    /// By a number: the higher, the older.
    Number(u64),
    /// By a date or a word.
    Date,
}

/// A regular file in the directory of the followed one.
#[derive(Clone, Debug)]
pub(super) struct Sibling {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    pub(super) length: u64,
    modified: (i64, i64),
    rotated: Option<Rotated>,
}

impl Sibling {
    /// Whether its name says that it was the followed file once, or is a copy of it.
    pub(super) fn is_rotated(&self) -> bool {
        self.rotated.is_some()
    }
}

/// The regular files beside `path`, itself left out. A listing while names move may show a file twice or not at all: looked at
/// until two in a row are the same.
pub(super) fn list(path: &Path) -> Vec<Sibling> {
    let mut siblings = look(path);
    for _ in 1..LOOKS_MAX {
        let before = std::mem::replace(&mut siblings, look(path));
        let names =
            |siblings: &[Sibling]| siblings.iter().map(|each| (each.path.clone(), each.identity)).collect::<Vec<_>>();
        if names(&before) == names(&siblings) {
            break;
        }
    }
    siblings
}

fn look(path: &Path) -> Vec<Sibling> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else { return Vec::new() };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let siblings = entries.take(FILES_MAX).filter_map(Result::ok).filter(|entry| entry.file_name() != name);
    let siblings = siblings.filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(Metadata::is_file)?;
        Some(Sibling {
            path: entry.path(),
            identity: identity(&metadata),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            rotated: entry.file_name().as_bytes().strip_prefix(name.as_bytes()).and_then(rotated),
        })
    });
    siblings.collect()
}

/// What stands behind the name of the followed file.
fn rotated(suffix: &[u8]) -> Option<Rotated> {
    let (separator, rest) = suffix.split_first()?;
    if !b".-_".contains(separator) || rest.is_empty() {
        return None;
    }
    let number =
        std::str::from_utf8(rest).ok().filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok());
    if let Some(number) = number
        && number <= NUMBER_MAX
    {
        return Some(Rotated::Number(number));
    }
    let is_date = rest[0].is_ascii_digit() && rest.iter().all(|byte| byte.is_ascii_digit() || b"-_.:TZ".contains(byte));
    (is_date || matches!(rest, b"old" | b"bak" | b"prev")).then_some(Rotated::Date)
}

/// Those rotated later than `origin`, which is among them, the oldest first.
pub(super) fn later_than(origin: &Sibling, siblings: &[Sibling]) -> Vec<Sibling> {
    let others = siblings.iter().filter(|other| other.identity != origin.identity);
    let mut later: Vec<Sibling> = match origin.rotated {
        Some(Rotated::Number(number)) => {
            others.filter(|other| matches!(other.rotated, Some(Rotated::Number(n)) if n < number)).cloned().collect()
        }
        Some(Rotated::Date) => others
            .filter(|other| other.rotated == Some(Rotated::Date))
            .filter(|other| (other.modified, &other.path) > (origin.modified, &origin.path))
            .cloned()
            .collect(),
        None => others.filter(|other| other.is_rotated() && other.modified > origin.modified).cloned().collect(),
    };
    later.sort_by_cached_key(|each| match each.rotated {
        // Numbers tell the order even where two were written within one tick of the kernel's clock.
        Some(Rotated::Number(number)) if origin.is_rotated() => (Reverse(number), (0, 0), PathBuf::new()),
        Some(Rotated::Number(number)) => {
            (Reverse(0), each.modified, PathBuf::from(format!("{:020}", u64::MAX - number)))
        }
        Some(Rotated::Date) | None => (Reverse(0), each.modified, each.path.clone()),
    });
    later
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_are_told_from_others() {
        for (suffix, expected) in [
            (".1", Some(Rotated::Number(1))),
            ("-42", Some(Rotated::Number(42))),
            (".007", Some(Rotated::Number(7))),
            ("-20261122", Some(Rotated::Date)),
            (".2026-11-22T13:00:00Z", Some(Rotated::Date)),
            (".old", Some(Rotated::Date)),
            (".1.gz", None),
            ("-20261122.zst", None),
            (".lock", None),
            (".", None),
            ("", None),
            ("1", None),
            (".+1", None),
            ("ger.1", None),
        ] {
            assert_eq!(rotated(suffix.as_bytes()), expected, "{suffix}");
        }
    }

    fn names(siblings: &[Sibling]) -> Vec<String> {
        siblings.iter().map(|each| each.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    fn origin<'s>(siblings: &'s [Sibling], name: &str) -> &'s Sibling {
        siblings.iter().find(|each| each.path.ends_with(name)).unwrap()
    }

    #[test]
    fn what_came_between_is_found_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for name in ["log", "log.10", "log.9", "log.2", "log.1", "log.1.gz", "log.pid", "other.1"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        fs::create_dir(directory.path().join("log.3")).unwrap();
        let siblings = list(&path);
        assert!(!names(&siblings).contains(&"log".to_owned()));
        assert_eq!(names(&later_than(origin(&siblings, "log.10"), &siblings)), ["log.9", "log.2", "log.1"]);
        assert_eq!(names(&later_than(origin(&siblings, "log.1"), &siblings)), [""; 0]);
    }

    #[test]
    fn dates_are_ordered_by_the_time_of_the_last_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for (name, seconds) in [("log-20261121", 1), ("log-20261122", 2), ("log.old", 3), ("moved", 1), ("log.7", 9)] {
            let file = fs::File::create(directory.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        let siblings = list(&path);
        assert_eq!(names(&later_than(origin(&siblings, "log-20261121"), &siblings)), ["log-20261122", "log.old"]);
        assert_eq!(names(&later_than(origin(&siblings, "moved"), &siblings)), ["log-20261122", "log.old", "log.7"]);
    }
}
