//! The models against naive ones, and the sums against hand-made ones.

use proptest::prelude::*;
use strand_traces::{Cache, Endurance, Infinite, Lru, Request, Served, Totals, Wear, replay};

fn request(timestamp_ms: u64, input_length: u64, hash_ids: &[u64]) -> Request {
    Request {
        timestamp_ms,
        input_length,
        output_length: 1,
        hash_ids: hash_ids.to_vec(),
    }
}

/// The rule, written down as slowly as it is said: newest first.
struct Naive {
    capacity: usize,
    blocks: Vec<u64>,
}

impl Cache for Naive {
    fn serve(&mut self, blocks: &[u64]) -> Served {
        let hit = blocks
            .iter()
            .position(|id| !self.blocks.contains(id))
            .unwrap_or(blocks.len());
        for id in blocks.iter().rev() {
            self.blocks.retain(|present| present != id);
            self.blocks.insert(0, *id);
            self.blocks.truncate(self.capacity);
        }
        Served {
            hit,
            written: blocks.len() - hit,
        }
    }
}

#[test]
fn what_was_used_least_recently_goes_and_prefixes_outlive_suffixes() {
    let mut lru = Lru::new(4);
    let served = |hit, written| Served { hit, written };
    assert_eq!(lru.serve(&[1, 2, 3]), served(0, 3));
    assert_eq!(lru.serve(&[1, 2, 4]), served(2, 1));
    assert_eq!(lru.serve(&[5]), served(0, 1));
    assert!(!lru.contains(3) && lru.contains(4) && lru.contains(1));
    assert_eq!(lru.serve(&[6]), served(0, 1));
    assert!(
        !lru.contains(4),
        "the end of a prompt goes before its beginning"
    );
    assert_eq!(lru.serve(&[1, 2, 4]), served(2, 1));
    assert_eq!(lru.len(), 4);
}

#[test]
fn a_gap_ends_the_run_and_what_follows_is_written_again() {
    let mut cache = Infinite::default();
    cache.serve(&[1, 3]);
    assert_eq!(cache.serve(&[1, 2, 3]), Served { hit: 1, written: 2 });
    assert_eq!(cache.blocks(), 3);
}

#[test]
fn sums_are_what_they_say() {
    let mut totals = Totals::default();
    totals.add(
        &request(5_000, 1_100, &[1, 2, 3]),
        Served { hit: 0, written: 3 },
    );
    totals.add(
        &request(65_000, 1_100, &[1, 2, 3]),
        Served { hit: 3, written: 0 },
    );
    totals.add(
        &request(65_000, 2_000, &[1, 2, 4, 5]),
        Served { hit: 2, written: 2 },
    );
    assert_eq!((totals.requests, totals.blocks_asked), (3, 10));
    assert_eq!(totals.hit_rate(), 0.5);
    assert_eq!(
        (totals.bytes_read(1 << 20), totals.bytes_written(1 << 20)),
        (5 << 20, 5 << 20)
    );
    assert_eq!(
        totals.tokens_hit,
        1_100 + 1_024,
        "a last block counts what it holds"
    );
    assert_eq!(totals.prefill_seconds_saved(1_000.0), 2.124);
    assert_eq!(totals.span_seconds(), 60.0);
    assert_eq!(Totals::default().hit_rate(), 0.0);
}

#[test]
fn a_drive_wears_out_by_what_its_maker_promises() {
    let terabyte = 1_000_000_000_000;
    let rated = Endurance::DriveWritesPerDay {
        writes: 1.0,
        years: 5.0,
    };
    assert_eq!(rated.bytes(terabyte), 1.825e15);
    // A twelfth of a drive in an hour is two a day: twice the promise, in half the time.
    let wear = Wear::of(terabyte / 12, 3_600.0, terabyte, rated).unwrap();
    assert!((wear.drive_writes_per_day - 2.0).abs() < 1e-9);
    assert!((wear.days_to_wear_out - 912.5).abs() < 1e-6);
    let by_bytes = Wear::of(terabyte, 86_400.0, terabyte, Endurance::Bytes(6e14)).unwrap();
    assert_eq!(by_bytes.days_to_wear_out, 600.0);
    assert_eq!(Wear::of(1, 0.0, terabyte, rated), None);
    assert_eq!(Wear::of(1, 1.0, 0, rated), None);
    assert!(
        Wear::of(0, 1.0, terabyte, rated)
            .unwrap()
            .days_to_wear_out
            .is_infinite()
    );
}

/// Requests over a small tree of prefixes, so that they share some.
fn prompts() -> impl Strategy<Value = Vec<Vec<u64>>> {
    let prompt = prop::collection::vec(0u64..3, 1..7).prop_map(|path| {
        let mut id = 0;
        path.iter()
            .map(|step| {
                id = id * 4 + step + 1;
                id
            })
            .collect::<Vec<u64>>()
    });
    prop::collection::vec(prompt, 0..60)
}

proptest! {
    #[test]
    fn the_cache_does_what_the_rule_says(prompts in prompts(), capacity in 0usize..20) {
        let (mut lru, mut naive) = (Lru::new(capacity), Naive { capacity, blocks: Vec::new() });
        for prompt in &prompts {
            prop_assert_eq!(lru.serve(prompt), naive.serve(prompt));
            prop_assert_eq!(lru.len(), naive.blocks.len());
            prop_assert!(naive.blocks.iter().all(|id| lru.contains(*id)));
        }
    }

    #[test]
    fn more_room_never_hits_less_and_enough_is_as_good_as_endless(prompts in prompts()) {
        let requests: Vec<_> = prompts.iter().map(|ids| request(0, 512 * ids.len() as u64, ids)).collect();
        let mut infinite = Infinite::default();
        let best = replay(&mut infinite, &requests);
        let mut before = 0;
        for capacity in 0..=infinite.blocks() {
            let totals = replay(&mut Lru::new(capacity), &requests);
            prop_assert!(totals.blocks_hit >= before);
            prop_assert_eq!(totals.blocks_hit + totals.blocks_written, totals.blocks_asked);
            before = totals.blocks_hit;
        }
        prop_assert_eq!(before, best.blocks_hit);
        prop_assert_eq!(best.blocks_written, infinite.blocks() as u64);
    }
}
