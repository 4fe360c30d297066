//! `KEY=VALUE` definitions of the command line: `max_workers=4`, `smtp.host=mail.example.com`.

use serde_json::{Map, Value};

use super::{ConfigError, yaml};

/// A parsed definition: the path of a key, and its value.
pub(super) struct Definition {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) warnings: Vec<String>,
}

impl Definition {
    pub(super) fn parse(definition: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Definition {
            definition: definition.into(),
        };
        let (key, value) = definition.split_once('=').ok_or_else(wrong)?;
        let path = path(key).ok_or_else(wrong)?;
        let origin = format!("-d {key}");
        let (value, warnings) = yaml::load_value(value, &origin, &yaml::process_environment)?;
        Ok(Self {
            path,
            value,
            warnings,
        })
    }

    /// Sets the value, and creates the mappings that contain it. Replaces other values on its path.
    pub(super) fn set_in(self, values: &mut Map<String, Value>) {
        let mut names = self.path.into_iter();
        let Some(last) = names.next_back() else {
            return;
        };
        let mut mapping = values;
        for name in names {
            let entry = mapping.entry(name).or_insert(Value::Null);
            if !entry.is_object() {
                *entry = Value::Object(Map::new());
            }
            let Value::Object(inner) = entry else {
                return;
            };
            mapping = inner;
        }
        mapping.insert(last, self.value);
    }
}

/// Splits a key at its dots; `\.` is a dot within a name. `None` if a name is empty.
fn path(key: &str) -> Option<Vec<String>> {
    let mut path = vec![String::new()];
    let mut chars = key.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, path.last_mut()) {
            ('.', _) => path.push(String::new()),
            ('\\', Some(name)) if chars.next_if_eq(&'.').is_some() => name.push('.'),
            (c, Some(name)) => name.push(c),
            (_, None) => {}
        }
    }
    path.iter().all(|name| !name.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dotted_key_is_nested() {
        let mut values = Map::from_iter([
            ("auth".to_owned(), json!({"origin": "x", "hosts": [1, 2]})),
            ("size".to_owned(), json!(7)),
        ]);
        for definition in [
            "auth.origin=y",
            "auth.hosts=[3]",
            "size.unit=kg",
            "a.b.c=1=2",
            "LOGGING.loggers.nameko\\.rpc.level=DEBUG",
            "plain={x: 1}",
            "plain={y: 2}",
            "empty=",
        ] {
            Definition::parse(definition)
                .expect(definition)
                .set_in(&mut values);
        }
        assert_eq!(
            Value::Object(values),
            json!({
                "auth": {"origin": "y", "hosts": [3]},
                "size": {"unit": "kg"},
                "a": {"b": {"c": "1=2"}},
                "LOGGING": {"loggers": {"nameko.rpc": {"level": "DEBUG"}}},
                "plain": {"y": 2},
                "empty": null,
            })
        );
    }

    #[test]
    fn a_definition_without_a_name_is_an_error() {
        for definition in ["", "=1", "nothing", ".=1", "a.=1", ".a=1", "a..b=1"] {
            assert!(Definition::parse(definition).is_err(), "{definition}");
        }
        let error = Definition::parse("a.b=[1")
            .map(|_| ())
            .expect_err("no YAML");
        assert!(error.to_string().starts_with("-d a.b:"), "{error}");
    }
}
