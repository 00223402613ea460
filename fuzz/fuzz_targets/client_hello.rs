//! Fuzzes the reading of a ClientHello. Input: the first bytes of a connection.
#![no_main]

use attestry::tls::{Read, client_hello};
use libfuzzer_sys::fuzz_target;

/// Longer inputs say nothing new, and every beginning of each is read.
const BYTES_MAX: usize = 2_048;

fuzz_target!(|input: &[u8]| {
    let input = &input[..input.len().min(BYTES_MAX)];
    // What was said once stands, however the bytes arrive.
    let mut said = Read::Incomplete;
    for end in 0..=input.len() {
        let now = client_hello(&input[..end]);
        assert!(said == Read::Incomplete || said == now, "{said:?} became {now:?} with byte {end}");
        said = now;
    }
    if let Read::Hello(hello) = said {
        assert!(hello.ja4.len() == 36 && hello.ja4.is_ascii());
        assert!(hello.server_name.is_none_or(|name| name.len() <= 255));
    }
});
