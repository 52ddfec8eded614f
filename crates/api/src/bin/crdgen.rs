//! Writes the definitions of our objects, one file each, into the directory given (`crds`).

use std::{env, fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let dir = env::args().nth(1).unwrap_or_else(|| "crds".into());
    match write_all(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(dir: &Path) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
    for (name, yaml) in strand_api::crd_files() {
        let path = dir.join(name);
        fs::write(&path, yaml).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}
