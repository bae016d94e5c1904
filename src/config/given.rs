//! Which configuration a process was given, and in which notation.
//!
//! | given | read |
//! |---|---|
//! | `--fluent-bit-config FILE` | that file as a configuration of Fluent Bit, whatever its name |
//! | `--config FILE`, `MESHLENS_CONFIG` | that file: TOML of ours, or of Fluent Bit if it looks so |
//! | neither, and no flag that names sources or sinks | what the ECS agent has mounted, if anything |
//! | anything else | flags, or the built-in quick start |
//!
//! A FILE may be `s3://BUCKET/KEY`, the ARN of such an object, or `env:VARIABLE`: see [`super::remote`].
//!
//! `MESHLENS_SET` holds more of `--set`, one a line or between `;`; `MESHLENS_FALLBACK` the sink, as `--to` writes it, for
//! what an output that we do not know would get.

use std::path::{Path, PathBuf};

use super::build::Variables;
use super::document::{Node, Origin};
use super::flags::{self, Flags};
use super::fluent_bit::files::Files;
use super::fluent_bit::init::{self, Init};
use super::fluent_bit::{self, Request, Translated, classic};
use super::problem::{Problem, Problems};
use super::remote::Remote;
use super::{Loaded, fluentd, load, load_text, load_tree};

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
            Source::Refused => return Err(early),
            Source::Toml(name, text) => return load_text(Some((&name, &text)), flags, &variables),
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
        let mut files = Files { root, ..Files::default() };
        for path in [self.fluent_bit, self.config].into_iter().flatten() {
            if !self.fetch(path, &mut files, problems) {
                return Source::Refused;
            }
        }
        let init = Init::from_environment(self.environment);
        let first = match (self.fluent_bit, self.config) {
            (Some(path), _) => Some(path.to_owned()),
            (None, Some(path)) => match files.read(path) {
                // Said where it is read.
                Err(_) => return Source::Ours,
                Ok(text) if fluentd::is_fluentd(&text) => return Source::Fluentd(path.to_owned(), files),
                Ok(text) => match classic::evidence(path, &text) {
                    Some(classic::Notation::Classic | classic::Notation::Yaml) => Some(path.to_owned()),
                    _ => return Source::Toml(path.display().to_string(), text.into_owned()),
                },
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
        for path in init.places {
            self.fetch(&path, &mut request.from, problems);
            // One that cannot be read is said where it is read.
            let text = request.from.read(&path).unwrap_or_default();
            Init::add(&mut request, path, &text);
        }
        Source::FluentBit(request)
    }

    /// Reads what is no file, so that it stands under its name; whether that went well.
    fn fetch(&self, path: &Path, files: &mut Files, problems: &mut Problems) -> bool {
        let Some(remote) = path.to_str().and_then(Remote::parse) else { return true };
        match remote.read(&|name| self.variable(name)) {
            Ok(text) => {
                files.given.push((path.to_owned(), text));
                true
            }
            Err(error) => {
                problems.push(Problem::general(format!("{}: cannot be read: {error}", path.display())));
                // So that it is said once.
                files.given.push((path.to_owned(), String::new()));
                false
            }
        }
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

/// Reads a file that the ECS agent would write, with the files that it names from `directory` where they are nowhere else;
/// `given` are those that the agent or the init image would bring from somewhere, by their places in the container.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_generated(
    path: &Path,
    text: &str,
    mut given: Vec<(PathBuf, String)>,
    init: Init,
    directory: &Path,
    flags: &Flags,
    variables: Variables<'_>,
) -> Result<Loaded, Problems> {
    let beside = Some(directory.to_owned());
    given.push((path.to_owned(), text.to_owned()));
    let files = Files { given, beside, ..Files::default() };
    let Translated { tree, problems, warnings, is_whole } = if path == Path::new(init::FLUENTD) {
        fluentd::read(path, &files, variables, None)
    } else {
        let generated = (!init.ignores_generated).then(|| path.to_owned());
        let mut request = Request { files: generated.into_iter().collect(), from: files, ..Request::default() };
        for place in init.places {
            // One that cannot be read is said where it is read.
            let text = request.from.read(&place).unwrap_or_default();
            Init::add(&mut request, place, &text);
        }
        fluent_bit::read(&request, variables)
    };
    load_tree(Some(tree), is_whole, problems, warnings, flags, variables)
}

enum Source {
    /// A file of TOML, flags, or the quick start.
    Ours,
    /// TOML that was read already.
    Toml(String, String),
    /// What was asked for cannot be read.
    Refused,
    FluentBit(Request),
    Fluentd(PathBuf, Files),
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn source(given: &Given<'_>, flags: &Flags) -> (String, Problems) {
        let mut problems = Problems::default();
        let name = match given.source(flags, &mut problems) {
            Source::Ours => "ours".to_owned(),
            Source::Toml(name, _) => format!("toml {name}"),
            Source::Refused => "refused".to_owned(),
            Source::Fluentd(path, _) => format!("fluentd {}", path.display()),
            Source::FluentBit(request) => {
                let list = |paths: &[PathBuf]| {
                    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
                };
                format!("fluent bit {} parsers {}", list(&request.files), list(&request.parsers))
            }
        };
        (name, problems)
    }

    #[test]
    fn the_configuration_is_found_in_this_order() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = vec![variable(init::ROOT_VARIABLE, &root.path().display().to_string())];
        let found = |given: &Given<'_>| source(given, &Flags::default()).0;
        assert_eq!(found(&Given { environment: &environment, ..Given::default() }), "ours");
        write(init::FLUENTD, "<source>\n</source>\n");
        let fluentd = format!("fluentd {}", init::FLUENTD);
        assert_eq!(found(&Given { environment: &environment, ..Given::default() }), fluentd);
        write(init::FLUENT_BIT, "\n[INPUT]\n    Name forward\n");
        let generated = format!("fluent bit {} parsers ", init::FLUENT_BIT);
        assert_eq!(found(&Given { environment: &environment, ..Given::default() }), generated);
        // Flags that name sinks or sources ask for something else; others do not.
        let flags = Flags { to: vec!["stdout".into()], ..Flags::default() };
        assert_eq!(source(&Given { environment: &environment, ..Given::default() }, &flags).0, "ours");

        write("/a.conf", "[FILTER]\n Name grep\n");
        write("/p.conf", "[PARSER]\n Name x\n");
        write("/t.toml", "[sink.x]\ntype = \"stdout\"\n");
        let config =
            |path: &'static str| Given { environment: &environment, config: Some(Path::new(path)), ..Given::default() };
        assert_eq!(found(&config("/t.toml")), "toml /t.toml");
        assert_eq!(found(&config("/a.conf")), "fluent bit /a.conf parsers ");
        assert_eq!(found(&config("/nowhere")), "ours");
        let given = Given { fluent_bit: Some(Path::new("/t.toml")), ..config("/a.conf") };
        assert_eq!(found(&given), "fluent bit /t.toml parsers ");

        environment.push(variable("aws_fluent_bit_init_file_1", "/a.conf"));
        environment.push(variable("aws_fluent_bit_init_File_2", "/p.conf"));
        let init = format!("fluent bit {} /a.conf parsers /p.conf", init::FLUENT_BIT);
        assert_eq!(found(&Given { environment: &environment, ..Given::default() }), init);
        environment.push(variable("aws_fluent_bit_init_ignore_firelens_config", "true"));
        assert_eq!(
            found(&Given { environment: &environment, ..Given::default() }),
            "fluent bit /a.conf parsers /p.conf"
        );
    }

    #[test]
    fn a_configuration_may_be_the_text_of_a_variable() {
        let environment = [("MINE".to_owned(), "[OUTPUT]\n Name stdout\n".to_owned())];
        let given = |path| Given { environment: &environment, config: Some(Path::new(path)), ..Given::default() };
        assert_eq!(source(&given("env:MINE"), &Flags::default()).0, "fluent bit env:MINE parsers ");
        let (name, problems) = source(&given("env:OTHER"), &Flags::default());
        assert_eq!(
            (name.as_str(), problems.to_string().as_str()),
            ("refused", "env:OTHER: cannot be read: variable OTHER is not set")
        );
    }

    #[test]
    fn more_of_set_and_the_fallback_come_from_the_environment() {
        let environment = [
            ("MESHLENS_SET".to_owned(), "a.b=1; c.d=2\n\ne.f=3".to_owned()),
            ("MESHLENS_FALLBACK".to_owned(), "cloudwatch:group/stream".to_owned()),
        ];
        let given = Given { environment: &environment, ..Given::default() };
        let flags = given.flags(&Flags { set: vec!["g.h=4".into()], ..Flags::default() });
        assert_eq!(flags.set, ["a.b=1", "c.d=2", "e.f=3", "g.h=4"]);
        let mut problems = Problems::default();
        let sink = given.fallback(&mut problems).unwrap().to_json();
        assert_eq!(sink, serde_json::json!({ "type": "cloudwatch_logs", "group": "group", "stream": "stream" }));
        let wrong = [("MESHLENS_FALLBACK".to_owned(), "kafka:x".to_owned())];
        assert_eq!(Given { environment: &wrong, ..Given::default() }.fallback(&mut problems), None);
        assert!(problems.to_string().starts_with("MESHLENS_FALLBACK=kafka:x: must be cloudwatch:"), "{problems}");
    }
}
