//! The keys of scenarios that are made from dimensions.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// `text` with `%`, `;` and `=` percent-escaped, so that different parts never make the same key.
#[must_use]
pub fn escape_key_part(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', ';', '=']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(escaped_len(text));
    for c in text.chars() {
        match c {
            '%' => escaped.push_str("%25"),
            ';' => escaped.push_str("%3B"),
            '=' => escaped.push_str("%3D"),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// The bytes that [`escape_key_part`] makes of `text`.
pub(super) fn escaped_len(text: &str) -> usize {
    text.len() + 2 * text.bytes().filter(|b| matches!(b, b'%' | b';' | b'=')).count()
}

/// `name=value`, escaped.
pub(super) fn pair(name: &str, value: &str) -> String {
    format!("{}={}", escape_key_part(name), escape_key_part(value))
}

/// What people see of a scenario: the values of its dimensions in the key's order (`France · formal`) when the
/// key was made of just these dimensions, else the key.
#[must_use]
pub fn scenario_name(key: &str, dimensions: &Map<String, Value>) -> String {
    let pairs: Vec<(String, &str)> =
        dimensions.iter().filter_map(|(name, value)| value.as_str().map(|v| (pair(name, v), v))).collect();
    if pairs.is_empty() || pairs.len() != dimensions.len() {
        return key.to_owned();
    }
    let mut values = Vec::with_capacity(pairs.len());
    for part in key.split(';') {
        match pairs.iter().find(|(pair, _)| pair == part) {
            Some((_, value)) => values.push(*value),
            None => return key.to_owned(),
        }
    }
    if values.len() == pairs.len() { values.join(" · ") } else { key.to_owned() }
}
