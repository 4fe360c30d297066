//! Compile errors of the macros: `ui/*.rs` must fail with the output in `.stderr`. After changing a
//! message, `UPDATE_UI=1 cargo test -p nameko --test ui` rewrites these files; review the diff.
//!
//! `ui/pass/*.rs` must compile without warnings. They are modules of this test, so that clippy
//! checks them too.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of the test are test code too"
)]

#[path = "ui/pass/attributes.rs"]
mod attributes;
#[path = "ui/pass/clients.rs"]
mod clients;
#[path = "ui/harness/compiler.rs"]
mod compiler;
#[path = "ui/pass/conditions.rs"]
mod conditions;
#[path = "ui/pass/generated.rs"]
mod generated;
#[path = "ui/pass/lints.rs"]
mod lints;
#[path = "ui/pass/markers.rs"]
mod markers;
#[path = "ui/harness/messages.rs"]
mod messages;
#[path = "ui/pass/shadowed_names.rs"]
mod shadowed_names;
#[path = "ui/pass/signatures.rs"]
mod signatures;

use std::{fs, path::Path};

#[test]
fn compile_errors_have_the_expected_text() {
    let compiler = compiler::Compiler::find();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in cases {
        let said = match compiler.refuses(&case) {
            Ok(said) => messages::lasting(&said),
            Err(said) => {
                wrong.push(format!("{} compiles:\n{said}", case.display()));
                continue;
            }
        };
        let file = case.with_extension("stderr");
        if std::env::var_os("UPDATE_UI").is_some() {
            fs::write(&file, &said).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != said {
            let file = file.display();
            wrong.push(format!("this is not what {file} says:\n\n{said}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n\nWhere that is right: UPDATE_UI=1 cargo test -p nameko --test ui",
        wrong.join("\n\n")
    );
}
