//! Free-form JSON from outside: what may be stored, and one way to write it.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::validation::{Checker, shorten};

/// How deep free-form JSON may nest; `1` has depth 1, `[1]` depth 2.
pub const DEPTH_MAX: usize = 32;

/// Notes what keeps `value`, where the checker is, from being stored: depth, size, NUL.
pub fn check_json(checker: &mut Checker, value: &Value, max_bytes: usize) {
    // Depth first: everything after it recurses.
    if let Err(problem) = check_depth(value, DEPTH_MAX) {
        checker.error(problem);
        return;
    }
    let bytes = value.to_string().len();
    if bytes > max_bytes {
        checker.error(format!("is too large ({bytes} bytes as JSON): give at most {max_bytes} bytes"));
    }
}

fn check_depth(value: &Value, left: usize) -> Result<(), String> {
    if left == 0 {
        return Err(format!("nests too deep: give at most {DEPTH_MAX} levels"));
    }
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        // jsonb keeps numbers as numeric, which holds every finite double and every 64-bit integer.
        Value::Number(n) if n.as_f64().is_some_and(f64::is_finite) => Ok(()),
        Value::Number(_) => Err("has a number that is out of range: give it as a string".to_owned()),
        Value::String(text) => check_nul(text),
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, left - 1)),
        Value::Object(map) => {
            map.iter().try_for_each(|(key, item)| check_nul(key).and_then(|()| check_depth(item, left - 1)))
        }
    }
}

/// PostgreSQL's jsonb cannot hold NUL.
fn check_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        Err(format!("has a NUL character in {}, which cannot be stored: remove it", shorten(text)))
    } else {
        Ok(())
    }
}

/// SHA-256, in hexadecimal, of `value` written in one way: compact, with the keys of objects sorted.
///
/// `value` must not nest deeper than [`check_json`] allows by much: this recurses.
#[must_use]
pub fn canonical_hash(value: &Value) -> String {
    hex::encode(Sha256::digest(sorted(value).to_string().as_bytes()))
}

/// The same value with its objects filled in the order of their keys, whatever map serde_json is built with.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            Value::Object(
                entries.into_iter().map(|(key, item)| (key.clone(), sorted(item))).collect::<Map<_, _>>(),
            )
        }
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(value: &Value, max_bytes: usize) -> Option<String> {
        let mut checker = Checker::new("metadata", 10);
        check_json(&mut checker, value, max_bytes);
        checker.finish().err().map(|e| e.to_string())
    }

    #[test]
    fn ordinary_json_is_fine() {
        assert_eq!(
            problem(&json!({"a": [1, -2.5, "x", null, true, 18_446_744_073_709_551_615_u64]}), 100),
            None
        );
    }

    #[test]
    fn nul_is_refused_in_values_and_in_keys() {
        assert!(problem(&json!({"a": ["x\0"]}), 100).unwrap().contains("NUL"));
        assert!(problem(&json!({"a\0": 1}), 100).unwrap().contains("NUL"));
    }

    #[test]
    fn depth_and_size_have_limits() {
        let nested = |levels: usize| (1..levels).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(problem(&nested(DEPTH_MAX), 1_000), None);
        assert!(problem(&nested(DEPTH_MAX + 1), 1_000).unwrap().contains("32 levels"));
        assert_eq!(problem(&json!("abc"), 5), None);
        assert!(problem(&json!("abcd"), 5).unwrap().contains("at most 5 bytes"));
    }

    #[test]
    fn the_hash_does_not_depend_on_the_order_of_keys() {
        let one: Value = serde_json::from_str(r#"{"b": {"y": 1, "x": 2}, "a": 3}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a": 3, "b": {"x": 2, "y": 1}}"#).unwrap();
        assert_eq!(canonical_hash(&one), canonical_hash(&two));
        assert_ne!(canonical_hash(&one), canonical_hash(&json!({"a": 3})));
        // printf '{"a":3,"b":{"x":2,"y":1}}' | sha256sum
        assert_eq!(canonical_hash(&one), "74a42f68bb549d68329b657a169d0473402fcc50de2ee8c2dc6c8ac2fe201054");
    }
}
