//! The operator: observes pools, nodes, drives, maps, operations and volumes; lets `strand-placement` decide; applies.
//!
//! One task watches the API ([`observe`]), one holds the lease ([`lease`]), one loop plans and applies
//! for the rack ([`run`]) and one for volumes ([`volumes`]). Standbys too answer the API server's questions ([`webhook`]). A pass looks at everything; passes are spaced so that they take at most a tenth of a core.
//! Every write carries the resourceVersion of the object it was decided from, so that a leader that
//! does not know yet that it was replaced cannot undo what its successor did.

pub mod act;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod peer_key;
pub mod run;
pub mod volumes;
pub mod webhook;
