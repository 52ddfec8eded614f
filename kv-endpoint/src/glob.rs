//! Patterns of `SCAN … MATCH`: `*`, `?`, `[a-c]`, `[^a-c]`, `\x`.

/// Whether the whole of `text` matches.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // After a mismatch go back to the last star and let it take one byte more: linear memory, no recursion.
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(&byte)) => {
                let (length, fits) = one(&pattern[p..], byte);
                if fits {
                    p += length;
                    t += 1;
                    continue;
                }
            }
            _ => {}
        }
        match star {
            Some((after, from)) if from < text.len() => {
                p = after;
                t = from + 1;
                star = Some((after, t));
            }
            _ => return false,
        }
    }
}

/// The length of the pattern's first element, and whether `byte` fits it.
fn one(pattern: &[u8], byte: u8) -> (usize, bool) {
    match pattern {
        [b'?', ..] => (1, true),
        [b'\\', escaped, ..] => (2, *escaped == byte),
        [b'[', set @ ..] => {
            let (negated, mut at) = match set.first() {
                Some(b'^') => (true, 1),
                _ => (false, 0),
            };
            let mut found = false;
            loop {
                match &set[at.min(set.len())..] {
                    [] => return (1 + at, found != negated),
                    [b']', ..] => return (2 + at, found != negated),
                    [b'\\', escaped, ..] => {
                        found |= *escaped == byte;
                        at += 2;
                    }
                    [low, b'-', high, ..] if *high != b']' => {
                        found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                        at += 3;
                    }
                    [other, ..] => {
                        found |= *other == byte;
                        at += 1;
                    }
                }
            }
        }
        [other, ..] => (1, *other == byte),
        [] => (0, false),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("h?llo", "hallo", true),
            ("h?llo", "hllo", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[^a-c]llo", "hbllo", false),
            ("h[c-a]llo", "hbllo", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            ("[ab", "a", true),
            ("*metadata", "model@metadata", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} against {text}"
            );
        }
    }
}
