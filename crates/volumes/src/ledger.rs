//! What a drive's storage side may be asked to hold. Pure; whoever makes or grows a leg asks here first, under the drive's lock.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

use crate::record::Provisioning;

const MIB: u64 = 1 << 20;

/// How many times over a thin drive may be promised. Beyond it a drive that fills up could no longer be emptied in time by hand.
const THIN_FACTOR: u64 = 10;

/// What a leg of `size` bytes is counted as, in bytes: its size in whole MiB, and one MiB for its directory, record and the maps of a
/// small file. Maps that grow with the size are in the reserve that [`Ledger::of_file_system`] leaves.
pub fn cost(size: u64) -> u64 {
    size.div_ceil(MIB).saturating_add(1).saturating_mul(MIB)
}

/// The promises made on one drive. All its legs are thick or all are thin; without a leg it is neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    usable: u64,
    legs: BTreeMap<Uuid, Promise>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    size: u64,
    /// None where what is there cannot be told.
    kind: Option<Provisioning>,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes wanted.
    pub wanted: u64,
    /// Bytes of the largest leg that fits; 0 for none. For a leg that is to grow: what it can grow to.
    pub largest: u64,
    /// The kind that the drive's legs are of, where that is not the one wanted.
    pub other_kind: Option<Provisioning>,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (thick, thin) = ("thick", "thin");
        match self.other_kind {
            Some(Provisioning::Thick) => {
                write!(f, "its legs are {thick}, and a {thin} one was asked for")
            }
            Some(Provisioning::Thin) => {
                write!(f, "its legs are {thin}, and a {thick} one was asked for")
            }
            None => write!(
                f,
                "{} bytes were asked for, the largest leg that fits has {}",
                self.wanted, self.largest
            ),
        }
    }
}

impl Ledger {
    /// The bytes of a file system of `data` bytes that legs can have. A 32nd stays for what grows as legs are cut into pieces by
    /// snapshots and rewriting: at worst, every extent one block of 4096 bytes, a map record takes 16 bytes, a reference count 12
    /// and a free extent twice 8 (linux fs/xfs/libxfs/xfs_format.h), in B-tree blocks that are half full: 88 bytes of 4096, a 46th.
    /// 16 MiB stay for the file system's fixed parts.
    pub fn of_file_system(data: u64) -> u64 {
        (data - data / 32).saturating_sub(16 * MIB)
    }

    /// An empty ledger over `usable` bytes.
    pub fn new(usable: u64) -> Ledger {
        Ledger {
            usable,
            legs: BTreeMap::new(),
        }
    }

    /// What all legs together can have if they are thick.
    pub fn usable(&self) -> u64 {
        self.usable
    }

    /// Of which kind its legs are; none where there is none.
    pub fn kind(&self) -> Option<Provisioning> {
        self.legs.values().find_map(|promise| promise.kind)
    }

    /// The sum of what may be promised to legs of one kind.
    pub fn limit(&self, kind: Provisioning) -> u64 {
        match kind {
            Provisioning::Thick => self.usable,
            Provisioning::Thin => self.usable.saturating_mul(THIN_FACTOR),
        }
    }

    /// What is promised.
    pub fn promised(&self) -> u64 {
        self.legs
            .values()
            .fold(0, |sum, promise| sum.saturating_add(cost(promise.size)))
    }

    /// Bytes of the largest leg of one kind that fits; 0 for none. No leg is larger than the drive.
    pub fn largest(&self, kind: Provisioning) -> u64 {
        match self.kind() {
            Some(other) if other != kind => 0,
            _ => self.largest_besides(self.promised(), kind),
        }
    }

    fn largest_besides(&self, promised: u64, kind: Provisioning) -> u64 {
        let free = self.limit(kind).saturating_sub(promised).min(self.usable);
        (free / MIB).saturating_sub(1) * MIB
    }

    /// Promises a leg its size, or a larger one than it has.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing is changed then.
    pub fn promise(&mut self, leg: Uuid, size: u64, kind: Provisioning) -> Result<(), NoRoom> {
        if let Some(other) = self.kind().filter(|other| *other != kind) {
            return Err(NoRoom {
                wanted: size,
                largest: 0,
                other_kind: Some(other),
            });
        }
        let had = self.legs.get(&leg).map(|had| had.size);
        if had.is_some_and(|had| size <= had) {
            return Ok(());
        }
        let others = self.promised() - had.map_or(0, cost);
        let largest = self.largest_besides(others, kind);
        // Where nothing fits, a leg of no bytes does not fit either: its directory has a cost too.
        if size > largest || largest == 0 {
            return Err(NoRoom {
                wanted: size,
                largest,
                other_kind: None,
            });
        }
        self.count(leg, size, Some(kind));
        Ok(())
    }

    /// Counts a leg that is there, whether or not it fits; of no kind where that cannot be told.
    pub fn count(&mut self, leg: Uuid, size: u64, kind: Option<Provisioning>) {
        self.legs.insert(leg, Promise { size, kind });
    }

    /// Takes back a promise.
    pub fn release(&mut self, leg: Uuid) {
        self.legs.remove(&leg);
    }

    /// Takes notice of another size of the file system.
    pub fn resize(&mut self, usable: u64) {
        self.usable = usable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Promise(u8, u64, bool),
        Release(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let size = prop_oneof![0..64 * MIB, 0..4096 * MIB, Just(u64::MAX), Just(0)];
        let step = prop_oneof![
            3 => (0..12u8, size, any::<bool>()).prop_map(|(leg, size, thick)| Step::Promise(leg, size, thick)),
            1 => (0..12u8).prop_map(Step::Release),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #[test]
        fn nothing_oversells(usable in 0..4096 * MIB, steps in steps()) {
            let mut ledger = Ledger::new(usable);
            let id = |leg: u8| Uuid::from_u128(u128::from(leg));
            for step in steps {
                match step {
                    Step::Release(leg) => ledger.release(id(leg)),
                    Step::Promise(leg, size, thick) => {
                        let kind = if thick { Provisioning::Thick } else { Provisioning::Thin };
                        let before = ledger.clone();
                        if let Err(room) = ledger.promise(id(leg), size, kind) {
                            prop_assert_eq!(&ledger, &before, "a refusal changes nothing");
                            prop_assert_eq!(room.other_kind.is_some(), before.kind().is_some_and(|k| k != kind));
                            prop_assert!(room.largest < size || room.largest == 0);
                            // What is named does fit, and a byte more does not.
                            if room.largest > 0 {
                                let mut other = before.clone();
                                prop_assert!(other.promise(id(leg), room.largest, kind).is_ok());
                                let mut other = before;
                                prop_assert!(other.promise(id(leg), room.largest + 1, kind).is_err());
                            }
                        }
                    }
                }
                prop_assert_eq!(ledger.kind().is_none(), ledger.legs.is_empty());
                let kind = ledger.kind().unwrap_or(Provisioning::Thick);
                prop_assert!(ledger.promised() <= ledger.limit(kind));
                if kind == Provisioning::Thick {
                    let bytes: u64 = ledger.legs.values().map(|leg| leg.size).sum();
                    prop_assert!(bytes <= usable);
                }
                prop_assert!(ledger.legs.values().all(|leg| leg.size <= usable));
            }
        }

        #[test]
        fn the_reserve_holds_the_maps(data in 256 * MIB..1 << 50) {
            prop_assert!(data - Ledger::of_file_system(data) >= data / 46 + 16 * MIB);
        }
    }

    #[test]
    fn nothing_fits_a_drive_without_room() {
        let mut ledger = Ledger::new(0);
        let refused = ledger.promise(Uuid::from_u128(1), 0, Provisioning::Thin);
        assert_eq!(refused.map_err(|room| room.largest), Err(0));
        assert_eq!(ledger, Ledger::new(0));
    }

    #[test]
    fn a_refusal_names_the_largest_that_fits() {
        let mut ledger = Ledger::new(100 * MIB);
        let kind = Provisioning::Thick;
        ledger.promise(Uuid::from_u128(1), 40 * MIB, kind).unwrap();
        let room = ledger
            .promise(Uuid::from_u128(2), 59 * MIB, kind)
            .unwrap_err();
        assert_eq!(room.largest, 58 * MIB);
        assert_eq!(ledger.promise(Uuid::from_u128(1), 99 * MIB, kind), Ok(()));
    }
}
