//! `[source.NAME]` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::quantity::{Count, Size};

/// A source, of the kind that its key `type` says.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(tag = "type")]
pub enum Source {
    /// Fluent Forward over TCP (with UDP heartbeats), a unix socket, or both.
    Forward(Box<Forward>),
    /// Lines of standard input or of a file.
    Lines(Lines),
    /// Text or JSON over TCP, one record after the other.
    Tcp(Tcp),
}

/// Fluent Forward over TCP (with UDP heartbeats), a unix socket, or both.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// TCP address and port. An address other than loopback is reachable from outside the task, and gives a warning. Default: `127.0.0.1:24224`, unless `unix_path` is set.
    pub listen: Option<String>,
    /// Path of a unix socket; at most 107 bytes. A stale socket there is removed, another kind of file is refused. Default: none.
    pub unix_path: Option<String>,
    /// Permission bits of the socket file: `0o666` or `"0666"`. Default: `0o666`, since the log driver may run as another user.
    pub unix_mode: Option<Mode>,
    /// Largest message as sent, as a size. Default: 64MiB. Limits: 1KiB to 1GiB.
    pub frame_bytes_max: Option<Size>,
    /// Largest body of a compressed message after decompression, as a size. Default: 64MiB. Limits: 1KiB to 1GiB.
    pub decompressed_bytes_max: Option<Size>,
    /// How deep maps and arrays of a record may nest. Default: 32. Limits: 1 to 128.
    pub nesting_max: Option<Count>,
    /// Connections open at once; more are closed at once, with a warning. Default: 1024. Limits: 1 to 65536.
    pub connections_max: Option<Count>,
    /// Asks clients for a handshake with this key; never printed. Better given by `shared_key_env`. Default: no handshake.
    pub shared_key: Option<String>,
    /// The environment variable that holds the shared key.
    pub shared_key_env: Option<String>,
    /// Users who may connect, beside the shared key. Default: no user names are asked for.
    pub users: Option<Vec<User>>,
    /// Our name in the handshake. Default: `hostname`.
    pub self_hostname: Option<String>,
    /// TLS on the TCP listener. Default: none.
    pub tls: Option<Tls>,
}

/// A user of the forward handshake.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User name. Required.
    #[schemars(required)]
    pub name: Option<String>,
    /// Password; never printed. Better given by `password_env`.
    pub password: Option<String>,
    /// The environment variable that holds the password.
    pub password_env: Option<String>,
}

/// TLS of a forward source: PEM files.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// File with the certificate chain. Required.
    #[schemars(required)]
    pub certificate: Option<String>,
    /// File with the private key. Required.
    #[schemars(required)]
    pub key: Option<String>,
    /// File with the authorities whose client certificates are required. Default: clients need none.
    pub client_ca: Option<String>,
}

/// Lines of standard input or of a file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lines {
    /// A file, or `-` for standard input. Required.
    #[schemars(required)]
    pub path: Option<String>,
    /// Go on as the file grows, through rotation by rename and by truncation, until shutdown. Default: false.
    pub follow: Option<bool>,
    /// With `follow`: start at the end of the file instead of its beginning. Default: false.
    pub from_end: Option<bool>,
    /// Tag of the records. Default: the file's name; `stdin` for standard input.
    pub tag: Option<String>,
    /// Longer lines are cut to this, as a size, and counted as truncated. Default: 1MiB. Limits: 1KiB to 64MiB.
    pub line_bytes_max: Option<Size>,
}

/// Text or JSON over TCP, one record after the other, as Fluent Bit's `tcp` input takes it. Nothing is answered.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// Address and port. An address other than loopback is reachable from outside the task, and gives a warning. Default: `127.0.0.1:5170`.
    pub listen: Option<String>,
    /// What comes: `json` is objects, whose members become the fields; `none` is text, which becomes the field `log`. Default: `json`.
    pub format: Option<Format>,
    /// With `none`: what ends a text. Default: a newline.
    pub separator: Option<String>,
    /// Tag of the records. Default: the source's name.
    pub tag: Option<String>,
    /// Longer texts are cut to this, larger objects dropped, as a size; both are counted. Default: 1MiB. Limits: 1KiB to 64MiB.
    pub record_bytes_max: Option<Size>,
    /// Connections open at once; more are closed at once, with a warning. Default: 256. Limits: 1 to 65536.
    pub connections_max: Option<Count>,
    /// A field to add with the address of the peer. Default: none.
    pub source_address_key: Option<String>,
}

/// What comes over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Objects, one after the other.
    Json,
    /// Text.
    None,
}

/// Permission bits: a whole number, or text with octal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Bits;
        impl serde::de::Visitor<'_> for Bits {
            type Value = Mode;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("permission bits from 0o000 to 0o777, such as 0o666 or \"0666\"")
            }

            fn visit_i64<E: serde::de::Error>(self, bits: i64) -> Result<Mode, E> {
                let mode = u32::try_from(bits).ok().filter(|bits| *bits <= 0o777).map(Mode);
                mode.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Signed(bits), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
                let digits = text.trim_start_matches("0o");
                let mode = u32::from_str_radix(digits, 8).ok().filter(|bits| *bits <= 0o777).map(Mode);
                mode.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        reader.deserialize_any(Bits)
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["integer", "string"], "minimum": 0, "maximum": 511, "pattern": "^(0o?)?[0-7]{1,3}$" })
    }
}
