//! AdmissionReview, `admission.k8s.io/v1`: the parts of it that are used.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the API server sends.
#[derive(Debug, Deserialize)]
pub(super) struct Review {
    pub(super) request: Request,
}

/// The question.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Names the question.
    pub uid: String,
    /// What the object is.
    #[serde(default)]
    pub kind: Kind,
    /// CREATE, UPDATE, DELETE or CONNECT.
    #[serde(default)]
    pub operation: String,
    /// Empty for objects that are in none.
    #[serde(default)]
    pub namespace: String,
    /// The object as it would be.
    #[serde(default)]
    pub object: Value,
}

/// What an object is.
#[derive(Debug, Default, Deserialize)]
pub struct Kind {
    /// Its kind.
    #[serde(default)]
    pub kind: String,
}

/// The answer.
#[derive(Debug, Default, PartialEq)]
pub struct Response {
    /// Why the object is not taken, and what to write instead; `None`: it is.
    pub refused: Option<String>,
    /// A JSON patch.
    pub patch: Option<Value>,
    /// What kubectl prints.
    pub warnings: Vec<String>,
}

impl Response {
    /// The object is not taken.
    pub fn refuse(why: impl Into<String>) -> Self {
        Self {
            refused: Some(why.into()),
            ..Self::default()
        }
    }

    /// As the API server reads it.
    pub(super) fn to_json(&self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": self.refused.is_none()});
        if let Some(why) = &self.refused {
            response["status"] = json!({"code": 422, "reason": "Invalid", "message": why});
        }
        if let Some(patch) = &self.patch {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(patch.to_string()));
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }
}
