//! What commands print at once.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};

/// Columns of a terminal that a table fits into, unless its ids and names alone are wider.
const WIDTH: u16 = 120;

/// Prints this text and a line's end. Who stops reading, as `head` does, has seen enough.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot print the answer"),
        _ => Ok(()),
    }
}

/// A table without lines. Only the last column's text is broken to fit: ids and names must be fit to be copied.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in table.column_iter_mut().take(header.len() - 1) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// A table as it is printed: without blanks at the ends of its lines.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// `1 job`, `2 jobs`.
pub fn counted(n: i64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_column_is_broken() {
        let mut shown = table(&["id", "why"]);
        let (id, why) = ("i".repeat(100), "word ".repeat(10));
        shown.add_row([&id, &why]);
        let text = lines(&shown);
        assert!(text.contains(&id) && text.lines().count() > 2, "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= usize::from(WIDTH) && !l.ends_with(' ')), "{text}");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([counted(0, "job"), counted(1, "job"), counted(2, "job")], ["0 jobs", "1 job", "2 jobs"]);
    }
}
