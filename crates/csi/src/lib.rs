//! The Container Storage Interface, version 1.12: what an orchestrator and a storage driver say to each other over gRPC
//! (<https://github.com/container-storage-interface/spec>).
//!
//! `proto/csi.proto` has the messages, fields and numbers of that specification, of the services that Strand serves; what
//! they mean is told there.

/// Package `csi.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("csi.v1");
}

/// The version of the specification.
pub const VERSION: &str = "1.12.0";
