//! The few protobuf bodies that kubectl sends and cannot be talked out of: `kubectl create namespace`, `secret`,
//! `configmap` and `serviceaccount` encode their object so. Everything else in protobuf is refused.
//!
//! Field numbers are those of `k8s.io/api/core/v1/generated.proto`, `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`
//! and `k8s.io/apimachinery/pkg/runtime/generated.proto`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// What such a body begins with.
pub(crate) const MAGIC: &[u8; 4] = b"k8s\0";

/// How a field becomes JSON.
enum Form {
    Text,
    Flag,
    /// `map<string, string>`
    Texts,
    /// `map<string, bytes>`
    Blobs,
    Message(&'static [(u64, &'static str, Form)]),
    List(&'static [(u64, &'static str, Form)]),
}

const META: &[(u64, &str, Form)] = &[
    (1, "name", Form::Text),
    (2, "generateName", Form::Text),
    (3, "namespace", Form::Text),
    (11, "labels", Form::Texts),
    (12, "annotations", Form::Texts),
];
const REFERENCE: &[(u64, &str, Form)] = &[(3, "name", Form::Text)];
const NAMESPACE: &[(u64, &str, Form)] = &[(1, "metadata", Form::Message(META))];
const SECRET: &[(u64, &str, Form)] = &[
    (1, "metadata", Form::Message(META)),
    (2, "data", Form::Blobs),
    (3, "type", Form::Text),
    (4, "stringData", Form::Texts),
    (5, "immutable", Form::Flag),
];
const CONFIG_MAP: &[(u64, &str, Form)] = &[
    (1, "metadata", Form::Message(META)),
    (2, "data", Form::Texts),
    (3, "binaryData", Form::Blobs),
    (4, "immutable", Form::Flag),
];
const SERVICE_ACCOUNT: &[(u64, &str, Form)] = &[
    (1, "metadata", Form::Message(META)),
    (2, "secrets", Form::List(REFERENCE)),
    (4, "automountServiceAccountToken", Form::Flag),
];

/// Reads a body; says what it cannot read.
pub(crate) fn read(body: &[u8]) -> Result<Value, String> {
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as a Kubernetes protobuf body does")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in fields(envelope)? {
        match field {
            (1, Wire::Bytes(meta)) => {
                for inner in fields(meta)? {
                    match inner {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let form = match (api_version.as_str(), kind.as_str()) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "Secret") => SECRET,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        _ => {
            return Err(format!(
                "{kind} of {api_version} is read as JSON or YAML only (kubectl create -f sends JSON)"
            ));
        }
    };
    let mut object = message(raw, form)?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(object)
}

fn message(bytes: &[u8], form: &[(u64, &str, Form)]) -> Result<Value, String> {
    let mut object = Map::new();
    for (number, wire) in fields(bytes)? {
        let Some((_, name, form)) = form.iter().find(|(n, _, _)| *n == number) else {
            continue;
        };
        match (form, wire) {
            (Form::Flag, Wire::Number(n)) => {
                object.insert((*name).into(), (n != 0).into());
            }
            // An empty text is an unset one.
            (Form::Text, Wire::Bytes([])) => {}
            (Form::Text, Wire::Bytes(text)) => {
                object.insert((*name).into(), utf8(text)?.into());
            }
            (Form::Message(form), Wire::Bytes(bytes)) => {
                object.insert((*name).into(), message(bytes, form)?);
            }
            (Form::List(form), Wire::Bytes(bytes)) => {
                let list = object.entry(*name).or_insert_with(|| json!([]));
                list.as_array_mut()
                    .map(|l| message(bytes, form).map(|m| l.push(m)))
                    .transpose()?;
            }
            (Form::Texts | Form::Blobs, Wire::Bytes(entry)) => {
                let (mut key, mut value) = (String::new(), &[][..]);
                for field in fields(entry)? {
                    match field {
                        (1, Wire::Bytes(k)) => key = utf8(k)?,
                        (2, Wire::Bytes(v)) => value = v,
                        _ => {}
                    }
                }
                let value = if matches!(form, Form::Texts) {
                    utf8(value)?
                } else {
                    STANDARD.encode(value)
                };
                object.entry(*name).or_insert_with(|| json!({}))[key] = value.into();
            }
            _ => return Err(format!("the field {name} has the wrong wire type")),
        }
    }
    Ok(Value::Object(object))
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|e| format!("a text is not UTF-8: {e}"))
}

fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>, String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let take = |bytes: &mut &'_ [u8], n: usize| -> Result<(), String> {
            *bytes = bytes.get(n..).ok_or("it ends within a field")?;
            Ok(())
        };
        match tag & 7 {
            0 => fields.push((tag >> 3, Wire::Number(varint(&mut bytes)?))),
            1 => take(&mut bytes, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|e| e.to_string())?;
                let content = bytes.get(..length).ok_or("it ends within a field")?;
                fields.push((tag >> 3, Wire::Bytes(content)));
                bytes = &bytes[length..];
            }
            5 => take(&mut bytes, 4)?,
            other => return Err(format!("wire type {other} is unknown")),
        }
    }
    Ok(fields)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("it ends within a number")?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8][..], content].concat()
    }

    #[test]
    fn a_secret_is_read_and_other_kinds_are_not() {
        let body = |kind: &[u8]| {
            let meta = [field(1, b"v1"), field(2, kind)].concat();
            let object = [
                field(1, &field(1, b"s")),
                field(2, &[field(1, b"k"), field(2, &[255])].concat()),
                field(3, b"Opaque"),
            ];
            [MAGIC.to_vec(), field(1, &meta), field(2, &object.concat())].concat()
        };
        let want = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "/w=="}, "type": "Opaque"});
        assert_eq!(read(&body(b"Secret")), Ok(want));
        assert!(read(&body(b"Pod")).is_err());
        let whole = body(b"Secret");
        for end in 0..whole.len() {
            // Never a panic, whatever is missing.
            let _ = read(&whole[..end]);
        }
    }
}
