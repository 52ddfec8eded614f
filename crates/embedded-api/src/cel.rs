//! `x-kubernetes-validations`: the CEL rules of a schema.

use kube_cel::{CompiledSchema, ErrorKind, RootContext, Validator};
use serde_json::Value;

use crate::status::Cause;

thread_local! {
    // A validator may move between threads but not be shared; it is costly to make and holds no state between uses.
    static VALIDATOR: Validator = Validator::new();
}

/// The compiled rules of one kind's schema.
#[derive(Debug)]
pub(crate) struct Rules {
    schema: CompiledSchema,
    context: RootContext,
}

impl Rules {
    /// Compiles the rules in `schema`, if it has any.
    pub(crate) fn compile(
        schema: &Value,
        api_version: &str,
        group: &str,
        kind: &str,
    ) -> Option<Self> {
        has_rules(schema).then(|| Self {
            schema: kube_cel::compile_schema(schema),
            context: RootContext {
                api_version: api_version.into(),
                api_group: group.into(),
                kind: kind.into(),
            },
        })
    }

    /// What the rules say against `object`; `old` is the version that it replaces.
    pub(crate) fn causes(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let result = VALIDATOR.with(|v| {
            v.validate_compiled_with_context(&self.schema, object, old, Some(&self.context))
        });
        let Err(errors) = result else {
            return Vec::new();
        };
        errors.into_iter().map(|e| cause(&e)).collect()
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.contains_key("x-kubernetes-validations") || map.values().any(has_rules)
        }
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn cause(error: &kube_cel::ValidationError) -> Cause {
    let field = error.field_path.clone();
    let message = match error.kind {
        ErrorKind::ValidationFailure => error.message.clone(),
        _ => format!(
            "rule evaluation error: {} (rule: {})",
            error.message, error.rule
        ),
    };
    match error.reason.as_deref() {
        Some("FieldValueForbidden") => Cause::forbidden(field, &message),
        Some("FieldValueRequired") => Cause::required(field, &message),
        // The real server leaves the value out where a rule judged it.
        _ => Cause::without_value(field, &message),
    }
}
