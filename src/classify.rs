//! What a line is, by its first bytes only: a user agent further right may imitate anything.
