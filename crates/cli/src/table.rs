//! Columns for people.

use crate::output::Output;

/// Lines up the cells of `rows` under `heads`; nothing when there are none. Cells must be clean text of one line.
pub(crate) fn table(output: &Output, heads: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = output.dim(&line(&mut heads.iter().copied()));
    for row in rows {
        text.push('\n');
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = vec![vec!["Anna".into(), "idle".into()], vec!["Ö".into(), String::new()]];
        assert_eq!(table(&Output::new(false), &["NAME", "STATUS"], &rows), "NAME  STATUS\nAnna  idle\nÖ");
        assert_eq!(table(&Output::new(false), &["NAME", "STATUS"], &[]), "");
    }
}
