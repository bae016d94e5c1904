//! File descriptors: each connection is one, and the limit that processes start with (often 1,024) is soon reached.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Config, Kind};

/// Descriptors for all that is no connection of a source: files, connections to the services, the runtime.
const OTHERS: u64 = 256;

/// Descriptors that these sources may need, and all else with them.
pub fn wanted(sources: &[Config]) -> u64 {
    let connections = sources.iter().map(|source| match &source.kind {
        Kind::Forward(config) => config.connections_max as u64,
        Kind::Tcp(config) => config.connections_max as u64,
        Kind::Lines(_) => 1,
    });
    OTHERS + connections.sum::<u64>()
}

/// The most that this process may have; none: as many as it likes.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Raises the limit to what is wanted, as far as that is allowed.
pub fn raise(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|&current| current < wanted) else { return };
    let target = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    let raised = target > current && setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum }).is_ok();
    let limit = if raised { target } else { current };
    if limit < wanted {
        tracing::warn!(
            limit,
            wanted,
            "fewer file descriptors than connections_max may need: later connections will wait"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::{forward, lines};
    use super::*;

    #[test]
    fn connections_of_all_sources_are_wanted() {
        let source = |kind| Config { name: "s".into(), kind };
        let forward = || source(Kind::Forward(forward::Config { connections_max: 1000, ..forward::Config::default() }));
        let lines = source(Kind::Lines(lines::Config::default()));
        assert_eq!(wanted(&[forward(), lines, forward()]), OTHERS + 2001);
    }

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let before = getrlimit(Resource::Nofile).current;
        raise(1);
        assert_eq!(getrlimit(Resource::Nofile).current, before);
        raise(limit().unwrap_or(1 << 20));
        assert!(getrlimit(Resource::Nofile).current >= before);
    }
}
