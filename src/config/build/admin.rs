//! `[admin]`: where the endpoints listen, and when health fails.

use std::time::Duration;

use super::enrich::METADATA_VARIABLE;
use super::{Builder, SECOND};
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
        Config { listen, unhealthy_after: self.unhealthy_after(&table, raw.unhealthy_after, sinks) }
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
        let takes = |source: &&source::Config| match &source.kind {
            source::Kind::Forward(forward) => address.port() != 0 && forward.listen == Some(address),
            source::Kind::Tcp(tcp) => address.port() != 0 && tcp.listen == address,
            source::Kind::Lines(_) => false,
        };
        if let Some(source) = sources.iter().find(takes) {
            self.refuse(path, format!("must not be what source.{} listens on", source.name));
        }
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
