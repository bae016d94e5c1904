//! `[derive]`: fields made from those of access logs.

use super::Builder;
use crate::config::document::Path;
use crate::config::raw::derive as raw;
use crate::derive::{Config, Derive, Prefixes, RouteConfig};
use crate::record::Key;

impl Builder<'_> {
    pub(super) fn derive(&mut self, raw: raw::Derive, parses_envoy: bool) -> Config {
        let table = Path::root().key("derive");
        let is_on = |wanted: Option<bool>| wanted.unwrap_or(false);
        let config = Config {
            response_flags_long: is_on(raw.response_flags_long),
            status_class: is_on(raw.status_class),
            grpc_status: is_on(raw.grpc_status),
            durations: is_on(raw.durations),
            client_address: is_on(raw.client_address),
            forwarded_for_first: is_on(raw.forwarded_for_first),
            truncate_addresses: raw.truncate_addresses.map(|raw| {
                let table = table.key("truncate_addresses");
                let default = Prefixes::default();
                let ipv4 = self.count(&table, "ipv4", raw.ipv4, default.ipv4.into(), 0, 32);
                let ipv6 = self.count(&table, "ipv6", raw.ipv6, default.ipv6.into(), 0, 128);
                Prefixes { ipv4: ipv4 as u8, ipv6: ipv6 as u8 }
            }),
            route: raw.route.map(|raw| self.derived_route(&table.key("route"), raw)),
        };
        if let Err(fault) = Derive::new(&config) {
            self.refuse(&table.key("route").key("patterns").index(fault.pattern), fault.must);
        }
        if config != Config::default() && !parses_envoy {
            self.warn("derive: with `parse.envoy = false` there are no access logs to make fields from");
        }
        config
    }

    fn derived_route(&mut self, table: &Path, raw: raw::DeriveRoute) -> RouteConfig {
        let default = RouteConfig::default();
        let field = self.not_empty(table, "field", raw.field).unwrap_or(default.field);
        if Key::from_name(field.as_bytes()).is_some_and(|key| key != Key::Route) {
            self.refuse(&table.key("field"), "must not be the name of a field that access logs have");
        }
        let patterns = raw.patterns.unwrap_or_default();
        let defaults = raw.defaults.unwrap_or(default.defaults);
        if patterns.is_empty() && !defaults {
            self.refuse(
                &table.key("patterns"),
                "must hold a pattern where `defaults` is false: no path would have a route",
            );
        }
        RouteConfig { patterns, defaults, field }
    }
}
