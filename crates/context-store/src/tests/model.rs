//! Random operations, restarts, kills and power cuts against a map of what must be there.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::bed::{Hands, on_faulty, value};
use crate::engine::faulty::Faulty;
use crate::{Committed, Namespace, Persisted, Put, PutOptions, Store};

const KEYS: u8 = 24;
const SPACES: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Put {
        space: u8,
        key: u8,
        len: usize,
        ttl: Option<u16>,
        if_absent: bool,
    },
    Delete {
        space: u8,
        key: u8,
    },
    Expire {
        space: u8,
        key: u8,
        ttl: Option<u16>,
    },
    Flush {
        space: u8,
    },
    Get {
        space: u8,
        key: u8,
    },
    Wait {
        seconds: u16,
    },
    Persist,
    Restart,
    Kill,
    PowerCut {
        seed: u64,
    },
}

fn steps(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    let space = 0..SPACES;
    let key = 0..KEYS;
    let len = prop_oneof![
        3 => 1usize..4096,
        3 => 4096usize..200_000,
        1 => Just(1usize << 20),
        1 => (1usize << 20)..longest,
    ];
    let ttl = prop::option::weighted(0.2, 1u16..60);
    prop::collection::vec(
        prop_oneof![
            12 => (space.clone(), key.clone(), len, ttl.clone(), prop::bool::weighted(0.1)).prop_map(
                |(space, key, len, ttl, if_absent)| Step::Put { space, key, len, ttl, if_absent }),
            3 => (space.clone(), key.clone()).prop_map(|(space, key)| Step::Delete { space, key }),
            1 => (space.clone(), key.clone(), ttl).prop_map(|(space, key, ttl)| Step::Expire { space, key, ttl }),
            1 => space.clone().prop_map(|space| Step::Flush { space }),
            6 => (space, key).prop_map(|(space, key)| Step::Get { space, key }),
            1 => (1u16..30).prop_map(|seconds| Step::Wait { seconds }),
            1 => Just(Step::Persist),
            1 => Just(Step::Restart),
            2 => Just(Step::Kill),
            1 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
        ],
        1..120,
    )
}

/// What a key may have, newest last; none: no block. Only after a power cut is there a choice.
#[derive(Clone, Debug)]
struct Version {
    content: Option<(u64, usize)>,
    expires: Option<u64>,
    /// None for what is no block of its own.
    committed: Option<Committed>,
}

struct World {
    medium: Faulty,
    store: Store,
    hands: Hands,
    len: u64,
    /// Blocks may have been evicted.
    lossy: bool,
    time: u64,
    number: u64,
    /// Facts since the last flush come after `settled`.
    model: HashMap<(u8, u8), Vec<Version>>,
    persisted: Option<Persisted>,
}

impl World {
    async fn new(len: u64, lossy: bool) -> World {
        let (medium, hands) = (Faulty::default(), Hands::new());
        let (store, _) = on_faulty(&medium, len, hands.options()).await.unwrap();
        World {
            medium,
            store,
            hands,
            len,
            lossy,
            time: 0,
            number: 0,
            model: HashMap::new(),
            persisted: None,
        }
    }

    fn key(key: u8) -> Vec<u8> {
        vec![key; 1 + usize::from(key) * 7]
    }

    async fn reopen(&mut self, medium: Faulty) {
        let (store, recovery) = on_faulty(&medium, self.len, self.hands.options())
            .await
            .unwrap();
        assert!(!recovery.formatted);
        self.medium = medium;
        let old = std::mem::replace(&mut self.store, store);
        old.close().await;
    }

    fn alive(&self, version: &Version) -> Option<(u64, usize)> {
        // Expiry is rounded down to 100 ms; the clock moves in seconds.
        version
            .content
            .filter(|_| version.expires.is_none_or(|end| end > self.time))
    }

    async fn check(&mut self, space: u8, key: u8) {
        let got = self
            .store
            .get_bytes(Namespace(space.into()), &World::key(key))
            .await
            .unwrap();
        let versions = self.model.get(&(space, key)).cloned().unwrap_or_default();
        let mut allowed: Vec<Option<(u64, usize)>> =
            versions.iter().map(|one| self.alive(one)).collect();
        if allowed.is_empty() {
            allowed.push(None);
        }
        match &got {
            None => assert!(
                self.lossy || allowed.contains(&None),
                "block {space}/{key} is lost: {allowed:?}"
            ),
            Some(bytes) => assert!(
                allowed
                    .iter()
                    .flatten()
                    .any(|(number, len)| *bytes == value(*number, *len)),
                "block {space}/{key} has wrong bytes, {} of them, allowed {allowed:?}",
                bytes.len()
            ),
        }
    }

    async fn check_all(&mut self) {
        for space in 0..SPACES {
            for key in 0..KEYS {
                self.check(space, key).await;
            }
        }
    }

    fn set(&mut self, space: u8, key: u8, version: Version) {
        // Older versions are kept until a power cut can no longer bring them back.
        self.model.entry((space, key)).or_default().push(version);
    }

    /// Without a power cut only the newest version counts.
    fn newest_only(&self) -> HashMap<(u8, u8), Vec<Version>> {
        self.model
            .iter()
            .filter_map(|(key, versions)| Some((*key, vec![versions.last()?.clone()])))
            .collect()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Put {
                space,
                key,
                len,
                ttl,
                if_absent,
            } => {
                self.number += 1;
                let bytes = value(self.number, len);
                let options = PutOptions {
                    ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())),
                    if_absent,
                };
                let put = self
                    .store
                    .put_bytes(Namespace(space.into()), &World::key(key), &bytes, options)
                    .await
                    .unwrap();
                match put {
                    Put::Stored(committed) => self.set(
                        space,
                        key,
                        Version {
                            content: Some((self.number, len)),
                            expires: ttl.map(|seconds| self.time + u64::from(seconds)),
                            committed: Some(committed),
                        },
                    ),
                    Put::Present => assert!(if_absent),
                    Put::Dropped(reason) => assert!(self.lossy, "dropped: {reason:?}"),
                }
            }
            Step::Delete { space, key } => {
                let existed = self
                    .store
                    .delete(Namespace(space.into()), &World::key(key))
                    .await
                    .unwrap();
                let last = self
                    .model
                    .get(&(space, key))
                    .and_then(|versions| versions.last());
                let should = last.and_then(|version| self.alive(version)).is_some();
                assert!(existed == should || self.lossy);
                self.set(
                    space,
                    key,
                    Version {
                        content: None,
                        expires: None,
                        committed: None,
                    },
                );
            }
            Step::Expire { space, key, ttl } => {
                let time = ttl.map(|seconds| Duration::from_secs(seconds.into()));
                let changed = self
                    .store
                    .expire(Namespace(space.into()), &World::key(key), time)
                    .await
                    .unwrap();
                if changed {
                    let mut version = self.model[&(space, key)].last().unwrap().clone();
                    version.expires = ttl.map(|seconds| self.time + u64::from(seconds));
                    self.set(space, key, version);
                }
            }
            Step::Flush { space } => {
                self.store
                    .flush_namespace(Namespace(space.into()))
                    .await
                    .unwrap();
                for key in 0..KEYS {
                    if self.model.contains_key(&(space, key)) {
                        self.set(
                            space,
                            key,
                            Version {
                                content: None,
                                expires: None,
                                committed: None,
                            },
                        );
                    }
                }
            }
            Step::Get { space, key } => {
                let model = self.newest_only();
                let full = std::mem::replace(&mut self.model, model);
                self.check(space, key).await;
                self.model = full;
            }
            Step::Wait { seconds } => {
                self.time += u64::from(seconds);
                self.hands.advance(Duration::from_secs(seconds.into()));
            }
            Step::Persist => {
                self.persisted = Some(self.store.persist().await.unwrap());
                self.model = self.newest_only();
            }
            Step::Restart => {
                self.store.end().await;
                self.model = self.newest_only();
                let medium = self.medium.clone();
                self.reopen(medium).await;
                self.check_all().await;
            }
            Step::Kill => {
                let medium = self.medium.killed();
                self.reopen(medium).await;
                let model = self.newest_only();
                let full = std::mem::replace(&mut self.model, model);
                self.check_all().await;
                self.model = full;
            }
            Step::PowerCut { seed } => {
                let mut state = seed | 1;
                let medium = self.medium.power_cut(|| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % 3 > 0
                });
                self.reopen(medium).await;
                // The version at the last flush is the oldest one kept; everything since may or may not have made it,
                // and a block that was overwritten since may be neither.
                for versions in self.model.values_mut() {
                    let first_is_settled = versions[0].committed.is_none_or(|committed| {
                        self.persisted.is_some_and(|flush| flush.covers(committed))
                    });
                    if versions.len() > 1 || !first_is_settled {
                        versions.insert(
                            0,
                            Version {
                                content: None,
                                expires: None,
                                committed: None,
                            },
                        );
                    }
                }
                self.check_all().await;
                // From here on what was found is what there is.
                for space in 0..SPACES {
                    for key in 0..KEYS {
                        let got = self
                            .store
                            .get_bytes(Namespace(space.into()), &World::key(key))
                            .await
                            .unwrap();
                        let Some(versions) = self.model.remove(&(space, key)) else {
                            continue;
                        };
                        // Two versions may differ in when they end alone.
                        let ends = self
                            .store
                            .expires_in(Namespace(space.into()), &World::key(key))
                            .flatten();
                        let ends =
                            ends.map(|left| self.time + left.as_millis().div_ceil(1000) as u64);
                        let found = versions.into_iter().rev().find(|version| {
                            match (&got, self.alive(version)) {
                                (Some(bytes), Some((number, len))) => {
                                    *bytes == value(number, len) && version.expires == ends
                                }
                                (None, _) => true,
                                _ => false,
                            }
                        });
                        assert!(found.is_some() || got.is_none());
                        if let Some(mut found) = found {
                            if got.is_none() {
                                found.content = None;
                            }
                            self.model.insert((space, key), vec![found]);
                        }
                    }
                }
                self.persisted = Some(self.store.persist().await.unwrap());
            }
        }
    }
}

fn run(len: u64, lossy: bool, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(len, lossy).await;
        for step in steps {
            world.step(step).await;
        }
        world.step(Step::Kill).await;
        world.store.close().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_wrong_or_back_from_the_dead(steps in steps((1 << 20) + 300_000)) {
        run(512 << 20, false, steps);
    }

    #[test]
    fn eviction_loses_blocks_but_never_gives_wrong_or_deleted_ones(steps in steps(2 << 20)) {
        run(20 << 20, true, steps);
    }
}
