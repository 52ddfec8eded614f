//! The key of one attachment.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use crc::{CRC_32_ISO_HDLC, Crc};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

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
