//! Names of groups and streams: rendered once a partition, with the service's rules applied.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::enrich::ecs::Metadata;
use crate::journal::block::Partition;
use crate::sink::Context;
use crate::sink::template::{Scope, Template};

/// Greatest length of a group or stream name.
const NAME_CHARS_MAX: usize = 512;

/// Partitions whose names are remembered; beyond that all are forgotten and rendered again.
const PARTITIONS_MAX: usize = 4_096;

/// Where events go.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) group: Box<str>,
    pub(super) stream: Box<str>,
}

/// Renders targets and remembers them.
pub(super) struct Names {
    group: Template,
    stream: Template,
    dated: bool,
    partition_keys: Arc<[Box<str>]>,
    hostname: Arc<str>,
    metadata: watch::Receiver<Arc<Metadata>>,
    rendered_with: Arc<Metadata>,
    known: HashMap<Partition, Named>,
}

struct Named {
    target: Arc<Target>,
    /// The second it was rendered for, where the name holds a date.
    second: i64,
}

impl Names {
    pub(super) fn new(group: Template, stream: Template, ctx: &Context) -> Self {
        Self {
            dated: group.has_dates() || stream.has_dates(),
            group,
            stream,
            partition_keys: ctx.partition_keys.clone(),
            hostname: ctx.hostname.clone(),
            rendered_with: ctx.metadata.borrow().clone(),
            metadata: ctx.metadata.clone(),
            known: HashMap::new(),
        }
    }

    /// Forgets all names if the metadata changed since.
    pub(super) fn refresh(&mut self) {
        let now = self.metadata.borrow();
        if !Arc::ptr_eq(&now, &self.rendered_with) {
            self.rendered_with = now.clone();
            self.known.clear();
        }
    }

    /// Whether the target of two records of one partition is the same.
    pub(super) fn same(&self, one_ms: i64, other_ms: i64) -> bool {
        !self.dated || second(one_ms) == second(other_ms)
    }

    /// Where a record of that partition and time goes.
    pub(super) fn target(&mut self, partition: &Partition, time_ms: i64) -> Arc<Target> {
        let second = if self.dated { second(time_ms) } else { 0 };
        if let Some(named) = self.known.get(partition)
            && named.second == second
        {
            return named.target.clone();
        }
        let target = Arc::new(self.render(partition, time_ms));
        if self.known.len() >= PARTITIONS_MAX {
            self.known.clear();
        }
        self.known.insert(partition.clone(), Named { target: target.clone(), second });
        target
    }

    fn render(&self, partition: &Partition, time_ms: i64) -> Target {
        let scope = Scope {
            partition,
            partition_keys: &self.partition_keys,
            metadata: &self.rendered_with,
            hostname: &self.hostname,
            time_ns: time_ms.saturating_mul(1_000_000),
        };
        Target {
            group: allowed(&self.group.render(&scope), |c| c.is_ascii_alphanumeric() || "_-/.#".contains(c)),
            stream: allowed(&self.stream.render(&scope), |c| c != ':' && c != '*' && !c.is_control()),
        }
    }
}

fn second(time_ms: i64) -> i64 {
    time_ms.div_euclid(1_000)
}

/// The name with every character the service does not allow replaced by `_`, cut to its length; never empty.
/// Group: `[a-zA-Z0-9_./#-]`, stream: no `:` and `*`; both 1 to 512 (API reference of `CreateLogGroup`, `CreateLogStream`).
fn allowed(name: &str, is_allowed: impl Fn(char) -> bool) -> Box<str> {
    let name: String = name.chars().take(NAME_CHARS_MAX).map(|c| if is_allowed(c) { c } else { '_' }).collect();
    if name.is_empty() { "_".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_services_rules() {
        let group = |c: char| c.is_ascii_alphanumeric() || "_-/.#".contains(c);
        assert_eq!(&*allowed("/ecs/a b:c*é#1", group), "/ecs/a_b_c__#1");
        assert_eq!(&*allowed("", group), "_");
        assert_eq!(allowed(&"x".repeat(600), group).len(), 512);
        let stream = |c: char| c != ':' && c != '*' && !c.is_control();
        assert_eq!(&*allowed("task:1/é *\n", stream), "task_1/é __");
    }
}
