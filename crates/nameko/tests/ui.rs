//! What the compiler says about services: `ui/*.rs` must not compile, and say what stands beside them in `.stderr`.
//! After a change of a message, `TRYBUILD=overwrite cargo test -p nameko --test ui` writes those files anew.
//!
//! `ui/pass/*.rs` must compile, without a warning. They are modules of this test, so that clippy sees them too.

#[path = "ui/pass/attributes.rs"]
mod attributes;
#[path = "ui/pass/clients.rs"]
mod clients;
#[path = "ui/pass/conditions.rs"]
mod conditions;
#[path = "ui/pass/generated.rs"]
mod generated;
#[path = "ui/pass/lints.rs"]
mod lints;
#[path = "ui/pass/markers.rs"]
mod markers;
#[path = "ui/pass/shadowed_names.rs"]
mod shadowed_names;
#[path = "ui/pass/signatures.rs"]
mod signatures;

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
