//! The images of the bed, made without a registry, as OCI archives that containerd imports. Strand's is the last stage of the
//! `Dockerfile`, over a base that mmdebstrap makes, with the programs of this build in place of the first stage's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;
use crate::{repository, tool};

/// Repository and tag of Strand's image.
pub const STRAND: (&str, &str) = ("localhost/strand", "e2e");
/// The same of the revision that `e2e/previous` names, which is upgraded from.
pub const PREVIOUS: (&str, &str) = ("localhost/strand", "previous");
/// The image of tests' pods: Python, and redis-py as Debian has it.
pub const CLIENT: &str = "localhost/client:e2e";
/// What every pod's sandbox runs.
const PAUSE: &str = "localhost/pause:e2e";
/// Processes of Strand.
const PROGRAMS: [&str; 5] = [
    "operator",
    "node-agent",
    "csi-driver",
    "kv-endpoint",
    "strandctl",
];
/// The chart's stock sidecars: name of the image, and of the program that `e2e/tools/build` makes.
const SIDECARS: [(&str, &str); 6] = [
    ("csi-provisioner", "csi-provisioner"),
    ("csi-attacher", "csi-attacher"),
    ("csi-resizer", "csi-resizer"),
    ("csi-snapshotter", "csi-snapshotter"),
    ("csi-node-driver-registrar", "node-sidecar"),
    ("livenessprobe", "node-sidecar"),
];

/// Makes what is not there yet, or is older than what it is made of, and returns the directory with all archives.
///
/// # Errors
/// When a program is not built, or buildah or mmdebstrap fail.
pub fn make() -> Result<PathBuf> {
    let builder = Builder {
        dir: repository().join(".cache/e2e"),
    };
    let out = builder.dir.join("images");
    fs::create_dir_all(&out)?;
    let base = builder.base()?;

    let busybox = PathBuf::from("/bin/busybox");
    builder.single(PAUSE, &busybox, &["/busybox", "sleep", "2147483647"])?;
    for (image, program) in SIDECARS {
        let program = tool(program);
        let name = format!("localhost/{}", tagged(image)?);
        let entry = format!("/{}", file_name(&program));
        builder.single(&name, &program, &[&entry])?;
    }
    let client = "FROM localhost/base\nRUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-redis \
                  && rm -rf /var/lib/apt/lists/*\nCMD [\"sleep\", \"infinity\"]\n";
    let context = builder.dir.join("client");
    fs::create_dir_all(&context)?;
    write_if_new(&context.join("Dockerfile"), client)?;
    let parts = [context.join("Dockerfile"), base.clone()];
    builder.build(CLIENT, &parts, &context, &[])?;

    builder.strand(STRAND, &builder.programs()?, &base)?;
    if previous().is_dir() {
        builder.strand(PREVIOUS, &previous(), &base)?;
    }
    Ok(out)
}

/// Where `scripts/e2e` puts programs and chart of the revision that is upgraded from; it is not there if there is no such revision.
pub fn previous() -> PathBuf {
    repository().join(".cache/e2e/previous")
}

/// The tag that the chart's values give a sidecar.
fn tagged(image: &str) -> Result<String> {
    let path = repository().join("charts/strand/values.yaml");
    let values = fs::read_to_string(&path)?;
    let words = values.split_whitespace();
    words
        .filter(|word| word.split(':').next() == Some(image))
        .find(|word| word.contains(":v"))
        .map(str::to_owned)
        .with_context(|| format!("{} has no image {image}", path.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn write_if_new(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text)?;
    }
    Ok(())
}

struct Builder {
    dir: PathBuf,
}

impl Builder {
    fn buildah(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(self.dir.join("store"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            .args(["--storage-driver", "overlay"])
            .args(args)
            .env("BUILDAH_ISOLATION", "chroot");
        Ok(run(&mut command)?.trim().to_owned())
    }

    /// Debian's smallest, as a file system in a directory, and as the image `localhost/base`.
    fn base(&self) -> Result<PathBuf> {
        let base = self.dir.join("base.tar");
        if !base.is_file() {
            let new = self.dir.join("new-base.tar");
            run(Command::new("mmdebstrap")
                .args(["--quiet", "--variant=minbase", "bookworm"])
                .arg(&new))?;
            let container = self.buildah(&["from", "scratch"])?;
            self.buildah(&["add", &container, &new.to_string_lossy(), "/"])?;
            self.buildah(&["commit", "--rm", &container, "localhost/base"])?;
            fs::rename(new, &base)?;
        }
        Ok(base)
    }

    /// The programs of this build, small, where the `Dockerfile` expects those of its first stage.
    fn programs(&self) -> Result<PathBuf> {
        let dir = self.dir.join("programs");
        fs::create_dir_all(dir.join("out/bin"))?;
        fs::create_dir_all(dir.join("out/sbom"))?;
        for name in PROGRAMS {
            let built = repository().join("target/debug").join(name);
            let stripped = dir.join("out/bin").join(name);
            if newer(&built, &stripped)? {
                run(Command::new("strip").arg("-o").arg(&stripped).arg(&built))?;
            }
        }
        let bills = dir.join("out/sbom");
        if newer(
            &repository().join("Cargo.lock"),
            &bills.join("operator.cdx.json"),
        )? {
            run(Command::new(repository().join("scripts/sbom")).arg(bills.canonicalize()?))?;
        }
        Ok(dir)
    }

    /// Strand's image, of the programs in `from/out/bin`.
    fn strand(&self, name: (&str, &str), from: &Path, base: &Path) -> Result<()> {
        let dockerfile = repository().join("Dockerfile");
        let mut parts = vec![dockerfile, base.to_owned()];
        parts.extend(PROGRAMS.map(|program| from.join("out/bin").join(program)));
        let context = format!("build={}", from.display());
        let name = format!("{}:{}", name.0, name.1);
        let flags = [
            "--build-context",
            &context,
            "--build-arg",
            "RUN_BASE=localhost/base",
        ];
        self.build(&name, &parts, &repository(), &flags)
    }

    /// An image of one static program.
    fn single(&self, name: &str, program: &Path, entry: &[&str]) -> Result<()> {
        let archive = self.archive(name);
        if !newer(program, &archive)? {
            return Ok(());
        }
        let container = self.buildah(&["from", "scratch"])?;
        self.buildah(&["copy", &container, &program.to_string_lossy(), "/"])?;
        let entry = serde_json::to_string(entry)?;
        self.buildah(&["config", "--entrypoint", &entry, &container])?;
        self.buildah(&["commit", "--rm", &container, name])?;
        self.save(name, &archive)
    }

    /// An image by the `Dockerfile` of a directory, if one of its parts is newer than it.
    fn build(&self, name: &str, parts: &[PathBuf], context: &Path, flags: &[&str]) -> Result<()> {
        let archive = self.archive(name);
        let mut stale = false;
        for part in parts {
            stale |= newer(part, &archive)?;
        }
        if !stale {
            return Ok(());
        }
        let mut args = vec!["bud", "--layers", "--pull-never", "--tag", name];
        args.extend(flags);
        let context = context.to_string_lossy();
        args.push(&context);
        self.buildah(&args)?;
        // Layers of programs that were built anew since.
        self.buildah(&["rmi", "--prune"])?;
        self.save(name, &archive)
    }

    fn archive(&self, name: &str) -> PathBuf {
        let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
        self.dir.join("images").join(file + ".tar")
    }

    fn save(&self, name: &str, archive: &Path) -> Result<()> {
        let _ = fs::remove_file(archive);
        let to = format!("oci-archive:{}:{name}", archive.display());
        self.buildah(&["push", name, &to])?;
        Ok(())
    }
}

/// Whether `made` is not there, or older than `from`.
fn newer(from: &Path, made: &Path) -> Result<bool> {
    let source = fs::metadata(from).with_context(|| format!("{} is not built", from.display()))?;
    let Ok(made) = fs::metadata(made) else {
        return Ok(true);
    };
    Ok((source.mtime(), source.mtime_nsec()) > (made.mtime(), made.mtime_nsec()))
}
