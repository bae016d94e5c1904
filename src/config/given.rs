//! Which configuration a process was given, and in which notation.
//!
//! | given | read |
//! |---|---|
//! | `--fluent-bit-config FILE` | that file as a configuration of Fluent Bit, whatever its name |
//! | `--config FILE`, `MESHLENS_CONFIG` | that file: TOML of ours, or of Fluent Bit if it looks so |
//! | neither, and no flag that names sources or sinks | what the ECS agent has mounted, if anything |
//! | anything else | flags, or the built-in quick start |
//!
//! `MESHLENS_SET` holds more of `--set`, one a line or between `;`; `MESHLENS_FALLBACK` the sink, as `--to` writes it, for
//! what an output that we do not know would get.

use std::path::{Path, PathBuf};

use super::build::Variables;
use super::document::{Node, Origin};
use super::flags::{self, Flags};
use super::fluent_bit::files::Files;
use super::fluent_bit::init::{self, Init, Place};
use super::fluent_bit::{self, Request, Translated, classic};
use super::problem::{Problem, Problems};
use super::{Loaded, fluentd, load, load_tree};

const SET_VARIABLE: &str = "MESHLENS_SET";
const FALLBACK_VARIABLE: &str = "MESHLENS_FALLBACK";

/// What the command line and the environment say of where the configuration is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// `--config`
    pub config: Option<&'a Path>,
    /// `--fluent-bit-config`
    pub fluent_bit: Option<&'a Path>,
    /// `--fluent-bit-sections`
    pub sections: Option<&'a str>,
    /// `--fluent-bit-parsers`
    pub parsers: &'a [PathBuf],
    /// The environment, in its order.
    pub environment: &'a [(String, String)],
}

impl Given<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// Reads what there is and builds the configuration.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(&self, flags: &Flags) -> Result<Loaded, Problems> {
        let flags = &self.flags(flags);
        let variables = |name: &str| self.variable(name);
        let mut early = Problems::default();
        let translated = match self.source(flags, &mut early) {
            Source::Ours => return load(self.config, flags, &variables),
            Source::FluentBit(request) => fluent_bit::read(&request, &variables),
            Source::Fluentd(path, files) => fluentd::read(&path, &files, &variables, self.fallback(&mut early)),
        };
        let Translated { tree, problems, warnings, is_whole } = translated;
        problems.into_iter().for_each(|problem| early.push(problem));
        load_tree(Some(tree), is_whole, early, warnings, flags, &variables)
    }

    /// The flags, with those of the environment before them.
    fn flags(&self, flags: &Flags) -> Flags {
        let text = self.variable(SET_VARIABLE).unwrap_or_default();
        let more = text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        Flags { set: more.chain(flags.set.iter().cloned()).collect(), ..flags.clone() }
    }

    fn source(&self, flags: &Flags, problems: &mut Problems) -> Source {
        let root = self.variable(init::ROOT_VARIABLE).filter(|root| !root.is_empty()).map(PathBuf::from);
        let files = Files { root, ..Files::default() };
        let init = Init::from_environment(self.environment);
        let first = match (self.fluent_bit, self.config) {
            (Some(path), _) => Some(path.to_owned()),
            (None, Some(path)) => match files.read(path) {
                Ok(text) if fluentd::is_fluentd(&text) => return Source::Fluentd(path.to_owned(), files),
                Ok(text)
                    if classic::evidence(path, &text).is_some_and(|notation| notation != classic::Notation::Toml) =>
                {
                    Some(path.to_owned())
                }
                // TOML, or what cannot be read: said there.
                _ => return Source::Ours,
            },
            (None, None) if self.sections.is_some() => None,
            (None, None) if flags.name_sources() || !flags.to.is_empty() => return Source::Ours,
            (None, None) => init::generated(&files).map(Path::to_owned),
        };
        match first {
            Some(path) if path == Path::new(init::FLUENTD) => return Source::Fluentd(path, files),
            None if init.places.is_empty() && self.sections.is_none() => return Source::Ours,
            _ => {}
        }
        let ignores = init.ignores_generated && self.fluent_bit.is_none() && self.config.is_none();
        let mut request = Request {
            files: first.filter(|_| !ignores).into_iter().collect(),
            text: self.sections.unwrap_or_default().to_owned(),
            parsers: self.parsers.to_vec(),
            fallback: self.fallback(problems),
            from: files,
        };
        for place in init.places {
            match place {
                Place::File(path) => {
                    // One that cannot be read is said where it is read.
                    let text = request.from.read(&path).unwrap_or_default();
                    Init::add(&mut request, path, &text);
                }
                Place::Object(arn) => problems.push(Problem::general(format!(
                    "{arn}: configuration files from S3 are not read yet: must be a file of the image or of a volume"
                ))),
            }
        }
        Source::FluentBit(request)
    }

    /// The sink of `MESHLENS_FALLBACK`.
    fn fallback(&self, problems: &mut Problems) -> Option<Node> {
        let spec = self.variable(FALLBACK_VARIABLE).filter(|spec| !spec.is_empty())?;
        let origin = Origin::Flag { text: format!("{FALLBACK_VARIABLE}={spec}").into(), shows_value: false };
        match flags::sink_node(&spec, &origin) {
            Ok(node) => Some(node),
            Err(must) => {
                problems.push(Problem::of_place(origin, must));
                None
            }
        }
    }
}

/// Reads a file that the ECS agent would write, with the files that it names from `directory` where they are nowhere else.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_generated(
    path: &Path,
    text: &str,
    directory: &Path,
    flags: &Flags,
    variables: Variables<'_>,
) -> Result<Loaded, Problems> {
    let beside = Some(directory.to_owned());
    let files = Files { given: Some((path.to_owned(), text.into())), beside, ..Files::default() };
    let Translated { tree, problems, warnings, is_whole } = if path == Path::new(init::FLUENTD) {
        fluentd::read(path, &files, variables, None)
    } else {
        fluent_bit::read(&Request { files: vec![path.to_owned()], from: files, ..Request::default() }, variables)
    };
    load_tree(Some(tree), is_whole, problems, warnings, flags, variables)
}

enum Source {
    /// TOML, flags, or the quick start.
    Ours,
    FluentBit(Request),
    Fluentd(PathBuf, Files),
}
