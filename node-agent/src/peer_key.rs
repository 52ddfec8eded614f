//! The key by which the agents of a cluster know each other.

use std::fmt;
use std::path::{Path, PathBuf};

/// Hexadecimal digits of a key.
const DIGITS: usize = 64;

/// A key of 256 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerKey([u8; 32]);

/// A file that holds no key.
#[derive(Debug, thiserror::Error)]
#[error(
    "--peer-key-file {path}: {reason}; it has to hold 64 hexadecimal digits, the same on every node"
)]
pub struct NoKey {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

impl PeerKey {
    /// Reads a key from a file of 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`NoKey`].
    pub fn read(path: &Path) -> Result<Self, NoKey> {
        let error = |reason: String| NoKey {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        parse(text.trim())
            .map(Self)
            .ok_or_else(|| error(format!("it has {} characters", text.trim().len())))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerKey(..)")
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let hex = text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    let mut key = [0; 32];
    for (number, byte) in key.iter_mut().enumerate().filter(|_| hex) {
        *byte = u8::from_str_radix(&text[2 * number..2 * number + 2], 16).ok()?;
    }
    hex.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        let key = parse(&"0f".repeat(32)).unwrap();
        assert_eq!(key, [0x0f; 32]);
        for text in [
            "",
            "0f",
            &"0g".repeat(32),
            &"0f".repeat(33),
            &"é".repeat(32),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
