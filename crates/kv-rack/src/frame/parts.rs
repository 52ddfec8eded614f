//! What requests and replies are made of.

use std::time::Duration;

use strand_context_store::Namespace;

use super::fields::{Fields, Malformed, put_short};

/// A key on one of the asked node's drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The drive's key in the pool map.
    pub drive: u32,
    /// The block's key.
    pub key: Vec<u8>,
}

/// Where a block may lie on the asked node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Whose block.
    pub namespace: Namespace,
    /// On which drive, under which key.
    pub at: Key,
}

const ENDLESS: u64 = u64::MAX;

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(ENDLESS - 1, |ms| ms.min(ENDLESS - 1))
}

pub(super) fn put_left(out: &mut Vec<u8>, left: Option<Duration>) {
    out.extend_from_slice(&left.map_or(ENDLESS, millis).to_le_bytes());
}

pub(super) fn left(fields: &mut Fields) -> Result<Option<Duration>, Malformed> {
    let ms = fields.u64()?;
    Ok((ms != ENDLESS).then(|| Duration::from_millis(ms)))
}

pub(super) fn put_key(out: &mut Vec<u8>, key: &Key) {
    out.extend_from_slice(&key.drive.to_le_bytes());
    put_short(out, &key.key);
}

pub(super) fn key(fields: &mut Fields) -> Result<Key, Malformed> {
    Ok(Key {
        drive: fields.u32()?,
        key: fields.short()?,
    })
}

pub(super) fn put_spot(out: &mut Vec<u8>, spot: &Spot) {
    put_namespace(out, spot.namespace);
    put_key(out, &spot.at);
}

pub(super) fn spot(fields: &mut Fields) -> Result<Spot, Malformed> {
    Ok(Spot {
        namespace: namespace(fields)?,
        at: key(fields)?,
    })
}

pub(super) fn put_namespace(out: &mut Vec<u8>, namespace: Namespace) {
    out.extend_from_slice(&namespace.0.to_le_bytes());
}

pub(super) fn namespace(fields: &mut Fields) -> Result<Namespace, Malformed> {
    Ok(Namespace(fields.u128()?))
}
