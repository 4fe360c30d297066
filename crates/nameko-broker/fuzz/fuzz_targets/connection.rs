//! Feeds arbitrary bytes to the frame reader and the connection's state machine.
//!
//! Run `cargo +nightly fuzz run connection` in `crates/nameko-broker`. The first input byte selects
//! whether a handshake precedes, the second is the chunk size.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let [opened, chunk_size, bytes @ ..] = data {
        nameko_broker::fuzzing::replay(bytes, usize::from(*chunk_size), opened % 2 == 0);
    }
});
