//! The Rust types of `proto/`, generated and checked in, so that a build needs neither protoc nor a build script.
//!
//! Only this file is written by hand. `tests/generated.rs` proves the others equal to what the schemas give;
//! `ATTESTRY_REGENERATE=1 cargo test --test generated` writes them anew. How entries are encoded and checked is in
//! `crate::entry`.

/// The schema of ledger entries (`proto/attestry/v1`): messages alone, no services.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod v1 {
    include!("attestry.v1.rs");
}

/// The sample service of `attestry demo` (`proto/attestry/demo/v1`), client and server.
#[cfg(feature = "proxy")]
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod demo_v1 {
    include!("attestry.demo.v1.rs");

    /// The encoded `FileDescriptorSet` of the sample service, for gRPC server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("demo_descriptor.bin");
}
