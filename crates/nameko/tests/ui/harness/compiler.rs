//! The compiler, with the library as this very test is linked to it: nothing is built again for a case.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

/// What a case may name.
const CRATES: [&str; 2] = ["nameko", "serde"];

pub(crate) struct Compiler {
    /// Where cargo has put the library and what it depends on.
    libraries: PathBuf,
    /// Of each of the crates.
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

    /// What the compiler says about a program that it must refuse; the error is what it says about one that it takes.
    pub(crate) fn refuses(&self, case: &Path) -> Result<String, String> {
        let case = case.canonicalize().unwrap();
        let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .current_dir(&self.workspace)
            // Of a `make --jobs` around the test: the compiler would complain that it cannot take part in that.
            .env_remove("MAKEFLAGS")
            .env_remove("MFLAGS")
            .env_remove("CARGO_MAKEFLAGS")
            .args(["--edition", "2024", "--crate-type", "bin"])
            .args(["--emit", "metadata", "--color", "never"])
            .arg("--out-dir")
            .arg(self.output.path())
            .arg("-L")
            .arg(format!("dependency={}", self.libraries.display()))
            .args(self.externs.iter().flat_map(|it| ["--extern", it]))
            .arg(case.strip_prefix(&self.workspace).unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            Err(said)
        } else {
            Ok(said)
        }
    }
}

/// There may be a library for each set of features. The newest that is older than the test is of the same sources as the
/// one that the test is linked to, if it is not that one.
fn newest(libraries: &Path, name: &str, built: SystemTime) -> PathBuf {
    let begin = format!("lib{name}-");
    let is_library = |it: &PathBuf| {
        let file = it.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&begin) && file.ends_with(".rlib")
    };
    libraries
        .read_dir()
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter(|it| is_library(it) && modified(it) <= built)
        .max_by_key(|it| modified(it))
        .expect("the library beside its test")
}

fn modified(file: &Path) -> SystemTime {
    file.metadata().unwrap().modified().unwrap()
}
