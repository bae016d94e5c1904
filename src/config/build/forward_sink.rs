//! `[sink.NAME]` of type `forward`.

use std::path::PathBuf;

use super::sink::KIB;
use super::{Builder, HOUR, MIB, SECOND};
use crate::config::document::Path;
use crate::config::raw::sink as raw_sink;
use crate::sink::forward::{self, Address};

/// The longest path of a unix socket, in bytes.
const UNIX_PATH_BYTES_MAX: usize = 107;

impl Builder<'_> {
    pub(super) fn forward_sink(&mut self, table: &Path, raw: raw_sink::Forward) -> forward::Config {
        let shared_key = self.secret(table, "shared_key", raw.shared_key, raw.shared_key_env);
        let password = self.secret(table, "password", raw.password, raw.password_env);
        let username = self.not_empty(table, "username", raw.username);
        let has_key = ["shared_key", "shared_key_env"].iter().any(|key| self.is_set(&table.key(key)));
        for key in ["username", "self_hostname"] {
            if self.is_set(&table.key(key)) && !has_key {
                self.refuse(&table.key(key), "must not be set without `shared_key_env`: it is part of its handshake");
            }
        }
        let has_password = ["password", "password_env"].iter().any(|key| self.is_set(&table.key(key)));
        if username.is_some() != has_password {
            let key = if username.is_some() { "username" } else { "password" };
            let key = if self.is_set(&table.key(key)) { key } else { "password_env" };
            self.refuse(&table.key(key), "must be set together: `username` and `password_env`");
        }
        if raw.compress == Some(raw_sink::Compression::Zstd) {
            self.refuse(&table.key("compress"), "must be `gzip` or `none`");
        }
        let port = self.count(table, "port", raw.port, 24_224, 1, 65_535);
        let address = match raw.unix_path {
            Some(path) => {
                if path.is_empty() || path.len() > UNIX_PATH_BYTES_MAX {
                    self.refuse(&table.key("unix_path"), "must be a path of 1 to 107 bytes");
                }
                for key in ["host", "port"] {
                    if self.is_set(&table.key(key)) {
                        self.refuse(&table.key(key), "must not be set beside `unix_path`");
                    }
                }
                Address::Unix(PathBuf::from(path))
            }
            None => {
                let host = self.not_empty(table, "host", raw.host).unwrap_or_else(|| "127.0.0.1".to_owned());
                Address::Tcp(host, u16::try_from(port).unwrap_or(u16::MAX))
            }
        };
        let timeout_min = SECOND / 100;
        let bytes_default = forward::BATCH_BYTES_DEFAULT as u64;
        forward::Config {
            address,
            tag: self.template(&table.key("tag"), raw.tag.as_deref().unwrap_or("{tag}")),
            shared_key,
            self_hostname: self.not_empty(table, "self_hostname", raw.self_hostname),
            user: username.zip(password),
            requires_ack: raw.require_ack_response.unwrap_or(true),
            time_as_integer: raw.time_as_integer.unwrap_or(false),
            is_gzip: raw.compress == Some(raw_sink::Compression::Gzip),
            batch_timeout: self.period(table, "batch_timeout", raw.batch_timeout, SECOND, timeout_min, HOUR),
            batch_bytes_max: self.bytes_usize(
                table,
                "batch_bytes_max",
                raw.batch_bytes_max,
                bytes_default,
                KIB,
                16 * MIB,
            ),
            concurrency: self.count(table, "concurrency", raw.concurrency, 1, 1, 64),
            retry: self.retry(table, raw.retry),
        }
    }
}
