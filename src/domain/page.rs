//! Slices of lists: keyset cursors and pages.
//!
//! A cursor names the list and the key of the item it stands at, so it stays right while items are added, and one of
//! another list is refused. Its text is opaque to clients: hexadecimal of `version:list:key`.

use std::fmt::Display;
use std::str::FromStr;

/// Grows when the meaning of cursors changes; older ones are then refused.
const VERSION: &str = "1";

/// What stands in a list of its own.
pub trait Listed {
    /// The name of the list in its cursors.
    const LIST: &'static str;
    /// What the list is ordered by; unique within it.
    type Key: Display + FromStr + Send + Sync + 'static;
    /// The item's key.
    fn key(&self) -> Self::Key;
}

/// The text is no cursor of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no cursor of this list: give the endCursor of an earlier page, or leave it out for the first page"
)]
pub struct BadCursor;

/// The cursor that stands at `item`.
#[must_use]
pub fn cursor<T: Listed>(item: &T) -> String {
    hex::encode(format!("{VERSION}:{}:{}", T::LIST, item.key()))
}

/// The key of the item at which the cursor `text` stands.
///
/// # Errors
/// [`BadCursor`] when it was not made by [`cursor`] for this list.
pub fn parse_cursor<T: Listed>(text: &str) -> Result<T::Key, BadCursor> {
    let bytes = hex::decode(text).map_err(|_| BadCursor)?;
    let plain = String::from_utf8(bytes).map_err(|_| BadCursor)?;
    // PostgreSQL's texts hold no NUL, so no key has one.
    if plain.contains('\0') {
        return Err(BadCursor);
    }
    match plain.splitn(3, ':').collect::<Vec<_>>()[..] {
        [VERSION, list, key] if list == T::LIST => key.parse().map_err(|_| BadCursor),
        _ => Err(BadCursor),
    }
}

/// Which slice of a list of `T` to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest<K> {
    /// Items at most.
    pub limit: i64,
    /// Only items beyond this one.
    pub after: Option<K>,
    /// Whether the length of the whole list is wanted.
    pub count: bool,
}

/// One slice of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Whether more follow.
    pub has_next: bool,
    /// Whether the slice does not begin the list.
    pub has_previous: bool,
    /// The length of the whole list; none where it was not asked for, or is too long to be counted.
    pub total: Option<i64>,
}

impl<T> Page<T> {
    /// A page of `items`, of which one more than the limit was looked for.
    #[must_use]
    pub fn new<K>(mut items: Vec<T>, request: &PageRequest<K>, total: Option<i64>) -> Self {
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let has_next = items.len() > limit;
        items.truncate(limit);
        Self { items, has_next, has_previous: request.after.is_some(), total }
    }

    /// The same page of other items.
    #[must_use]
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(f).collect(),
            has_next: self.has_next,
            has_previous: self.has_previous,
            total: self.total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug)]
    struct Number(i64);
    impl Listed for Number {
        const LIST: &'static str = "number";
        type Key = i64;
        fn key(&self) -> i64 {
            self.0
        }
    }
    struct Text(String);
    impl Listed for Text {
        const LIST: &'static str = "text";
        type Key = String;
        fn key(&self) -> String {
            self.0.clone()
        }
    }

    proptest! {
        #[test]
        fn a_cursor_gives_its_key_back(number: i64, text in "[^\0]*") {
            prop_assert_eq!(parse_cursor::<Number>(&cursor(&Number(number))), Ok(number));
            prop_assert_eq!(parse_cursor::<Text>(&cursor(&Text(text.clone()))), Ok(text));
        }

        #[test]
        fn nothing_else_is_a_cursor(text: String) {
            let is_cursor = hex::decode(&text).is_ok_and(|b| b.starts_with(b"1:number:"));
            prop_assert_eq!(parse_cursor::<Number>(&text).is_ok(), is_cursor);
        }
    }

    #[test]
    fn a_cursor_of_another_list_or_version_is_refused() {
        assert_eq!(parse_cursor::<Number>(&cursor(&Text("7".into()))), Err(BadCursor));
        assert_eq!(parse_cursor::<Number>(&hex::encode("0:number:7")), Err(BadCursor));
        assert_eq!(parse_cursor::<Number>(&hex::encode("1:number:seven")), Err(BadCursor));
        assert_eq!(parse_cursor::<Text>(&hex::encode("1:text:a\0")), Err(BadCursor));
    }

    #[test]
    fn one_item_beyond_the_limit_says_that_more_follow() {
        let request = PageRequest::<i64> { limit: 2, after: None, count: false };
        assert!(Page::new(vec![1, 2, 3], &request, None).has_next);
        assert_eq!(Page::new(vec![1, 2, 3], &request, None).items, [1, 2]);
        assert!(!Page::new(vec![1, 2], &request, None).has_next);
    }
}
