//! Answers for clients that read a fixed number of bytes.
//!
//! The native client of LMCache (up to 0.5.6) reads as many bytes as the answer it hopes for has: five for `SET`, four
//! for `EXISTS` and `DEL`, and for `GET` the header of a bulk string of its chunk's length. A shorter answer (such as
//! nil) hangs its worker; a longer one is read as part of the next answer. So each refusal here is an error line, or a
//! number, of exactly that length. Newer clients read lines, and see a miss too.

/// Chunk length, in digits, that is assumed where nothing is known. Too long a line garbles the answers after it and
/// is noticed; too short a one hangs. So: the longest that is usual (16 to 80 MiB).
const DIGITS: usize = 8;

/// The line for a `GET` that misses, for a client that expects a value of `length` bytes.
pub fn miss(length: Option<usize>) -> Vec<u8> {
    let digits = length.map_or(DIGITS, |n| n.to_string().len());
    // As long as `$<digits>\r\n`.
    let mut line = b"-MISS".to_vec();
    line.resize(digits + 1, b' ');
    line.extend_from_slice(b"\r\n");
    line
}

/// The line for a `SET` that is refused: as long as `+OK\r\n`.
pub const REFUSED: &[u8] = b"-NO\r\n";
/// The line for an `EXISTS` or `DEL` that finds nothing or fails.
pub const NONE: &[u8] = b":0\r\n";

#[cfg(test)]
mod tests {
    use super::miss;

    #[test]
    fn a_miss_is_as_long_as_the_header() {
        assert_eq!(miss(Some(4096)), b"-MISS\r\n");
        for length in [
            0,
            9,
            10,
            999,
            28,
            131_072,
            33_554_432,
            80 << 20,
            134_217_728,
        ] {
            let line = miss(Some(length));
            assert_eq!(line.len(), format!("${length}\r\n").len());
            assert!(line.starts_with(b"-") && line.ends_with(b"\r\n"));
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        }
        assert_eq!(miss(None).len(), 11);
    }
}
