//! Generates `csi.v1` from `proto/csi.proto`, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/csi.proto");
    let files = protox::compile(["csi.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .disable_comments(["."])
        .compile_fds(files)?;
    Ok(())
}
