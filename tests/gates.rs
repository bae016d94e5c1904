//! Rules of the tree that no linter knows: licences and duplicates of dependencies, one TLS provider, sizes and names of files.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed assumption is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than a notice.
const LICENCES: [&str; 11] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that stand in the tree in two versions, with whose doing it is. A new one needs a reason here.
const DUPLICATES: [(&str, &str); 8] = [
    ("block-buffer", "sha1 0.10 of aws-config beside sha2 0.11"),
    ("cpufeatures", "sha1 0.10 of aws-config beside sha2 0.11"),
    ("crypto-common", "sha1 0.10 of aws-config beside sha2 0.11"),
    ("digest", "sha1 0.10 of aws-config beside sha2 0.11"),
    ("sha1", "aws-config has 0.10 for SSO, the S3 client 0.11"),
    ("syn", "build time only: derive macros on the way from 2 to 3"),
    ("getrandom", "build time and ring-free rustls on the way from 0.2 to 0.4"),
    ("untrusted", "webpki and aws-lc-rs"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Packages that a build for Linux links or runs, tests left out: name and version, with the licence expression.
fn packages() -> BTreeMap<(String, String), String> {
    let cargo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--locked"])).unwrap();
    let licences: BTreeMap<_, _> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
            ((text("name"), text("version")), text("license"))
        })
        .collect();
    let tree = cargo(&["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    tree.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?.to_owned();
            let version = words.next()?.trim_start_matches('v').to_owned();
            let licence = licences.get(&(name.clone(), version.clone()))?.clone();
            Some(((name, version), licence))
        })
        .collect()
}

/// Whether the expression can be met with [`LICENCES`] alone. `OR` binds weaker than `AND`; `/` is an old `OR`.
fn is_free(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" OR ").any(|all| all.split(" AND ").all(|one| LICENCES.contains(&one.trim())))
}

#[test]
fn dependencies_are_free_single_and_have_one_tls_provider() {
    let packages = packages();
    assert!(packages.len() > 100, "cargo tree was understood: {}", packages.len());
    let bad: Vec<_> = packages.iter().filter(|(_, licence)| !is_free(licence)).collect();
    assert!(bad.is_empty(), "licences to look at: {bad:?}");

    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, version) in packages.keys() {
        versions.entry(name).or_default().insert(version);
    }
    let double: Vec<_> = versions
        .iter()
        .filter(|(name, versions)| versions.len() > 1 && !DUPLICATES.iter().any(|(known, _)| known == *name))
        .collect();
    assert!(double.is_empty(), "new duplicates: {double:?}");
    for provider in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!versions.contains_key(provider), "{provider} beside aws-lc-rs");
    }
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_are_small_and_named_for_what_they_hold() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    assert!(files.len() > 40);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().count();
        let is_tests = path.ends_with("tests.rs");
        assert!(is_tests || lines <= 600, "{}: {lines} lines; split by purpose", path.display());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let vague = ["mod", "utils", "util", "common", "helpers", "types", "misc"];
        assert!(!vague.contains(&name.as_str()), "{} is named for nothing", path.display());
        for left_over in ["TODO", "FIXME", "todo!(", "unimplemented!(", "dbg!("] {
            assert!(!text.contains(left_over), "{}: {left_over}", path.display());
        }
        assert!(is_tests || text.starts_with("//!"), "{} has no module doc", path.display());
    }
}

#[test]
fn no_test_is_ignored() {
    for place in ["src", "tests"] {
        let mut files = Vec::new();
        sources(&root().join(place), &mut files);
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            let marker = concat!("#[", "ignore");
            assert!(!text.contains(marker), "{}: an ignored test is a test nobody runs", path.display());
        }
    }
}

#[test]
fn the_quick_start_is_two_commands_of_one_line() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let section = readme.split("## Quick start").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let blocks: Vec<_> = section.split("```").skip(1).step_by(2).collect();
    assert_eq!(blocks.len(), 2, "exactly two fenced commands");
    for block in &blocks {
        let lines: Vec<_> = block.lines().skip(1).filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(lines.len(), 1, "one line each: {lines:?}");
        assert!(root().join(lines[0].trim()).is_file(), "{} is there", lines[0]);
    }
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let command = blocks[1].lines().nth(1).unwrap().trim();
    assert!(ci.lines().any(|line| line.trim() == command), "CI runs the README's test command, {command}");
}
