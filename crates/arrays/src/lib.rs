//! Volumes of several legs, by the kernel's md on the node that attaches them. [`plan`] is the decision: from what the volume says of its
//! legs ([`Wanted`]) and what the kernel and the legs say ([`Seen`]) to the next [`Step`]s, or to a [`Refusal`] in words. [`Arrays`] looks
//! and does the steps: mdadm for what writes superblocks, sysfs for everything about a running array, and about one that is only read.
//!
//! Nothing is remembered here, so an agent that was killed goes on from what it finds. Nothing is searched for: an array is known by its
//! UUID, which is its volume's, and is put together from the devices that the caller names, all of them or none. Which legs those are is
//! the volume's record (`docs/decisions/0019`): md alone cannot know that a leg which looks whole has missed writes.

mod arrays;
mod error;
mod external;
mod host;
mod members;
mod plan;
mod readers;
mod refusal;
mod report;
mod running;
mod superblock;
mod tool;
mod wanted;

pub use arrays::Arrays;
pub use error::ArrayError;
pub use host::Host;
pub use plan::{Step, plan};
pub use readers::{Part, Reading};
pub use refusal::Refusal;
pub use report::{Holding, report, unrecorded};
pub use running::{Member, MemberState, Running, State, Sync};
pub use superblock::{Format, Superblock};
pub use wanted::{Content, Geometry, Leg, Level, Present, Seen, Standing, Wanted};
