//! The keys that the framework reads, in Rust and in Python, and the detection of misspelled ones.

/// All keys of the framework. A configuration file may be shared by services in both languages, so
/// both know the keys of the other.
pub const KEYS: &[&str] = &[
    "ACCEPT",
    "AMQP_SSL",
    "AMQP_URI",
    "AUTO_DELETE_EVENT_EXCHANGES",
    "DATABASE_URL",
    "DECLARE_EVENT_EXCHANGES",
    "HEARTBEAT",
    "LAYERS",
    "LOG",
    "LOGGING",
    "LOGIN_METHOD",
    "LOG_FORMAT",
    "SERIALIZERS",
    "SERVICE_CONTAINER_CLS",
    "WEBSOCKET_MAX_MESSAGE",
    "WEBSOCKET_MAX_QUEUE",
    "WEBSOCKET_ORIGINS",
    "WEBSOCKET_PING_INTERVAL",
    "WEB_SERVER_ADDRESS",
    "WEB_SERVER_BODY_TIMEOUT",
    "WEB_SERVER_HEADER_TIMEOUT",
    "WEB_SERVER_KEEP_ALIVE",
    "WEB_SERVER_MAX_BODY",
    "WEB_SERVER_MAX_CONNECTIONS",
    "WEB_SERVER_MAX_PARTS",
    "WEB_SERVER_MAX_PART_SIZE",
    "WEB_SERVER_REUSE_PORT",
    "WEB_SERVER_SEND_TIMEOUT",
    "WEB_SERVER_TIMEOUT",
    "max_decompressed_size",
    "max_workers",
    "parent_calls_tracked",
    "prefetch_count",
    "publish_timeout",
    "queue_arguments",
    "rpc_exchange",
    "rpc_timeout",
    "serializer",
    "stop_timeout",
];

/// Returns the key of the framework that `key` misspells; `None` for a key of the framework, or one
/// that resembles none.
///
/// Case and the choice of `-`, `.` or `_` do not count. Otherwise one edit is taken for a mistake
/// in a key of four letters or more, and two in one of eight or more.
pub fn misspelled(key: &str) -> Option<&'static str> {
    if KEYS.contains(&key) {
        return None;
    }
    let key = normalized(key);
    let max_edits = match key.len() {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    };
    KEYS.iter()
        .map(|known| (edits(&key, &normalized(known)), *known))
        .filter(|(edits, _)| *edits <= max_edits)
        .min()
        .map(|(_, known)| known)
}

fn normalized(key: &str) -> Vec<char> {
    let lower = key.chars().flat_map(char::to_lowercase);
    lower
        .map(|c| match c {
            '-' | '.' => '_',
            c => c,
        })
        .collect()
}

/// Returns the number of insertions, deletions, replacements and swaps of neighbours between two
/// texts (optimal string alignment).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut previous: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(x != y);
            let mut least = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(previous[j - 1] + 1);
            }
            next.push(least);
        }
        previous = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_name_the_key_and_other_keys_do_not() {
        for (key, meant) in [
            ("max_worker", Some("max_workers")),
            ("MAX_WORKERS", Some("max_workers")),
            ("max-workers", Some("max_workers")),
            ("AMQP_URL", Some("AMQP_URI")),
            ("amqp_uri", Some("AMQP_URI")),
            ("WEB_SERVER_ADRES", Some("WEB_SERVER_ADDRESS")),
            ("WEB_SEREVR_ADDRESS", Some("WEB_SERVER_ADDRESS")),
            ("HEARTBEATS", Some("HEARTBEAT")),
            ("log", Some("LOG")),
            ("serialiser", Some("serializer")),
            // Keys of the framework, and keys of users.
            ("max_workers", None),
            ("SERIALIZERS", None),
            ("LAG", None),
            ("workers", None),
            ("smtp", None),
            ("MAIL_SENDER", None),
            ("", None),
        ] {
            assert_eq!(misspelled(key), meant, "{key}");
        }
    }

    #[test]
    fn no_key_misspells_another() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(!KEYS[..index].contains(key), "{key}");
        }
    }
}
