//! Cases of HPACK's dynamic tables: the relay decodes a copy of each block, so it must keep the same tables as both
//! receivers, through every change of SETTINGS_HEADER_TABLE_SIZE, or it would read something else than they do.
//!
//! A table out of step shows as a refused connection here, and as wrong fields in the ledger.

use crate::driver::Step;
use crate::frames::{code, flag, goaway, headers, setting, settings, settings_ack};
use crate::hpack::{NEWEST, at, indexed, keep, keep_at, resize};
use crate::script::{Case, Wire, answer, response, trailers};

pub(crate) const CASES: &[Case] = &[
    Case { name: "dynamic_table_in_use", script: dynamic_table_in_use },
    Case { name: "table_size_down_to_0_and_up", script: table_size_down_and_up },
    Case { name: "table_size_down_without_an_update", script: table_size_down_without_an_update },
    Case { name: "table_size_before_its_ack", script: table_size_before_its_ack },
    Case { name: "table_size_two_settings_one_update", script: table_size_two_settings },
    Case { name: "table_size_of_the_server_side", script: table_size_of_the_server_side },
    Case { name: "table_eviction", script: table_eviction },
];

fn dynamic_table_in_use(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.client_sends(&headers(1, flag::END_STREAM, &kept_request(wire)))?;
    wire.server_sends(&headers(1, flag::END_STREAM, &kept_trailers_only()))?;
    for stream in [3, 5, 7] {
        wire.client_sends(&headers(stream, flag::END_STREAM, &kept_again()))?;
        wire.server_sends(&headers(
            stream,
            flag::END_STREAM,
            &[indexed(at::STATUS), indexed(NEWEST)].concat(),
        ))?;
    }
    Ok(())
}

fn table_size_down_and_up(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.client_sends(&headers(1, flag::END_STREAM, &kept_request(wire)))?;
    wire.client_sends(&headers(3, flag::END_STREAM, &kept_again()))?;
    resized_by_server(wire, 0)?;
    // Empty now: an entry that does not fit is not kept (RFC 7541 section 4.4).
    wire.client_sends(&headers(5, flag::END_STREAM, &[resize(0), kept_request(wire)].concat()))?;
    wire.client_sends(&headers(7, flag::END_STREAM, &wire.request()))?;
    resized_by_server(wire, 16_384)?;
    wire.client_sends(&headers(9, flag::END_STREAM, &[resize(16_384), kept_request(wire)].concat()))?;
    wire.client_sends(&headers(11, flag::END_STREAM, &kept_again()))?;
    resized_by_server(wire, 4096)?;
    wire.client_sends(&headers(13, flag::END_STREAM, &[resize(4096), kept_again()].concat()))?;
    for stream in [1, 3, 5, 7, 9, 11, 13] {
        wire.server_sends(&answer(stream))?;
    }
    Ok(())
}

/// An encoder that does not say that it follows. RFC 7541 section 4.2 wants the update; receivers differ on it, and the
/// relay has to stay in step with what the client's blocks mean.
fn table_size_down_without_an_update(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.client_sends(&headers(1, flag::END_STREAM, &kept_request(wire)))?;
    resized_by_server(wire, 1024)?;
    wire.client_sends(&headers(3, flag::END_STREAM, &kept_again()))?;
    wire.server_sends(&goaway(3, code::COMPRESSION_ERROR, b"no size update"))
}

/// Until its ACK the client may use the old size (RFC 9113 section 4.3.1), and does here, table and all.
fn table_size_before_its_ack(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.client_sends(&headers(1, flag::END_STREAM, &kept_request(wire)))?;
    wire.server_sends(&settings(&[(setting::HEADER_TABLE_SIZE, 0)]))?;
    wire.client_sends(&headers(3, flag::END_STREAM, &kept_again()))?;
    wire.client_sends(&settings_ack())?;
    wire.client_sends(&headers(5, flag::END_STREAM, &[resize(0), wire.request()].concat()))?;
    for stream in [1, 3, 5] {
        wire.server_sends(&answer(stream))?;
    }
    Ok(())
}

/// Down and up again before the next block: both updates stand at its beginning (RFC 7541 section 4.2).
fn table_size_two_settings(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.client_sends(&headers(1, flag::END_STREAM, &kept_request(wire)))?;
    let sizes =
        [settings(&[(setting::HEADER_TABLE_SIZE, 0)]), settings(&[(setting::HEADER_TABLE_SIZE, 8192)])];
    wire.server_sends(&sizes.concat())?;
    wire.client_sends(&settings_ack().repeat(2))?;
    wire.client_sends(&headers(
        3,
        flag::END_STREAM,
        &[resize(0), resize(8192), kept_request(wire)].concat(),
    ))?;
    wire.client_sends(&headers(5, flag::END_STREAM, &kept_again()))?;
    // One frame may name the parameter twice; the last counts, and the smallest binds the encoder once more.
    wire.server_sends(&settings(&[(setting::HEADER_TABLE_SIZE, 64), (setting::HEADER_TABLE_SIZE, 4096)]))?;
    wire.client_sends(&settings_ack())?;
    wire.client_sends(&headers(
        7,
        flag::END_STREAM,
        &[resize(64), resize(4096), kept_request(wire)].concat(),
    ))?;
    wire.client_sends(&headers(9, flag::END_STREAM, &kept_again()))
}

/// The mirror: the client's SETTINGS bind the server's encoder.
fn table_size_of_the_server_side(wire: &mut Wire) -> Step {
    wire.hello_with(&[(setting::HEADER_TABLE_SIZE, 65_536)], &[])?;
    for stream in [1, 3, 5, 7, 9] {
        wire.call(stream)?;
    }
    let again = [indexed(at::STATUS), indexed(NEWEST)].concat();
    wire.server_sends(&headers(1, flag::END_STREAM, &[resize(65_536), kept_trailers_only()].concat()))?;
    wire.server_sends(&headers(3, flag::END_STREAM, &again))?;
    wire.client_sends(&settings(&[(setting::HEADER_TABLE_SIZE, 0)]))?;
    wire.server_sends(&headers(5, flag::END_STREAM, &again))?;
    wire.server_sends(&settings_ack())?;
    wire.server_sends(&headers(7, flag::END_STREAM, &[resize(0), response(), trailers()].concat()))?;
    wire.client_sends(&settings(&[(setting::HEADER_TABLE_SIZE, 4096)]))?;
    wire.server_sends(&settings_ack())?;
    wire.server_sends(&headers(9, flag::END_STREAM, &[resize(4096), kept_trailers_only()].concat()))?;
    wire.call(11)?;
    wire.server_sends(&headers(11, flag::END_STREAM, &again))
}

/// Old entries leave the table (RFC 7541 section 4.4), also all at once for one that is larger than the table.
fn table_eviction(wire: &mut Wire) -> Step {
    wire.hello()?;
    for (round, stream) in (1..=79).step_by(2).enumerate() {
        let value = format!("{round:0>200}");
        let field = keep("x-round", value.as_bytes());
        let oldest = if round > 16 { indexed(NEWEST + 15) } else { Vec::new() };
        wire.client_sends(&headers(stream, flag::END_STREAM, &[wire.request(), field, oldest].concat()))?;
    }
    let too_large = keep("x-too-large", "v".repeat(4096).as_bytes());
    wire.client_sends(&headers(81, flag::END_STREAM, &[wire.request(), too_large].concat()))?;
    let again = [wire.request(), keep("x-after", "1"), indexed(NEWEST)].concat();
    wire.client_sends(&headers(83, flag::END_STREAM, &again))?;
    wire.server_sends(&answer(83))
}

/// The server announces a table size, and the client acknowledges it.
fn resized_by_server(wire: &mut Wire, octets: u32) -> Step {
    wire.server_sends(&settings(&[(setting::HEADER_TABLE_SIZE, octets)]))?;
    wire.client_sends(&settings_ack())
}

/// A request that puts three entries into the table, the authority last.
fn kept_request(wire: &Wire) -> Vec<u8> {
    let path = format!("/wire.Case/{}", wire.name());
    let kept = [keep_at(at::PATH, path), keep("x-kept", "dynamic"), keep_at(at::AUTHORITY, "wire.test")];
    [indexed(at::POST), indexed(at::HTTP), kept.concat()].concat()
}

/// The same request by its table entries alone.
fn kept_again() -> Vec<u8> {
    let kept = [indexed(NEWEST + 2), indexed(NEWEST + 1), indexed(NEWEST)];
    [indexed(at::POST), indexed(at::HTTP), kept.concat()].concat()
}

fn kept_trailers_only() -> Vec<u8> {
    [indexed(at::STATUS), keep("grpc-status", "0")].concat()
}
