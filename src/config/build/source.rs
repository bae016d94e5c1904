//! `[source.NAME]`: addresses, sockets, handshake, TLS; lines.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::{Builder, MIB, is_name};
use crate::config::document::Path;
use crate::config::raw;
use crate::redact::Secret;
use crate::source::{self, Kind, forward, lines, tcp};

/// `sun_path` holds 108 bytes with its terminating zero.
const UNIX_PATH_BYTES_MAX: usize = 107;
const KIB: u64 = 1 << 10;
/// Bytes of what ends a text over TCP.
const SEPARATOR_BYTES_MAX: usize = 64;

impl Builder<'_> {
    pub(super) fn sources(&mut self, raw: raw::Named<raw::source::Source>, hostname: &str) -> Vec<source::Config> {
        let mut sources = Vec::new();
        for (name, source) in raw.0 {
            let table = Path::root().key("source").key(&name);
            if !is_name(&name) {
                self.refuse(&table, "must have a name of 1 to 64 letters, digits, `_` or `-`");
            }
            if name == source::JOURNAL {
                self.refuse(&table, "must have another name: that is the account's, of what an earlier run left");
            }
            let kind = match source {
                raw::source::Source::Forward(forward) => Kind::Forward(self.forward(&table, *forward, hostname)),
                raw::source::Source::Lines(lines) => Kind::Lines(self.lines(&table, lines)),
                raw::source::Source::Tcp(tcp) => Kind::Tcp(self.tcp(&table, &name, tcp)),
            };
            sources.push(source::Config { name, kind });
        }
        self.refuse_shared_inputs(&sources);
        sources
    }

    fn forward(&mut self, table: &Path, raw: raw::source::Forward, hostname: &str) -> forward::Config {
        let default = forward::Config::default();
        let frame = default.frame_bytes_max as u64;
        let decompressed = default.decompressed_bytes_max as u64;
        let shared_key = self.secret(table, "shared_key", raw.shared_key, raw.shared_key_env);
        let config = forward::Config {
            listen: self.listen(table, raw.listen),
            unix_path: self.unix_path(table, raw.unix_path),
            unix_mode: raw.unix_mode.map_or(default.unix_mode, |mode| mode.0),
            frame_bytes_max: self.bytes_usize(table, "frame_bytes_max", raw.frame_bytes_max, frame, KIB, 1 << 30),
            decompressed_bytes_max: self.bytes_usize(
                table,
                "decompressed_bytes_max",
                raw.decompressed_bytes_max,
                decompressed,
                KIB,
                1 << 30,
            ),
            nesting_max: self.count(table, "nesting_max", raw.nesting_max, default.nesting_max as u64, 1, 128),
            connections_max: self.count(
                table,
                "connections_max",
                raw.connections_max,
                default.connections_max as u64,
                1,
                65_536,
            ),
            shared_key,
            users: self.users(table, raw.users.unwrap_or_default()),
            self_hostname: raw.self_hostname.unwrap_or_else(|| hostname.to_owned()),
            tls: raw.tls.map(|tls| self.tls(&table.key("tls"), tls)),
        };
        self.relate_forward(table, &config);
        config
    }

    /// Default address unless there is a unix socket.
    fn listen(&mut self, table: &Path, listen: Option<String>) -> Option<SocketAddr> {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, crate::config::FORWARD_PORT));
        match listen {
            Some(text) => self.address(&table.key("listen"), &text),
            None => (!self.is_set(&table.key("unix_path"))).then_some(default),
        }
    }

    /// Warns of one that others can reach.
    fn address(&mut self, path: &Path, text: &str) -> Option<SocketAddr> {
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        let Ok(address) = numeric.parse::<SocketAddr>() else {
            self.refuse(path, "must be an address and a port, such as \"127.0.0.1:24224\" or \"[::1]:24224\"");
            return None;
        };
        if !address.ip().is_loopback() {
            self.warn(format!(
                "{path} = \"{address}\": other hosts can reach this port and send records; 127.0.0.1 keeps it inside the task"
            ));
        }
        Some(address)
    }

    fn unix_path(&mut self, table: &Path, unix_path: Option<String>) -> Option<PathBuf> {
        let text = unix_path?;
        if text.is_empty() || text.len() > UNIX_PATH_BYTES_MAX || text.contains('\0') {
            self.refuse(&table.key("unix_path"), format!("must be a path of 1 to {UNIX_PATH_BYTES_MAX} bytes"));
        }
        Some(PathBuf::from(text))
    }

    fn users(&mut self, table: &Path, users: Vec<raw::source::User>) -> Vec<(String, Secret)> {
        let list = table.key("users");
        let places = self.kept_places(&list);
        let mut built: Vec<(String, Secret)> = Vec::new();
        for (user, place) in users.into_iter().zip(places) {
            let path = list.index(place);
            let given = user.password.is_some() || user.password_env.is_some();
            let name = self.required(&path, "name", user.name, "must be a user name");
            let password = self.secret(&path, "password", user.password, user.password_env);
            if password.is_none() && !given && !self.is_set(&path.key("password")) {
                self.refuse(&path.key("password_env"), "must name the environment variable with the password");
            }
            if !name.is_empty() && built.iter().any(|(other, _)| *other == name) {
                self.refuse(&path.key("name"), "must not be the name of an earlier user");
            }
            built.push((name, password.unwrap_or(Secret(Box::default()))));
        }
        built
    }

    fn tls(&mut self, table: &Path, raw: raw::source::Tls) -> forward::Tls {
        let certificate = self.readable(table, "certificate", raw.certificate);
        let key = self.readable(table, "key", raw.key);
        let client_ca = raw.client_ca.map(|file| self.readable(table, "client_ca", Some(file)));
        forward::Tls { certificate, key, client_ca }
    }

    /// A file that can be opened now.
    fn readable(&mut self, table: &Path, key: &str, file: Option<String>) -> PathBuf {
        let file = PathBuf::from(self.required(table, key, file, "must be the path of a PEM file"));
        if !file.as_os_str().is_empty() {
            self.check_readable(&table.key(key), &file);
        }
        file
    }

    /// Only a regular file is opened to see: opening a pipe waits for its writer, and closing it again ends that.
    fn check_readable(&mut self, path: &Path, file: &std::path::Path) {
        let metadata = fs::metadata(file);
        let opened = match &metadata {
            Ok(metadata) if metadata.is_dir() => return self.refuse(path, "must be a file, not a directory"),
            Ok(metadata) if metadata.is_file() => fs::File::open(file).map(drop),
            _ => metadata.map(drop),
        };
        if let Err(error) = opened {
            self.refuse(path, format!("must be a file that can be read: {error}"));
        }
    }

    fn relate_forward(&mut self, table: &Path, config: &forward::Config) {
        let has_key = config.shared_key.is_some()
            || self.is_set(&table.key("shared_key"))
            || self.is_set(&table.key("shared_key_env"));
        if !config.users.is_empty() && !has_key {
            self.refuse(
                &table.key("users"),
                "must not be set without `shared_key_env`: users are part of its handshake",
            );
        }
        if config.tls.is_some() && config.listen.is_none() && !self.is_set(&table.key("listen")) {
            self.refuse(&table.key("tls"), "must not be set without `listen`: a unix socket has no TLS");
        }
        if config.unix_path.is_none() && self.is_set(&table.key("unix_mode")) {
            self.refuse(&table.key("unix_mode"), "must not be set without `unix_path`");
        }
    }

    fn lines(&mut self, table: &Path, raw: raw::source::Lines) -> lines::Config {
        let must = "must be the path of a file, or \"-\" for standard input";
        let path = self.required(table, "path", raw.path, must);
        let follow = raw.follow.unwrap_or(false);
        let from_end = raw.from_end.unwrap_or(false);
        if from_end && !follow {
            self.refuse(&table.key("from_end"), "must not be set without `follow`: nothing would be read");
        }
        let input = match path.as_str() {
            "-" => lines::Input::Stdin,
            path => lines::Input::File(PathBuf::from(path)),
        };
        match &input {
            lines::Input::Stdin if follow => {
                self.refuse(
                    &table.key("follow"),
                    "must not be set for standard input, which is read to its end anyway",
                );
            }
            // A file that is followed may come later.
            lines::Input::File(file) if !follow && !path.is_empty() => {
                self.check_readable(&table.key("path"), file);
            }
            _ => {}
        }
        let default_tag = match &input {
            lines::Input::Stdin => "stdin".to_owned(),
            lines::Input::File(file) => file.file_name().map_or("file".into(), |n| n.to_string_lossy().into_owned()),
        };
        let line_bytes_max = self.bytes_usize(table, "line_bytes_max", raw.line_bytes_max, MIB, KIB, 64 * MIB);
        lines::Config { input, follow, from_end, tag: raw.tag.unwrap_or(default_tag), line_bytes_max }
    }

    fn tcp(&mut self, table: &Path, name: &str, raw: raw::source::Tcp) -> tcp::Config {
        let default = tcp::Config::default();
        let listen = raw.listen.and_then(|text| self.address(&table.key("listen"), &text));
        let format = match raw.format {
            Some(raw::source::Format::Json) | None => tcp::Format::Json,
            Some(raw::source::Format::None) => tcp::Format::None,
        };
        let separator = table.key("separator");
        if format == tcp::Format::Json && raw.separator.is_some() {
            self.refuse(&separator, "must not be set without `format = \"none\"`: objects need no separator");
        }
        let text = raw.separator.unwrap_or_else(|| "\n".to_owned());
        if !(1..=SEPARATOR_BYTES_MAX).contains(&text.len()) {
            self.refuse(&separator, format!("must be 1 to {SEPARATOR_BYTES_MAX} bytes"));
        }
        let connections = default.connections_max as u64;
        tcp::Config {
            listen: listen.unwrap_or(default.listen),
            format,
            // An empty one, which was refused, is found everywhere.
            separator: if text.is_empty() { default.separator } else { text.into_bytes().into() },
            tag: raw.tag.unwrap_or_else(|| name.to_owned()),
            record_bytes_max: self.bytes_usize(table, "record_bytes_max", raw.record_bytes_max, MIB, KIB, 64 * MIB),
            connections_max: self.count(table, "connections_max", raw.connections_max, connections, 1, 65_536),
            source_address_key: self.field_name(table, "source_address_key", raw.source_address_key),
        }
    }

    /// The name of a field to add, if there is to be one.
    fn field_name(&mut self, table: &Path, key: &str, name: Option<String>) -> Option<String> {
        if name.as_deref() == Some("") {
            self.refuse(&table.key(key), "must be the name of a field");
        }
        name
    }

    /// Two sources cannot have the same address, socket or standard input.
    fn refuse_shared_inputs(&mut self, sources: &[source::Config]) {
        let mut taken: HashMap<String, &str> = HashMap::new();
        for source in sources {
            let inputs: Vec<(&str, String)> = match &source.kind {
                Kind::Forward(forward) => {
                    let listen = forward.listen.filter(|address| address.port() != 0);
                    let listen = listen.map(|address| ("listen", address.to_string()));
                    let unix = forward.unix_path.as_ref().map(|path| ("unix_path", path.display().to_string()));
                    listen.into_iter().chain(unix).collect()
                }
                Kind::Tcp(tcp) if tcp.listen.port() != 0 => vec![("listen", tcp.listen.to_string())],
                Kind::Tcp(_) => Vec::new(),
                Kind::Lines(lines) => match &lines.input {
                    lines::Input::Stdin => vec![("path", "-".to_owned())],
                    lines::Input::File(_) => Vec::new(),
                },
            };
            for (key, input) in inputs {
                if let Some(other) = taken.insert(input, &source.name) {
                    let path = Path::root().key("source").key(&source.name).key(key);
                    self.refuse(&path, format!("must not be what source.{other} reads already"));
                }
            }
        }
    }
}
