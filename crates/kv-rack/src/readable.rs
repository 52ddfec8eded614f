//! Where a block is looked for, one place after the other.

use std::collections::VecDeque;

use crate::owners::{Place, Places};
use crate::rack::Rack;

/// Where a block may be read, in order. The next owner is one of them only if an owner turns out to be away.
pub(crate) struct Readable {
    owners: VecDeque<Place>,
    seen: Vec<Place>,
    next: Option<Place>,
    former: VecDeque<Place>,
}

/// What a place is to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Owner,
    Next,
    Former,
}

impl Readable {
    pub(crate) fn new(places: Places) -> Self {
        Self {
            owners: places.owners.into(),
            seen: Vec::new(),
            next: places.next,
            former: places.former.into(),
        }
    }

    /// The next place to look at, after those before were looked at in vain.
    pub(crate) fn turn(&mut self, rack: &Rack) -> Option<(Role, Place)> {
        if let Some(place) = self.owners.pop_front() {
            self.seen.push(place.clone());
            return Some((Role::Owner, place));
        }
        if let Some(place) = self.next.take()
            && self.seen.iter().any(|owner| rack.is_away(owner))
        {
            self.seen.push(place.clone());
            return Some((Role::Next, place));
        }
        loop {
            let place = self.former.pop_front()?;
            if !self.seen.contains(&place) && !rack.ledger().shuns(&place) {
                return Some((Role::Former, place));
            }
        }
    }
}
