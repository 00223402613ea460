//! Tables with aligned columns.
//!
//! Rows are gathered into pages, and the columns are as wide as the widest cell so far: a long list is
//! printed while it is read, in bounded memory. What stands in the rows is `rows`'.

use super::text::printable;
use std::io::{self, Write};

/// Rows that the widths of the columns are found from before anything is printed.
const PAGE_ROWS: usize = 1_000;

/// The longest cell of the narrow table: a path may be as long as a header list.
const CELL_CHARS_MAX: usize = 100;

/// The longest cell of the wide table.
const WIDE_CELL_CHARS_MAX: usize = 1_000;

/// Which columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// What fits a terminal.
    Narrow,
    /// All of them, with the whole id.
    Wide,
}

/// What stands in a row.
pub trait Row: Sized {
    /// Widths that suit most rows, by title.
    const USUAL_WIDTHS: &'static [(&'static str, usize)];

    /// The columns, from left to right.
    fn titles(columns: Columns) -> &'static [&'static str];

    /// The cells of a page, one row for each of `page`. All are safe for a terminal.
    fn cells(page: &[Self], columns: Columns) -> Vec<Vec<String>>;
}

/// A table that is being printed.
#[derive(Debug)]
pub struct Table<R> {
    columns: Columns,
    widths: Vec<usize>,
    rows: Vec<R>,
    header_printed: bool,
}

impl<R: Row> Table<R> {
    /// A table without rows.
    pub fn new(columns: Columns) -> Self {
        let widths = R::titles(columns).iter().map(|title| title.len()).collect();
        Self { columns, widths, rows: Vec::new(), header_printed: false }
    }

    /// A table whose rows are printed one by one: the columns begin with widths that suit most rows.
    pub fn for_following(columns: Columns) -> Self {
        let mut table = Self::new(columns);
        for (width, title) in table.widths.iter_mut().zip(R::titles(columns)) {
            let usual = R::USUAL_WIDTHS.iter().find(|(name, _)| name == title);
            *width = usual.map_or(*width, |&(_, usual)| usual.max(*width));
        }
        table
    }

    /// Adds a row; prints a page when there is one.
    pub fn push(&mut self, row: R, out: &mut dyn Write) -> io::Result<()> {
        self.rows.push(row);
        if self.rows.len() >= PAGE_ROWS { self.flush(out) } else { Ok(()) }
    }

    /// Prints the rows that wait.
    pub fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let page = std::mem::take(&mut self.rows);
        let rows = R::cells(&page, self.columns);
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !self.header_printed && !rows.is_empty() {
            self.header_printed = true;
            let titles: Vec<String> = R::titles(self.columns).iter().map(|&title| title.to_owned()).collect();
            self.print(&titles, out)?;
        }
        rows.iter().try_for_each(|row| self.print(row, out))
    }

    /// Whether nothing has been printed.
    pub fn is_empty(&self) -> bool {
        !self.header_printed && self.rows.is_empty()
    }

    fn print(&self, row: &[String], out: &mut dyn Write) -> io::Result<()> {
        let cells: Vec<String> =
            row.iter().zip(&self.widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())
    }
}

/// A cell with text that came from outside.
pub(super) fn outside(text: &str, columns: Columns) -> String {
    let max = if columns == Columns::Wide { WIDE_CELL_CHARS_MAX } else { CELL_CHARS_MAX };
    if text.is_empty() { "-".to_owned() } else { shortened(&printable(text), max) }
}

fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}
