//! Completion of what is typed in the shell: names of services and methods that are known.

use std::collections::{BTreeMap, BTreeSet};

/// Services and their methods, as far as they are known: those of the program itself, and those called before.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    services: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    /// Keeps a method for completion, unless one of the names can't be written after a dot.
    pub(super) fn learn(&mut self, service: &str, method: &str) {
        if is_name(service) && is_name(method) {
            self.services
                .entry(service.into())
                .or_default()
                .insert(method.into());
        }
    }

    /// What could stand at the end of `line`, from which byte on.
    pub(super) fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let typed = line.trim_start();
        let start_of = |partial: &str| line.len() - partial.len();
        let Some(path) = typed.strip_prefix("n.rpc.") else {
            let words = ["n.rpc.", "n.config", "help", "exit()"];
            let fitting = words
                .into_iter()
                .filter(|word| word.starts_with(typed))
                .map(String::from)
                .collect();
            return (start_of(typed), fitting);
        };
        match path.split_once('.') {
            None => {
                let fitting = self.services.keys().filter(|name| name.starts_with(path));
                (
                    start_of(path),
                    fitting.map(|name| format!("{name}.")).collect(),
                )
            }
            Some((service, partial)) => {
                let methods = self.services.get(service).into_iter().flatten();
                let fitting = methods.filter(|name| name.starts_with(partial));
                (
                    start_of(partial),
                    fitting.map(|name| format!("{name}(")).collect(),
                )
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_completed() {
        let mut names = Names::default();
        names.learn("hello_service", "hello");
        names.learn("hello_service", "help_me");
        names.learn("greeter", "greet");
        names.learn("no-name", "x");
        let table: &[(&str, usize, &[&str])] = &[
            ("", 0, &["n.rpc.", "n.config", "help", "exit()"]),
            ("n", 0, &["n.rpc.", "n.config"]),
            ("  n.r", 2, &["n.rpc."]),
            ("n.rpc.", 6, &["greeter.", "hello_service."]),
            ("n.rpc.he", 6, &["hello_service."]),
            ("n.rpc.x", 6, &[]),
            ("n.rpc.hello_service.", 20, &["hello(", "help_me("]),
            ("n.rpc.hello_service.hello", 20, &["hello("]),
            ("n.rpc.hello_service.hello(", 20, &[]),
            ("n.rpc.x.", 8, &[]),
        ];
        for (line, start, expected) in table {
            let (at, words) = names.complete(line);
            assert_eq!(
                (at, words),
                (*start, expected.iter().map(ToString::to_string).collect()),
                "{line}"
            );
        }
    }
}
