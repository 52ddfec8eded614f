//! Everything about many keys, or about no value: grouped by owner, asked in parallel, merged in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use strand_context_store::Namespace;
use strand_kv_client::frame::Code;
use strand_kv_door::{Described, Page, Refused, Totals};

use crate::frame::{Key, Reply, Request};
use crate::owners::{Node, Place};
use crate::rack::{Rack, spot, unreachable};
use crate::readable::Readable;

/// Bits of a cursor that say where on the drive; those above say which drive.
const INNER: u32 = 44;

impl Rack {
    pub(crate) async fn presence(&self, namespace: Namespace, keys: &[Vec<u8>]) -> Vec<bool> {
        let mut left: Vec<_> = (keys.iter())
            .map(|key| Readable::new(self.places(namespace, key)))
            .collect();
        let mut there = vec![false; keys.len()];
        loop {
            let wanted = (keys.iter().zip(&mut left).enumerate())
                .filter(|(at, _)| !there[*at])
                .filter_map(|(at, (key, left))| Some((at, key.as_slice(), left.turn(self)?.1)));
            let nodes = self.by_node(wanted);
            if nodes.is_empty() {
                return there;
            }
            let asked = nodes.into_iter().map(|(node, (at, keys))| async move {
                let found = self.exists_at(&node, namespace, keys).await;
                (at, found)
            });
            for (at, found) in join_all(asked).await {
                for (at, found) in at.into_iter().zip(found) {
                    there[at] = found;
                }
            }
        }
    }

    async fn exists_at(&self, node: &str, namespace: Namespace, keys: Vec<Key>) -> Vec<bool> {
        if self.is_here(node) {
            return self.host().drives.exists(namespace, &keys);
        }
        let reply = self.ask(node, &Request::Exists { namespace, keys }).await;
        match reply {
            Ok(Reply::Bits(bits)) => bits,
            _ => Vec::new(),
        }
    }

    /// Each owner is asked for the leading run of its own keys, so that no lease is spent far beyond the first gap.
    pub(crate) async fn run(&self, namespace: Namespace, keys: &[Vec<u8>]) -> usize {
        let mut readable: Vec<_> = (keys.iter())
            .map(|key| Readable::new(self.places(namespace, key)))
            .collect();
        let first = (keys.iter().zip(&mut readable).enumerate())
            .filter_map(|(at, (key, left))| Some((at, key.as_slice(), left.turn(self)?.1)));
        let nodes = self.by_node(first);
        let asked = nodes.into_iter().map(|(node, (at, keys))| async move {
            let run = self.run_at(&node, namespace, keys).await;
            at.get(run).copied()
        });
        let gaps = join_all(asked).await;
        let run = gaps.into_iter().flatten().min().unwrap_or(keys.len());
        if (readable.get_mut(run)).is_none_or(|left| left.turn(self).is_none()) {
            return run;
        }
        // The gap may be one at the first place alone.
        let rest = self.presence(namespace, &keys[run..]).await;
        run + rest.iter().take_while(|there| **there).count()
    }

    async fn run_at(&self, node: &str, namespace: Namespace, keys: Vec<Key>) -> usize {
        if self.is_here(node) {
            return self.host().drives.leading_run(namespace, &keys);
        }
        let reply = self
            .ask(node, &Request::LeadingRun { namespace, keys })
            .await;
        match reply {
            Ok(Reply::Count(run)) => usize::try_from(run).unwrap_or(0),
            _ => 0,
        }
    }

    pub(crate) async fn known(
        &self,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Option<Described>, Refused> {
        let mut readable = Readable::new(self.places(namespace, key));
        while let Some((_, place)) = readable.turn(self) {
            let spot = spot(&place, namespace, key);
            let described = if self.is_here(&place.node) {
                self.host()
                    .drives
                    .describe(&spot)
                    .await
                    .transpose()?
                    .flatten()
            } else {
                match self.ask(&place.node, &Request::Describe(spot)).await {
                    Ok(Reply::Described(described)) => Some(described),
                    _ => None,
                }
            };
            if described.is_some() {
                return Ok(described);
            }
        }
        Ok(None)
    }

    /// At every place that may have the block, or refused.
    pub(crate) async fn set_life(
        &self,
        namespace: Namespace,
        key: &[u8],
        left: Option<Duration>,
    ) -> Result<bool, Refused> {
        let places = self.places(namespace, key);
        let at = |place| self.set_life_at(place, namespace, key, left);
        any(join_all(places.all().into_iter().map(at)).await)
    }

    async fn set_life_at(
        &self,
        place: &Place,
        namespace: Namespace,
        key: &[u8],
        left: Option<Duration>,
    ) -> Result<bool, Refused> {
        let spot = spot(place, namespace, key);
        if self.is_here(&place.node) {
            let set = self.host().drives.expire(&spot, left).await;
            return set.unwrap_or_else(|| Err(unreachable(place)));
        }
        match self.ask(&place.node, &Request::Expire(spot, left)).await {
            Ok(Reply::Count(there)) => Ok(there > 0),
            Ok(Reply::Refused(refused)) => Err(refused),
            _ => Err(unreachable(place)),
        }
    }

    /// At every place that may have the block, or refused.
    pub(crate) async fn erase(&self, namespace: Namespace, key: &[u8]) -> Result<bool, Refused> {
        let places = self.places(namespace, key);
        let at = |place| self.delete_at(place, namespace, key);
        any(join_all(places.all().into_iter().map(at)).await)
    }

    /// On every drive of every map that counts, or refused.
    pub(crate) async fn clear_all(&self, namespace: Namespace) -> Result<(), Refused> {
        let nodes = self.with_maps(|maps| maps.nodes(Instant::now()));
        let flushed = nodes
            .iter()
            .map(|(name, node)| self.flush_at(name, node, namespace));
        join_all(flushed).await.into_iter().collect()
    }

    async fn flush_at(
        &self,
        name: &Arc<str>,
        node: &Node,
        namespace: Namespace,
    ) -> Result<(), Refused> {
        let away = || {
            Refused::new(
                Code::Unreachable,
                format!(
                    "node {name} or one of its drives cannot be reached and may have blocks: what must not come back cannot be \
                     deleted now; try again once the node is back"
                ),
            )
        };
        let drives: Vec<u32> = node.drives.iter().copied().collect();
        if self.is_here(name) {
            let flushed = self.host().drives.flush(namespace, drives).await;
            return flushed.unwrap_or_else(|| Err(away()));
        }
        match self.ask(name, &Request::Flush { namespace, drives }).await {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Refused(refused)) => Err(refused),
            _ => Err(away()),
        }
    }

    /// Drive by drive; drives that are away are passed over. A cursor says which drive, counted from 1, and the upper bits
    /// of the drive's own cursor: that is a place among fingerprints, of which so few share those bits that at most some
    /// key is seen twice.
    pub(crate) async fn some_keys(
        &self,
        namespace: Namespace,
        cursor: u64,
        limit: usize,
    ) -> Result<Page, Refused> {
        let drives = self.with_maps(|maps| maps.drives());
        let mut at = (cursor >> INNER).saturating_sub(u64::from(cursor != 0)) as usize;
        let mut inner = cursor << (u64::BITS - INNER);
        let mut keys = Vec::new();
        while let Some(place) = drives.get(at) {
            let wanted = limit.saturating_sub(keys.len());
            if wanted == 0 {
                break;
            }
            let page = self.scan_at(place, namespace, inner, wanted).await?;
            keys.extend(page.keys);
            if page.cursor != 0 {
                inner = page.cursor;
                break;
            }
            (at, inner) = (at + 1, 0);
        }
        let cursor = match drives.get(at) {
            None => 0,
            Some(_) => ((at as u64 + 1) << INNER) | (inner >> (u64::BITS - INNER)),
        };
        Ok(Page { cursor, keys })
    }

    async fn scan_at(
        &self,
        place: &Place,
        namespace: Namespace,
        cursor: u64,
        limit: usize,
    ) -> Result<Page, Refused> {
        if self.is_here(&place.node) {
            let page = self
                .host()
                .drives
                .scan(place.drive, namespace, cursor, limit)
                .await;
            return page.unwrap_or_else(|| Ok(Page::default()));
        }
        let request = Request::Scan {
            namespace,
            drive: place.drive,
            cursor,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        match self.ask(&place.node, &request).await {
            Ok(Reply::Page(page)) => Ok(page),
            Ok(Reply::Refused(refused)) => Err(refused),
            _ => Ok(Page::default()),
        }
    }

    /// Of all nodes that answer.
    pub(crate) async fn sum(&self, namespace: Namespace) -> Totals {
        let nodes = self.with_maps(|maps| maps.nodes(Instant::now()));
        let asked = nodes.keys().map(|name| async move {
            if self.is_here(name) {
                return self.host().drives.totals(namespace).await;
            }
            match self.ask(name, &Request::Totals(namespace)).await {
                Ok(Reply::Totals(totals)) => totals,
                _ => Totals::default(),
            }
        });
        let all = join_all(asked).await;
        all.into_iter().fold(Totals::default(), |sum, one| Totals {
            blocks: sum.blocks + one.blocks,
            bytes: sum.bytes + one.bytes,
        })
    }
}

/// Whether any was; refused if one was.
fn any(all: Vec<Result<bool, Refused>>) -> Result<bool, Refused> {
    all.into_iter().try_fold(false, |any, one| Ok(any | one?))
}
