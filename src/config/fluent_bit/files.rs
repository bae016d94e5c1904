//! Where files come from: the file system, below a root that tests choose, or the contents that are built in for the names
//! that our image has (`/fluent-bit/configs/*`, `/fluent-bit/parsers/*`, `/ecs/*`).

use std::borrow::Cow;
use std::fs;
use std::path::{Component, Path, PathBuf};

use globset::GlobBuilder;

/// A configuration file may be this large.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// A wildcard may name this many files.
const MATCHES_MAX: usize = 256;

/// Files of our image: used where the file system has none of this name.
const BUILT_IN: &[(&str, &str)] = &[
    (
        "/fluent-bit/configs/minimize-log-loss.conf",
        include_str!("../../../image/fluent-bit/configs/minimize-log-loss.conf"),
    ),
    (
        "/fluent-bit/configs/output-metrics-healthcheck.conf",
        include_str!("../../../image/fluent-bit/configs/output-metrics-healthcheck.conf"),
    ),
    ("/fluent-bit/configs/parse-json.conf", include_str!("../../../image/fluent-bit/configs/parse-json.conf")),
    (
        "/fluent-bit/configs/plugin-and-storage-metrics-to-cloudwatch.conf",
        include_str!("../../../image/fluent-bit/configs/plugin-and-storage-metrics-to-cloudwatch.conf"),
    ),
    (
        "/fluent-bit/configs/plugin-metrics-parser.conf",
        include_str!("../../../image/fluent-bit/configs/plugin-metrics-parser.conf"),
    ),
    (
        "/fluent-bit/configs/plugin-metrics-to-cloudwatch.conf",
        include_str!("../../../image/fluent-bit/configs/plugin-metrics-to-cloudwatch.conf"),
    ),
    ("/fluent-bit/parsers/parsers.conf", include_str!("../../../image/fluent-bit/parsers/parsers.conf")),
    (
        "/fluent-bit/parsers/parsers_ambassador.conf",
        include_str!("../../../image/fluent-bit/parsers/parsers_ambassador.conf"),
    ),
    ("/fluent-bit/parsers/parsers_cinder.conf", include_str!("../../../image/fluent-bit/parsers/parsers_cinder.conf")),
    ("/fluent-bit/parsers/parsers_extra.conf", include_str!("../../../image/fluent-bit/parsers/parsers_extra.conf")),
    ("/fluent-bit/parsers/parsers_java.conf", include_str!("../../../image/fluent-bit/parsers/parsers_java.conf")),
    ("/fluent-bit/parsers/parsers_kafka.conf", include_str!("../../../image/fluent-bit/parsers/parsers_kafka.conf")),
    ("/fluent-bit/parsers/parsers_mult.conf", include_str!("../../../image/fluent-bit/parsers/parsers_mult.conf")),
    (
        "/fluent-bit/parsers/parsers_multiline.conf",
        include_str!("../../../image/fluent-bit/parsers/parsers_multiline.conf"),
    ),
    (
        "/fluent-bit/parsers/parsers_openstack.conf",
        include_str!("../../../image/fluent-bit/parsers/parsers_openstack.conf"),
    ),
    ("/ecs/amazon-es.conf", include_str!("../../../image/ecs/amazon-es.conf")),
    ("/ecs/cloudwatch.conf", include_str!("../../../image/ecs/cloudwatch.conf")),
    ("/ecs/ecs-metadata.conf", include_str!("../../../image/ecs/ecs-metadata.conf")),
    ("/ecs/filter-parser.conf", include_str!("../../../image/ecs/filter-parser.conf")),
    ("/ecs/firehose.conf", include_str!("../../../image/ecs/firehose.conf")),
    ("/ecs/input-forward.conf", include_str!("../../../image/ecs/input-forward.conf")),
    ("/ecs/kinesis.conf", include_str!("../../../image/ecs/kinesis.conf")),
    ("/ecs/s3.conf", include_str!("../../../image/ecs/s3.conf")),
    ("/ecs/service.conf", include_str!("../../../image/ecs/service.conf")),
    (
        "/fluent-bit/configs/service-connect.conf",
        include_str!("../../../image/fluent-bit/configs/service-connect.conf"),
    ),
];

/// Where files come from.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Absolute paths are looked for below this first.
    pub root: Option<PathBuf>,
    /// Texts that were read elsewhere, by the names under which they are asked for.
    pub given: Vec<(PathBuf, String)>,
    /// Where a file is looked for by its name alone, if it is nowhere else.
    pub beside: Option<PathBuf>,
}

impl Files {
    fn given(&self, path: &Path) -> Option<&str> {
        self.given.iter().find(|(name, _)| name == path).map(|(_, text)| text.as_str())
    }

    /// The path in the file system for a path as written.
    pub fn place(&self, path: &Path) -> PathBuf {
        if path.is_relative() {
            return path.to_owned();
        }
        let below = self.root.iter().map(|root| root.join(path.strip_prefix("/").unwrap_or(path)));
        let named =
            self.beside.iter().filter(|_| !path.exists()).filter_map(|beside| Some(beside.join(path.file_name()?)));
        below.chain(named).find(|place| place.exists()).unwrap_or_else(|| path.to_owned())
    }

    /// Whether there is such a file.
    pub fn exists(&self, path: &Path) -> bool {
        self.given(path).is_some() || self.place(path).is_file() || built_in(path).is_some()
    }

    /// The text of a file.
    ///
    /// # Errors
    /// In words, without the path.
    pub fn read(&self, path: &Path) -> Result<Cow<'static, str>, String> {
        if let Some(text) = self.given(path) {
            return Ok(Cow::Owned(text.to_owned()));
        }
        let place = self.place(path);
        if !place.exists()
            && let Some(text) = built_in(path)
        {
            return Ok(Cow::Borrowed(text));
        }
        let length = fs::metadata(&place).map_err(|error| error.to_string())?;
        if length.is_file() && length.len() > FILE_BYTES_MAX {
            return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
        }
        let bytes = fs::read(&place).map_err(|error| error.to_string())?;
        let text = String::from_utf8(bytes).map_err(|error| format!("not UTF-8: {}", error.utf8_error()))?;
        Ok(Cow::Owned(text))
    }

    /// The same file for two paths to it.
    pub fn identity(&self, path: &Path) -> PathBuf {
        if self.given(path).is_some() {
            return path.to_owned();
        }
        let place = self.place(path);
        fs::canonicalize(&place).unwrap_or(place)
    }

    /// The files that a path with wildcards names, in order of their names.
    pub fn expand(&self, pattern: &Path) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::new()];
        for component in pattern.components() {
            let Component::Normal(name) = component else {
                found.iter_mut().for_each(|path| path.push(component));
                continue;
            };
            let name = name.to_string_lossy();
            found = if name.contains(['*', '?', '[']) {
                found.iter().flat_map(|directory| self.matching(directory, &name)).take(MATCHES_MAX).collect()
            } else {
                found.into_iter().map(|path| path.join(&*name)).collect()
            };
        }
        found.retain(|path| self.exists(path));
        found
    }

    fn matching(&self, directory: &Path, name: &str) -> Vec<PathBuf> {
        let Ok(glob) = GlobBuilder::new(name).literal_separator(true).build() else { return Vec::new() };
        let glob = glob.compile_matcher();
        let place = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { self.place(directory) };
        let entries = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut paths: Vec<PathBuf> = entries
            .filter(|entry| glob.is_match(entry) && !entry.to_string_lossy().starts_with('.'))
            .map(|entry| directory.join(entry))
            .collect();
        paths.sort();
        paths
    }
}

fn built_in(path: &Path) -> Option<&'static str> {
    BUILT_IN.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_in_any_part_and_absolute_paths_have_a_root() {
        let root = tempfile::tempdir().unwrap();
        for name in ["etc/a/x.conf", "etc/b/y.conf", "etc/b/.z.conf", "etc/b/z.txt"] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let files = Files { root: Some(root.path().to_owned()), ..Files::default() };
        let found = files.expand(Path::new("/etc/*/*.conf"));
        assert_eq!(found, [Path::new("/etc/a/x.conf"), Path::new("/etc/b/y.conf")]);
        assert_eq!(files.read(&found[0]).unwrap(), "etc/a/x.conf");
        assert!(files.expand(Path::new("/nowhere/*.conf")).is_empty());
        // A text that was given is no file of the same name that lies beside.
        let given = vec![(PathBuf::from("/given/x.conf"), "given".to_owned())];
        let files = Files { given, beside: Some(root.path().join("etc/a")), ..Files::default() };
        assert_eq!(files.read(Path::new("/other/x.conf")).unwrap(), "etc/a/x.conf");
        assert_ne!(files.identity(Path::new("/given/x.conf")), files.identity(Path::new("/other/x.conf")));
        assert!(files.read(Path::new("/etc/a")).is_err());
    }
}
