//! Arbitrary bytes to the frame reader and the connection's state machine.
//!
//! `cargo +nightly fuzz run connection` in `crates/nameko-broker`. The first byte of an input says whether a handshake goes
//! before, the second how many bytes come at a time.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let [opened, chunk_size, bytes @ ..] = data {
        nameko_broker::fuzzing::replay(bytes, usize::from(*chunk_size), opened % 2 == 0);
    }
});
