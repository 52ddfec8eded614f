//! Segments in which much is dead, because blocks were replaced: nothing that lives has to go while that is there.

use std::time::Duration;

use super::bed::{Hands, NS, identity, value};
use crate::engine::faulty::Faulty;
use crate::layout::Layout;
use crate::{Put, PutOptions, Store};

const SEGMENTS: u32 = 128;
const SEGMENT: u64 = 256 << 10;
const VALUE: usize = 12 << 10;

/// Keys of `part` of the partition, replaced in no order for several times the partition. How many are lost in the end, of
/// how many, and bytes written to the drive for each that was put.
async fn replaced(part: f64) -> (usize, usize, f64) {
    let layout = Layout {
        segment_len: SEGMENT,
        segments: SEGMENTS,
    };
    let len = (1 << 20) + u64::from(SEGMENTS) * SEGMENT;
    let mut options = Hands::new().options();
    // Room is made in time or never, also on a machine with much else to do.
    options.patience = Duration::from_secs(60);
    let (store, _) = Store::with_engine(
        std::sync::Arc::new(Faulty::default()),
        0,
        len,
        layout,
        &identity(),
        options,
        |secret, namespace, key| secret.fingerprint(namespace, key),
    )
    .await
    .unwrap();
    let keys = (layout.capacity() as f64 * part / (VALUE + 4096) as f64) as u64;
    let bytes = value(1, VALUE);
    let mut state = 1_u64;
    let mut longest = Duration::ZERO;
    for turn in 0..12 * keys {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let key = if turn < keys {
            turn
        } else {
            (state >> 33) % keys
        };
        let key = key.to_le_bytes();
        let began = std::time::Instant::now();
        let put = store.put_bytes(NS, &key, &bytes, PutOptions::default());
        assert!(matches!(put.await.unwrap(), Put::Stored(_)));
        longest = longest.max(began.elapsed());
    }
    let lost = (0..keys).filter(|key| store.len_of(NS, &key.to_le_bytes()).is_none());
    let (lost, written) = (lost.count(), store.stats().write_amplification().unwrap());
    println!("{part}: the longest put took {longest:?}");
    store.close().await;
    (
        lost,
        keys as usize,
        written * VALUE as f64 / (VALUE + 4096) as f64,
    )
}

/// Packing them together is what it costs. A block that finds no room at the moment may still go. Where most lives, less is packed and more is lost: it wears the drive more than it
/// is worth.
#[tokio::test]
async fn what_lives_stays_while_dead_bytes_can_go() {
    for (part, most_lost, most_written) in [(0.3, 0.02, 1.3), (0.5, 0.06, 1.7), (0.7, 0.22, 2.1)] {
        let (lost, of, written) = replaced(part).await;
        println!("{part}: {lost} of {of} lost, {written:.3} written");
        assert!(
            lost as f64 <= most_lost * of as f64 && written < most_written,
            "{part}: {lost} of {of} lost, {written:.3} written"
        );
    }
}
