//! `strandctl support-bundle`: what somebody who helps needs to see, in one file, without secrets.

mod clean;
mod collect;
mod logs;

use crate::{cluster::Target, text::count};
use anyhow::{Context, Result};
use clap::Args;
use collect::Found;
use flate2::{Compression, write::GzEncoder};
use k8s_openapi::jiff::Timestamp;
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

/// Collects objects, logs, metrics and versions into a file. Of pods of users only the endpoint's log is read. Secrets are not read; what
/// looks like one in other places is replaced.
#[derive(Args, Debug)]
pub struct BundleArgs {
    /// Where it goes [default: strand-support-TIME.tar.gz here]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines of each log, from its end
    #[arg(long, value_name = "LINES", default_value_t = 10_000)]
    lines: u32,
    #[command(flatten)]
    target: Target,
}

/// Runs `strandctl support-bundle`.
pub async fn run(args: BundleArgs) -> Result<()> {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = format!("strand-support-{time}");
    let file = args
        .file
        .clone()
        .unwrap_or_else(|| format!("{name}.tar.gz").into());
    let found = collect::all(&args.target, args.lines).await?;
    let (missing, left_out) = (found.missing.len(), found.left_out.len());
    let files = found.files.len();
    write(&file, &name, found).with_context(|| format!("{} cannot be written", file.display()))?;
    println!("{}: {}", file.display(), count(files, "file"));
    if missing > 0 {
        println!(
            "{} could not be read; missing.txt in it says which, and why",
            count(missing, "thing")
        );
    }
    if left_out > 0 {
        println!(
            "{} left out for size; left-out.txt in it says which",
            match left_out {
                1 => "1 thing was".into(),
                more => format!("{more} things were"),
            }
        );
    }
    println!(
        "Secrets are left out. Look it through before you pass it on: logs and names are as they are."
    );
    Ok(())
}

/// A file that is whole or not there.
fn write(file: &Path, name: &str, found: Found) -> Result<()> {
    let partial = file.with_extension("partial");
    let written = archive(&partial, name, found);
    match written.and_then(|()| Ok(std::fs::rename(&partial, file)?)) {
        Ok(()) => Ok(()),
        Err(error) => {
            // There may be none to take away.
            let _gone = std::fs::remove_file(&partial);
            Err(error)
        }
    }
}

fn archive(file: &Path, name: &str, mut found: Found) -> Result<()> {
    for (file, lines) in [
        ("missing.txt", &found.missing),
        ("left-out.txt", &found.left_out),
    ] {
        if !lines.is_empty() {
            found.files.insert(file.into(), lines.join("\n") + "\n");
        }
    }
    let mut archive =
        tar::Builder::new(GzEncoder::new(File::create(file)?, Compression::default()));
    for (path, text) in found.files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(Timestamp::now().as_second()).unwrap_or(0));
        archive.append_data(&mut header, format!("{name}/{path}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_bundle_is_an_archive_that_tells_what_it_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.tar.gz");
        let found = Found {
            files: [("objects/drives/a.yaml".to_owned(), "a: 1\n".to_owned())].into(),
            missing: vec!["logs of pod x: it is away".into()],
            left_out: vec!["logs of 2 more pods".into()],
        };
        write(&file, "strand", found).unwrap();
        let mut archive =
            tar::Archive::new(flate2::read::GzDecoder::new(File::open(&file).unwrap()));
        let read: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().display().to_string(), text)
            })
            .collect();
        assert_eq!(
            read,
            [
                ("strand/left-out.txt".into(), "logs of 2 more pods\n".into()),
                (
                    "strand/missing.txt".into(),
                    "logs of pod x: it is away\n".into()
                ),
                (
                    "strand/objects/drives/a.yaml".to_owned(),
                    "a: 1\n".to_owned()
                ),
            ]
        );
        let nowhere = directory.path().join("no/x.tar.gz");
        let empty = Found::default();
        assert!(write(&nowhere, "strand", empty).is_err());
    }
}
