//! Client and door against a map.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an error it did not expect shall stop there"
)]

mod bed;

use std::collections::HashMap;

use bed::Bed;
use proptest::collection::vec;
use proptest::prelude::*;
use strand_kv_client::{Put, PutOptions};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize, bool),
    Get(u8),
    Delete(u8),
    Exists(Vec<u8>),
    Run(Vec<u8>),
    Length(u8),
    Hold(u8),
    Reconnect,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..12u8;
    prop_oneof![
        6 => (key(), prop_oneof![1usize..5000, (1usize << 20)..(3 << 20), Just(4 << 20), (8usize << 20)..(10 << 20)], any::<bool>())
            .prop_map(|(key, length, absent)| Step::Put(key, length, absent)),
        8 => key().prop_map(Step::Get),
        2 => key().prop_map(Step::Delete),
        2 => vec(key(), 0..20).prop_map(Step::Exists),
        2 => vec(key(), 0..20).prop_map(Step::Run),
        1 => key().prop_map(Step::Length),
        2 => key().prop_map(Step::Hold),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Flush),
    ]
}

fn name(key: u8) -> Vec<u8> {
    format!("block-{key}").into_bytes()
}

async fn run(steps: Vec<Step>) {
    let bed = Bed::with(16 << 20, 64 << 20);
    let mut client = bed.client().await;
    let mut model: HashMap<u8, Vec<u8>> = HashMap::new();
    let mut held = None;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Put(key, length, only_if_absent) => {
                let value = bed::value(number as u64, length);
                let options = PutOptions {
                    ttl: None,
                    only_if_absent,
                };
                let put = client.put(&name(key), &value, options).await.unwrap();
                if only_if_absent && model.contains_key(&key) {
                    assert_eq!(put, Put::Present);
                } else {
                    assert_eq!(put, Put::Stored);
                    model.insert(key, value);
                }
            }
            Step::Get(key) => {
                let value = match client.fetch(&name(key)).await.unwrap() {
                    Some(value) => Some(bed::whole(value).await.unwrap()),
                    None => None,
                };
                assert!(value.as_ref() == model.get(&key), "block {key}");
            }
            // At most one is held, so that no get has to wait for it.
            Step::Hold(key) => {
                drop(held.take());
                let few = model.get(&key).is_none_or(|value| value.len() < 2 << 20);
                if few && let Some(block) = client.get(&name(key)).await.unwrap() {
                    held = Some((block, model[&key].clone()));
                }
            }
            Step::Delete(key) => {
                let there = client.delete(&name(key)).await.unwrap();
                assert_eq!(there, model.remove(&key).is_some());
            }
            Step::Exists(keys) => {
                let names: Vec<_> = keys.iter().copied().map(name).collect();
                let there = client.exists_many(&names).await.unwrap();
                let expected: Vec<_> = keys.iter().map(|key| model.contains_key(key)).collect();
                assert_eq!(there, expected);
            }
            Step::Run(keys) => {
                let names: Vec<_> = keys.iter().copied().map(name).collect();
                let expected = keys
                    .iter()
                    .take_while(|key| model.contains_key(key))
                    .count();
                assert_eq!(client.leading_run(&names).await.unwrap(), expected);
            }
            Step::Length(key) => {
                let expected = model.get(&key).map(|value| value.len() as u64);
                assert_eq!(client.length(&name(key)).await.unwrap(), expected);
            }
            Step::Reconnect => {
                drop(held.take());
                drop(client);
                bed.at_rest().await;
                client = bed.client().await;
            }
            Step::Flush => {
                client.flush().await.unwrap();
                model.clear();
            }
        }
        if let Some((block, value)) = &held {
            assert_eq!(&block[..], &value[..], "a held block changed");
        }
    }
    drop((held, client));
    bed.at_rest().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn it_behaves_like_a_map(steps in vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(steps));
    }
}
