//! The key of one attachment.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use crc::{CRC_32_ISO_HDLC, Crc};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::Nqn;

/// What the keys of attachments are made for, so that nothing else made of the same key is one of them.
const PURPOSE: &[u8] = b"strand fabric host key 1:";

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A key by which a host and a target know each other, in the form that the kernel takes: `DHHC-1:00:`, the base64 of 32 bytes and
/// of their CRC-32, little-endian, and `:` (NVM Express TP 8006; linux drivers/nvme/common/auth.c, nvme_auth_extract_key).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A new key of 256 bits; none if the system gives no random bytes.
    pub fn new() -> Option<Self> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).ok()?;
        Some(Self::of(&key))
    }

    /// The key of the attachment that a name is of, which both its ends make of what all nodes share: it is stored nowhere, and tells
    /// nothing of other attachments' keys or of `shared`.
    pub fn derived(shared: &[u8; 32], nqn: Nqn) -> Self {
        let mut said = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, shared));
        said.update(PURPOSE);
        said.update(nqn.host().to_string().as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(said.sign().as_ref());
        Self::of(&key)
    }

    fn of(key: &[u8; 32]) -> Self {
        let mut bytes = key.to_vec();
        bytes.extend(CRC.checksum(key).to_le_bytes());
        Self(format!("DHHC-1:00:{}:", STANDARD.encode(bytes)))
    }

    /// What the kernel is told.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn both_ends_make_the_same_key_and_no_two_attachments_do() {
        let (shared, leg) = ([7; 32], Uuid::from_u128(1));
        let key = Secret::derived(&shared, Nqn::leg(leg, 4));
        assert_eq!(key, Secret::derived(&shared, Nqn::leg(leg, 4).host()));
        for other in [
            Secret::derived(&shared, Nqn::leg(leg, 5)),
            Secret::derived(&shared, Nqn::leg(Uuid::from_u128(2), 4)),
            Secret::derived(&[8; 32], Nqn::leg(leg, 4)),
        ] {
            assert_ne!(key, other);
        }
    }

    /// The CRC of 32 zero bytes is 0x190a55ad, as Python's zlib.crc32 has it.
    #[test]
    fn a_key_has_the_kernels_form() {
        let mut bytes = vec![0; 32];
        bytes.extend([0xad, 0x55, 0x0a, 0x19]);
        let wanted = format!("DHHC-1:00:{}:", STANDARD.encode(bytes));
        assert_eq!(Secret::of(&[0; 32]).text(), wanted);
        assert_ne!(Secret::new(), Secret::new());
        assert_eq!(format!("{:?}", Secret::of(&[7; 32])), "Secret");
    }
}
