//! Calls as a table with aligned columns.
//!
//! Rows are gathered into pages, and the columns are as wide as the widest cell so far: a long list is
//! printed while it is read, in bounded memory. All cells are safe for a terminal.

use super::calls::{CallId, CallSummary};
use super::json::{DIRECTION, level_name, protocol_name};
use super::outcome::{code_name, side_name};
use super::text::{duration, printable, rfc3339_millis, size};
use std::io::{self, Write};

/// Rows that the widths of the columns are found from before anything is printed.
const PAGE_ROWS: usize = 1_000;

/// Digits of a call's id that are printed at least.
const ID_DIGITS_MIN: usize = 12;

/// Digits of a whole id.
const ID_DIGITS: usize = 32;

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

const NARROW: &[&str] =
    &["TIME", "DIR", "PEER", "METHOD", "STATUS", "MSGS(UP/DOWN)", "BYTES(UP/DOWN)", "DURATION", "CALL"];
const WIDE: &[&str] = &[
    "TIME",
    "DIR",
    "PEER",
    "UPSTREAM",
    "PROTOCOL",
    "AUTHORITY",
    "METHOD",
    "STATUS",
    "MSGS(UP/DOWN)",
    "BYTES(UP/DOWN)",
    "DURATION",
    "STATE",
    "RESET",
    "LEVEL",
    "ENTRIES",
    "CALL",
    "MESSAGE",
];

/// A table that is being printed.
#[derive(Debug)]
pub struct Table {
    columns: Columns,
    widths: Vec<usize>,
    rows: Vec<CallSummary>,
    header_printed: bool,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: Columns) -> Self {
        let widths = titles(columns).iter().map(|title| title.len()).collect();
        Self { columns, widths, rows: Vec::new(), header_printed: false }
    }

    /// A table whose rows are printed one by one: the columns begin with widths that suit most rows.
    pub fn for_following(columns: Columns) -> Self {
        let mut table = Self::new(columns);
        let usual = [("TIME", 24), ("PEER", 21), ("METHOD", 40), ("STATUS", 18)];
        for (width, title) in table.widths.iter_mut().zip(titles(columns)) {
            *width =
                usual.iter().find(|(name, _)| name == title).map_or(*width, |&(_, usual)| usual.max(*width));
        }
        table
    }

    /// Adds a row; prints a page when there is one.
    pub fn push(&mut self, call: CallSummary, out: &mut dyn Write) -> io::Result<()> {
        self.rows.push(call);
        if self.rows.len() >= PAGE_ROWS { self.flush(out) } else { Ok(()) }
    }

    /// Prints the rows that wait.
    pub fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let calls = std::mem::take(&mut self.rows);
        let digits = if self.columns == Columns::Wide { ID_DIGITS } else { id_digits(&calls) };
        let rows: Vec<Vec<String>> = calls.iter().map(|call| self.cells(call, digits)).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !self.header_printed && !rows.is_empty() {
            self.header_printed = true;
            let titles: Vec<String> = titles(self.columns).iter().map(|&title| title.to_owned()).collect();
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

    fn cells(&self, call: &CallSummary, digits: usize) -> Vec<String> {
        let max = if self.columns == Columns::Wide { WIDE_CELL_CHARS_MAX } else { CELL_CHARS_MAX };
        let outside =
            |text: &str| if text.is_empty() { "-".to_owned() } else { shortened(&printable(text), max) };
        titles(self.columns).iter().map(|title| cell(title, call, digits, &outside)).collect()
    }
}

fn titles(columns: Columns) -> &'static [&'static str] {
    match columns {
        Columns::Narrow => NARROW,
        Columns::Wide => WIDE,
    }
}

/// One cell. `outside` prints text that came from outside.
fn cell(title: &str, call: &CallSummary, digits: usize, outside: &dyn Fn(&str) -> String) -> String {
    let pair = |[up, down]: [String; 2]| format!("{up}/{down}");
    match title {
        "TIME" => rfc3339_millis(call.started_unix_nanos),
        "DIR" => DIRECTION.to_owned(),
        "PEER" => outside(&call.connection.client_address),
        "UPSTREAM" => outside(&call.connection.upstream),
        "PROTOCOL" => protocol_name(call.protocol).to_owned(),
        "AUTHORITY" => outside(&call.authority),
        "METHOD" => outside(&call.method),
        "STATUS" => {
            call.status.map_or_else(|| format!("({})", call.state.as_str()), |status| status.to_string())
        }
        "MSGS(UP/DOWN)" => pair(call.messages.map(|count| count.to_string())),
        "BYTES(UP/DOWN)" => pair(call.bytes.map(size)),
        "DURATION" => call.duration_nanos.map_or_else(|| "-".to_owned(), duration),
        "STATE" => call.state.as_str().to_owned(),
        "RESET" => call.reset.map_or_else(
            || "-".to_owned(),
            |reset| format!("{} by {}", code_name(reset.code), side_name(reset.side)),
        ),
        "LEVEL" => level_name(call.level).to_owned(),
        "ENTRIES" => format!("{}-{}", call.first_index, call.last_index),
        "MESSAGE" => outside(&call.status_message),
        _ => call.call.to_string()[..digits].to_owned(),
    }
}

fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

/// Digits that tell these calls apart.
fn id_digits(calls: &[CallSummary]) -> usize {
    let mut ids: Vec<CallId> = calls.iter().map(|call| call.call).collect();
    ids.sort_unstable();
    ids.dedup();
    let common = |pair: &[CallId]| {
        let (one, other) = (pair[0].to_string(), pair[1].to_string());
        one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
    };
    ids.windows(2).map(|pair| common(pair) + 1).fold(ID_DIGITS_MIN, usize::max)
}
