//! docs/runbooks/ are true: each page's trouble is really made, and then its commands are typed.

mod database;
mod jobs;
mod nodes;
mod operator;
mod server;
mod trouble;

use crate::support::pages::{blocks, page};

/// Every page has a test that ends with what the page says, and its line in README.md.
#[test]
fn every_page_is_in_the_table() {
    let table = page("docs/runbooks/README.md");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let mut pages = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        pages += 1;
        assert!(table.contains(&format!("]({name})")), "{name} is not in the table");
        let text = page(&format!("docs/runbooks/{name}"));
        for part in ["## You see", "## Do", "## It is over", "## Do not"] {
            assert!(text.contains(&format!("\n{part}")), "{name} lacks {part}");
        }
        assert!(blocks(&text).iter().any(|b| b.answer.is_some()), "{name} shows no answer");
        // What is typed and printed fits a terminal.
        let wide: Vec<&str> =
            text.lines().filter(|l| !l.starts_with('|') && l.chars().count() > 125).collect();
        assert!(wide.is_empty(), "{name}: {wide:?}");
    }
    assert_eq!(pages, table.matches("](").count(), "the table leads to other places");
}
