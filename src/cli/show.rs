//! `attestry show`: one call's timeline, with its metadata and messages; or the bytes of one message and
//! nothing else.
//!
//! Two passes over the ledger: one finds the call and its summary, one prints its events as they are read, so
//! that a message of any size passes through a bounded memory. Digests of messages are computed again on the
//! way.

use super::stdout::{self, LedgerArg};
use crate::generated::v1::Direction;
use crate::query::{
    self, CallPrefix, CallSummary, Detail, Message, MessageFold, Moment, Step, Timeline, TimelinePrinter,
    call_json, facts_json, moment_json,
};
use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

/// What `attestry show` takes.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The call's id, or as much of its beginning as no other call shares
    call: CallPrefix,
    #[command(flatten)]
    ledger: LedgerArg,
    /// Print all bytes of its messages, in hexadecimal
    #[arg(long, conflicts_with = "raw")]
    hex: bool,
    /// Print the bytes of one message and nothing else, such as request:0 or response:3
    #[arg(long, value_name = "MESSAGE", conflicts_with = "output")]
    raw: Option<MessageName>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A summary, then a line for each event.
    Text,
    /// One object, with the bytes of messages in base64.
    Json,
}

/// A message of a call: its direction, and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MessageName {
    direction: Direction,
    number: u64,
}

impl FromStr for MessageName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = "name a message as request:N or response:N, N counted from 0";
        let (direction, number) = text.split_once(':').ok_or(form)?;
        let direction = match direction {
            "request" => Direction::ClientToServer,
            "response" => Direction::ServerToClient,
            _ => return Err(form),
        };
        Ok(Self { direction, number: number.parse().map_err(|_| form)? })
    }
}

/// Shows the call.
pub fn run(args: &ShowArgs) -> ExitCode {
    stdout::run(|out| {
        let dir = args.ledger.dir();
        let call = query::find(&dir, &args.call, &mut stdout::warn)?;
        match (args.raw, args.output) {
            (Some(name), _) => print_raw(&dir, &call, name, out),
            (None, Output::Json) => print_json(&dir, &call, out),
            (None, Output::Text) => {
                print_text(&dir, &call, if args.hex { Detail::Hex } else { Detail::Beginning }, out)
            }
        }
    })
}

fn print_text(dir: &Path, call: &CallSummary, detail: Detail, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{}", query::heading(call))?;
    let mut printer = TimelinePrinter::new(call.started_unix_nanos, detail);
    for moment in Timeline::open(dir, call)? {
        printer.print(&moment?, out)?;
    }
    Ok(printer.finish(out)?)
}

fn print_json(dir: &Path, call: &CallSummary, out: &mut dyn Write) -> anyhow::Result<()> {
    let connection = facts_json(&call.connection);
    write!(out, "{{\"call\":{},\"connection\":{connection},\"events\":[", call_json(call))?;
    let mut separator = "\n";
    for moment in Timeline::open(dir, call)? {
        write!(out, "{separator}{}", moment_json(&moment?, call.started_unix_nanos))?;
        separator = ",\n";
    }
    Ok(writeln!(out, "\n]}}")?)
}

fn print_raw(dir: &Path, call: &CallSummary, name: MessageName, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut messages = MessageFold::default();
    let mut written = 0;
    for moment in Timeline::open(dir, call)? {
        let Moment::Step(step) = moment? else { continue };
        if !is_of(&step, name) {
            continue;
        }
        written = write_segment(&step, written, out)?;
        if let Some(message) = messages.push(&step).pop() {
            return check(&message);
        }
    }
    match messages.take_open(name.direction) {
        Some(_) => bail!(
            "the message ends before its last byte: the call ended in the middle of it, or the rest is not in the ledger"
        ),
        None => bail!("the call has no such message"),
    }
}

fn is_of(step: &Step, name: MessageName) -> bool {
    let number = step.event.message.as_ref().map(|segment| segment.message);
    step.direction == name.direction && number == Some(name.number)
}

fn write_segment(step: &Step, written: u64, out: &mut dyn Write) -> anyhow::Result<u64> {
    let segment = step.event.message.as_ref().context("a segment was asked for")?;
    ensure!(
        segment.stored,
        "the bytes of this message are not in the ledger: the capture level left them out"
    );
    let data =
        step.data.as_ref().context("a segment of this message cannot be read: run `attestry verify`")?;
    ensure!(segment.offset == written, "bytes {written} to {} of this message are missing", segment.offset);
    out.write_all(data)?;
    Ok(written + data.len() as u64)
}

fn check(message: &Message) -> anyhow::Result<()> {
    ensure!(
        message.digest_holds == Some(true),
        "the bytes do not have the digest that the ledger states for them: run `attestry verify`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_named_by_direction_and_number() {
        let name = |direction, number| Ok(MessageName { direction, number });
        assert_eq!("request:0".parse(), name(Direction::ClientToServer, 0));
        assert_eq!("response:17".parse(), name(Direction::ServerToClient, 17));
        for wrong in ["", "request", "request:", "reply:0", "request:-1", "request:0:1"] {
            assert!(wrong.parse::<MessageName>().is_err(), "{wrong}");
        }
    }
}
