//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386).

use serde_json::Value;

use crate::status::Failure;

/// At most so many operations in one JSON patch, as on the real server.
const OPERATIONS_MAX: usize = 10_000;

/// Applies a JSON patch.
pub(crate) fn json(object: &mut Value, patch: Value) -> Result<(), Failure> {
    let patch: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|e| Failure::bad_request(format!("error decoding patch: {e}")))?;
    if patch.0.len() > OPERATIONS_MAX {
        let why = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            patch.0.len()
        );
        return Err(Failure::too_large(why));
    }
    json_patch::patch(object, &patch).map_err(|e| {
        let why = match e.kind {
            json_patch::PatchErrorKind::TestFailed => format!("testing value {} failed", e.path),
            kind => format!("{kind} at {}", e.path),
        };
        let message =
            format!("the server rejected our request due to an error in our request: {why}");
        Failure::new(422, "Invalid", message).with(serde_json::json!({}))
    })
}

/// Applies a JSON merge patch.
pub(crate) fn merge(object: &mut Value, patch: &Value) -> Result<(), Failure> {
    if !patch.is_object() {
        return Err(Failure::bad_request(
            "error decoding patch: a JSON merge patch must be an object",
        ));
    }
    json_patch::merge(object, patch);
    Ok(())
}
