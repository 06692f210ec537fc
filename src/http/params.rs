//! The parameters of a GraphQL request, from a JSON body or a query string, with every wrong type named.

use async_graphql::parser::types::{DocumentOperations, ExecutableDocument, OperationDefinition};
use async_graphql::{Request, ServerError, Value as GraphqlValue, Variables};
use serde_json::{Map, Value};

/// How deep brackets may nest in a document. The parser recurses, so this is what keeps it on its stack; it is far above
/// what the configured query depth lets through.
const NESTING_MAX: usize = 128;

/// A request from the bytes of a JSON body; the message says what is wrong.
pub(crate) fn from_body(body: &[u8]) -> Result<Request, String> {
    if body.is_empty() {
        return Err("the body is empty: send a JSON object with `query`".into());
    }
    if std::str::from_utf8(body).is_err() {
        return Err("the body is not UTF-8".into());
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        format!(
            "the body is not JSON: it breaks off or goes wrong at line {}, column {}",
            error.line(),
            error.column()
        )
    })?;
    match value {
        Value::Object(map) => from_map(map),
        Value::Array(_) => Err("batches are not taken: send one request, a JSON object with `query`".into()),
        other => Err(format!("the body must be a JSON object with `query`, not {}", type_name(&other))),
    }
}

/// A request from a query string; `variables` and `extensions` are JSON in it.
pub(crate) fn from_query(pairs: Vec<(String, String)>) -> Result<Request, String> {
    let mut map = Map::new();
    for (name, text) in pairs {
        let value = match name.as_str() {
            "query" => Value::String(text),
            // Forms send an empty field for what is left out.
            "operationName" | "variables" | "extensions" if text.is_empty() => Value::Null,
            "operationName" => Value::String(text),
            "variables" | "extensions" => serde_json::from_str(&text)
                .map_err(|_| format!("`{name}` is not JSON: give a URL-encoded JSON object"))?,
            _ => continue,
        };
        if map.insert(name.clone(), value).is_some() {
            return Err(format!("`{name}` is given twice"));
        }
    }
    from_map(map)
}

fn from_map(mut map: Map<String, Value>) -> Result<Request, String> {
    let query = match map.remove("query") {
        None | Some(Value::Null) => {
            return Err("`query` is missing: give a GraphQL document as a string".into());
        }
        Some(Value::String(query)) => query,
        Some(other) => return Err(format!("`query` must be a string, not {}", type_name(&other))),
    };
    if query.trim().is_empty() {
        return Err("`query` is empty: give a GraphQL document".into());
    }
    let operation_name = match map.remove("operationName") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(other) => return Err(format!("`operationName` must be a string, not {}", type_name(&other))),
    };
    let mut object = |name: &str| match map.remove(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(other) => Err(format!("`{name}` must be an object, not {}", type_name(&other))),
    };
    let variables = object("variables")?;
    let extensions = object("extensions")?;

    let mut request = Request::new(query).variables(Variables::from_json(Value::Object(variables)));
    request.operation_name = operation_name;
    for (name, value) in extensions {
        let value =
            GraphqlValue::from_json(value).map_err(|_| format!("`extensions.{name}` cannot be read"))?;
        request.extensions.insert(name, value);
    }
    Ok(request)
}

const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether the brackets of `document` nest deeper than the parser can bear. Strings and comments do not count.
pub(crate) fn nests_too_deep(document: &str) -> bool {
    let bytes = document.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'#' => {
                at += bytes[at..].iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len() - at)
            }
            b'"' => at += string_length(&bytes[at..]) - 1,
            b'{' | b'[' | b'(' => {
                depth += 1;
                if depth > NESTING_MAX {
                    return true;
                }
            }
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    false
}

/// The length of the string or block string that `bytes` begins with. One that is not closed counts only its quote, so
/// that nothing can hide behind it.
fn string_length(bytes: &[u8]) -> usize {
    let block = bytes.starts_with(b"\"\"\"");
    let mut at = if block { 3 } else { 1 };
    while at < bytes.len() {
        if block && bytes[at..].starts_with(b"\\\"\"\"") {
            at += 4;
        } else if block && bytes[at..].starts_with(b"\"\"\"") {
            return at + 3;
        } else if !block && bytes[at] == b'\\' {
            at += 2;
        } else if !block && bytes[at] == b'"' {
            return at + 1;
        } else if !block && matches!(bytes[at], b'\n' | b'\r') {
            return 1;
        } else {
            at += 1;
        }
    }
    1
}

/// A parse error in one line: the parser draws a picture of the place, which locations say better.
pub(crate) fn readable(mut error: ServerError) -> ServerError {
    if let (Some((_, expected)), Some(place)) = (error.message.rsplit_once("\n  = "), error.locations.first())
    {
        error.message = format!(
            "the document cannot be parsed at line {}, column {}: {expected}",
            place.line, place.column
        );
    }
    error
}

/// The operation that a request means, if it is clear.
pub(crate) fn operation<'d>(
    document: &'d ExecutableDocument,
    name: Option<&str>,
) -> Option<&'d OperationDefinition> {
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Some(&operation.node),
        (DocumentOperations::Single(_), Some(_)) => None,
        (DocumentOperations::Multiple(map), Some(name)) => map.get(name).map(|o| &o.node),
        (DocumentOperations::Multiple(map), None) => {
            let mut all = map.values();
            all.next().filter(|_| all.next().is_none()).map(|o| &o.node)
        }
    }
}

/// A variable that must have a value and has none. (Those that are used are checked by validation as well, the rest not.)
pub(crate) fn missing_variable(operation: &OperationDefinition, variables: &Variables) -> Option<String> {
    operation.variable_definitions.iter().map(|v| &v.node).find_map(|definition| {
        let name = definition.name.node.as_str();
        let missing = match variables.get(name) {
            None => definition.default_value.is_none(),
            Some(value) => *value == GraphqlValue::Null,
        };
        (!definition.var_type.node.nullable && missing).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_outside_of_strings_and_comments() {
        let nested = |n: usize, open: &str| open.repeat(n);
        assert!(!nests_too_deep(&nested(NESTING_MAX, "{")));
        assert!(nests_too_deep(&nested(NESTING_MAX + 1, "{")));
        assert!(nests_too_deep(&nested(NESTING_MAX + 1, "[")));
        assert!(nests_too_deep(&nested(NESTING_MAX + 1, "a(")));
        assert!(!nests_too_deep(&"{a{b}}".repeat(1000)));
        let many = nested(NESTING_MAX + 1, "{");
        assert!(!nests_too_deep(&format!("# {many}\n{{a}}")));
        assert!(!nests_too_deep(&format!("{{a(x: \"\\\"{many}\")}}")));
        assert!(!nests_too_deep(&format!("{{a(x: \"\"\"{many} \\\"\"\" {many}\"\"\")}}")));
        assert!(nests_too_deep(&format!("\" \n{many}")));
        assert!(nests_too_deep(&format!("\"\"\"{many}")));
        assert!(nests_too_deep(&format!("# x\r{many}")));
        assert!(nests_too_deep(&format!("\"\"{many}")));
    }
}
