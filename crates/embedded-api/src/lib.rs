//! The Kubernetes API, embedded: what `strandctl up`, tests and benches talk to instead of a cluster.
//!
//! Over HTTPS with a bearer token it serves the core kinds that Strand uses and every kind that a
//! CustomResourceDefinition defines, so that kube-rs and an unmodified kubectl work: list, watch, get, create, replace,
//! JSON, merge, strategic merge and apply patches, status, finalizers, owner references, validation, tables, discovery.
//!
//! How it hangs together:
//! - [`Server`] accepts connections; `http` turns requests into calls of `read` and `write`.
//! - `store` holds every object as bytes behind one lock, numbers the changes, writes them to `log` and hands them to
//!   `watch`, where each event is serialised once for all its watchers.
//! - `write` goes from what was sent to what is stored: `decode`, `prepare`, `shape`, `apply` (with `typed` and `fields`), `strategic`,
//!   `patch`, `validate`, `cel`; and commits only if nothing changed in between.
//! - `collect` finishes deletions: finalizers, owner references, namespaces, definitions.
//! - `registry` knows the served kinds: `builtin` and those of `definition`s.
//!
//! What it does not do it refuses in words: pods' subresources, scale, admission webhooks, conversion webhooks, RBAC
//! (every holder of the token may do everything), protobuf (but for what `kubectl create` sends), OpenAPI v2. Nobody runs pods: deleting one removes it at
//! once.
//!
//! State survives the death of the process, not that of the machine (see `log`): nothing is fsynced.

mod apply;
mod builtin;
mod cel;
mod collect;
mod collection;
mod columns;
mod decode;
mod definition;
mod discovery;
mod events;
mod expire;
mod fields;
mod format;
mod http;
mod jsonpath;
mod log;
mod merging;
mod names;
mod object;
mod openapi;
mod patch;
mod prepare;
mod preset;
mod printing;
mod protobuf;
mod read;
mod registry;
mod request;
mod resource;
mod schema;
mod selector;
mod server;
mod shape;
mod stats;
mod status;
mod store;
mod strategic;
mod time;
mod tls;
mod typed;
mod validate;
mod watch;
mod write;

pub use log::LogError;
pub use server::{Config, Server, StartError};
pub use stats::{Request, Stats};
pub use tls::TlsError;
