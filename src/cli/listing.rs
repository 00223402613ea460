//! How commands that list things print them: a table, or JSON.
//!
//! Things are printed while the ledger is read, so the memory does not grow with it.

use crate::query::{Columns, Row, Table};
use clap::ValueEnum;
use std::io::{self, Write};

/// The forms in which things are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Aligned columns.
    Table,
    /// More of them, with whole ids.
    Wide,
    /// One array.
    Json,
    /// One object on each line.
    Jsonl,
}

/// Things that are being printed.
pub(super) struct Listing<R> {
    form: Form<R>,
    json: fn(&R) -> String,
    nothing: &'static str,
}

enum Form<R> {
    Table(Table<R>),
    /// With the number of things so far.
    Json(u64),
    Jsonl,
}

impl<R: Row> Listing<R> {
    /// A list in the form of `output`; `json` puts one thing on a line, and `nothing` is said of an empty table.
    pub(super) fn new(output: Output, json: fn(&R) -> String, nothing: &'static str) -> Self {
        let form = match output {
            Output::Table => Form::Table(Table::new(Columns::Narrow)),
            Output::Wide => Form::Table(Table::new(Columns::Wide)),
            Output::Json => Form::Json(0),
            Output::Jsonl => Form::Jsonl,
        };
        Self { form, json, nothing }
    }

    /// Prints the next one.
    pub(super) fn print(&mut self, item: R, out: &mut dyn Write) -> io::Result<()> {
        match &mut self.form {
            Form::Table(table) => table.push(item, out),
            Form::Json(count) => {
                let before = if *count == 0 { "[" } else { "," };
                *count += 1;
                write!(out, "{before}\n{}", (self.json)(&item))
            }
            Form::Jsonl => writeln!(out, "{}", (self.json)(&item)),
        }
    }

    /// Prints what the end of the list leaves open.
    pub(super) fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match &mut self.form {
            Form::Table(table) if table.is_empty() => {
                eprintln!("{}", self.nothing);
                Ok(())
            }
            Form::Table(table) => table.flush(out),
            Form::Json(0) => writeln!(out, "[]"),
            Form::Json(_) => writeln!(out, "\n]"),
            Form::Jsonl => Ok(()),
        }
    }
}
