//! Reads the blocks of a page, and compares what was printed with what the page says.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// The text of one of the project's files.
pub fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Something that a reader types, and what it answers; or, of the kind `do`, what happens meanwhile elsewhere.
#[derive(Debug)]
pub struct Block {
    /// The line of the page that it begins at.
    pub line: usize,
    /// What stands behind the opening fence.
    pub kind: String,
    pub text: String,
    pub variables: Option<Value>,
    pub answer: Option<Answer>,
}

/// What the page says that is printed.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Json(Value),
    Text(String),
}

/// Begins a comment that names what happens elsewhere.
const DO: &str = "<!-- do: ";

/// The blocks that are typed, in order; blocks without a kind are only shown.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let at = at + 1;
        let block =
            |kind: &str, text| Block { line: at, kind: kind.to_owned(), text, variables: None, answer: None };
        if let Some(act) = line.strip_prefix(DO) {
            let act = act.strip_suffix(" -->").unwrap_or_else(|| panic!("line {at}: the comment goes on"));
            found.push(block("do", act.to_owned()));
        }
        let Some(kind) = line.strip_prefix("```") else { continue };
        let text: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|l| *l != "```")
            .map(|l| format!("{l}\n"))
            .collect();
        let json = || serde_json::from_str(&text).unwrap_or_else(|e| panic!("line {at}: {e}"));
        match kind {
            "json variables" => last(&mut found, at).variables = Some(json()),
            "json answer" => last(&mut found, at).answer = Some(Answer::Json(json())),
            "text answer" => last(&mut found, at).answer = Some(Answer::Text(text)),
            "" | "mermaid" => {}
            "bash" | "bash until" | "bash fails" | "graphql" | "graphql admin" | "graphql until" => {
                found.push(block(kind, text));
            }
            other => panic!("line {at}: a block of an unknown kind, {other:?}"),
        }
    }
    found
}

fn last(found: &mut [Block], line: usize) -> &mut Block {
    found.last_mut().unwrap_or_else(|| panic!("line {line}: nothing was typed before"))
}

/// What `$NAME` stands for in a page: whatever stands in its place where it comes first.
#[derive(Debug, Clone, Default)]
pub struct Names(BTreeMap<String, Value>);

impl Names {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Every name and what it stands for, as text.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// Whether `got` is as `written`; takes the names that are new. Says what differs.
    pub fn compare(&mut self, written: &Value, got: &Value) -> Result<(), String> {
        let mut names = self.0.clone();
        matches(written, got, &mut names, "")?;
        self.0 = names;
        Ok(())
    }

    /// The same for text. How many blanks there are does not matter; `…` is any text of its line, or, where it stands
    /// alone in one, any lines.
    pub fn compare_text(&mut self, written: &str, got: &str) -> Result<(), String> {
        let (written, got) = (pieces(&plain(written)), plain(got));
        let mut names = self.0.clone();
        if !fits(&written, &got, &mut names) {
            return Err("it is printed otherwise".to_owned());
        }
        self.0 = names;
        Ok(())
    }
}

/// Without needless blanks and empty lines.
fn plain(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).map(|line| line + "\n").collect()
}

#[derive(Debug)]
enum Piece {
    Text(String),
    /// Anything within a line.
    Any,
    /// Any whole lines.
    Lines,
    /// A word, and its name.
    Name(String),
}

fn pieces(written: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    for line in written.lines() {
        if line == "…" {
            found.push(Piece::Lines);
            continue;
        }
        let mut text = String::new();
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            let piece = match c {
                '…' => Piece::Any,
                '$' if !name.is_empty() => {
                    rest = &rest[name.len()..];
                    Piece::Name(name)
                }
                _ => {
                    text.push(c);
                    continue;
                }
            };
            found.extend([Piece::Text(std::mem::take(&mut text)), piece]);
        }
        found.push(Piece::Text(text + "\n"));
    }
    found
}

fn fits(written: &[Piece], got: &str, names: &mut BTreeMap<String, Value>) -> bool {
    let Some((piece, after)) = written.split_first() else { return got.is_empty() };
    match piece {
        Piece::Text(text) => got.strip_prefix(text.as_str()).is_some_and(|rest| fits(after, rest, names)),
        Piece::Any => {
            let line = got.find('\n').unwrap_or(got.len());
            let mut ends = got[..line].char_indices().map(|(at, _)| at).chain([line]);
            ends.any(|at| fits(after, &got[at..], names))
        }
        Piece::Lines => {
            let mut ends = std::iter::once(0).chain(got.match_indices('\n').map(|(at, _)| at + 1));
            ends.any(|at| fits(after, &got[at..], names))
        }
        Piece::Name(name) => {
            let known = names.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
            let is_new = known.is_none();
            let ends = |c: char| c.is_whitespace() || "`,;()\"".contains(c);
            let word = known.unwrap_or_else(|| got.split(ends).next().unwrap_or_default().to_owned());
            let Some(rest) = got.strip_prefix(word.as_str()).filter(|_| !word.is_empty()) else {
                return false;
            };
            if is_new {
                names.insert(name.clone(), word.into());
            }
            let fit = fits(after, rest, names);
            if !fit && is_new {
                names.remove(name);
            }
            fit
        }
    }
}

/// Whether `got` is as `written`, at `path`; takes the names that are new.
fn matches(
    written: &Value,
    got: &Value,
    names: &mut BTreeMap<String, Value>,
    path: &str,
) -> Result<(), String> {
    let differs = || Err(format!("{path} should be {written}, is {got}"));
    match (written, got) {
        (Value::String(text), _) if text == "…" => Ok(()),
        (Value::String(text), _) if text.starts_with('$') => match names.get(&text[1..]) {
            None => {
                names.insert(text[1..].to_owned(), got.clone());
                Ok(())
            }
            Some(known) if known == got => Ok(()),
            Some(known) => Err(format!("{path} should be {known} ({text}), is {got}")),
        },
        (Value::String(text), Value::String(got)) if text.contains('…') => {
            let parts: Vec<&str> = text.split('…').collect();
            let (first, last) = (parts[0], parts[parts.len() - 1]);
            let fits = got.len() >= first.len() + last.len() && got.starts_with(first) && got.ends_with(last);
            if fits { Ok(()) } else { differs() }
        }
        (Value::Object(written), Value::Object(got)) => {
            for (key, value) in written {
                let Some(got) = got.get(key) else { return Err(format!("{path}.{key} is missing")) };
                matches(value, got, names, &format!("{path}.{key}"))?;
            }
            // Errors also say where in the document they are.
            let extra = got.keys().find(|k| !written.contains_key(*k) && !path.starts_with(".errors"));
            match extra {
                Some(key) if !(path.is_empty() && key == "data" && got[key].is_null()) => {
                    Err(format!("{path}.{key} is not in the page"))
                }
                _ => Ok(()),
            }
        }
        (Value::Array(written), Value::Array(got)) if written.len() == got.len() => written
            .iter()
            .zip(got)
            .enumerate()
            .try_for_each(|(i, (w, g))| matches(w, g, names, &format!("{path}[{i}]"))),
        _ if written == got => Ok(()),
        _ => differs(),
    }
}

#[test]
fn answers_are_compared_by_the_rules() {
    use serde_json::json;

    let mut names = Names::default();
    let mut fits = |written: Value, got: Value| names.compare(&written, &got).is_ok();
    assert!(fits(json!({"a": "$X", "b": "…"}), json!({"a": 1, "b": [2]})));
    assert!(fits(json!("$X"), json!(1)) && !fits(json!("$X"), json!(2)));
    assert!(
        fits(json!("since …; go"), json!("since noon; go"))
            && !fits(json!("since …; go"), json!("since noon"))
    );
    assert!(!fits(json!({"a": 1}), json!({"a": 1, "b": 2})) && !fits(json!({"a": 1}), json!({})));
    assert!(!fits(json!([1]), json!([1, 2])) && !fits(json!(1), json!("1")));
    assert!(fits(
        json!({"errors": [{"message": "…"}]}),
        json!({"data": null, "errors": [{"message": "m", "path": []}]})
    ));
}

#[test]
fn printed_text_is_compared_by_the_rules() {
    let mut names = Names::default();
    let mut fits = |written: &str, got: &str| names.compare_text(written, got).is_ok();
    assert!(fits("id   state\n$NODE …  ACTIVE\n", "id     state\n\n0197-ab  host/1  ACTIVE  \n"));
    assert!(fits("drain $NODE.", "drain 0197-ab.") && !fits("drain $NODE.", "drain 0197-cd."));
    assert!(fits("a\n…\nb\n", "a\nb\n") && fits("a\n…\nb\n", "a\nx\ny\nb\n") && !fits("a\n…\nb\n", "a\nx\n"));
    assert!(!fits("a … b", "a\nb") && !fits("one", "one\ntwo") && !fits("one\ntwo", "one"));
    assert!(!fits("($OTHER) $OTHER", "(a) b") && fits("($OTHER) $OTHER", "(b) b"));
}

#[test]
fn a_page_is_read_in_order() {
    let page = "a\n```graphql admin\n{ a }\n```\n\n```json variables\n{}\n```\n<!-- do: stop the node -->\n```bash\nls\n```\n```json answer\n1\n```\n```bash until\nw\n```\n```text answer\nx\n```\n";
    let steps = blocks(page);
    assert_eq!(
        steps.iter().map(|b: &Block| (b.kind.as_str(), b.text.as_str())).collect::<Vec<_>>(),
        [("graphql admin", "{ a }\n"), ("do", "stop the node"), ("bash", "ls\n"), ("bash until", "w\n")]
    );
    assert!(steps[0].variables.is_some() && steps[0].answer.is_none());
    assert_eq!(steps[2].answer, Some(Answer::Json(serde_json::json!(1))));
    assert_eq!(steps[3].answer, Some(Answer::Text("x\n".to_owned())));
}
