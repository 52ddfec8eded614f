//! The storage side of one node's drives, without any Kubernetes in it.
//!
//! Each storage partition holds one XFS, mounted at `<root>/<drive id>`; each leg of a volume is a file in it, with its record beside:
//!
//! ```text
//! <root>/<drive id>/drive.json             whose drive it is
//!                   legs/<name>/data       the bytes: `mount -o loop` needs nothing else
//!                   legs/<name>/record.json
//!                   making/<uuid>/         not there yet: taken away at the next opening, but for copies of other drives' legs
//!                   deleting/<uuid>/       marked for deletion: taken away at the next opening
//! ```
//!
//! [`Storage`] holds the open drives, [`Drive`] does everything to one. Every method of both blocks on system calls and device I/O: call
//! them off the async threads. All of it can be killed anywhere and done again.

mod attach;
mod copy;
mod drive;
mod durable;
mod error;
mod fetch;
mod filesystem;
mod health;
mod ioctl;
mod ledger;
mod legs;
mod limits;
mod loops;
mod mounts;
mod record;
mod storage;
mod windows;

pub use attach::{Attached, refuse_writes, set_read_only};
pub use copy::CopyOrder;
pub use drive::{Drive, Space};
pub use error::VolumeError;
pub use fetch::{Foreign, open_direct};
pub use health::Health;
pub use ledger::{Ledger, NoRoom, cost};
pub use legs::{LegOrder, LegSource, LegState};
pub use limits::{IoLimits, LimitError, Throttle};
pub use record::{
    ArrayRecord, AttachmentRecord, DriveRecord, LegRecord, Provisioning, Redundancy, VolumeMode,
};
pub use storage::Storage;
