use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

#[test]
fn slashes_make_directories_and_nothing_leaves_the_root() {
    let at = |name: &str| place(Path::new("/d"), name).to_string_lossy().into_owned();
    assert_eq!(at("/ecs/web//stream.jsonl"), "/d/ecs/web/stream.jsonl");
    assert_eq!(at("../../etc/./passwd"), "/d/_/_/etc/passwd");
    assert_eq!(at("a\0b\nc/…"), "/d/a_b_c/…");
    assert_eq!(at(""), "/d");
}

proptest! {
    #[test]
    fn any_name_is_below_the_root(parts in prop::collection::vec(prop_oneof![
        any::<String>(), Just("..".to_owned()), Just("/".to_owned()), Just(".".to_owned()), "é{200}",
    ], 0..8)) {
        let path = place(Path::new("/d"), &parts.concat());
        prop_assert!(path.starts_with("/d"));
        for component in path.components().skip(2) {
            let std::path::Component::Normal(name) = component else {
                return Err(TestCaseError::fail(format!("{component:?}")));
            };
            prop_assert!(name.len() <= COMPONENT_BYTES_MAX);
        }
    }
}

#[test]
fn a_failed_write_leaves_nothing_behind_in_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/.x.part");
    directory::write_at(&path, 0, &"hello ".into()).unwrap();
    // What a write that broke off left at the end.
    fs::write(&path, "hello wor").unwrap();
    directory::write_at(&path, 6, &"world".into()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello world");
    // An earlier process's file of that name begins anew.
    directory::write_at(&path, 0, &"x".into()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"x");
}

#[test]
fn a_file_cut_by_another_is_never_published() {
    let directory = tempfile::tempdir().unwrap();
    let (path, name) = (directory.path().join(".x.part"), directory.path().join("x"));
    directory::write_at(&path, 0, &"hello".into()).unwrap();
    fs::write(&path, "he").unwrap();
    assert!(directory::write_at(&path, 5, &"x".into()).is_err());
    assert!(directory::sync(&path, 5).is_err());
    assert!(directory::publish(directory.path(), &path, 5, |_| name.clone()).is_err());
    fs::remove_file(&path).unwrap();
    assert!(directory::write_at(&path, 5, &"x".into()).is_err());
    assert!(!path.exists() && !name.exists());
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::write(root.join("x"), "old").unwrap();
    directory::write_at(&root.join(".x.part"), 0, &"new".into()).unwrap();
    directory::publish(root, &root.join(".x.part"), 3, |nth| root.join(["x", "x-r1"][nth as usize])).unwrap();
    assert_eq!(fs::read(root.join("x")).unwrap(), b"old");
    assert_eq!(fs::read(root.join("x-r1")).unwrap(), b"new");
}

#[test]
fn an_append_is_whole_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("g/s.jsonl");
    streams::append(&path, b"one\n").unwrap();
    streams::append(&path, b"two\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0);
    // A device that is always full: the write fails, and cutting it fails too, yet nothing panics.
    assert!(streams::append(Path::new("/dev/full"), b"three\n").is_err());
}

#[test]
fn a_plan_for_firehose_is_made_for_any_stream_name() {
    for (stream, component) in [("logs", "logs"), ("a{b}%q/../c", "a_b__q_.__c")] {
        let expected = Template::parse(&format!("{component}/%Y/%m/%d/%H/")).unwrap();
        assert_eq!(firehose_plan(stream).key, expected);
    }
}
