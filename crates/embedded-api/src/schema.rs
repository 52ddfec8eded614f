//! Structural schemas, compiled: of CustomResourceDefinitions and of the built-in kinds alike.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

/// The JSON type that a schema asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

/// How a list is merged and owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// By value.
    Set,
    /// By these fields of its items.
    Map(Vec<String>),
}

/// How a strategic merge patch treats a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Strategy {
    #[default]
    Replace,
    /// Merge scalars by value.
    Merge,
    /// Merge items by this field.
    MergeBy(String),
}

/// The parts of a schema that only restrict values.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) one_of_values: Vec<Value>,
    pub(crate) pattern: Option<(String, Regex)>,
    pub(crate) format: String,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length: (Option<u64>, Option<u64>),
    pub(crate) items: (Option<u64>, Option<u64>),
    pub(crate) properties: (Option<u64>, Option<u64>),
    pub(crate) unique_items: bool,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

/// One node of a compiled schema.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) kind: Type,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Option<Box<Schema>>,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) required: Vec<String>,
    pub(crate) nullable: bool,
    /// Keeps fields that it does not know.
    pub(crate) open: bool,
    /// Holds a whole object with apiVersion, kind and metadata.
    pub(crate) embedded: bool,
    pub(crate) default: Option<Value>,
    pub(crate) list: ListType,
    pub(crate) strategy: Strategy,
    /// An object owned as a whole.
    pub(crate) atomic: bool,
    pub(crate) checks: Option<Box<Checks>>,
}

/// The schema of what nobody described: everything is kept, maps are granular, lists atomic.
pub(crate) static ANY: Schema = Schema {
    kind: Type::Any,
    properties: BTreeMap::new(),
    additional: None,
    items: None,
    required: Vec::new(),
    nullable: true,
    open: true,
    embedded: false,
    default: None,
    list: ListType::Atomic,
    strategy: Strategy::Replace,
    atomic: false,
    checks: None,
};

impl Schema {
    /// The schema of a field, if it is known.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// The schema of a field, or of anything.
    pub(crate) fn child(&self, name: &str) -> &Self {
        self.field(name).unwrap_or(&ANY)
    }

    /// The schema of list items, or of anything.
    pub(crate) fn item(&self) -> &Self {
        self.items.as_deref().unwrap_or(&ANY)
    }

    /// Compiles a schema. `definitions` holds what `$ref`s name; a definition inside itself is left open.
    pub(crate) fn compile(json: &Value, definitions: &Map<String, Value>) -> Result<Self, String> {
        compile(json, definitions, &mut Vec::new())
    }
}

fn compile(
    json: &Value,
    definitions: &Map<String, Value>,
    above: &mut Vec<String>,
) -> Result<Schema, String> {
    // A reference with a description beside it stands in an allOf of its own.
    let alone = json["allOf"]
        .as_array()
        .filter(|all| all.len() == 1 && json["type"].is_null());
    let target = alone.map_or(json, |all| &all[0]);
    if let Some(reference) = target["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        if above.iter().any(|a| a == name) {
            return Ok(Schema {
                atomic: false,
                ..open()
            });
        }
        let definition = definitions
            .get(name)
            .ok_or_else(|| format!("the schema refers to {name}, which is not defined"))?;
        above.push(name.to_owned());
        let compiled = compile(definition, definitions, above);
        above.pop();
        let mut compiled = compiled?;
        extensions(json, &mut compiled);
        return Ok(compiled);
    }
    let flag = |name: &str| json[name] == true;
    let mut schema = open();
    schema.kind = type_of(json);
    schema.nullable = flag("nullable");
    schema.open = flag("x-kubernetes-preserve-unknown-fields");
    schema.embedded = flag("x-kubernetes-embedded-resource");
    schema.default = json.get("default").cloned();
    schema.required = strings(&json["required"]);
    for (name, property) in json["properties"].as_object().into_iter().flatten() {
        schema
            .properties
            .insert(name.clone(), compile(property, definitions, above)?);
    }
    match &json["additionalProperties"] {
        Value::Bool(true) => schema.open = true,
        rest @ Value::Object(_) => {
            schema.additional = Some(Box::new(compile(rest, definitions, above)?))
        }
        _ => {}
    }
    if json["items"].is_object() {
        schema.items = Some(Box::new(compile(&json["items"], definitions, above)?));
    }
    let bare = schema.properties.is_empty() && schema.additional.is_none();
    // Untyped values are kept as they are; so are the bare objects of built-in kinds (raw extensions, fieldsV1). A bare
    // object of a custom kind is pruned to nothing, as on the real server.
    schema.open |= schema.kind == Type::Any
        || (schema.kind == Type::Object && bare && !definitions.is_empty());
    extensions(json, &mut schema);
    schema.checks = checks(json, definitions, above)?.map(Box::new);
    Ok(schema)
}

fn open() -> Schema {
    Schema {
        kind: Type::Any,
        properties: BTreeMap::new(),
        additional: None,
        items: None,
        required: Vec::new(),
        nullable: false,
        open: true,
        embedded: false,
        default: None,
        list: ListType::Atomic,
        strategy: Strategy::Replace,
        atomic: false,
        checks: None,
    }
}

fn extensions(json: &Value, schema: &mut Schema) {
    match json["x-kubernetes-list-type"].as_str() {
        Some("set") => schema.list = ListType::Set,
        Some("map") => schema.list = ListType::Map(strings(&json["x-kubernetes-list-map-keys"])),
        _ => {}
    }
    schema.atomic |= json["x-kubernetes-map-type"] == "atomic";
    let merges = json["x-kubernetes-patch-strategy"]
        .as_str()
        .is_some_and(|s| s.split(',').any(|w| w == "merge"));
    match (merges, json["x-kubernetes-patch-merge-key"].as_str()) {
        (true, Some(key)) => schema.strategy = Strategy::MergeBy(key.to_owned()),
        (true, None) => schema.strategy = Strategy::Merge,
        (false, _) => {}
    }
}

fn type_of(json: &Value) -> Type {
    if json["x-kubernetes-int-or-string"] == true || json["format"] == "int-or-string" {
        return Type::IntOrString;
    }
    match json["type"].as_str() {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ if json["properties"].is_object() => Type::Object,
        _ => Type::Any,
    }
}

fn strings(json: &Value) -> Vec<String> {
    json.as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

const RESTRICTING: [&str; 18] = [
    "enum",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "uniqueItems",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "required",
];

fn checks(
    json: &Value,
    definitions: &Map<String, Value>,
    above: &mut Vec<String>,
) -> Result<Option<Checks>, String> {
    if !RESTRICTING.iter().any(|r| json.get(*r).is_some()) {
        return Ok(None);
    }
    let mut many = |name: &str| -> Result<Vec<Schema>, String> {
        json[name]
            .as_array()
            .into_iter()
            .flatten()
            .map(|s| compile(s, definitions, above))
            .collect()
    };
    let (all_of, any_of, one_of) = (many("allOf")?, many("anyOf")?, many("oneOf")?);
    let not = match &json["not"] {
        not @ Value::Object(_) => Some(Box::new(compile(not, definitions, above)?)),
        _ => None,
    };
    let pattern = match json["pattern"].as_str() {
        Some(text) => Some((
            text.to_owned(),
            Regex::new(text)
                .map_err(|e| format!("the pattern {text:?} is no regular expression: {e}"))?,
        )),
        None => None,
    };
    let bound =
        |name: &str, exclusive: &str| json[name].as_f64().map(|n| (n, json[exclusive] == true));
    let range = |min: &str, max: &str| (json[min].as_u64(), json[max].as_u64());
    Ok(Some(Checks {
        one_of_values: json["enum"].as_array().cloned().unwrap_or_default(),
        pattern,
        format: json["format"].as_str().unwrap_or_default().to_owned(),
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: json["multipleOf"].as_f64(),
        length: range("minLength", "maxLength"),
        items: range("minItems", "maxItems"),
        properties: range("minProperties", "maxProperties"),
        unique_items: json["uniqueItems"] == true,
        all_of,
        any_of,
        one_of,
        not,
    }))
}
