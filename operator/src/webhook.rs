//! What the API server asks before it takes an object: pods that want context memory ([`inject`]), and objects of ours
//! ([`validate`]). Answered by every operator, leading or not, over TLS with certificates that are made and renewed here
//! ([`keeper`]) or given.

mod certificates;
mod inject;
mod keeper;
mod review;
mod seen;
mod serve;
mod validate;

pub use certificates::{Certificates, MadeError, Renewal};
pub use keeper::{Keeper, Source};
pub use review::{Request, Response};
pub use seen::Seen;
pub use serve::{HookMetrics, Hooks, serve};
