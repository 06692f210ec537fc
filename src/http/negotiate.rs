//! Which media type an answer has, and which one a request body has.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};

/// The media types of GraphQL responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    /// `application/graphql-response+json`: the HTTP status says how it went.
    GraphqlResponse,
    /// `application/json`: a well-formed request is answered 200 whatever came of it.
    Json,
}

impl MediaType {
    pub(crate) const fn header(self) -> HeaderValue {
        match self {
            Self::GraphqlResponse => {
                HeaderValue::from_static("application/graphql-response+json; charset=utf-8")
            }
            Self::Json => HeaderValue::from_static("application/json; charset=utf-8"),
        }
    }
}

/// What the `Accept` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A page: the client names `text/html` and prefers it to GraphQL responses, as browsers do.
    Page,
    /// A GraphQL response.
    Response(MediaType),
    /// Nothing that is made here.
    Nothing,
}

/// One element of `Accept`.
#[derive(Debug)]
struct Range<'h> {
    kind: &'h str,
    subtype: &'h str,
    /// In thousandths.
    q: u16,
}

/// Reads `Accept`; without one, `application/json` is meant.
pub(crate) fn wanted(headers: &HeaderMap) -> Wanted {
    let mut ranges = Vec::new();
    for value in headers.get_all(ACCEPT) {
        // What is not ASCII names nothing that is made here.
        let Ok(text) = value.to_str() else { continue };
        ranges.extend(text.split(',').filter_map(range));
    }
    if !headers.contains_key(ACCEPT) {
        return Wanted::Response(MediaType::Json);
    }
    let graphql = quality(&ranges, "application", "graphql-response+json");
    let json = quality(&ranges, "application", "json");
    let page =
        ranges.iter().filter(|r| r.kind == "text" && r.subtype == "html").map(|r| r.q).max().unwrap_or(0);
    if page > 0 && page >= graphql.q.max(json.q) {
        return Wanted::Page;
    }
    match (graphql.q, json.q) {
        (0, 0) => Wanted::Nothing,
        // Asked for by name it comes first; a wildcard gets what old clients understand.
        (g, j) if g > j || (g == j && graphql.named) => Wanted::Response(MediaType::GraphqlResponse),
        _ => Wanted::Response(MediaType::Json),
    }
}

struct Quality {
    q: u16,
    named: bool,
}

/// The quality of one type: that of the most specific range that covers it.
fn quality(ranges: &[Range<'_>], kind: &str, subtype: &str) -> Quality {
    let specificity = |r: &Range<'_>| match (r.kind == kind, r.subtype == subtype) {
        (true, true) => 3,
        (true, false) if r.subtype == "*" => 2,
        (false, false) if r.kind == "*" && r.subtype == "*" => 1,
        _ => 0,
    };
    ranges
        .iter()
        .filter(|r| specificity(r) > 0)
        .max_by_key(|r| (specificity(r), r.q))
        .map_or(Quality { q: 0, named: false }, |r| Quality { q: r.q, named: specificity(r) == 3 })
}

/// One element, or nothing if it has no meaning or asks for another charset than UTF-8.
fn range(element: &str) -> Option<Range<'_>> {
    let mut parts = element.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let mut q = 1000;
    for parameter in parts {
        let (name, value) = parameter.split_once('=')?;
        match name.trim() {
            n if n.eq_ignore_ascii_case("q") => q = thousandths(value.trim())?,
            n if n.eq_ignore_ascii_case("charset") && !is_utf8(value) => return None,
            _ => {}
        }
    }
    // Media types are case-insensitive; the few that matter here are compared in their usual spelling.
    let usual =
        |part: &'_ str, known: &[&'static str]| known.iter().copied().find(|k| part.eq_ignore_ascii_case(k));
    Some(Range {
        kind: usual(kind, &["application", "text", "*"])?,
        subtype: usual(subtype, &["graphql-response+json", "json", "html", "*"])?,
        q,
    })
}

fn thousandths(q: &str) -> Option<u16> {
    let q: f32 = q.parse().ok()?;
    (0.0..=1.0).contains(&q).then(|| (q * 1000.0).round() as u16)
}

fn is_utf8(charset: &str) -> bool {
    let charset = charset.trim().trim_matches('"');
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
}

/// Whether the request's `Content-Type` is `application/json` in UTF-8; if not, what is wrong.
pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<(), &'static str> {
    const MISSING: &str = "the Content-Type is missing: send application/json";
    const OTHER: &str = "the Content-Type cannot be read: send application/json";
    let value = headers.get(CONTENT_TYPE).ok_or(MISSING)?.to_str().map_err(|_| OTHER)?;
    let mut parts = value.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case("application/json") {
        return Err(OTHER);
    }
    for parameter in parts.filter(|p| !p.is_empty()) {
        match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") && !is_utf8(value) => {
                return Err("the charset of the Content-Type cannot be read: send JSON in utf-8");
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        wanted(&headers)
    }

    #[test]
    fn accept_is_read_by_quality_and_specificity() {
        use MediaType::{GraphqlResponse, Json};
        let response = Wanted::Response;
        assert_eq!(wanted(&HeaderMap::new()), response(Json));
        for (text, expected) in [
            ("application/graphql-response+json", response(GraphqlResponse)),
            ("application/json", response(Json)),
            ("*/*", response(Json)),
            ("application/*", response(Json)),
            ("application/graphql-response+json, application/json;q=0.9", response(GraphqlResponse)),
            ("application/graphql-response+json; q=0.5 , application/json", response(Json)),
            ("application/json, application/graphql-response+json", response(GraphqlResponse)),
            ("application/graphql-response+json;q=0, */*", response(Json)),
            ("application/json;q=0, */*;q=0.1", response(GraphqlResponse)),
            ("APPLICATION/JSON; charset=UTF-8", response(Json)),
            ("application/json; charset=utf-16", Wanted::Nothing),
            ("application/json;q=2", Wanted::Nothing),
            ("application/json;q=0", Wanted::Nothing),
            ("image/png", Wanted::Nothing),
            ("", Wanted::Nothing),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Wanted::Page),
            ("text/html", Wanted::Page),
            ("text/html;q=0.5, application/json", response(Json)),
            ("text/html;q=0, application/json", response(Json)),
        ] {
            assert_eq!(accept(text), expected, "{text}");
        }
    }

    #[test]
    fn only_json_in_utf8_is_read() {
        let check = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            check_content_type(&headers)
        };
        assert!(check_content_type(&HeaderMap::new()).is_err());
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\";",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "text/plain",
            "application/jsonx",
            "application/json; charset=latin1",
            "application/graphql",
            "multipart/form-data; boundary=x",
            "",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
