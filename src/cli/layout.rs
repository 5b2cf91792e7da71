//! Text for a terminal of some width: columns where they fit, else lines that are broken between their parts.

/// Columns that stand between two parts of a line.
const GAP: &str = "  ";

/// Joins `parts` to lines of at most `width` columns, those after the first indented by `indent`. A part that is longer
/// by itself is broken at its spaces.
pub(super) fn wrap(parts: &[String], width: Option<usize>, indent: usize) -> String {
    let width = width.unwrap_or(usize::MAX);
    let (mut text, mut used) = (String::new(), 0);
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let whole = part.chars().count();
        let words: Vec<&str> =
            if whole + indent > width { part.split(' ').collect() } else { vec![part.as_str()] };
        for (index, word) in words.into_iter().enumerate() {
            let gap = if index == 0 { GAP } else { " " };
            let length = word.chars().count();
            if used == 0 {
                text.push_str(word);
                used = length;
            } else if used + gap.len() + length <= width {
                text.push_str(gap);
                text.push_str(word);
                used += gap.len() + length;
            } else {
                text.push('\n');
                text.push_str(&" ".repeat(indent));
                text.push_str(word);
                used = indent + length;
            }
        }
    }
    text.push('\n');
    text
}

/// A table: the first two columns to the left, the others to the right. Where it is wider than `width`, each row is a
/// line of its own parts with the names of the columns.
pub(super) fn table(head: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width_of = |column: usize| all().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width_of).collect();
    let needed = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
    if width.is_some_and(|width| needed > width) {
        let parts = |row: &Vec<String>| {
            let named = head.iter().zip(row).map(|(name, value)| format!("{name} {value}"));
            wrap(&named.collect::<Vec<_>>(), width, 4)
        };
        return rows.iter().map(parts).collect();
    }
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 | 1 => format!("{cell:<width$}", width = widths[column]),
            _ => format!("{cell:>width$}", width = widths[column]),
        });
        text.push_str(&cells.collect::<Vec<_>>().join(GAP));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_table_that_fits_has_columns_and_a_wider_one_has_lines() {
        let (head, rows) = (["lane", "state", "up"], [row(&["0", "ready", "10s"])]);
        let columns = "lane  state   up\n0     ready  10s\n";
        for width in [None, Some(16)] {
            assert_eq!(table(&head, &rows, width), columns, "{width:?}");
        }
        assert_eq!(table(&head, &rows, Some(15)), "lane 0\n    state ready\n    up 10s\n");
    }

    #[test]
    fn a_line_is_broken_between_parts_and_a_long_part_at_its_spaces() {
        let parts = row(&["aaa bbb", "", "ccc", "d d d d d d d d d d d"]);
        assert_eq!(wrap(&parts, None, 2), "aaa bbb  ccc  d d d d d d d d d d d\n");
        assert_eq!(wrap(&parts, Some(12), 2), "aaa bbb  ccc\n  d d d d d\n  d d d d d\n  d\n");
    }
}
