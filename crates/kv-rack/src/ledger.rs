//! What a peer, or a drive of this node, has to delete before it is believed again: keys that were put or deleted
//! elsewhere while it could not be reached.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::frame::Spot;
use crate::owners::Place;
use strand_context_store::Namespace;

/// Keys a drive at most.
const MOST: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    debts: Mutex<HashMap<Place, Debts>>,
}

#[derive(Debug, Default)]
struct Debts {
    /// Each with the place where a block was put instead, which has to go as well once this place is back.
    keys: HashMap<(Namespace, Vec<u8>), Option<Place>>,
    /// More was owed than is remembered here: nothing that the drive still has from former times is believed.
    overflowed: bool,
}

/// There is no room to remember one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Ledger {
    /// Remembers to delete a key at a place, and then at the place beside it that takes a block for it meanwhile.
    pub(crate) fn owe(
        &self,
        place: &Place,
        namespace: Namespace,
        key: &[u8],
        beside: Option<&Place>,
    ) -> Result<(), Full> {
        let mut debts = self.lock();
        let debts = debts.entry(place.clone()).or_default();
        if debts.keys.len() >= MOST {
            return Err(Full);
        }
        let known = debts.keys.entry((namespace, key.to_vec())).or_default();
        if beside.is_some() {
            *known = beside.cloned();
        }
        Ok(())
    }

    /// There was no room to remember what is owed at a place: it is not believed any more about anything from former times.
    pub(crate) fn shun(&self, place: &Place) {
        self.lock().entry(place.clone()).or_default().overflowed = true;
    }

    /// Whether what a place has from former times is not believed.
    pub(crate) fn shuns(&self, place: &Place) -> bool {
        self.lock().get(place).is_some_and(|debts| debts.overflowed)
    }

    /// What is owed at the drives of a node other than these, `most` keys at most.
    pub(crate) fn owed(&self, node: &str, except: &HashSet<u32>, most: usize) -> Vec<Spot> {
        let debts = self.lock();
        let of_node = (debts.iter())
            .filter(|(place, _)| *place.node == *node && !except.contains(&place.drive));
        let spots = of_node.flat_map(|(place, debts)| {
            debts.keys.keys().map(|(namespace, key)| Spot {
                namespace: *namespace,
                at: crate::frame::Key {
                    drive: place.drive,
                    key: key.clone(),
                },
            })
        });
        spots.take(most).collect()
    }

    /// A key was deleted at a node. Where it has to be deleted now.
    pub(crate) fn paid(&self, node: &str, spot: &Spot) -> Option<Place> {
        let mut debts = self.lock();
        let place = debts
            .iter_mut()
            .find(|(place, _)| *place.node == *node && place.drive == spot.at.drive);
        let (_, debts) = place?;
        debts.keys.remove(&(spot.namespace, spot.at.key.clone()))?
    }

    /// Keys owed at all places together.
    pub(crate) fn len(&self) -> usize {
        self.lock().values().map(|debts| debts.keys.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Debts>> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
