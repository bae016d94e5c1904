//! Process 1 of a container inherits processes whose parents are gone, such as what a health check's shell has left behind, and must take note of
//! their end: until then each keeps its place in the kernel's table.
//!
//! Children of our own (a `credential_process`) are waited for by whoever started them, at once; so only those are reaped that have been dead
//! for [`REST`]. Cost: nothing until a child dies; then a look at `/proc`.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// How long a dead process is left to others.
const REST: Duration = Duration::from_secs(5);

/// Reaps orphans for as long as the process lives, if it is process 1.
pub async fn reap() {
    if std::process::id() != 1 {
        return;
    }
    let Ok(mut deaths) = signal(SignalKind::child()) else { return };
    while deaths.recv().await.is_some() {
        let mut dead = dead_children(1);
        // Some may have died while others rested.
        while !dead.is_empty() {
            sleep(REST).await;
            let now = dead_children(1);
            for &id in dead.intersection(&now) {
                if let Some(pid) = Pid::from_raw(id) {
                    // Somebody else was faster: just as well.
                    waitpid(Some(pid), WaitOptions::NOHANG).ok();
                }
            }
            dead = now.difference(&dead).copied().collect();
        }
    }
}

/// Dead processes with that parent that nobody has taken note of.
fn dead_children(parent: i32) -> HashSet<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashSet::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name before may hold anything; the last parenthesis ends it.
        let mut fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        fields.next() == Some("Z") && fields.next().and_then(|id| id.parse().ok()) == Some(parent)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_dead_child_is_seen_until_it_is_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        let (ours, id) = (std::process::id() as i32, child.id() as i32);
        while !dead_children(ours).contains(&id) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!dead_children(ours).contains(&id));
    }
}
