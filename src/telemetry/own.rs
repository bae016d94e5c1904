//! What this process's own log is known by, should it come back as records.
//!
//! A router may log through the log driver that sends to it. Each of its lines would then become a record, and a line about a record would make
//! another: a loop. It is recognised by either of two marks, once for each tag: the id of our container, or a random word that stands in the
//! first line we say.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use memchr::memmem;

/// Records of a tag that are looked at for the word: it stands in the first line, beside what libraries or a wrapper may say.
pub const LOOKS_MAX: u8 = 16;

static MARKS: LazyLock<Marks> = LazyLock::new(Marks::of_process);
static SAID: AtomicBool = AtomicBool::new(false);

/// The marks of a process.
#[derive(Debug)]
struct Marks {
    word: String,
    finder: memmem::Finder<'static>,
    containers: Vec<Box<[u8]>>,
}

impl Marks {
    fn of_process() -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let word = format!("{:016x}", fastrand::u64(..));
        let finder = memmem::Finder::new(word.as_bytes()).into_owned();
        let containers = containers(&read("cgroup"), &read("mountinfo"));
        Self { word, finder, containers }
    }
}

/// The random word of this process, which stands in its first line.
pub fn word() -> &'static str {
    &MARKS.word
}

/// Whether a record of this process's own log has that text, from a container of that id.
pub fn is_own(log: &[u8], container_id: &[u8]) -> bool {
    MARKS.containers.iter().any(|own| **own == *container_id) || MARKS.finder.find(log).is_some()
}

/// Says, once, that the own log came back.
pub fn say(tag: &str) {
    if !SAID.swap(true, Relaxed) {
        tracing::warn!(
            tag,
            "this process's own log comes back as records: they are filtered (reason own_log); log the router elsewhere"
        );
    }
}

/// Ids of the container that we are in: in the path of a control group, or of what is mounted from Docker's directory of the container.
fn containers(cgroup: &str, mountinfo: &str) -> Vec<Box<[u8]>> {
    let groups = cgroup.lines().filter_map(|line| line.rsplit('/').next());
    let roots = mountinfo.lines().filter_map(|line| line.split(' ').nth(3));
    let mounted = roots.filter_map(|root| root.split_once("/containers/")?.1.split('/').next());
    // systemd's names: `docker-ID.scope`.
    let bare = |name: &'_ str| -> Box<str> {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        name.strip_prefix("docker-").or_else(|| name.strip_prefix("cri-containerd-")).unwrap_or(name).into()
    };
    let mut ids: Vec<Box<[u8]>> = Vec::new();
    for id in groups.chain(mounted).map(bare).filter(|name| is_container_id(name)) {
        if !ids.iter().any(|known| **known == *id.as_bytes()) {
            ids.push(id.as_bytes().into());
        }
    }
    ids
}

/// 64 hexadecimal digits; on Fargate those of the task, 32, a hyphen and a number.
fn is_container_id(name: &str) -> bool {
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_hex(name, 64) || name.split_once('-').is_some_and(|(task, number)| is_hex(task, 32) && is_number(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_container_is_found_in_either_generation_of_control_groups() {
        let id = "0123456789abcdef".repeat(4);
        let expected = vec![Box::from(id.as_bytes())];
        let first = format!("12:cpu:/ecs/0a1b/{id}\n11:memory:/ecs/0a1b/{id}\n0::/\n");
        assert_eq!(containers(&first, ""), expected);
        assert_eq!(containers(&format!("0::/system.slice/docker-{id}.scope\n"), ""), expected);
        let mounted = format!(
            "1 2 0:5 / /proc rw - proc proc rw\n3 2 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/x rw\n"
        );
        assert_eq!(containers("0::/\n", &mounted), expected);
        let task = "f".repeat(32);
        let fargate = format!("1:cpu:/ecs/{task}/{task}-1234567890\n");
        assert_eq!(containers(&fargate, ""), [Box::from(format!("{task}-1234567890").as_bytes())]);
        assert_eq!(containers("0::/user.slice/session-1.scope\n", "x y"), Vec::<Box<[u8]>>::new());
    }

    #[test]
    fn our_word_is_known_and_no_other() {
        assert!(is_own(format!("INFO meshlens starts process={}", word()).as_bytes(), b""));
        assert!(!is_own(b"INFO meshlens starts process=0123", b"some-id"));
    }
}
