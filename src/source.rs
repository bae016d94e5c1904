//! Sources: what brings bytes in.

pub mod forward;
pub mod lines;

/// One configured source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its name; in metrics and in the account.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a source is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Fluent Forward over TCP, a unix socket, or both.
    Forward(forward::Config),
    /// Lines of stdin or of a file.
    Lines(lines::Config),
}
