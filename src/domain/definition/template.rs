//! Templates: text with `{placeholders}`; `{{` and `}}` stand for braces.

use crate::domain::validation::shorten;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text as it stands, braces resolved.
    Text(String),
    /// The placeholder of this name.
    Placeholder(String),
}

const WAY_OUT: &str = "write {{ and }} for braces that are meant as text";

/// Takes `template` apart.
///
/// # Errors
/// What is wrong with its braces.
pub(super) fn parse(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let position = template.len() - rest.len() + at;
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
        } else if brace == "}" {
            return Err(format!("has a }} at byte {position} that closes nothing: {WAY_OUT}"));
        } else {
            let end = rest.find(['{', '}']).filter(|&end| rest[end..].starts_with('}'));
            let Some(end) = end else {
                return Err(format!("has a {{ at byte {position} that is never closed: {WAY_OUT}"));
            };
            let name = &rest[..end];
            if name.trim().is_empty() {
                return Err(format!("has a placeholder without a name at byte {position}: {WAY_OUT}"));
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Placeholder(name.to_owned()));
            rest = &rest[end + 1..];
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// What is wrong with a placeholder that no dimension fills.
pub(super) fn unknown_placeholder(name: &str) -> String {
    format!(
        "has the placeholder {} that no dimension fills: add a dimension of that name, or {WAY_OUT}",
        shorten(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn placeholders_and_braces_are_told_apart() {
        let hole = |name: &str| Piece::Placeholder(name.to_owned());
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("a {x} b{y}").unwrap(), [text("a "), hole("x"), text(" b"), hole("y")]);
        assert_eq!(parse("{{\"n\": {x}}}").unwrap(), [text("{\"n\": "), hole("x"), text("}")]);
        assert_eq!(parse("{{x}}").unwrap(), [text("{x}")]);
        assert_eq!(parse("größe {größe}").unwrap(), [text("größe "), hole("größe")]);
    }

    #[test]
    fn bad_braces_say_where_and_what_to_do() {
        for (template, part) in [
            ("ab{x", "{ at byte 2 that is never closed"),
            ("a{x{y}", "{ at byte 1 that is never closed"),
            ("ä}", "} at byte 2 that closes nothing"),
            ("a{}", "without a name at byte 1"),
            ("a{ }", "without a name at byte 1"),
        ] {
            let message = parse(template).unwrap_err();
            assert!(message.contains(part) && message.contains("{{"), "{template:?}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(template in "[{}a ä]{0,20}") {
            let _ = parse(&template);
        }

        #[test]
        fn doubled_braces_give_any_text_back(plain in any::<String>()) {
            let pieces = parse(&plain.replace('{', "{{").replace('}', "}}")).unwrap();
            prop_assert_eq!(pieces, if plain.is_empty() { vec![] } else { vec![text(&plain)] });
        }
    }
}
