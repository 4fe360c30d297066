//! Tab completion of the shell: names of services, methods and events.

use std::collections::{BTreeMap, BTreeSet};

/// Prefix of an event dispatch.
const DISPATCH: &str = "n.dispatch_event(";

/// Known services and methods: those of the program, and those called before.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    services: BTreeMap<String, BTreeSet<String>>,
    /// Event types by service.
    events: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    /// Adds a method, unless a name is not a valid identifier.
    pub(super) fn learn(&mut self, service: &str, method: &str) {
        if is_name(service) && is_name(method) {
            self.services
                .entry(service.into())
                .or_default()
                .insert(method.into());
        }
    }

    /// Adds an event type, unless a name requires escapes.
    pub(super) fn learn_event(&mut self, service: &str, event_type: &str) {
        let is_plain =
            |text: &str| !text.contains(['\'', '\\']) && !text.contains(char::is_control);
        if is_plain(service) && is_plain(event_type) {
            self.events
                .entry(service.into())
                .or_default()
                .insert(event_type.into());
        }
    }

    /// Returns the completions of `line`, and the byte offset they start at.
    pub(super) fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let typed = line.trim_start();
        let start_of = |partial: &str| line.len() - partial.len();
        if let Some(arguments) = typed.strip_prefix(DISPATCH) {
            let (partial, fitting) = self.complete_event(arguments);
            return (start_of(partial), fitting);
        }
        let Some(path) = typed.strip_prefix("n.rpc.") else {
            let words = ["n.rpc.", DISPATCH, "n.config", "help", "exit()"];
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

    /// Returns the typed part of a service name or event type, and its completions with a closing
    /// quote.
    fn complete_event<'a>(&self, arguments: &'a str) -> (&'a str, Vec<String>) {
        let fitting = |names: &mut dyn Iterator<Item = &String>, partial: &str| {
            let names: BTreeSet<_> = names.filter(|name| name.starts_with(partial)).collect();
            names.into_iter().map(|name| format!("{name}', ")).collect()
        };
        let mut quotes = arguments.splitn(4, '\'');
        match (quotes.next(), quotes.next(), quotes.next(), quotes.next()) {
            (Some(""), Some(partial), None, None) => {
                let mut names = self.services.keys().chain(self.events.keys());
                (partial, fitting(&mut names, partial))
            }
            (Some(""), Some(service), Some(comma), Some(partial))
                if comma.trim() == "," && !partial.contains('\'') =>
            {
                let mut types = self.events.get(service).into_iter().flatten();
                (partial, fitting(&mut types, partial))
            }
            _ => ("", Vec::new()),
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
        names.learn_event("shop-1", "paid");
        names.learn_event("shop-1", "packed");
        names.learn_event("greeter", "it's");
        let table: &[(&str, usize, &[&str])] = &[
            (
                "",
                0,
                &["n.rpc.", "n.dispatch_event(", "n.config", "help", "exit()"],
            ),
            ("n", 0, &["n.rpc.", "n.dispatch_event(", "n.config"]),
            ("n.d", 0, &["n.dispatch_event("]),
            ("n.dispatch_event(", 17, &[]),
            (
                "n.dispatch_event('",
                18,
                &["greeter', ", "hello_service', ", "shop-1', "],
            ),
            ("n.dispatch_event('sh", 18, &["shop-1', "]),
            (
                "n.dispatch_event('shop-1', '",
                28,
                &["packed', ", "paid', "],
            ),
            ("n.dispatch_event('shop-1', 'pai", 28, &["paid', "]),
            ("n.dispatch_event('shop-1', 'paid', '", 36, &[]),
            ("n.dispatch_event('x', '", 23, &[]),
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
