//! A partition's first bytes: whose it is, how it is laid out, and its secret. Written once, in two copies.

use crate::PAGE;
use crate::codec::Fields;
use crate::error::OpenError;
use crate::hash::Secret;

/// Where the copies lie, in bytes of the partition. The second is written, and flushed, before the first: a partition
/// whose first copy is blank has never held a block.
pub(crate) const COPIES: [u64; 2] = [0, 64 << 10];

/// The format that this code writes and reads.
pub(crate) const VERSION: u32 = 1;

const MAGIC: [u8; 16] = *b"STRAND-CONTEXT\r\n";

/// Which drive of which pool a partition belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pool's id, at most 64 bytes.
    pub pool: String,
    /// The drive's id, at most 64 bytes.
    pub drive: String,
}

/// A partition's superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) identity: Identity,
    pub(crate) store: u128,
    pub(crate) secret: Secret,
    /// Unix milliseconds; expiry times count from here.
    pub(crate) created: u64,
    pub(crate) partition_len: u64,
    pub(crate) segment_len: u64,
    pub(crate) segments: u32,
}

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Zeroes.
    Blank,
    /// Something, but no superblock of ours that is whole.
    Unreadable,
    /// A superblock of ours in a format of the future.
    Newer(u32),
    /// A superblock.
    Whole(Box<Superblock>),
}

fn put_text(page: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(64)];
    page.push(bytes.len() as u8);
    page.extend_from_slice(bytes);
    page.resize(page.len() + 64 - bytes.len(), 0);
}

fn text(fields: &mut Fields<'_>) -> Option<String> {
    let len = usize::from(fields.u8()?);
    let bytes = fields.bytes(64)?;
    String::from_utf8(bytes.get(..len)?.to_vec()).ok()
}

impl Superblock {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.segments.to_le_bytes());
        page.extend_from_slice(&self.store.to_le_bytes());
        page.extend_from_slice(&self.secret.0);
        page.extend_from_slice(&self.created.to_le_bytes());
        page.extend_from_slice(&self.partition_len.to_le_bytes());
        page.extend_from_slice(&self.segment_len.to_le_bytes());
        put_text(&mut page, &self.identity.pool);
        put_text(&mut page, &self.identity.drive);
        let check = self.secret.superblock(&page);
        page.extend_from_slice(&check.to_le_bytes());
        page.resize(PAGE, 0);
        page
    }

    pub(crate) fn decode(page: &[u8]) -> Found {
        if page.iter().all(|byte| *byte == 0) {
            return Found::Blank;
        }
        Superblock::fields(page).unwrap_or(Found::Unreadable)
    }

    fn fields(page: &[u8]) -> Option<Found> {
        let mut fields = Fields(page);
        if fields.array()? != MAGIC {
            return None;
        }
        let version = fields.u32()?;
        if version > VERSION {
            return Some(Found::Newer(version));
        }
        let segments = fields.u32()?;
        let store = fields.u128()?;
        let secret = Secret(fields.array()?);
        let created = fields.u64()?;
        let partition_len = fields.u64()?;
        let segment_len = fields.u64()?;
        let identity = Identity {
            pool: text(&mut fields)?,
            drive: text(&mut fields)?,
        };
        let covered = page.len() - fields.0.len();
        let check = fields.u128()?;
        (version == VERSION && check == secret.superblock(&page[..covered])).then(|| {
            Found::Whole(Box::new(Superblock {
                identity,
                store,
                secret,
                created,
                partition_len,
                segment_len,
                segments,
            }))
        })
    }
}

/// What to do with a partition whose copies were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has never held a block: write superblocks.
    Format,
    /// Serve it; `repair` says that a copy has to be written again.
    Open {
        superblock: Box<Superblock>,
        repair: bool,
    },
}

/// Decides from both copies whether a partition may be used as `wanted`'s.
pub(crate) fn judge(
    first: Found,
    second: Found,
    wanted: &Identity,
    partition_len: u64,
) -> Result<Verdict, OpenError> {
    let (superblock, repair) = match (first, second) {
        (Found::Newer(version), _) | (_, Found::Newer(version)) => {
            return Err(OpenError::Newer {
                found: version,
                known: VERSION,
            });
        }
        (Found::Whole(one), Found::Whole(other)) => {
            let repair = one != other;
            (one, repair)
        }
        (Found::Whole(one), _) | (Found::Unreadable, Found::Whole(one)) => (one, true),
        (Found::Blank, Found::Whole(other)) => (other, true),
        (Found::Blank, _) => return Ok(Verdict::Format),
        (Found::Unreadable, _) => return Err(OpenError::NotOurs),
    };
    if superblock.identity != *wanted {
        return Err(OpenError::OthersDrive {
            found: superblock.identity,
            wanted: wanted.clone(),
        });
    }
    if superblock.partition_len != partition_len {
        return Err(OpenError::OtherSize {
            written: superblock.partition_len,
            found: partition_len,
        });
    }
    Ok(Verdict::Open { superblock, repair })
}
