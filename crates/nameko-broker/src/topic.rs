//! Topic patterns: words separated by dots, `*` for one word, `#` for any number of words.
//!
//! Patterns are stored in a tree of words. A key is matched word by word against the set of all
//! active nodes, so the cost is bounded by (words x nodes): patterns like `#.a.#.a` cannot make it
//! exponential.

use std::collections::HashMap;

/// Patterns with their values.
#[derive(Debug)]
pub(crate) struct TopicTree<T> {
    nodes: Vec<Node<T>>,
    /// Indices of removed nodes, to be reused.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Node<T> {
    /// Whether this is a `#` node, which stays active for any next word.
    hash: bool,
    children: HashMap<Box<str>, usize>,
    values: Vec<T>,
}

const ROOT: usize = 0;

/// Splits a key or pattern into words. As in RabbitMQ, an empty one has no words.
fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').filter(move |_| !key.is_empty())
}

impl<T> Node<T> {
    fn new(hash: bool) -> Self {
        Self {
            hash,
            children: HashMap::new(),
            values: Vec::new(),
        }
    }
}

impl<T> Default for TopicTree<T> {
    fn default() -> Self {
        Self {
            nodes: vec![Node::new(false)],
            free: Vec::new(),
        }
    }
}

impl<T: PartialEq> TopicTree<T> {
    /// Adds `value` under `pattern`.
    pub(crate) fn insert(&mut self, pattern: &str, value: T) {
        let mut at = ROOT;
        for word in words(pattern) {
            at = match self.nodes[at].children.get(word) {
                Some(&next) => next,
                None => {
                    let next = self.new_node(word == "#");
                    self.nodes[at].children.insert(word.into(), next);
                    next
                }
            };
        }
        self.nodes[at].values.push(value);
    }

    /// Removes `value` from `pattern`, and the nodes that became unused.
    pub(crate) fn remove(&mut self, pattern: &str, value: &T) {
        let mut path = vec![ROOT];
        let mut at = ROOT;
        for word in words(pattern) {
            match self.nodes[at].children.get(word) {
                Some(&next) => at = next,
                None => return,
            }
            path.push(at);
        }
        self.nodes[at].values.retain(|v| v != value);
        for (step, word) in words(pattern)
            .enumerate()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            let node = path[step + 1];
            if !self.nodes[node].children.is_empty() || !self.nodes[node].values.is_empty() {
                break;
            }
            self.nodes[path[step]].children.remove(word);
            self.free.push(node);
        }
    }

    /// Calls `found` with each value whose pattern matches `key`.
    pub(crate) fn matches<'a>(&'a self, key: &str, mut found: impl FnMut(&'a T)) {
        let mut active = Vec::with_capacity(4);
        self.enter(ROOT, &mut active);
        let mut next = Vec::with_capacity(4);
        for word in words(key) {
            next.clear();
            for &at in &active {
                let node = &self.nodes[at];
                if node.hash {
                    self.enter(at, &mut next);
                }
                for step in [word, "*"] {
                    if let Some(&child) = node.children.get(step) {
                        self.enter(child, &mut next);
                    }
                    if word == "*" {
                        break;
                    }
                }
            }
            std::mem::swap(&mut active, &mut next);
            if active.is_empty() {
                return;
            }
        }
        for at in active {
            self.nodes[at].values.iter().for_each(&mut found);
        }
    }

    /// Activates a node and the `#` below it, which may match zero words.
    fn enter(&self, mut at: usize, active: &mut Vec<usize>) {
        while !active.contains(&at) {
            active.push(at);
            match self.nodes[at].children.get("#") {
                Some(&hash) => at = hash,
                None => return,
            }
        }
    }

    fn new_node(&mut self, hash: bool) -> usize {
        match self.free.pop() {
            Some(index) => {
                self.nodes[index] = Node::new(hash);
                index
            }
            None => {
                self.nodes.push(Node::new(hash));
                self.nodes.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matched(patterns: &[&str], key: &str) -> Vec<usize> {
        let mut tree = TopicTree::default();
        for (index, pattern) in patterns.iter().enumerate() {
            tree.insert(pattern, index);
        }
        let mut found = Vec::new();
        tree.matches(key, |index| found.push(*index));
        found.sort_unstable();
        found
    }

    /// Reference implementation by definition.
    fn by_definition(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                by_definition(rest, key)
                    || key
                        .split_first()
                        .is_some_and(|(_, tail)| by_definition(pattern, tail))
            }
            (Some((&"*", rest)), Some((_, tail))) => by_definition(rest, tail),
            (Some((word, rest)), Some((first, tail))) => word == first && by_definition(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn patterns_match() {
        for (pattern, key, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*", "", false),
            ("*", "a", true),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("a.#", "b.a", false),
            ("#.c", "a.b.c", true),
            ("#.c", "c", true),
            ("#.#", "a", true),
            ("a.#.c", "a.c", true),
            ("a.#.c", "a.b.b.c", true),
            ("a.#.*", "a", false),
            ("*.b", "*.b", true),
            ("a..b", "a..b", true),
            ("a.*.b", "a..b", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(
                !matched(&[pattern], key).is_empty(),
                expected,
                "{pattern} {key}"
            );
        }
    }

    #[test]
    fn removed_patterns_free_their_nodes() {
        let mut tree = TopicTree::default();
        tree.insert("a.b.c", 1);
        tree.insert("a.b", 2);
        tree.remove("a.b.c", &1);
        tree.remove("a.b.c", &1);
        tree.remove("no.such", &1);
        let mut found = Vec::new();
        tree.matches("a.b", |v| found.push(*v));
        assert_eq!(found, [2]);
        tree.remove("a.b", &2);
        assert_eq!(tree.free.len() + 1, tree.nodes.len());
        assert!(tree.nodes[ROOT].children.is_empty());
    }

    #[test]
    fn many_hashes_stay_cheap() {
        let pattern = vec!["#.a"; 60].join(".") + ".z";
        let key = vec!["a"; 120].join(".");
        assert_eq!(matched(&[&pattern], &key), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            patterns in prop::collection::vec("([ab*#]\\.){0,4}[ab*#]?", 1..8),
            key in "([abc]\\.){0,4}[abc]?",
        ) {
            let refs: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let key_words: Vec<&str> = words(&key).collect();
            let expected: Vec<usize> = (0..refs.len())
                .filter(|&i| by_definition(&words(refs[i]).collect::<Vec<_>>(), &key_words))
                .collect();
            prop_assert_eq!(matched(&refs, &key), expected);
        }
    }
}
