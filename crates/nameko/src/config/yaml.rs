//! YAML text to JSON values, with the place of everything that is wrong.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

use super::environment::{self, SubstitutionError};
use super::{ConfigError, Place, scalar};

/// Collections within collections; a configuration needs a handful.
const MAX_DEPTH: usize = 64;
/// Nodes that aliases may repeat in all: ten lines of nested aliases could otherwise fill the memory.
const MAX_ALIASED_NODES: usize = 100_000;
/// Values of environment variables that refer to further variables.
const MAX_SUBSTITUTIONS: usize = 16;

/// A document that is a mapping: its entries, and where each one's value stands.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) entries: Map<String, Value>,
    pub(super) places: HashMap<String, Place>,
}

/// Reads the one document of a configuration text. An empty text is an empty mapping.
pub(super) fn load(
    text: &str,
    origin: &str,
    lookup: environment::Lookup<'_>,
) -> Result<Document, ConfigError> {
    let mut loader = Loader::new(Arc::from(origin), lookup);
    let start = Place {
        origin: loader.origin.clone(),
        line: 1,
        column: 1,
    };
    match loader.load(text)? {
        Value::Object(entries) => Ok(Document {
            entries,
            places: loader.places,
        }),
        Value::Null => Ok(Document {
            entries: Map::new(),
            places: HashMap::new(),
        }),
        other => Err(ConfigError::Yaml {
            at: start,
            message: format!(
                "the file must hold `KEY: value` lines, not {}",
                super::describe(&other)
            ),
        }),
    }
}

/// Reads one value: what stands behind `-d KEY=`.
pub(super) fn load_value(
    text: &str,
    origin: &str,
    lookup: environment::Lookup<'_>,
) -> Result<Value, ConfigError> {
    Loader::new(Arc::from(origin), lookup).load(text)
}

struct Loader<'a> {
    origin: Arc<str>,
    lookup: environment::Lookup<'a>,
    /// Of the entries of the outermost mapping.
    places: HashMap<String, Place>,
    /// How many substituted values are being read within each other.
    substitutions: usize,
    /// While a substituted value is read: where the reference to it stands. Errors are reported there.
    outer_place: Option<Place>,
}

/// A collection whose end has not come yet.
struct Open {
    anchor: usize,
    place: Place,
    kind: Kind,
}

enum Kind {
    Sequence(Vec<Value>),
    Mapping {
        entries: Map<String, Value>,
        key: Option<Key>,
        merged: Vec<Map<String, Value>>,
    },
}

enum Key {
    Name(String),
    Merge,
}

impl<'a> Loader<'a> {
    fn new(origin: Arc<str>, lookup: environment::Lookup<'a>) -> Self {
        Self {
            origin,
            lookup,
            places: HashMap::new(),
            substitutions: 0,
            outer_place: None,
        }
    }

    fn load(&mut self, text: &str) -> Result<Value, ConfigError> {
        let mut parser = Parser::new_from_str(text);
        let mut open: Vec<Open> = Vec::new();
        let mut anchors: HashMap<usize, Value> = HashMap::new();
        let mut aliased = 0;
        let mut root: Option<Value> = None;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| ConfigError::Yaml {
                at: self.place(error.marker()),
                message: format!("this is not YAML: {}", error.info()),
            })?;
            let place = self.place(&span.start);
            let (value, anchor, place) = match event {
                Event::StreamEnd => break,
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => continue,
                Event::DocumentStart(_) => {
                    if root.is_some() {
                        return Err(fault(
                            place,
                            "a second document begins here; a configuration is one document",
                        ));
                    }
                    continue;
                }
                Event::SequenceStart(_, Some(tag)) | Event::MappingStart(_, Some(tag))
                    if !is_collection_tag(&tag) =>
                {
                    return Err(unknown_tag(place, &tag));
                }
                Event::SequenceStart(anchor, _) => {
                    push(
                        &mut open,
                        Open {
                            anchor,
                            place,
                            kind: Kind::Sequence(Vec::new()),
                        },
                    )?;
                    continue;
                }
                Event::MappingStart(anchor, _) => {
                    let kind = Kind::Mapping {
                        entries: Map::new(),
                        key: None,
                        merged: Vec::new(),
                    };
                    push(
                        &mut open,
                        Open {
                            anchor,
                            place,
                            kind,
                        },
                    )?;
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(ended) = open.pop() else { continue };
                    (ended.kind.into_value(), ended.anchor, ended.place)
                }
                Event::Alias(id) => {
                    let Some(value) = anchors.get(&id) else {
                        return Err(fault(
                            place,
                            "this alias stands inside the value it refers to",
                        ));
                    };
                    aliased += count(value);
                    if aliased > MAX_ALIASED_NODES {
                        return Err(fault(place, "the aliases (`*name`) repeat too much"));
                    }
                    (value.clone(), 0, place)
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain;
                    let merge = plain && tag.is_none() && text == "<<";
                    if merge
                        && open
                            .last_mut()
                            .is_some_and(|parent| parent.kind.expect_merge())
                    {
                        continue;
                    }
                    (
                        self.scalar(&text, plain, tag.as_deref(), &place)?,
                        anchor,
                        place,
                    )
                }
            };
            if anchor > 0 {
                anchors.insert(anchor, value.clone());
            }
            match open.last_mut() {
                None => root = Some(value),
                Some(parent) => {
                    let name = parent.kind.insert(value, &place)?;
                    if let (Some(name), 1, 0) = (name, open.len(), self.substitutions) {
                        self.places.insert(name, place);
                    }
                }
            }
        }
        Ok(root.unwrap_or(Value::Null))
    }

    fn scalar(
        &mut self,
        text: &str,
        plain: bool,
        tag: Option<&Tag>,
        place: &Place,
    ) -> Result<Value, ConfigError> {
        let number =
            |value: Result<Value, String>| value.map_err(|message| fault(place.clone(), message));
        let Some(tag) = tag else {
            return match plain {
                true if environment::is_wanted(text) => self.substituted(text, place),
                true => number(scalar::resolve(text)),
                false => Ok(Value::from(text)),
            };
        };
        if tag.is_yaml_core_schema() {
            let value = number(scalar::resolve(text))?;
            let (fits, value) = match tag.suffix.as_str() {
                "str" => (true, Value::from(text)),
                "null" => (value.is_null(), value),
                "bool" => (value.is_boolean(), value),
                "int" => (value.is_i64() || value.is_u64(), value),
                "float" => (value.is_number(), value.as_f64().map_or(value, Value::from)),
                _ => return Err(unknown_tag(place.clone(), tag)),
            };
            return match fits {
                true => Ok(value),
                false => Err(fault(
                    place.clone(),
                    format!("`{text}` is no !!{}", tag.suffix),
                )),
            };
        }
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "env_var") => self.substituted(text, place),
            ("!", "raw_env_var") => self.substitute(text, place).map(Value::from),
            // The non-specific tag: a string, whatever it looks like.
            ("", "!") | ("!", "") => Ok(Value::from(text)),
            _ => Err(unknown_tag(place.clone(), tag)),
        }
    }

    fn substitute(&self, text: &str, place: &Place) -> Result<String, ConfigError> {
        environment::substitute(text, self.lookup).map_err(|error| match error {
            SubstitutionError::Missing(name) => ConfigError::MissingVariable {
                at: place.clone(),
                name,
            },
            SubstitutionError::NotText(name) => fault(
                place.clone(),
                format!("the environment variable {name} does not hold UTF-8 text"),
            ),
        })
    }

    /// Fills in the variables, and reads the outcome as YAML again: `${PORT:5672}` is a number.
    fn substituted(&mut self, text: &str, place: &Place) -> Result<Value, ConfigError> {
        let filled = self.substitute(text, place)?;
        if filled == text {
            return Ok(Value::from(filled));
        }
        if self.substitutions == MAX_SUBSTITUTIONS {
            return Err(fault(
                place.clone(),
                "the environment variables here refer to each other without end",
            ));
        }
        let outer = self.outer_place.replace(place.clone());
        self.substitutions += 1;
        let value = self.load(&filled);
        self.substitutions -= 1;
        self.outer_place = outer;
        match value {
            Err(ConfigError::Yaml { at, message }) if self.substitutions == 0 => {
                let hint =
                    "with its variables filled in, this value is read as YAML; to take it as text";
                Err(fault(
                    at,
                    format!("{message} ({hint}: !raw_env_var \"{text}\")"),
                ))
            }
            other => other,
        }
    }

    /// Lines and columns are counted from one.
    fn place(&self, marker: &Marker) -> Place {
        self.outer_place.clone().unwrap_or_else(|| Place {
            origin: self.origin.clone(),
            line: marker.line().max(1),
            column: marker.col() + 1,
        })
    }
}

impl Kind {
    fn into_value(self) -> Value {
        match self {
            Self::Sequence(items) => Value::Array(items),
            Self::Mapping {
                mut entries,
                merged,
                ..
            } => {
                for (name, value) in merged.into_iter().flatten() {
                    entries.entry(name).or_insert(value);
                }
                Value::Object(entries)
            }
        }
    }

    /// Where a mapping's next key would stand, takes `<<` for it; `false` elsewhere.
    fn expect_merge(&mut self) -> bool {
        match self {
            Self::Mapping {
                key: key @ None, ..
            } => {
                *key = Some(Key::Merge);
                true
            }
            _ => false,
        }
    }

    /// Takes the next node; for a mapping's value, gives back its key.
    fn insert(&mut self, node: Value, place: &Place) -> Result<Option<String>, ConfigError> {
        match self {
            Self::Sequence(items) => items.push(node),
            Self::Mapping {
                entries,
                key,
                merged,
            } => match key.take() {
                None => {
                    let name = name_of(node, place)?;
                    if entries.contains_key(&name) {
                        return Err(fault(
                            place.clone(),
                            format!("the key `{name}` stands here a second time; remove one"),
                        ));
                    }
                    *key = Some(Key::Name(name));
                }
                Some(Key::Merge) => match node {
                    Value::Object(map) => merged.push(map),
                    Value::Array(maps) if maps.iter().all(Value::is_object) => {
                        merged.extend(maps.into_iter().filter_map(|map| match map {
                            Value::Object(map) => Some(map),
                            _ => None,
                        }));
                    }
                    _ => {
                        return Err(fault(
                            place.clone(),
                            "`<<` takes a mapping, or a list of mappings",
                        ));
                    }
                },
                Some(Key::Name(name)) => {
                    entries.insert(name.clone(), node);
                    return Ok(Some(name));
                }
            },
        }
        Ok(None)
    }
}

/// A key as JSON spells it: keys of JSON objects are text.
fn name_of(key: Value, place: &Place) -> Result<String, ConfigError> {
    match key {
        Value::String(name) => Ok(name),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(key.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Err(fault(place.clone(), "a key must be text, not a collection"))
        }
    }
}

fn push(open: &mut Vec<Open>, collection: Open) -> Result<(), ConfigError> {
    if open.len() == MAX_DEPTH {
        return Err(fault(
            collection.place,
            format!("more than {MAX_DEPTH} collections stand within each other"),
        ));
    }
    open.push(collection);
    Ok(())
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(entries) => entries.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

fn is_collection_tag(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "seq" | "map")
}

fn unknown_tag(place: Place, tag: &Tag) -> ConfigError {
    fault(
        place,
        format!("the tag `{tag}` is not known here; !env_var and !raw_env_var are"),
    )
}

fn fault(at: Place, message: impl Into<String>) -> ConfigError {
    ConfigError::Yaml {
        at,
        message: message.into(),
    }
}

/// The process's own variables.
pub(super) fn process_environment(name: &str) -> Option<OsString> {
    // `var_os` panics on a name with `=` or a NUL byte on some platforms.
    if name.is_empty() || name.contains(['=', '\0']) {
        None
    } else {
        std::env::var_os(name)
    }
}
