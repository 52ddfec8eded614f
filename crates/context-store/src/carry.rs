//! Facts (tombstones, flushes, expiries) that outlive the unit in which they lie: eviction writes them down elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::core::Stream;
use crate::delete::hashed_fact;
use crate::hash::Fingerprint;
use crate::record::{Kind, Meta};
use crate::segment::Item;
use crate::small::{SmallWrite, write_pack};
use crate::store::Shared;
use crate::victim::Victim;

impl Shared {
    /// Writes down what has to outlive the victims; whether all of it is written.
    pub(crate) async fn carry_facts(self: &Arc<Self>, victims: &[Victim]) -> bool {
        let facts = latest(victims.iter().flat_map(|victim| &victim.facts));
        for some in facts.chunks(1024) {
            let mut batch = Vec::with_capacity(some.len());
            let mut waiting = Vec::with_capacity(some.len());
            let mut bytes = 0;
            for item in some {
                let (fact, answer) = carried(item);
                bytes += fact.meta.footprint() as u64;
                batch.push(fact);
                waiting.push(answer);
            }
            self.core().carried += bytes;
            write_pack(self, batch, Stream::Facts).await;
            for answer in waiting {
                // Where one pack finds no room, others find none either.
                if !matches!(answer.await, Ok(Ok(Some(_)))) {
                    return false;
                }
            }
        }
        true
    }
}

/// Of the facts about one key those that matter: the latest of each kind. Facts gather with every turn of a key, and each
/// unit that goes has some of them. Pure.
fn latest<'a>(facts: impl Iterator<Item = &'a Item>) -> Vec<Item> {
    let mut latest: HashMap<(Fingerprint, u8), Item> = HashMap::new();
    for fact in facts {
        let key = (fact.fingerprint, kind_carried(fact.kind) as u8);
        let known = latest.entry(key).or_insert(*fact);
        if known.sequence < fact.sequence {
            *known = *fact;
        }
    }
    latest.into_values().collect()
}

/// What a record is as a fact: of a value that goes, that there is none.
fn kind_carried(kind: Kind) -> Kind {
    match kind {
        Kind::Value => Kind::Tombstone,
        fact => fact,
    }
}

/// A fact as eviction carries it on. The key is not needed: a fact counts for a fingerprint, and the footer has it.
fn carried(
    item: &Item,
) -> (
    SmallWrite,
    oneshot::Receiver<Result<Option<crate::small::Done>, String>>,
) {
    let kind = kind_carried(item.kind);
    let meta = Meta {
        sequence: item.sequence,
        ..hashed_fact(kind, item.namespace, item.fingerprint, item.expiry)
    };
    let (done, answer) = oneshot::channel();
    let fact = SmallWrite {
        meta,
        tail: Vec::new(),
        fingerprint: item.fingerprint,
        carried: true,
        done,
    };
    (fact, answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::Namespace;

    fn fact(kind: Kind, key: u8, sequence: u64) -> Item {
        Item {
            kind,
            replaces: true,
            wide: false,
            fingerprint: Fingerprint([key; 12]),
            namespace: Namespace(1),
            sequence,
            place: 0,
            len: 0,
            expiry: 0,
        }
    }

    #[test]
    fn of_the_facts_about_a_key_the_latest_of_each_kind_is_carried() {
        let facts = [
            fact(Kind::Tombstone, 1, 5),
            // A value that goes leaves a tombstone.
            fact(Kind::Value, 1, 9),
            fact(Kind::Tombstone, 1, 7),
            fact(Kind::Expire, 1, 6),
            fact(Kind::Expire, 1, 4),
            fact(Kind::Tombstone, 2, 3),
            fact(Kind::Flush, 3, 2),
        ];
        let mut latest: Vec<(u64, u8)> = latest(facts.iter())
            .iter()
            .map(|fact| (fact.sequence, fact.fingerprint.0[0]))
            .collect();
        latest.sort_unstable();
        assert_eq!(latest, [(2, 3), (3, 2), (6, 1), (9, 1)]);
    }
}
