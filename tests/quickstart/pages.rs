//! Reads the blocks of a page.

use serde_json::Value;

/// Something that a reader types, and what it answers.
#[derive(Debug)]
pub struct Block {
    /// The line of the page that it begins at.
    pub line: usize,
    /// What stands behind the opening fence.
    pub kind: String,
    pub text: String,
    pub variables: Option<Value>,
    pub answer: Option<Value>,
}

/// The blocks that are typed, in order; blocks without a kind are only shown.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let text: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|l| *l != "```")
            .map(|l| format!("{l}\n"))
            .collect();
        let line = at + 1;
        let json = || serde_json::from_str(&text).unwrap_or_else(|e| panic!("line {line}: {e}"));
        match kind {
            "json variables" => last(&mut found, line).variables = Some(json()),
            "json answer" => last(&mut found, line).answer = Some(json()),
            "" | "mermaid" => {}
            "bash" | "graphql" | "graphql admin" | "graphql until" => {
                found.push(Block { line, kind: kind.to_owned(), text, variables: None, answer: None });
            }
            other => panic!("line {line}: a block of an unknown kind, {other:?}"),
        }
    }
    found
}

fn last(found: &mut [Block], line: usize) -> &mut Block {
    found.last_mut().unwrap_or_else(|| panic!("line {line}: nothing was typed before"))
}
