//! Legs' devices, held while they are looked at and worked on. A name that is free is another leg's soon; that of an open device is not.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use strand_arrays::Wanted;
use strand_fabric::{Initiator, Nqn};

/// Opens the devices of legs; those of which the name is not theirs any more are as good as away. `here` has the devices of legs on this
/// node, whose names are theirs for as long as the volume has them.
pub(super) fn hold(wanted: &mut Wanted, generation: u64, here: &[PathBuf]) -> Vec<File> {
    let initiator = Initiator::open().ok();
    let mut held = Vec::new();
    for leg in &mut wanted.legs {
        let nqn = Nqn::leg(leg.uuid, generation);
        leg.device = leg.device.take().filter(|device| {
            let Ok(file) = File::open(device) else {
                return false;
            };
            let is_it = here.contains(device)
                || match (&initiator, file.metadata()) {
                    (Some(initiator), Ok(opened)) => initiator.is_of(opened.rdev(), nqn),
                    _ => false,
                };
            if is_it {
                held.push(file);
            }
            is_it
        });
    }
    held
}
