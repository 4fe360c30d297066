//! YAML text to JSON values, with positions in errors.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

use super::environment::{self, NotText, Substituted};
use super::error::{ConfigError, Place, describe};
use super::scalar::{self, Kind as ScalarKind};
use super::tags;

/// Maximum nesting of collections.
const MAX_DEPTH: usize = 64;
/// Maximum number of nodes copied for aliases: nested aliases grow exponentially.
const MAX_ALIASED_NODES: usize = 100_000;
/// Maximum nesting of substituted values that contain further references.
const MAX_SUBSTITUTIONS: usize = 16;

/// A configuration document: its entries and their positions.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) entries: Map<String, Value>,
    pub(super) places: HashMap<String, Place>,
    /// Probable mistakes, with their positions.
    pub(super) warnings: Vec<String>,
}

/// Parses the single document of a configuration text. An empty text is an empty mapping.
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
            warnings: loader.warnings,
        }),
        Value::Null => Ok(Document {
            entries: Map::new(),
            places: HashMap::new(),
            warnings: loader.warnings,
        }),
        other => Err(ConfigError::Yaml {
            at: start,
            message: format!(
                "the file must hold `KEY: value` lines, not {}",
                describe(&other)
            ),
        }),
    }
}

/// Parses a single value, the right side of `-d KEY=`. Returns it with warnings.
pub(super) fn load_value(
    text: &str,
    origin: &str,
    lookup: environment::Lookup<'_>,
) -> Result<(Value, Vec<String>), ConfigError> {
    let mut loader = Loader::new(Arc::from(origin), lookup);
    let value = loader.load(text)?;
    Ok((value, loader.warnings))
}

struct Loader<'a> {
    origin: Arc<str>,
    lookup: environment::Lookup<'a>,
    /// Positions of the top-level values, by key.
    places: HashMap<String, Place>,
    warnings: Vec<String>,
    /// Current nesting of substituted values.
    substitutions: usize,
    /// Position of the reference while its substituted value is parsed; errors are reported there.
    outer_place: Option<Place>,
}

/// The document under construction.
#[derive(Default)]
struct Tree {
    /// Unfinished collections, the innermost last.
    open: Vec<Collection>,
    anchors: HashMap<usize, Value>,
    /// Number of nodes copied for aliases.
    aliased: usize,
    root: Option<Value>,
}

/// An unfinished collection.
struct Collection {
    anchor: usize,
    place: Place,
    kind: Kind,
}

enum Kind {
    Sequence {
        items: Vec<Value>,
        /// Set for `!!omap` and `!!pairs`, whose items are mappings of one entry.
        is_pairs: bool,
    },
    Mapping {
        entries: Map<String, Value>,
        key: Option<Key>,
        /// The mappings of `<<`, each of which overrides those before it.
        merged: Vec<Map<String, Value>>,
        /// Set for `!!set`, whose items are keys.
        is_set: bool,
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
            warnings: Vec::new(),
            substitutions: 0,
            outer_place: None,
        }
    }

    fn load(&mut self, text: &str) -> Result<Value, ConfigError> {
        let mut tree = Tree::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| ConfigError::Yaml {
                at: self.place(error.marker()),
                message: format!("this is not YAML: {}", error.info()),
            })?;
            self.handle(&mut tree, event, self.place(&span.start))?;
        }
        Ok(tree.root.unwrap_or(Value::Null))
    }

    fn handle(
        &mut self,
        tree: &mut Tree,
        event: Event<'_>,
        place: Place,
    ) -> Result<(), ConfigError> {
        let (value, anchor, place) = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {
                return Ok(());
            }
            Event::DocumentStart(_) if tree.root.is_some() => {
                return Err(fault(
                    place,
                    "a second document begins here; a configuration is one document",
                ));
            }
            Event::DocumentStart(_) => return Ok(()),
            Event::SequenceStart(anchor, tag) => {
                let kind = Kind::sequence(tag.as_deref(), &place)?;
                return tree.open(anchor, place, kind);
            }
            Event::MappingStart(anchor, tag) => {
                let kind = Kind::mapping(tag.as_deref(), &place)?;
                return tree.open(anchor, place, kind);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(ended) = tree.open.pop() else {
                    return Ok(());
                };
                (
                    ended.kind.into_value(&ended.place)?,
                    ended.anchor,
                    ended.place,
                )
            }
            Event::Alias(id) => (tree.resolve_alias(id, &place)?, 0, place),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if plain && tag.is_none() && text == "<<" && tree.expect_merge() {
                    return Ok(());
                }
                let value = self.scalar(&text, plain, tag.as_deref(), &place)?;
                (value, anchor, place)
            }
        };
        let depth = tree.open.len();
        let name = tree.insert(value, anchor, &place, &mut self.warnings)?;
        if let (Some(name), 1, 0) = (name, depth, self.substitutions) {
            self.places.insert(name, place);
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        plain: bool,
        tag: Option<&Tag>,
        place: &Place,
    ) -> Result<Value, ConfigError> {
        let Some(tag) = tag else {
            return match plain {
                true if environment::may_hold_reference(text) => self.substituted(text, place),
                true => Ok(scalar::resolve(text).1),
                false => Ok(Value::from(text)),
            };
        };
        if tag.is_yaml_core_schema() {
            let (kind, value) = scalar::resolve(text);
            let fits = match tag.suffix.as_str() {
                "str" | "timestamp" => return Ok(Value::from(text)),
                "binary" => {
                    return tags::binary(text).map_err(|message| fault(place.clone(), message));
                }
                "null" => kind == ScalarKind::Null,
                "bool" => kind == ScalarKind::Bool,
                "int" => kind == ScalarKind::Int,
                "float" => matches!(kind, ScalarKind::Int | ScalarKind::Float),
                _ => return Err(unknown_tag(place.clone(), tag)),
            };
            return match (fits, tag.suffix.as_str()) {
                (true, "float") => Ok(value.as_f64().map_or(value, Value::from)),
                (true, _) => Ok(value),
                (false, name) => Err(fault(place.clone(), format!("`{text}` is not a !!{name}"))),
            };
        }
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "env_var") => self.substituted(text, place),
            ("!", "raw_env_var") => self.substitute(text, place).map(Value::from),
            // The non-specific tag: always a string.
            ("", "!") | ("!", "") => Ok(Value::from(text)),
            _ => Err(unknown_tag(place.clone(), tag)),
        }
    }

    fn substitute(&mut self, text: &str, place: &Place) -> Result<String, ConfigError> {
        let Substituted { text, unset } =
            environment::substitute(text, self.lookup).map_err(|NotText(name)| {
                fault(
                    place.clone(),
                    format!("the environment variable {name} does not hold UTF-8 text"),
                )
            })?;
        for name in unset {
            self.warnings.push(format!(
                "{place}: the environment variable {name} is not set and has no default, so it is \
                 empty; ${{{name}:}} allows that"
            ));
        }
        Ok(text)
    }

    /// Substitutes variables and parses the result as YAML: `${PORT:5672}` is a number.
    fn substituted(&mut self, text: &str, place: &Place) -> Result<Value, ConfigError> {
        let filled = self.substitute(text, place)?;
        if filled == text {
            return Ok(Value::from(filled));
        }
        if self.substitutions == MAX_SUBSTITUTIONS {
            return Err(fault(
                place.clone(),
                "the environment variables here refer to each other in a cycle",
            ));
        }
        let outer = self.outer_place.replace(place.clone());
        self.substitutions += 1;
        let value = self.load(&filled);
        self.substitutions -= 1;
        self.outer_place = outer;
        match value {
            Err(ConfigError::Yaml { at, message }) if self.substitutions == 0 => {
                let hint = "after substitution this value is parsed as YAML; to keep it as text";
                Err(fault(
                    at,
                    format!("{message} ({hint}: !raw_env_var \"{text}\")"),
                ))
            }
            other => other,
        }
    }

    /// Converts a parser position; lines and columns start at 1.
    fn place(&self, marker: &Marker) -> Place {
        self.outer_place.clone().unwrap_or_else(|| Place {
            origin: self.origin.clone(),
            line: marker.line().max(1),
            column: marker.col() + 1,
        })
    }
}

impl Tree {
    fn open(&mut self, anchor: usize, place: Place, kind: Kind) -> Result<(), ConfigError> {
        if self.open.len() == MAX_DEPTH {
            return Err(fault(
                place,
                format!("collections are nested more than {MAX_DEPTH} levels deep"),
            ));
        }
        self.open.push(Collection {
            anchor,
            place,
            kind,
        });
        Ok(())
    }

    fn resolve_alias(&mut self, id: usize, place: &Place) -> Result<Value, ConfigError> {
        let Some(value) = self.anchors.get(&id) else {
            return Err(fault(
                place.clone(),
                "this alias is inside the value it refers to",
            ));
        };
        self.aliased += count(value);
        if self.aliased > MAX_ALIASED_NODES {
            return Err(fault(
                place.clone(),
                "the aliases (`*name`) repeat too much",
            ));
        }
        Ok(value.clone())
    }

    /// Marks `<<` as the pending key if a mapping expects a key; returns `false` otherwise.
    fn expect_merge(&mut self) -> bool {
        self.open
            .last_mut()
            .is_some_and(|parent| parent.kind.expect_merge())
    }

    /// Adds a complete node to the innermost collection, and returns the key if the node is the
    /// value of one.
    fn insert(
        &mut self,
        value: Value,
        anchor: usize,
        place: &Place,
        warnings: &mut Vec<String>,
    ) -> Result<Option<String>, ConfigError> {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => {
                self.root = Some(value);
                Ok(None)
            }
            Some(parent) => parent.kind.insert(value, place, warnings),
        }
    }
}

impl Kind {
    fn sequence(tag: Option<&Tag>, place: &Place) -> Result<Self, ConfigError> {
        let is_pairs = match tag {
            None => false,
            Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
                "seq" => false,
                "omap" | "pairs" => true,
                _ => return Err(unknown_tag(place.clone(), tag)),
            },
            Some(tag) => return Err(unknown_tag(place.clone(), tag)),
        };
        Ok(Self::Sequence {
            items: Vec::new(),
            is_pairs,
        })
    }

    fn mapping(tag: Option<&Tag>, place: &Place) -> Result<Self, ConfigError> {
        let is_set = match tag {
            None => false,
            Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
                "map" => false,
                "set" => true,
                _ => return Err(unknown_tag(place.clone(), tag)),
            },
            Some(tag) => return Err(unknown_tag(place.clone(), tag)),
        };
        Ok(Self::Mapping {
            entries: Map::new(),
            key: None,
            merged: Vec::new(),
            is_set,
        })
    }

    fn into_value(self, place: &Place) -> Result<Value, ConfigError> {
        match self {
            Self::Sequence {
                items,
                is_pairs: false,
            } => Ok(Value::Array(items)),
            Self::Sequence { items, .. } => {
                tags::pairs(items).map_err(|message| fault(place.clone(), message))
            }
            Self::Mapping {
                entries,
                merged,
                is_set,
                ..
            } => {
                let mut all: Map<_, _> = merged.into_iter().flatten().collect();
                all.extend(entries);
                Ok(match is_set {
                    false => Value::Object(all),
                    true => all.into_iter().map(|(name, _)| name).collect(),
                })
            }
        }
    }

    /// Marks `<<` as the pending key if a key is expected; returns `false` otherwise.
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

    /// Adds the next node; for the value of a mapping, returns its key.
    fn insert(
        &mut self,
        node: Value,
        place: &Place,
        warnings: &mut Vec<String>,
    ) -> Result<Option<String>, ConfigError> {
        match self {
            Self::Sequence { items, .. } => items.push(node),
            Self::Mapping {
                entries,
                key,
                merged,
                ..
            } => match key.take() {
                None => {
                    let name = name_of(node, place)?;
                    if entries.contains_key(&name) {
                        warnings.push(format!(
                            "{place}: the key `{name}` is duplicated here; its last value applies"
                        ));
                    }
                    *key = Some(Key::Name(name));
                }
                Some(Key::Merge) => match node {
                    Value::Object(map) => merged.push(map),
                    // The first map of a list has precedence.
                    Value::Array(maps) if maps.iter().all(Value::is_object) => {
                        merged.extend(maps.into_iter().rev().filter_map(|map| match map {
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

/// Converts a key to text, as the keys of JSON objects are.
fn name_of(key: Value, place: &Place) -> Result<String, ConfigError> {
    match key {
        Value::String(name) => Ok(name),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(key.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Err(fault(place.clone(), "a key must be text, not a collection"))
        }
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(entries) => entries.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

fn unknown_tag(place: Place, tag: &Tag) -> ConfigError {
    fault(
        place,
        format!("unknown tag `{tag}`; supported are !env_var and !raw_env_var"),
    )
}

fn fault(at: Place, message: impl Into<String>) -> ConfigError {
    ConfigError::Yaml {
        at,
        message: message.into(),
    }
}

/// Reads an environment variable of the process.
pub(super) fn process_environment(name: &str) -> Option<OsString> {
    // `var_os` panics on a name with `=` or a NUL byte on some platforms.
    if name.is_empty() || name.contains(['=', '\0']) {
        None
    } else {
        std::env::var_os(name)
    }
}
