//! Reading and writing the fields of a body.

/// Bytes that are no valid frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed frame: {0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

/// A cursor over a body; every read is checked against its end.
pub(super) struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(body: &'a [u8]) -> Self {
        Self { left: body }
    }

    pub(super) fn bytes(&mut self, count: usize, what: &str) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self
            .left
            .split_at_checked(count)
            .ok_or_else(|| Malformed::new(format!("it ends inside {what}")))?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N, what)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Bytes behind their own 16-bit length.
    pub(super) fn short(&mut self, what: &str) -> Result<Vec<u8>, Malformed> {
        let length = self.u16(what)?;
        Ok(self.bytes(length.into(), what)?.to_vec())
    }

    /// As many short fields as a 16-bit count says. Memory grows with the bytes that are there, not with
    /// the count that is claimed.
    pub(super) fn shorts(&mut self, what: &str) -> Result<Vec<Vec<u8>>, Malformed> {
        let count = self.u16(what)?;
        (0..count).map(|_| self.short(what)).collect()
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.left
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        match self.left.len() {
            0 => Ok(()),
            more => Err(Malformed::new(format!("{more} bytes after its end"))),
        }
    }
}

/// Appends a short field; what does not fit its 16-bit length is cut (callers check lengths before).
pub(super) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&bytes[..length.into()]);
}

pub(super) fn put_shorts<B: AsRef<[u8]>>(out: &mut Vec<u8>, all: &[B]) {
    let count = u16::try_from(all.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for one in &all[..count.into()] {
        put_short(out, one.as_ref());
    }
}
