//! Pages of a list. A page's token is the last id on it, so that what is made or taken away between two pages neither hides nor
//! repeats anything else.

use crate::error::Error;
use crate::request::id;

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Token of the next; empty: this was the last.
    pub next: String,
}

/// The page after `token` of at most `most` items (0: all), by their ids.
///
/// # Errors
/// Where the token or the number is none.
pub fn page<T>(
    mut items: Vec<T>,
    id_of: impl Fn(&T) -> &str,
    most: i32,
    token: &str,
) -> Result<Page<T>, Error> {
    let most = usize::try_from(most)
        .map_err(|_| Error::invalid("max_entries", "a number of entries is negative"))?;
    items.sort_by(|a, b| id_of(a).cmp(id_of(b)));
    if !token.is_empty() {
        let last = token.strip_prefix(MARK).ok_or(Error::Token)?;
        let last = id::id("starting_token", last).ok().flatten();
        let last = last.ok_or(Error::Token)?;
        items.retain(|item| id_of(item) > last);
    }
    let mut next = String::new();
    if most > 0 && items.len() > most {
        items.truncate(most);
        if let Some(last) = items.last() {
            next = format!("{MARK}{}", id_of(last));
        }
    }
    Ok(Page { items, next })
}

/// Begins every token of ours.
const MARK: &str = "after:";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn tokens_are_ours_or_refused() {
        for token in ["x", "after:", "after:../x", "after:a\n"] {
            let result = page(vec!["a"], |i| i, 1, token);
            assert!(matches!(result, Err(Error::Token)), "{token}");
        }
        assert!(page(vec!["a"], |i| i, -1, "").is_err());
    }

    proptest! {
        #[test]
        fn pages_together_are_the_list(ids in proptest::collection::btree_set("[a-z]{1,6}", 0..40), most in 1..9i32) {
            let mut seen = BTreeSet::new();
            let mut token = String::new();
            loop {
                let all: Vec<String> = ids.iter().rev().cloned().collect();
                let one = page(all, |i| i, most, &token).unwrap();
                for id in one.items {
                    prop_assert!(seen.insert(id));
                }
                token = one.next;
                if token.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, ids);
        }
    }
}
