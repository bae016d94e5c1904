//! `[admin]`: where the endpoints listen, and when health fails.

use std::net::SocketAddr;
use std::time::Duration;

use super::enrich::METADATA_VARIABLE;
use super::{Builder, SECOND};
use crate::admin::fluent_bit::Health;
use crate::admin::{self, ADDRESS, Config, Listen};
use crate::config::document::Path;
use crate::config::quantity::Period;
use crate::config::raw;
use crate::{sink, source};

const WEEK: Duration = Duration::from_secs(7 * 86_400);

impl Builder<'_> {
    pub(super) fn admin(&mut self, raw: raw::Admin, sources: &[source::Config], sinks: &[sink::Config]) -> Config {
        let table = Path::root().key("admin");
        let listen = self.admin_listen(&table.key("listen"), raw.listen, sources);
        let unhealthy_after = self.unhealthy_after(&table, raw.unhealthy_after, sinks);
        let path = table.key("fluent_bit_listen");
        let fluent_bit_listen = raw.fluent_bit_listen.and_then(|text| self.fluent_bit_listen(&path, &text, sources));
        if let (Some(one), Some(listen)) = (fluent_bit_listen, listen)
            && one.port() != 0
            && one == listen.address
        {
            self.refuse(&path, "must not be `admin.listen`: it has other endpoints");
        }
        if raw.fluent_bit_health.is_some() && fluent_bit_listen.is_none() && !self.is_set(&path) {
            self.refuse(&table.key("fluent_bit_health"), "must not be set without `fluent_bit_listen`");
        }
        let fluent_bit_health = raw.fluent_bit_health.map(|health| self.fluent_bit_health(&table, health));
        Config { listen, unhealthy_after, fluent_bit_listen, fluent_bit_health }
    }

    fn fluent_bit_health(&mut self, table: &Path, raw: raw::FluentBitHealth) -> Health {
        let table = table.key("fluent_bit_health");
        let mut count = |key: &str, value| self.count(&table, key, value, 5, 0, 1_000_000) as u64;
        let errors_max = count("errors_count", raw.errors_count);
        let retry_failures_max = count("retry_failure_count", raw.retry_failure_count);
        let minute = Duration::from_secs(60);
        let period = self.period(&table, "period", raw.period, minute, SECOND, 60 * minute);
        Health { errors_max, retry_failures_max, period }
    }

    fn fluent_bit_listen(&mut self, path: &Path, text: &str, sources: &[source::Config]) -> Option<SocketAddr> {
        let Some(address) = admin::address(text) else {
            self.refuse(path, "must be an address and a port, such as \"127.0.0.1:2020\"");
            return None;
        };
        self.refuse_taken(path, address, sources);
        if !address.ip().is_loopback() {
            self.warn(format!("{path} = \"{address}\": other hosts can reach this port and read metrics"));
        }
        Some(address)
    }

    fn refuse_taken(&mut self, path: &Path, address: SocketAddr, sources: &[source::Config]) {
        let takes = |source: &&source::Config| address.port() != 0 && source.tcp_address() == Some(address);
        if let Some(source) = sources.iter().find(takes) {
            self.refuse(path, format!("must not be what source.{} listens on", source.name));
        }
    }

    fn admin_listen(&mut self, path: &Path, listen: Option<String>, sources: &[source::Config]) -> Option<Listen> {
        let Some(text) = listen else {
            // A key that reading has refused is no key that is missing.
            let is_task = (self.variables)(METADATA_VARIABLE).is_some_and(|uri| !uri.trim().is_empty());
            return (is_task && !self.is_set(path)).then_some(Listen { address: ADDRESS, is_asked: false });
        };
        if text == "off" {
            return None;
        }
        let Some(address) = admin::address(&text) else {
            self.refuse(path, format!("must be an address and a port, such as \"{ADDRESS}\", a port, or \"off\""));
            return None;
        };
        self.refuse_taken(path, address, sources);
        if !address.ip().is_loopback() {
            self.warn(format!(
                "{path} = \"{address}\": other hosts can reach this port and read metrics and status; 127.0.0.1 keeps it \
                 inside the task"
            ));
        }
        Some(Listen { address, is_asked: true })
    }

    /// A record that waits for its request to fill is no sign of trouble.
    fn unhealthy_after(&mut self, table: &Path, raw: Option<Period>, sinks: &[sink::Config]) -> Option<Duration> {
        raw?;
        let after = self.period(table, "unhealthy_after", raw, WEEK, SECOND, WEEK);
        let gathering = sinks.iter().filter_map(|sink| Some((sink, sink.kind.gathering()?)));
        if let Some((sink, (key, gathers))) = gathering.max_by_key(|(_, (_, gathers))| *gathers)
            && after <= gathers
        {
            let (name, gathers) = (&sink.name, Period(gathers));
            self.refuse(
                &table.key("unhealthy_after"),
                format!("must be more than sink.{name}.{key}, which is {gathers}"),
            );
        }
        Some(after)
    }
}
