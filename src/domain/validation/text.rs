//! What holds for texts.

use super::Checker;

/// How many characters of a bad value a message repeats.
const SHOWN_CHARS: usize = 40;

/// The start of `value` in quotes, escaped, for a message: never the whole of a long text.
#[must_use]
pub fn shorten(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARS) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}…", &value[..end]),
    }
}

/// The longest a text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// In characters (Unicode scalar values).
    Chars(usize),
    /// In bytes of UTF-8.
    Bytes(usize),
}

/// What a text must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRule {
    max: Length,
    may_be_blank: bool,
    one_line: bool,
}

impl TextRule {
    /// A name, a key or an id: something visible, without control characters.
    #[must_use]
    pub const fn name(max: Length) -> Self {
        Self { max, may_be_blank: false, one_line: true }
    }

    /// A text for a model: any characters but NUL.
    #[must_use]
    pub const fn body(max_bytes: usize) -> Self {
        Self { max: Length::Bytes(max_bytes), may_be_blank: false, one_line: false }
    }

    /// Notes of a person, of any number of lines.
    #[must_use]
    pub const fn prose(max_chars: usize) -> Self {
        Self { max: Length::Chars(max_chars), may_be_blank: false, one_line: false }
    }

    /// The same, and blank is fine too.
    #[must_use]
    pub const fn or_blank(self) -> Self {
        Self { may_be_blank: true, ..self }
    }

    /// What is wrong with `value`, if anything.
    #[must_use]
    pub fn problem(self, value: &str) -> Option<String> {
        // Length first: the other tests may then read all of it.
        let (length, max, unit) = match self.max {
            // No text has more characters than bytes.
            Length::Chars(max) if value.len() <= max => (0, max, "characters"),
            Length::Chars(max) => (value.chars().count(), max, "characters"),
            Length::Bytes(max) => (value.len(), max, "bytes"),
        };
        if length > max {
            return Some(format!(
                "is too long ({} has {length} {unit}): give at most {max} {unit}",
                shorten(value)
            ));
        }
        // PostgreSQL's text and jsonb cannot hold NUL.
        if let Some(at) = value.find('\0') {
            return Some(format!("has a NUL character at byte {at}, which cannot be stored: remove it"));
        }
        if self.one_line
            && let Some((at, c)) = value.char_indices().find(|(_, c)| breaks_line_or_hides(*c))
        {
            return Some(format!(
                "has the control character U+{:04X} at byte {at}: give one line of visible text",
                u32::from(c)
            ));
        }
        if !self.may_be_blank && value.trim().is_empty() {
            return Some(format!("is {}: give some text", if value.is_empty() { "empty" } else { "blank" }));
        }
        None
    }
}

/// Control characters, line and paragraph separators, and those that reverse the text after them.
fn breaks_line_or_hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

impl Checker {
    /// Notes what is wrong with `value`, the text where the checker is; true when nothing is.
    pub fn text(&mut self, value: &str, rule: TextRule) -> bool {
        match rule.problem(value) {
            None => true,
            Some(problem) => {
                self.error(problem);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_count_what_they_say() {
        let chars = TextRule::name(Length::Chars(3));
        assert_eq!(chars.problem("äöü"), None);
        assert!(chars.problem("äöüß").unwrap().contains("4 characters"));
        let bytes = TextRule::name(Length::Bytes(5));
        assert!(bytes.problem("äöü").unwrap().contains("6 bytes"));
    }

    #[test]
    fn names_refuse_what_bodies_take() {
        let name = TextRule::name(Length::Chars(10));
        for bad in ["", "  ", "a\nb", "a\tb", "a\u{7f}", "a\u{202e}b", "a\u{2028}b"] {
            assert!(name.problem(bad).is_some(), "{bad:?}");
        }
        let body = TextRule::body(10);
        assert_eq!(body.problem("a\nb\tc"), None);
        assert!(body.problem("a\0").unwrap().contains("byte 1"));
        assert!(body.problem("").is_some());
        assert_eq!(body.or_blank().problem(""), None);
    }

    #[test]
    fn a_long_value_is_not_repeated() {
        let text = "secret".repeat(1_000);
        let problem = TextRule::body(100).problem(&text).unwrap();
        assert!(problem.len() < 150, "{problem}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), max in 0_usize..20) {
            let _ = shorten(&text);
            let _ = TextRule::name(Length::Chars(max)).problem(&text);
            let _ = TextRule::body(max).problem(&text);
        }
    }
}
