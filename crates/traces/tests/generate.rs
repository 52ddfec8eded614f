//! Made traces: the same each time, in order, prefixes that grow, and like what is public.

use proptest::prelude::*;
use std::collections::HashMap;
use strand_traces::{BLOCK_TOKENS, Generator, Infinite, Lru, Request, Shape, replay};

fn made(shape: Shape) -> Vec<Request> {
    Generator::new(shape).collect()
}

#[test]
fn a_seed_makes_one_trace() {
    let small = Shape {
        requests: 6,
        sessions_per_second: 0.05,
        opening_tokens: 1_500.0,
        second_turn: 0.9,
        think_seconds: 5.0,
        ..Shape::default()
    };
    let lines: Vec<_> = made(small).iter().map(Request::to_line).collect();
    let golden = include_str!("golden/seed-1.jsonl");
    assert_eq!(lines.join("\n") + "\n", golden);
}

#[test]
fn the_default_resembles_what_is_public() {
    let requests = made(Shape::default());
    let mut infinite = Infinite::default();
    let best = replay(&mut infinite, &requests);
    let blocks = infinite.blocks();
    let mut uses: HashMap<u64, (u64, u64)> = HashMap::new();
    let (mut soon, mut reused) = (0u64, 0u64);
    for request in &requests {
        for id in &request.hash_ids {
            let (count, last) = uses.entry(*id).or_default();
            if *count > 0 {
                reused += 1;
                soon += u64::from(request.timestamp_ms - *last <= 600_000);
            }
            (*count, *last) = (*count + 1, request.timestamp_ms);
        }
    }
    let mut again: Vec<u64> = uses.values().map(|(count, _)| count - 1).collect();
    again.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
    let tenth: u64 = again[..blocks / 10].iter().sum();
    let part = |of: usize| replay(&mut Lru::new(blocks * of / 100), &requests).hit_rate();
    let mean = best.tokens_asked / best.requests;
    let seconds = best.span_seconds();
    let facts = format!(
        "{seconds} s, {mean} tokens a prompt, {blocks} blocks, hits {:.3} of an endless cache, {:.3} of 30 %, {:.3} of 10 %, \
         of reuses {:.3} in 10 min and {:.3} by a tenth of the blocks",
        best.hit_rate(),
        part(30),
        part(10),
        soon as f64 / reused as f64,
        tenth as f64 / reused as f64
    );
    println!("{facts}");
    assert!((3_000.0..4_500.0).contains(&seconds), "{facts}");
    assert!((8_000..16_000).contains(&mean), "{facts}");
    assert!((0.50..0.65).contains(&best.hit_rate()), "{facts}");
    assert!(
        (0.7..0.95).contains(&(soon as f64 / reused as f64)),
        "{facts}"
    );
    assert!(tenth * 2 > reused, "{facts}");
    assert!(part(10) < part(30) && part(30) < best.hit_rate(), "{facts}");
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        any::<u64>(),
        1usize..20,
        0.0..2.0f64,
        0.01..50.0f64,
        (0.0..=1.0f64, 0.0..0.95f64),
        1.0..20_000.0f64,
        1u64..40_000,
    )
        .prop_map(
            |(
                seed,
                system_prompts,
                popularity,
                sessions_per_second,
                turns,
                opening_tokens,
                longest_prompt,
            )| Shape {
                seed,
                requests: 200,
                system_prompts,
                popularity,
                sessions_per_second,
                second_turn: turns.0,
                further_turn: turns.1,
                opening_tokens,
                longest_prompt,
                ..Shape::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_shape_the_trace_is_whole(shape in shapes()) {
        let requests = made(shape.clone());
        prop_assert_eq!(requests.len(), 200);
        prop_assert_eq!(&requests, &made(shape.clone()));
        prop_assert!(requests.is_sorted_by_key(|request| request.timestamp_ms));
        let mut before: HashMap<u64, Option<u64>> = HashMap::new();
        for request in &requests {
            prop_assert!(request.input_length <= shape.longest_prompt);
            prop_assert_eq!(request.hash_ids.len() as u64, request.input_length.div_ceil(BLOCK_TOKENS));
            let mut parent = None;
            for id in &request.hash_ids {
                // An id stands for everything before it too.
                prop_assert_eq!(*before.entry(*id).or_insert(parent), parent);
                parent = Some(*id);
            }
        }
    }
}
