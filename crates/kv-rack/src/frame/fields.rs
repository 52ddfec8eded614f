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
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, left) = (self.0.split_at_checked(count))
            .ok_or_else(|| Malformed::new("it ends inside a field"))?;
        self.0 = left;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Result<u128, Malformed> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// Bytes behind their own 16-bit length.
    pub(super) fn short(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = self.u16()?;
        Ok(self.bytes(length.into())?.to_vec())
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.short()?).map_err(|_| Malformed::new("a text is not UTF-8"))
    }

    /// As many items as a 32-bit count says. Memory grows with the bytes that are there, not with the count that is claimed.
    pub(super) fn many<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()?;
        (0..count).map(|_| one(self)).collect()
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(Malformed::new(format!("{more} bytes after its end"))),
        }
    }
}

/// Appends bytes behind their length; what does not fit its 16 bits is cut (callers check lengths before).
pub(super) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&bytes[..length.into()]);
}

pub(super) fn put_many<T>(out: &mut Vec<u8>, all: &[T], mut one: impl FnMut(&mut Vec<u8>, &T)) {
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for item in all.iter().take(count as usize) {
        one(out, item);
    }
}
