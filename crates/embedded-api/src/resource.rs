//! What the server knows about one kind in one version: its names, its schema, how it is printed.

use std::sync::OnceLock;

use k8s_openapi::schemars::{Schema as JsonSchema, SchemaGenerator};
use serde_json::Value;

use crate::{
    builtin,
    cel::Rules,
    columns::Column,
    names::NameRule,
    schema::{ANY, Schema},
    status::qualified,
};

/// Where a kind's schema comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A built-in kind; the function makes its schema.
    Builtin(fn(&mut SchemaGenerator) -> JsonSchema),
    /// A CustomResourceDefinition's version, with its schema.
    Definition {
        json: Value,
        rules: Option<Box<Rules>>,
        revision: u64,
    },
}

/// One kind in one served version.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// Has a status subresource.
    pub(crate) status: bool,
    pub(crate) name_rule: NameRule,
    /// The apiVersion that objects are stored in.
    pub(crate) stored_as: String,
    pub(crate) selectable: Vec<String>,
    pub(crate) columns: Vec<Column>,
    pub(crate) source: Source,
    pub(crate) schema: OnceLock<Schema>,
}

impl Resource {
    /// `group/version`, or `version` in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// What the store calls the kind. Events of both groups are one kind.
    pub(crate) fn storage(&self) -> String {
        match (self.group.as_str(), self.plural.as_str()) {
            ("events.k8s.io", plural) => plural.to_owned(),
            (group, plural) => qualified(group, plural),
        }
    }

    /// Whether objects of this version are kept as they are written.
    pub(crate) fn is_stored_version(&self) -> bool {
        self.stored_as == self.api_version()
    }

    /// Whether it comes from a CustomResourceDefinition.
    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.source, Source::Definition { .. })
    }

    pub(crate) fn rules(&self) -> Option<&Rules> {
        match &self.source {
            Source::Definition { rules, .. } => rules.as_deref(),
            Source::Builtin(_) => None,
        }
    }

    /// The compiled schema; a built-in kind's is made on first use.
    pub(crate) fn schema(&self) -> &Schema {
        if let (None, Source::Builtin(make)) = (self.schema.get(), &self.source) {
            return self.schema.get_or_init(|| builtin::schema(*make));
        }
        self.schema.get().unwrap_or(&ANY)
    }
}
