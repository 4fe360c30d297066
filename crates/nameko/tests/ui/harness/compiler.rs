//! Runs the compiler against the library that this test links to, so that no case rebuilds it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

/// Crates that a case may use.
const CRATES: [&str; 2] = ["nameko", "serde"];

pub(crate) struct Compiler {
    /// Directory of the library and its dependencies.
    libraries: PathBuf,
    /// Library file of each crate.
    externs: Vec<String>,
    workspace: PathBuf,
    output: tempfile::TempDir,
}

impl Compiler {
    pub(crate) fn find() -> Self {
        let test = env::current_exe().unwrap();
        let libraries = test.parent().unwrap();
        let built = modified(&test);
        let externs = CRATES.map(|name| {
            let file = newest(libraries, name, built);
            format!("{name}={}", file.display())
        });
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            libraries: libraries.to_owned(),
            externs: externs.into(),
            workspace: manifest.join("../..").canonicalize().unwrap(),
            output: tempfile::tempdir().unwrap(),
        }
    }

    /// Returns the compiler's output for a program that must fail; the error is its output if the
    /// program compiles.
    pub(crate) fn refuses(&self, case: &Path) -> Result<String, String> {
        let case = case.canonicalize().unwrap();
        let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .current_dir(&self.workspace)
            // Set by `make --jobs`; the compiler would warn about the missing jobserver.
            .env_remove("MAKEFLAGS")
            .env_remove("MFLAGS")
            .env_remove("CARGO_MAKEFLAGS")
            .args(["--edition", "2024", "--crate-type", "bin"])
            .args(["--emit", "metadata", "--color", "never"])
            .arg("--out-dir")
            .arg(self.output.path())
            .arg("-L")
            .arg(format!("dependency={}", self.libraries.display()))
            .args(self.externs.iter().flat_map(|krate| ["--extern", krate]))
            .arg(case.strip_prefix(&self.workspace).unwrap())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            Err(stderr)
        } else {
            Ok(stderr)
        }
    }
}

/// Returns the library file to link. There may be one per feature set; the newest that is older
/// than the test was built from the same sources.
fn newest(libraries: &Path, name: &str, built: SystemTime) -> PathBuf {
    let begin = format!("lib{name}-");
    let is_library = |it: &PathBuf| {
        let file = it.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&begin) && file.ends_with(".rlib")
    };
    libraries
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_library(path) && modified(path) <= built)
        .max_by_key(|path| modified(path))
        .expect("the library beside its test")
}

fn modified(file: &Path) -> SystemTime {
    file.metadata().unwrap().modified().unwrap()
}
