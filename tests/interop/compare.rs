//! What is compared between a direct and a relayed result, and what each result must contain.
//!
//! Results are compared whole, but for the values listed in `VARYING` (the name stays), for the order of fields with
//! different names, which grpc-go and grpc-java do not keep, and for calls that no server ended, where only what is decided
//! is compared (see `End`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cases::{Case, End};
use super::stacks::Stack;

/// Header fields whose value is another one each time: the server's clock, and the time that is left.
const VARYING: [&str; 2] = ["date", "grpc-timeout"];

const INTERNAL: i64 = 13;

/// All faults of a case: of each of its two results, and that they are not the same.
pub(super) fn faults_of_both(
    case: &Case,
    client: Stack,
    server: Option<Stack>,
    direct: Value,
    relayed: Value,
) -> Vec<String> {
    let mut all = Vec::new();
    for (way, result) in [("direct", &direct), ("relayed", &relayed)] {
        let found = faults(case, client, server, result);
        all.extend(found.into_iter().map(|fault| format!("{way}: {fault}")));
    }
    let (direct, relayed) = (comparable(case, direct), comparable(case, relayed));
    if direct != relayed {
        all.push(format!("direct  {direct:.2000}\nrelayed {relayed:.2000}"));
    }
    all
}

/// The part of a result that must be the same direct and relayed.
fn comparable(case: &Case, mut result: Value) -> Value {
    let decided: &[&str] = match case.end {
        End::Server => {
            for pointer in ["/initial", "/trailing", "/last/seen"] {
                if let Some(fields) = result.pointer_mut(pointer).and_then(Value::as_array_mut) {
                    hide_varying(fields);
                    fields.sort_by(|a, b| a[0].as_str().cmp(&b[0].as_str()));
                }
            }
            return result;
        }
        End::Client => &["code", "messages", "server_heard"],
        End::Deadline => &["messages", "server_heard"],
        End::Unreachable => &["code"],
    };
    decided
        .iter()
        .map(|&name| (name.to_owned(), result[name].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// All faults of a result, each told in a sentence. Without a server's stack, the server is the one that misbehaves.
fn faults(case: &Case, client: Stack, server: Option<Stack>, result: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    // C-core has no support for padded DATA and says so: "unsupported data flags".
    let refused =
        (client == Stack::Python && case.name == "data_frame_padding").then(|| json!({"code": INTERNAL}));
    let must = refused.as_ref().unwrap_or(&case.must);
    for (name, wanted) in must.as_object().unwrap() {
        let got = &result[name.as_str()];
        let right = match name.as_str() {
            // The deadline passes at both ends at once. Tonic's word for it is CANCELLED, as is that of servers of grpc-go and grpc-java.
            "code" if case.end == End::Deadline && calls_it_cancelled(client, server) => {
                got == wanted || got == &json!(1)
            }
            // grpc-js serves "OK" as the message of OK.
            "message_is_empty" => ["", "OK"].map(Value::from).contains(&result["message"]),
            "code_is_an_error" => result["code"].as_i64().is_some_and(|code| code > 0),
            "last" => wanted.as_object().unwrap().iter().all(|(name, wanted)| &got[name.as_str()] == wanted),
            _ => got == wanted,
        };
        if !right {
            let message = if name == "code" { format!(": {}", result["message"]) } else { String::new() };
            faults.push(format!("{name} must be {wanted}, and is {got}{message}"));
        }
    }
    faults.extend(echo_faults(case, server, result));
    faults
}

fn calls_it_cancelled(client: Stack, server: Option<Stack>) -> bool {
    client == Stack::Tonic || matches!(server, Some(Stack::Tonic | Stack::Go | Stack::Java))
}

fn echo_faults(case: &Case, server: Option<Stack>, result: &Value) -> Vec<String> {
    // tonic has no way to send metadata in the trailers of a call that succeeds.
    let trailing = if server == Some(Stack::Tonic) { "/initial" } else { "/trailing" };
    let mut places = vec!["/initial", trailing];
    if !result["last"].is_null() {
        places.push("/last/seen");
    }
    let mut faults = Vec::new();
    for place in places {
        let got = joined(result.pointer(place));
        for (name, wanted) in &case.echo {
            let got = got.get(*name).map_or("nothing", String::as_str);
            if got != wanted {
                faults.push(format!("{place} must have {name} as {wanted:.80?}, and has {got:.80?}"));
            }
        }
    }
    faults
}

/// The values of each name in their order, joined as HTTP allows (RFC 9110, section 5.3); Node joins them itself.
fn joined(fields: Option<&Value>) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for field in fields.and_then(Value::as_array).into_iter().flatten() {
        let (name, value) = (field[0].as_str().unwrap(), field[1].as_str().unwrap());
        joined
            .entry(name.to_owned())
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    joined
}

fn hide_varying(fields: &mut [Value]) {
    for field in fields {
        if VARYING.iter().any(|name| field[0] == *name) {
            field[1] = json!("(varies)");
        }
    }
}
